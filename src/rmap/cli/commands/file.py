"""Which parts of a file are in memory, and who maps them.

A bar over the whole file, then its ranges: in the page cache or not, mapped by
which processes; how much is dirty, and who holds it open. Residency is asked of
the page cache and touches nothing; mappings are read from the page tables of
the areas of this file alone, and held against the kernel's count. Private
copies that programs made on writing are not the file's. rmap is left out.

PATH may be /proc/PID/root/PATH (a container's file), or /proc/PID/fd/N and
/proc/PID/map_files/RANGE (a deleted file, a memfd). Without privileges, the
processes of others are missing, and so is what is in memory of a file that you
neither own nor may write: the kernel does not tell. Of a recorded picture (-i)
only what is mapped is known.

examples
  sudo rmap file /usr/lib/x86_64-linux-gnu/libc.so.6
  sudo rmap file /srv/model.bin --sort pages --top 5
  sudo rmap file /proc/4711/fd/7 --json
  rmap file -i here.rmap /usr/bin/python3.11

exit status: 1 if nothing of it is in memory, 3 if that is not told
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_input_option, add_output_options, add_table_options

COLUMNS = ("offset", "pages", "procs")


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("path", metavar="PATH", help="the file")
    add_input_option(parser)
    add_table_options(parser, COLUMNS, sort="offset")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Look at the file."""
    if args.input is not None:
        return _recorded(args)
    from rmap.live.files.file import file_pages
    from rmap.show.file import CELLS, as_data, file, sorted_ranges
    from rmap.snapshot.questions.file_ranges import cells_of

    pages = file_pages(args.path)
    ranges = sorted_ranges(pages.ranges, args.sort)
    cells = cells_of(pages.ranges, pages.residency.pages, CELLS)
    emit(args, as_data(pages, ranges), lambda: file(pages, ranges, cells, limit=args.top), rows="ranges")
    if pages.residency.resident or pages.ptes:
        return status.OK
    return status.NOT_PERMITTED if pages.residency.why_unknown else status.NO


def _recorded(args: Namespace) -> int:
    from rmap.cli.source import snapshot_of
    from rmap.show.file import CELLS, recorded_file, sorted_ranges
    from rmap.snapshot.questions.file_ranges import cells_of, ranges_of_view
    from rmap.snapshot.questions.file_view import file_view, files_named

    snapshot = snapshot_of(args)
    named = files_named(snapshot, args.path) or files_named(snapshot, os.path.realpath(args.path))
    if not named:
        say(f"rmap: no recorded process maps a file {args.path}")
        return status.NO
    view = max((file_view(snapshot, row) for row in named), key=lambda one: one.mapped)
    if len(named) > 1:
        say(f"rmap: {len(named)} files of the picture have this path: the one that most is mapped of is shown")
    ranges = ranges_of_view(view)
    names = dict(zip(snapshot.processes.pid.tolist(), snapshot.processes.comm))
    cells = cells_of(ranges, sum(one.pages for one in ranges), CELLS)
    ordered = sorted_ranges(ranges, args.sort)
    data = {**asdict(view), "resident": None, "ranges": ordered}
    emit(args, data, lambda: recorded_file(view, ordered, cells, names, limit=args.top), rows="ranges")
    return status.OK if view.mapped else status.NO
