"""Which files fill the page cache, mapped or only open.

Every file that some process maps or holds open, once, with how much of it is in
memory: deleted files, memfds and the files of containers, too. What nobody has
open any more stays in the cache as well; how much that is, is said below. Of a
recorded picture, only what is mapped is known.

examples
  sudo rmap files
  sudo rmap files --sort mapped-by --top 10
  sudo rmap files --cgroup /system.slice/web.service --json
  rmap files -i here.rmap
"""

from __future__ import annotations

import os
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
    from rmap.show.files import files, sorted_files

    if args.input is not None:
        return _recorded(args)
    from rmap.live.open_files import cached_files, meminfo

    with waiting() as doing:
        found, refused = cached_files(
            _pids(args), progress=lambda done, total: doing(f"file {done:,} of {total:,}")
        )
    if refused:
        say(f"rmap: {refused} processes refused (`rmap doctor`): their files are missing")
    cached = meminfo("Cached")
    ordered = sorted_files(found, args.sort)
    data = {"files": ordered, "cached": cached}
    emit(args, data, lambda: files(ordered, limit=args.top, cached=cached), rows="files")
    return status.OK if found else status.NO


def _pids(args: Namespace) -> list[int]:
    from rmap.live import procfs

    pids = procfs.pids() if args.pid is None else args.pid
    if args.cgroup is not None:
        inside = set(procfs.pids_of_cgroup(args.cgroup))
        if not inside:
            raise UsageError(f"no process is in a cgroup {args.cgroup}")
        pids = [pid for pid in pids if pid in inside]
    return [pid for pid in pids if pid != os.getpid()]


def _recorded(args: Namespace) -> int:
    from rmap.cli.source import picture_of
    from rmap.show.files import files, sorted_files
    from rmap.snapshot.file_view import mapped_files

    if args.pid is not None or args.cgroup is not None:
        raise UsageError("--pid and --cgroup choose among running processes: not with -i")
    found = sorted_files(mapped_files(picture_of(args)), args.sort)
    emit(args, {"files": found}, lambda: files(found, limit=args.top, cached=None), rows="files")
    return status.OK if found else status.NO
