"""The files that fill the page cache: a table, and what part of the cache it explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rmap.show.text import WIDTH, columns, more, plural, wrap
from rmap.units import format_bytes, format_count

if TYPE_CHECKING:
    from rmap.live.files.open_files import CachedFile
    from rmap.snapshot.questions.file_view import MappedFile

_COLUMNS = {"resident": "resident", "size": "size", "mapped-by": "mapped_by", "open-by": "open_by"}
_T = TypeVar("_T", "CachedFile", "MappedFile")


def sorted_files(files: Sequence[_T], column: str) -> list[_T]:
    """By a column as the user types it: paths ascending, the others descending."""
    if column == "path":
        return sorted(files, key=lambda file: file.path)
    return sorted(files, key=lambda file: (-_number(getattr(file, _COLUMNS[column])), file.path))


def _number(value: Any) -> int:
    return len(value) if isinstance(value, list) else -1 if value is None else int(value)


def files(ordered: Sequence[CachedFile], *, limit: int | None, cached: int, explained: int) -> list[str]:
    """The lines of ``rmap files``.

    Args:
        limit: show at most so many, None for all.
        cached: what the kernel counts as page cache (``Cached`` of /proc/meminfo), bytes.
        explained: how much of it the files of all processes take, bytes.
    """
    unknown = sum(one.resident is None for one in ordered)
    share = f" ({min(1.0, explained / cached):.0%})" if cached else ""
    lines = _table(ordered, "RESIDENT", limit) if ordered else ["no files"]
    text = (
        f"Files that somebody maps or has open now are {format_bytes(explained)} of the {format_bytes(cached)} that "
        f"the kernel counts as page cache{share}"
    )
    if explained < cached:
        rest = format_bytes(cached - explained)
        text += f". The other {rest} are of files that nobody has open now: they cannot be named."
    else:
        text += ": the cache changed meanwhile, or its counters lag behind."
    lines += ["", *wrap(text)]
    if unknown:
        lines += wrap(f"?  {plural(unknown, 'file')} of which the kernel does not tell this user what is in memory")
    return lines


def recorded_files(ordered: Sequence[MappedFile], *, limit: int | None) -> list[str]:
    """The same of a picture, which knows what is mapped, and not what else is in memory."""
    total = sum(one.resident for one in ordered)
    lines = _table(ordered, "MAPPED", limit) if ordered else ["no files"]
    text = (
        f"{plural(len(ordered), 'file')}, {format_bytes(total)} of them mapped. A picture has mapped pages only: what "
        "else of the page cache there was is not known."
    )
    return [*lines, "", *wrap(text)]


def _table(ordered: Sequence[CachedFile] | Sequence[MappedFile], first: str, limit: int | None) -> list[str]:
    shown = ordered[:limit]
    rows = [
        (
            "?" if one.resident is None else format_bytes(one.resident),
            format_bytes(one.size) if one.size >= 0 else "?",
            format_count(_number(one.mapped_by)),
            format_count(_number(one.open_by)),
        )
        for one in shown
    ]
    table = columns((first, "SIZE", "MAPPED BY", "OPEN BY"), rows, ">>>>")
    width = max(map(len, table))
    names = ["PATH", *(_short(one.path, WIDTH - 2 - width) for one in shown)]
    lines = [f"{line:<{width}}  {name}" for line, name in zip(table, names)]
    return lines if len(shown) == len(ordered) else [*lines, more(len(ordered) - len(shown), "--all")]


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else "..." + name[len(name) - width + 3 :]
