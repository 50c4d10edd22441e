"""What comes back if processes end, and what stays.

Comes back: anonymous pages that nobody else maps, their page tables, their
swap, shared memory that nothing else holds. Stays: page cache (it can be
dropped, and is not), shared memory that a descriptor, a name or a SysV
identifier holds elsewhere (named), and pages that others map, too.

A sum of RSS counts what is shared many times, USS leaves out what the processes
share among themselves: neither says what would be free. The answer is for all
of them ending together.

examples
  sudo rmap freed 4711
  sudo rmap freed 4711 --tree
  sudo rmap freed --cgroup /system.slice/web.service
  rmap freed -i here.rmap 4711 4712 --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options, add_reading_options
from rmap.cli.source import absence, snapshot_of
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.columns import Bool
    from rmap.snapshot import Snapshot


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("pids", metavar="PID", type=int, nargs="*", help="these processes")
    parser.add_argument("--tree", action="store_true", help="and all that they forked")
    parser.add_argument("--cgroup", metavar="PATH", help="every process of this cgroup and of those below it")
    add_reading_options(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Choose the processes, and count."""
    from rmap.show.freed import freed
    from rmap.snapshot.questions.freed import freed_by

    if bool(args.pids) == (args.cgroup is not None):
        raise UsageError("name processes (PID...), or a cgroup (--cgroup PATH)")
    for pid in args.pids if args.input is None else ():
        if (why := absence(pid)) is not None:
            raise UsageError(why)
    snapshot = snapshot_of(args)
    sums = freed_by(snapshot, _chosen(args, snapshot))
    names = dict(zip(snapshot.processes.pid.tolist(), snapshot.processes.comm))
    data = {name: value for name, value in asdict(sums).items() if name != "frames"}
    totals = {"comes_back": sums.comes_back, "stays": sums.stays}
    emit(args, {**data, **totals}, lambda: freed(sums, asked=args.pids, names=names, cgroup=args.cgroup))
    return status.OK


def _chosen(args: Namespace, snapshot: Snapshot) -> Bool:
    from rmap.snapshot.questions.selection import of_cgroup, of_pids, with_descendants

    chosen = of_cgroup(snapshot, args.cgroup) if args.cgroup is not None else of_pids(snapshot, args.pids)
    return with_descendants(snapshot, chosen) if args.tree else chosen
