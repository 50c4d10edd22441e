"""Search for the calls that are worst for a design.

Tries short sequences of strong moves (fork four, everybody writes, everybody
moves its memory ...) on a small machine, by hill climbing with restarts, and
prints the worst it found within the time: next to what the design's critics
knew, in the same units. A seed and a number of evaluations give the same result
everywhere. Ctrl-C ends the search, and what was found by then is shown.

Costs: memory, walk, in-vain, fault, fork, exit, unmap, split, move.

examples
  rmap worst anon_vma_chain --cost memory
  rmap worst pte_chain --cost exit --seconds 10
  rmap worst anonmm --cost move --evaluations 500 --seed 7 --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit, waiting
from rmap.cli.parser import add_output_options


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("design", metavar="DESIGN", help="which reverse map, with or without a variant")
    parser.add_argument("--cost", default="walk", help="what to make large (default: walk)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to search (default: 60)")
    parser.add_argument("--evaluations", type=int, help="stop after so many sequences, whatever the clock says")
    parser.add_argument("--seed", type=int, default=1, help="of the search (default: 1)")
    parser.add_argument("--length", type=int, default=10, help="moves, at most (default: 10)")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Search and tell."""
    from rmap.lab.worst import search
    from rmap.show.worst import worst

    with waiting() as doing:
        result = search(
            args.design,
            args.cost,
            seconds=args.seconds,
            evaluations=args.evaluations,
            seed=args.seed,
            length=args.length,
            say=doing,
        )
    emit(args, {"worst": result}, lambda: worst(result))
    return status.OK
