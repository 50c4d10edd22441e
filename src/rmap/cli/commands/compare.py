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

With up to three designs the table has a column for each; with more, as with
--designs all, a row for each. Results of workloads are kept by content (source,
parameters, seed): a comparison that was interrupted goes on where it stood.
--report writes one HTML page, with plots of cost over scale.

examples
  rmap compare T1 --designs all
  rmap compare T1 aim7 --report report.html
  rmap compare aim7 --scale 50% --executor dask://scheduler:8786
  rmap compare fork-server --children 100 --pages 65536 --rewrite 10%
  rmap compare split-storm shell-storm
  rmap compare here.rmap
  rmap compare prefork build.trace
  rmap compare fork-server --designs pte_chain --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmap.cli import status
from rmap.cli.output import emit, progress, say
from rmap.cli.parser import add_designs_option, add_output_options
from rmap.errors import UsageError
from rmap.lab.results import Comparison, Progress
from rmap.units import parse_share, parse_size

if TYPE_CHECKING:
    from rmap.lab.compare.unit_costs import UnitCosts

SNAPSHOT_SUFFIX = ".rmap"
TRACE_SUFFIXES = (".trace", ".trace.part")
PREFIX = "parameter_"


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments, with those of the workloads named in ``words``."""
    parser.add_argument("subjects", metavar="SUBJECT", nargs="*", help="a workload, a recorded program or a picture")
    add_designs_option(parser)
    parser.add_argument("--profile", default="6.18", help="the kernel release whose rules hold (default: 6.18)")
    parser.add_argument("--seed", type=int, default=1, help="of whatever is drawn (default: 1)")
    parser.add_argument("--fresh", action="store_true", help="run again what is known already")
    parser.add_argument("--executor", metavar="ADDRESS", help="run designs there: dask://HOST:PORT, or threads:N")
    parser.add_argument("--unit-costs", metavar="FILE", help="prices for the prediction (default: what calibrate kept)")
    parser.add_argument("--report", metavar="FILE", help="write an HTML page (default: of all published workloads)")
    add_output_options(parser)
    named = [word for word in words if not word.startswith("-")]
    if named:
        _add_parameters(parser, named)


def run(args: Namespace) -> int:
    """Compare each subject in turn."""
    from rmap.lab.compare.unit_costs import load
    from rmap.show.compare import comparisons

    prices = load(args.unit_costs)
    with _executor(args) as executor:
        if args.report:
            return _report(args, executor)
        with progress() as tell:
            results = [_compare(subject, args, tell, executor) for subject in args.subjects or [None]]
    data = {"comparisons": results, "predicted_ns": _predicted(results, prices)}
    emit(args, data, lambda: comparisons(results, prices))
    return status.OK if all(result.equal for result in results) else status.NO


def _predicted(results: list[Comparison], prices: UnitCosts) -> list[dict[str, dict[str, float]]]:
    from rmap.lab.compare.unit_costs import predicted

    return [{d.design: dict(predicted(prices, d.costs)) for d in result.designs} for result in results]


@contextmanager
def _executor(args: Namespace) -> Iterator[Executor | None]:
    if args.executor is None:
        yield None
        return
    from rmap.lab.compare.cluster import executor_at

    with executor_at(args.executor) as executor:
        yield executor


@contextmanager
def _pool(executor: Executor | None) -> Iterator[Executor]:
    # Hundreds of short runs: processes that stay, one for each CPU.
    if executor is not None:
        yield executor
        return
    from rmap.lab.compare.workers import local_pool

    with local_pool() as pool:
        yield pool


def _report(args: Namespace, executor: Executor | None) -> int:
    from rmap.lab.compare.cache import ResultCache
    from rmap.lab.compare.report import run_report
    from rmap.lab.compare.unit_costs import load
    from rmap.show.report import report_page

    target = Path(args.report)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UsageError(f"--report {args.report}: there is no such folder, or it is one")
    with progress(results=False) as tell, _pool(executor) as pool:
        runs = run_report(
            args.subjects,
            designs=args.designs or ["all"],
            profile=args.profile,
            seed=args.seed,
            progress=tell,
            executor=pool,
            cache=None if args.fresh else ResultCache(),
        )
    target.write_text(report_page(runs, load(args.unit_costs), command=_command_line(args)))
    say(f"{target}: {len(runs)} workloads, open it in a browser")
    return status.OK if all(run.equal for run in runs) else status.NO


def _command_line(args: Namespace) -> str:
    words = ["rmap compare", *args.subjects, "--report", Path(args.report).name]
    if args.designs:
        words += ["--designs", ",".join(args.designs)]
    if args.seed != 1:
        words += ["--seed", str(args.seed)]
    return " ".join(words)


def _compare(subject: str | None, args: Namespace, tell: Progress, executor: Executor | None) -> Comparison:
    from rmap.lab.compare.cache import ResultCache
    from rmap.lab.compare.compare import compare_snapshot, compare_trace, compare_workload
    from rmap.lab.replay.shipped import SUMMARIES, shipped_traces
    from rmap.lab.workloads import WORKLOADS
    from rmap.snapshot import shipped

    rules = {"designs": args.designs, "profile": args.profile, "seed": args.seed}
    common = {**rules, "progress": tell, "executor": executor}
    if subject in WORKLOADS:
        given = {p.name: getattr(args, PREFIX + p.name, None) for p in WORKLOADS[subject].parameters}
        cache = None if args.fresh else ResultCache()
        chosen = {name: v for name, v in given.items() if v is not None}
        return compare_workload(subject, chosen, **common, cache=cache)
    if subject is None:
        return compare_snapshot(shipped(), **common)
    shipped_programs = shipped_traces()
    if subject in shipped_programs:
        return compare_trace(shipped_programs[subject], name=subject, summary=SUMMARIES[subject], **common)
    if subject.rstrip("/").endswith(TRACE_SUFFIXES):
        return compare_trace(Path(subject), **common)
    if not (subject.endswith(SNAPSHOT_SUFFIX) or Path(subject).is_file()):
        raise UsageError(
            f"{subject!r} is neither a workload ({', '.join(WORKLOADS)}), a recorded program "
            f"({', '.join(shipped_programs)}), a picture (NAME{SNAPSHOT_SUFFIX}) nor a trace (NAME.trace)"
        )
    return compare_snapshot(Path(subject), **common)


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
