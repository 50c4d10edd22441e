"""Play a recorded program again in the model, under any reverse map.

TRACE is what rmap record wrote, the NAME.trace.part folder of a recording that
did not come to its end, or one of the traces that ship with rmap (rmap
workloads lists them). Every fault and every system call that was recorded is
done again in the model; exec takes its address space from a picture in the
trace. At each picture the model is compared and then put right: by how much,
and why, is counted.

examples
  rmap replay build.trace
  rmap replay prefork --design pte_chain --json

exit status: 0 if every walk of the design equals the page tables, 1 if not
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from rmap.cli import status
from rmap.cli.output import emit, waiting
from rmap.cli.parser import add_output_options
from rmap.cli.traces import trace_path


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("trace", metavar="TRACE", help="a recorded program")
    parser.add_argument("--design", default="anon_vma_chain", help="the reverse map (default: anon_vma_chain)")
    parser.add_argument("--profile", default="6.18", help="the kernel release whose rules hold (default: 6.18)")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Play it."""
    from rmap.lab.replay.run import replay
    from rmap.show import replay as show

    with waiting() as doing:
        report = replay(trace_path(args.trace), design=args.design, profile=args.profile, say=doing)
    data = asdict(report)
    emit(args, {"replay": {"film": data.pop("trace"), **data}}, lambda: show.replay(report))
    return status.OK if report.correctness.equal else status.NO
