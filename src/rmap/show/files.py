"""The files that fill the page cache: a table, and what part of the cache it explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, columns, more, wrap
from rmap.units import format_bytes, format_count

if TYPE_CHECKING:
    from rmap.live.open_files import CachedFile
    from rmap.snapshot.file_view import MappedFile

_COLUMNS = {"resident": "resident", "size": "size", "mapped-by": "mapped_by", "open-by": "open_by"}


def sorted_files(files: Sequence[CachedFile | MappedFile], column: str) -> list[CachedFile | MappedFile]:
    """By a column as the user types it: paths ascending, the others descending."""
    if column == "path":
        return sorted(files, key=lambda file: file.path)
    return sorted(files, key=lambda file: (-getattr(file, _COLUMNS[column]), file.path))


def files(found: Sequence[CachedFile | MappedFile], *, limit: int | None, cached: int | None) -> list[str]:
    """The lines of ``rmap files``.

    Args:
        limit: show at most so many, None for all.
        cached: what the kernel counts as page cache, bytes; None for a picture, which knows mapped pages only.
    """
    shown = found[:limit]
    rows = [
        (
            format_bytes(one.resident),
            format_bytes(one.size) if one.size >= 0 else "?",
            format_count(one.mapped_by),
            format_count(one.open_by),
        )
        for one in shown
    ]
    header = ("RESIDENT" if cached is not None else "MAPPED", "SIZE", "MAPPED BY", "OPEN BY")
    table = columns(header, rows, ">>>>")
    width = WIDTH - 2 - max(map(len, table))
    names = ["PATH", *(_name(one, width) for one in shown)]
    lines = [f"{line:<{max(map(len, table))}}  {name}" for line, name in zip(table, names)]
    if len(shown) < len(found):
        lines.append(more(len(found) - len(shown), "--all"))
    total = sum(one.resident for one in found)
    if cached is None:
        return [*lines, "", f"{format_bytes(total)} mapped; what else was in memory, the picture does not know."]
    rest = max(0, cached - total)
    return [
        *lines,
        "",
        *wrap(
            f"{format_bytes(total)} of the {format_bytes(cached)} that the kernel counts as page cache; the other "
            f"{format_bytes(rest)} are of files that no process has open or mapped now, and of the file "
            "systems themselves."
        ),
    ]


def _name(file: CachedFile | MappedFile, width: int) -> str:
    seen_by = getattr(file, "seen_by", None)
    name = file.path if seen_by is None else f"{file.path} (mounts of {seen_by})"
    return name if len(name) <= width else "..." + name[len(name) - width + 3 :]
