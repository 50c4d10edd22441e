"""Memory of process trees, cgroups, programs, users: each frame once.

SUM RSS counts a page once for each process that maps it, EACH ONCE counts it
once; ONLY HERE counts pages that nobody outside the group maps: what a sum of
PSS hides. A page's mappers that rmap could not read count as outside.

  ONLY HERE <= SUM PSS <= EACH ONCE <= SUM RSS

A tree is what one child of init forked, and all below it. Page cache and shared
memory that nobody maps belong to no group.

examples
  sudo rmap group --by exe --top 3
  sudo rmap group --by tree --sort only-here
  sudo rmap group --by cgroup --cgroup /system.slice --json
  rmap group --by user -i here.rmap
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options, add_reading_options, add_selection_options, add_table_options
from rmap.cli.source import selected, snapshot_of

COLUMNS = ("each-once", "only-here", "sum-pss", "sum-rss", "swap", "procs", "name")


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--by", choices=("tree", "cgroup", "exe", "user"), default="tree", help="what makes a group (default: tree)"
    )
    add_selection_options(parser)
    add_table_options(parser, COLUMNS, sort="each-once")
    add_reading_options(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Group and count."""
    from rmap.show.group import group, sorted_groups
    from rmap.snapshot.questions.groups import groups

    snapshot = snapshot_of(args)
    rows = sorted_groups(groups(snapshot, args.by, selected(args, snapshot)), args.sort)
    names = _users() if args.by == "user" and args.input is None else {}
    data = {"by": args.by, "groups": rows}
    emit(args, data, lambda: group(rows, names=names, limit=args.top), rows="groups")
    return status.OK if rows else status.NO


def _users() -> dict[str, str]:
    import pwd

    return {str(entry.pw_uid): entry.pw_name for entry in pwd.getpwall()}
