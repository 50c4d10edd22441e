"""Hold the model against a recorded program: does it do the same?

The trace is played in the model. At every picture of the recorded processes,
before anything is put right, the model is compared with the kernel: the layout
of VMAs, which page-table entries share an anonymous page, kinds of entries,
mapcounts, exclusive pages, writable entries, chains, anon_vmas with their
counters, and what each page hangs on. All of it must be equal, but for which
pages of files the kernel maps ahead of a fault, and the mapcounts that follow.

The verdict is "equal" if all of it was compared and is; "NO" if something is
held against the model, be it the answer of one call; "equal as far as judged"
if nothing is, but something differs by a cause that no event shows (an access
through get_user_pages, reclaim, lost events), or was not shown by a picture.
How much that is, and of what, is said below the verdict.

examples
  rmap verify prefork
  rmap verify build.trace --json

exit status: 0 if the verdict is "equal" or "equal as far as judged", 1 if it is
"NO"
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
    from rmap.lab.replay.results import EQUAL
    from rmap.lab.replay.run import replay
    from rmap.show.verify import verify

    with waiting() as doing:
        report = replay(trace_path(args.trace), profile=args.profile, say=doing)
    played = report.played
    data = {
        "verdict": played.verdict,
        "equal": played.verdict == EQUAL,
        "not_compared": played.not_compared,
        "film": asdict(report.trace),
        "played": asdict(played),
    }
    emit(args, {"verify": data}, lambda: verify(report))
    return status.OK if played.agrees else status.NO
