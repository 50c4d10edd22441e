"""Hold the model against a recorded program: does it do the same?

The trace is played in the model. At every picture of the recorded processes,
before anything is put right, the model is compared with the kernel: the layout
of VMAs, which page-table entries share an anonymous page, kinds of entries,
mapcounts, exclusive pages, chains, anon_vmas with their counters, and what each
page hangs on. Entries that the kernel changed by itself (get_user_pages,
fault-around, reclaim) are counted by cause, and put right before it goes on.

examples
  rmap verify prefork
  rmap verify build.trace --json

exit status: 0 if the layout of VMAs and the sharing of anonymous pages agree
entirely at every picture, 1 if not
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
    parser.add_argument("--profile", default="6.18", help="the kernel release whose rules hold (default: 6.18)")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Compare it."""
    from rmap.lab.replay.run import replay
    from rmap.show.verify import verify

    with waiting() as doing:
        report = replay(trace_path(args.trace), profile=args.profile, say=doing)
    data = {"equal": report.played.agrees, "film": asdict(report.film), "played": asdict(report.played)}
    emit(args, {"verify": data}, lambda: verify(report))
    return status.OK if report.played.agrees else status.NO
