"""What each design costs for a workload or a recorded machine.

Runs the same subject once per reverse-map design, each in a model kernel of
its own, and prints one table: memory, and what each operation cost. Costs are
counts (entries written, objects made, PTEs looked at), so they are the same on
every machine. Every walk is compared with the page tables first; a design that
misses or invents an entry ends the command with status 1.

SUBJECT is a workload (rmap workloads lists them), a recorded program (shipped:
also listed there; or what rmap record wrote, NAME.trace), a picture recorded
by rmap snap (any path, or a name that ends in .rmap), or several of them;
without one it is the picture that ships with rmap. A workload has options of
its own: `rmap compare fork-server --help` shows them.

examples
  rmap compare fork-server --children 100 --pages 65536 --rewrite 10%
  rmap compare split-storm shell-storm
  rmap compare here.rmap
  rmap compare prefork build.trace
  rmap compare fork-server --designs pte_chain --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rmap.cli import status
from rmap.cli.output import emit, progress
from rmap.cli.parser import add_designs_option, add_output_options
from rmap.errors import UsageError
from rmap.lab.results import Comparison, Progress
from rmap.units import parse_share, parse_size

PICTURE_SUFFIX = ".rmap"
TRACE_SUFFIXES = (".trace", ".trace.part")
PREFIX = "parameter_"


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments, with those of the workloads named in ``words``."""
    parser.add_argument("subjects", metavar="SUBJECT", nargs="*", help="a workload, a recorded program or a picture")
    add_designs_option(parser)
    parser.add_argument("--profile", default="6.18", help="the kernel release whose rules hold (default: 6.18)")
    parser.add_argument("--seed", type=int, default=1, help="of whatever is drawn (default: 1)")
    add_output_options(parser)
    named = [word for word in words if not word.startswith("-")]
    if named:
        _add_parameters(parser, named)


def run(args: Namespace) -> int:
    """Compare each subject in turn."""
    from rmap.show.compare import comparisons

    with progress() as tell:
        results = [_compare(subject, args, tell) for subject in args.subjects or [None]]
    emit(args, {"comparisons": results}, lambda: comparisons(results))
    return status.OK if all(result.equal for result in results) else status.NO


def _compare(subject: str | None, args: Namespace, tell: Progress) -> Comparison:
    from rmap.lab.compare import compare_picture, compare_trace, compare_workload
    from rmap.lab.replay.shipped import SUMMARIES, shipped_traces
    from rmap.lab.workloads import WORKLOADS
    from rmap.snapshot import shipped

    common = {"designs": args.designs, "profile": args.profile, "seed": args.seed, "progress": tell}
    if subject in WORKLOADS:
        given = {p.name: getattr(args, PREFIX + p.name, None) for p in WORKLOADS[subject].parameters}
        return compare_workload(subject, {name: v for name, v in given.items() if v is not None}, **common)
    if subject is None:
        return compare_picture(shipped(), **common)
    shipped_programs = shipped_traces()
    if subject in shipped_programs:
        return compare_trace(shipped_programs[subject], name=subject, summary=SUMMARIES[subject], **common)
    if subject.rstrip("/").endswith(TRACE_SUFFIXES):
        return compare_trace(Path(subject), **common)
    if not (subject.endswith(PICTURE_SUFFIX) or Path(subject).is_file()):
        raise UsageError(
            f"{subject!r} is neither a workload ({', '.join(WORKLOADS)}), a recorded program "
            f"({', '.join(shipped_programs)}), a picture (NAME{PICTURE_SUFFIX}) nor a trace (NAME.trace)"
        )
    return compare_picture(Path(subject), **common)


def _add_parameters(parser: ArgumentParser, named: list[str]) -> None:
    from rmap.lab.workloads import WORKLOADS
    from rmap.show.workloads import default_of, option_of

    read: dict[str, Any] = {"count": _count, "share": parse_share, "size": parse_size}
    seen: set[str] = set()
    for name in named:
        if name not in WORKLOADS:
            continue
        group = parser.add_argument_group(f"{name}: {WORKLOADS[name].summary}")
        for parameter in WORKLOADS[name].parameters:
            if parameter.name in seen:  # two workloads may share a parameter: it then goes to both
                continue
            seen.add(parameter.name)
            group.add_argument(
                option_of(parameter),
                dest=PREFIX + parameter.name,
                metavar=parameter.kind.upper(),
                type=read[parameter.kind],
                help=f"{parameter.help} (default: {default_of(parameter)})".replace("%", "%%"),
            )


def _count(text: str) -> int:
    number = text.replace(",", "").replace("_", "")
    if not number.isdigit():
        raise UsageError(f"not a count: {text!r} (examples: 100, 65536)")
    return int(number)
