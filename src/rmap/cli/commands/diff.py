"""What changed between two pictures: gained, lost, unshared.

A and B are pictures (rmap snap); without B, A is held against the running
machine as it is now. Says which processes came and went, how much of each
process's memory appeared, went, became its own (a write to a page that others
mapped, too: the fork family drifts apart) or became shared; and of which files
more or less is mapped.

A process is known by its pid and start time together: a pid that was given
away again is another process. Pages are known by their address. The pictures
should be of one machine, and of one boot of it; others are compared, too, with
a warning.

examples
  sudo rmap snap -o before.rmap; sleep 60; sudo rmap diff before.rmap
  rmap diff before.rmap after.rmap --sort unshared --top 10
  rmap diff before.rmap after.rmap --cgroup /system.slice/web.service --json

exit status: 0 whether or not anything changed
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_output_options, add_selection_options, add_table_options
from rmap.cli.source import NICE, capture
from rmap.errors import UsageError
from rmap.show.difference import COLUMNS

if TYPE_CHECKING:
    from rmap.snapshot import Snapshot


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("before", metavar="A", help="a picture")
    parser.add_argument("after", metavar="B", nargs="?", help="a later one (default: the running machine, now)")
    parser.add_argument("--nice", action="store_true", help="without B: read page tables a tenth of the time only")
    add_selection_options(parser)
    add_table_options(parser, COLUMNS, sort="change")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Load both, compare, print."""
    from rmap.show.difference import difference as lines_of
    from rmap.show.difference import notes, sorted_changes
    from rmap.snapshot import Snapshot
    from rmap.snapshot.questions.difference import changes_of, difference

    before = Snapshot.load(args.before)
    if args.after is not None:
        after = Snapshot.load(args.after)
    else:
        after = capture(for_one_page=True, share_of_time=NICE if args.nice else 1.0)
    chosen = _chosen(args, before, after)
    changes = changes_of(difference(before, after), chosen)
    rows = sorted_changes(changes.processes, args.sort)
    if args.json or args.jsonl:
        for line in notes(changes):
            say(line)
    data = {**asdict(changes), "processes": rows}
    names = f"{_name(args.before, before)} with {_name(args.after, after)}"
    emit(args, data, lambda: lines_of(changes, rows, names=names, limit=args.top), rows="processes")
    return status.OK


def _name(path: str | None, snapshot: Snapshot) -> str:
    when = " ".join(str(snapshot.about[key]) for key in ("host", "time") if snapshot.about[key])
    return (path or "this machine now") + (f" ({when})" if when else "")


def _chosen(args: Namespace, before: Snapshot, after: Snapshot) -> set[int] | None:
    # The pids that --pid and --cgroup choose, in either picture; None for all.
    from rmap.snapshot.questions.difference import pids_in
    from rmap.snapshot.questions.selection import of_cgroup

    pids = None if args.pid is None else set(args.pid)
    for pid in (pids or set()) - pids_in(before, after):
        raise UsageError(f"process {pid} is in neither picture: it had ended, had no memory, or was refused")
    if args.cgroup is None:
        return pids
    inside: set[int] = set()
    refusals = []
    for snapshot in (before, after):
        try:
            inside |= set(snapshot.processes.pid[of_cgroup(snapshot, args.cgroup)].tolist())
        except UsageError as error:
            refusals.append(error)
    if len(refusals) == 2:
        raise refusals[1]
    return inside if pids is None else inside & pids
