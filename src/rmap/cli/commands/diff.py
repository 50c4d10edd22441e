"""What changed between two pictures: gained, lost, unshared.

Processes are told apart by pid and start time, so that a pid that was given to
another program is one that went and one that came. Of those in both: how much
they gained and lost; at how much another page is now; and how much of that was
shared before and is theirs alone since: what a write made of a forked page.
Then the files of which more or less is mapped.

B may be left out: the running machine, now.

examples
  sudo rmap snap -o before.rmap; ...; sudo rmap diff before.rmap
  rmap diff before.rmap after.rmap --sort unshared
  rmap diff before.rmap after.rmap --jsonl

exit status: 1 if nothing changed
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_output_options, add_table_options
from rmap.cli.source import capture

COLUMNS = ("change", "gained", "lost", "replaced", "unshared", "pid")


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("before", metavar="A", help="a picture")
    parser.add_argument("after", metavar="B", nargs="?", help="a later one (default: the running machine)")
    add_table_options(parser, COLUMNS, sort="change")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Load, compare, show."""
    from rmap.show.difference import difference as show
    from rmap.show.difference import sorted_changes
    from rmap.snapshot import Snapshot
    from rmap.snapshot.difference import difference

    before = Snapshot.load(args.before)
    after = capture(for_one_page=True) if args.after is None else Snapshot.load(args.after)
    found = difference(before, after)
    for warning in found.warnings:
        say(f"rmap: {warning}")
    changes = sorted_changes(found.processes, args.sort)
    data = {
        "frames_before": found.frames_before,
        "frames_after": found.frames_after,
        "processes": changes,
        "files": found.files,
        "warnings": found.warnings,
    }
    emit(args, data, lambda: show(found, changes, limit=args.top), rows="processes")
    return status.OK if changes or found.files else status.NO
