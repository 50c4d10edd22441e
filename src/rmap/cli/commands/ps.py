"""What each process has in memory, and with how many it shares it.

RSS counts a shared page for each process that maps it; PSS gives each its part
of the page; USS counts pages that no other process maps. TABLES is the memory
of the page tables themselves, SHARES the number of other processes with which
at least one page is shared.

The numbers are those of /proc/PID/smaps_rollup, to the KiB. As root every
page-table entry of the machine is read to know who shares; --quick leaves that
column out and asks the kernel for its sums, as it does without privileges (then
for your own processes only). Threads and other sharers of one memory are one
row; rmap itself is left out.

examples
  sudo rmap ps
  sudo rmap ps --sort uss --top 10
  sudo rmap ps --cgroup /system.slice/web.service --json
  rmap ps --quick --format prometheus > /var/lib/node_exporter/rmap.prom
  rmap ps -i here.rmap --pid 4711
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_output_options, add_reading_options, add_selection_options, add_table_options
from rmap.cli.source import NICE, selected, snapshot_of
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.snapshot.questions.usage import ProcessUsage

COLUMNS = ("pid", "command", "rss", "pss", "uss", "swap", "tables", "shares")


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("--quick", action="store_true", help="the kernel's sums only: no SHARES column, less to read")
    parser.add_argument("--format", choices=("table", "prometheus"), default="table", help="for whom (default: table)")
    add_selection_options(parser)
    add_table_options(parser, COLUMNS, sort="pss")
    add_reading_options(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Read, sort, print."""
    from rmap.show.ps import prometheus, ps, sorted_rows

    if args.format == "prometheus" and (args.json or args.jsonl):
        raise UsageError("--format prometheus and --json are two formats")
    rows, quick = _rows(args)
    if args.sort == "shares" and quick:
        raise UsageError("--sort shares needs every page-table entry: as root, and without --quick")
    ordered = sorted_rows(rows, args.sort)
    if args.format == "prometheus":
        print("\n".join(prometheus(ordered)))
    else:
        emit(args, {"processes": ordered}, lambda: ps(ordered, limit=args.top), rows="processes")
    return status.OK if rows else status.NO


def _rows(args: Namespace) -> tuple[list[ProcessUsage], bool]:
    from rmap.live.doctor.abilities import missing_frames
    from rmap.snapshot.questions.usage import by_process

    missing = missing_frames() if args.input is None and not args.quick else None
    if args.quick or missing:
        if missing:
            say("rmap: without page frames (`rmap doctor`): the kernel's own sums, and not who shares")
        return _quick(args), True
    snapshot = snapshot_of(args)
    return by_process(snapshot, selected(args, snapshot)), False


def _quick(args: Namespace) -> list[ProcessUsage]:
    from rmap.live.sources import procfs
    from rmap.live.sources.rollup import read_rollups
    from rmap.show.capture_notes import capture_notes

    if args.input is not None:
        raise UsageError("--quick asks the running kernel: a recorded picture (-i) has every entry anyway")
    pids = args.pid
    if args.cgroup is not None:
        inside = procfs.pids_of_cgroup(args.cgroup)
        pids = inside if pids is None else [pid for pid in pids if pid in inside]
        if not inside:
            raise UsageError(f"no process is in a cgroup {args.cgroup}")
    rollups = read_rollups(pids, share_of_time=NICE if args.nice else 1.0)
    for line in capture_notes({"ended": rollups.ended, "refused": rollups.refused, "raced": 0}):
        say(line)
    return rollups.rows
