"""A file as a bar and as ranges: in memory or not, and who maps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import columns, labelled, more, plural, wrap
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_bytes, format_count

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from rmap.live.file_pages import FilePages

CELLS = 64
_PIDS = 4
_LEGEND = ". not in memory  - in memory, mapped by nobody  1-9 mappers of a page  # more"


def file(found: FilePages, *, limit: int | None) -> list[str]:
    """The lines of ``rmap file PATH``.

    Args:
        limit: show at most so many ranges, None for all.
    """
    pages, resident = len(found.resident), int(found.resident.sum())
    lines = labelled("file", f"{found.path}, {format_bytes(found.size)} ({plural(pages, 'page')})")
    lines += labelled("in memory", _part(resident, pages) + _state(found))
    ranges = found.ranges()
    mapped = sum(one.pages for one in ranges if one.pids)
    ptes = int(found.mappers.sum())
    lines += labelled("mapped", f"{_part(mapped, pages)}, {plural(ptes, 'PTE')} in {_processes(sorted(found.mapped))}")
    lines += labelled("open", f"by {_processes(found.open_by)}")
    if pages:
        lines += ["", "  [" + bar(found.resident, found.mappers) + "]", "  " + _LEGEND]
    worth = [one for one in ranges if one.resident or one.pids]
    shown = worth[:limit]
    if shown:
        rows = [
            (
                f"{one.first << PAGE_SHIFT:#x}",
                format_count(one.pages),
                "yes" if one.resident else "no",
                format_count(len(one.pids)),
                " ".join(map(str, one.pids[:_PIDS])) + (" ..." if len(one.pids) > _PIDS else ""),
            )
            for one in shown
        ]
        lines += ["", *columns(("OFFSET", "PAGES", "IN MEMORY", "MAPPED BY", "PIDS"), rows, "<><><", indent="  ")]
    if len(shown) < len(worth):
        lines.append("    " + more(len(worth) - len(shown), "--all"))
    if found.hidden:
        lines += ["", *wrap(f"{plural(found.hidden, 'process', 'processes')} could not be asked (`rmap doctor`).")]
    return lines


def bar(resident: npt.NDArray[Any], mappers: npt.NDArray[Any], cells: int = CELLS) -> str:
    """A file in so many characters, or in one for each page if it has fewer; each shows the most that is true there."""
    n = len(resident)
    width = min(cells, n)
    letters = []
    for cell in range(width):
        low, high = cell * n // width, max(cell * n // width + 1, (cell + 1) * n // width)
        most = int(mappers[low:high].max())
        letters.append(("#" if most > 9 else str(most)) if most else "-" if resident[low:high].any() else ".")
    return "".join(letters)


def _part(pages: int, of: int) -> str:
    share = f" ({pages / of:.0%})" if of else ""
    return f"{format_count(pages)} of {plural(of, 'page')}, {format_bytes(pages * PAGE_SIZE)}{share}"


def _state(found: FilePages) -> str:
    if found.cache is None or not (found.cache.dirty or found.cache.writeback):
        return ""
    return f"; {format_count(found.cache.dirty)} dirty, {format_count(found.cache.writeback)} being written"


def _processes(pids: Sequence[int]) -> str:
    named = ", ".join(map(str, pids[:_PIDS])) + (", ..." if len(pids) > _PIDS else "")
    return f"{plural(len(pids), 'process', 'processes')} ({named})" if pids else "nobody"
