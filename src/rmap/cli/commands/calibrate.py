"""Measure what a visit costs on this machine's kernel.

rmap compare counts, and predicts a time from the counts: so many visits at so
much each. This measures those prices that show from outside, by timing forks
and copies of small programs: the cost of an object of the reverse map, and of a
copy on write. What a tree node, a cache line or a lock costs does not show from
outside; those prices are assumed, and stay so. The result is kept for rmap
compare (in $XDG_CONFIG_HOME/rmap/unit-costs.json), with the machine's name.

examples
  rmap calibrate
  rmap calibrate --json
  rmap calibrate --output here.json && rmap compare T1 --unit-costs here.json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rmap.cli import status
from rmap.cli.output import emit, say, waiting
from rmap.cli.parser import add_output_options
from rmap.errors import UsageError


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured (default: 9)")
    parser.add_argument("--output", metavar="FILE", help="keep the prices there instead")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Measure, keep, tell."""
    from rmap.lab.compare.calibrate import calibrate
    from rmap.lab.compare.unit_costs import as_plain, config_file, save
    from rmap.show.calibrate import calibrated

    if not 1 <= args.rounds <= 1000:
        raise UsageError(f"--rounds goes from 1 to 1,000: {args.rounds}")
    with waiting() as doing:
        costs, measured = calibrate(doing, args.rounds)
    target = Path(args.output) if args.output else config_file()
    save(costs, target)
    say(f"{target}: kept")
    emit(args, {"unit_costs": as_plain(costs), "measured": measured}, lambda: calibrated(costs, measured))
    return status.OK
