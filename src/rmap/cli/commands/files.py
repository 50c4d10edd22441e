"""Which files fill the page cache, mapped or only open.

Every file that some process maps or holds open, once (hard links, too), with
how much of it is in memory: also deleted files, memfds and files of containers
(shown as /proc/PID/root/PATH). Files that nobody has open any more keep their
cache, and cannot be named; how much that is, is said below the table. --pid and
--cgroup choose files that these processes map or hold open.

Without privileges the files of others are missing, and what is in memory of a
file that you neither own nor may write is not told by the kernel ("?"). Of a
recorded picture (-i) only what is mapped is known.

examples
  sudo rmap files
  sudo rmap files --sort mapped-by --top 10
  sudo rmap files --cgroup /system.slice/web.service --json
  rmap files -i here.rmap
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit, say, waiting
from rmap.cli.parser import add_input_option, add_output_options, add_selection_options, add_table_options
from rmap.errors import UsageError

COLUMNS = ("resident", "size", "mapped-by", "open-by", "path")


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    add_selection_options(parser)
    add_table_options(parser, COLUMNS, sort="resident")
    add_input_option(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Find them, and ask the page cache."""
    if args.input is not None:
        return _recorded(args)
    from rmap.live.files.open_files import cached_files
    from rmap.live.sources import procfs
    from rmap.show.capture_notes import capture_notes
    from rmap.show.files import files, sorted_files

    chosen = _pids(args)
    with waiting() as doing:
        open_files = cached_files(progress=lambda done, total: doing(f"file {done:,} of {total:,}"))
    for line in capture_notes({"ended": open_files.ended, "refused": len(open_files.refused), "raced": 0}):
        say(line)
    cached, explained = procfs.meminfo("Cached"), sum(one.resident or 0 for one in open_files.files)
    theirs = [one for one in open_files.files if chosen is None or chosen.intersection((*one.mapped_by, *one.open_by))]
    ordered = sorted_files(theirs, args.sort)
    data = {"cached": cached, "explained": explained, "refused": open_files.refused, "files": ordered}
    emit(args, data, lambda: files(ordered, limit=args.top, cached=cached, explained=explained), rows="files")
    return status.OK if ordered else status.NO


def _pids(args: Namespace) -> set[int] | None:
    # None for all.
    from rmap.live.sources import procfs

    if args.pid is None and args.cgroup is None:
        return None
    every = set(procfs.pids())
    for pid in args.pid or ():
        if pid not in every:
            raise UsageError(f"there is no process {pid}")
    chosen = set(args.pid) if args.pid is not None else every
    if args.cgroup is None:
        return chosen
    inside = set(procfs.pids_of_cgroup(args.cgroup))
    if not inside:
        raise UsageError(f"no process is in a cgroup {args.cgroup}")
    return chosen & inside


def _recorded(args: Namespace) -> int:
    from rmap.cli.source import selected, snapshot_of
    from rmap.show.files import recorded_files, sorted_files
    from rmap.snapshot.questions.file_view import mapped_files

    snapshot = snapshot_of(args)
    ordered = sorted_files(mapped_files(snapshot, selected(args, snapshot)), args.sort)
    emit(args, {"files": ordered}, lambda: recorded_files(ordered, limit=args.top), rows="files")
    return status.OK if ordered else status.NO
