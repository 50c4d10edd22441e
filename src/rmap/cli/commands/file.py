"""Which parts of a file are in memory, and who maps them.

A bar over the whole file, and its ranges: in the page cache or not, mapped by
which processes; who holds it open; how much is dirty. Mapped pages are those of
page tables; private copies that programs made on writing are not the file's.

PATH may also be /proc/PID/fd/N or /proc/PID/map_files/RANGE: a deleted file, a
memfd, a file of a container (or /proc/PID/root/PATH). Of a recorded picture
only what is mapped is known.

examples
  sudo rmap file /usr/lib/x86_64-linux-gnu/libc.so.6
  sudo rmap file /srv/model.bin --all
  sudo rmap file /proc/4711/fd/7 --json
  rmap file -i here.rmap /usr/bin/python3.11

exit status: 1 if nothing of it is in memory
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit, say
from rmap.cli.parser import add_input_option, add_output_options

ROWS = 20


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("path", metavar="PATH", help="the file")
    parser.add_argument("--all", action="store_true", help=f"every range, not only {ROWS}")
    add_input_option(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Look at the file."""
    limit = None if args.all else ROWS
    if args.input is not None:
        return _recorded(args, limit)
    from rmap.live.ability import refuse_without_frames
    from rmap.live.file_pages import file_pages
    from rmap.show.file import file

    refuse_without_frames()
    found = file_pages(args.path)
    data = {
        "path": found.path,
        "size": found.size,
        "resident": int(found.resident.sum()),
        "dirty": found.cache.dirty if found.cache else None,
        "ptes": int(found.mappers.sum()),
        "mapped_by": sorted(found.mapped),
        "open_by": found.open_by,
        "ranges": found.ranges(),
    }
    emit(args, data, lambda: file(found, limit=limit))
    return status.OK if found.resident.any() else status.NO


def _recorded(args: Namespace, limit: int | None) -> int:
    from rmap.cli.source import picture_of
    from rmap.show.overview import mapped_file
    from rmap.snapshot.file_view import file_view, files_named

    picture = picture_of(args)
    views = [file_view(picture, row) for row in files_named(picture, args.path)]
    if not views:
        say(f"rmap: no recorded process maps or holds a file {args.path}")
        return status.NO
    note = "The picture knows what is mapped, and not what else of it was in memory."
    lines = [line for view in views for line in mapped_file(view, limit=limit)]
    emit(args, {"files": views}, lambda: [*lines, "", note])
    return status.OK
