"""A process by its areas, a file by its ranges: how much is in memory, and who shares it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, columns, labelled, more, plural
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_bytes, format_count

if TYPE_CHECKING:
    from rmap.snapshot.questions.file_view import FileView
    from rmap.snapshot.questions.overview import AreaView

_PIDS = 4


def areas(views: Sequence[AreaView], *, pid: int, comm: str, limit: int | None) -> list[str]:
    """The lines of ``rmap who PID``.

    Args:
        limit: show at most so many areas, those with the most memory; None for all, in order of address.
    """
    rss, shared = sum(area.rss for area in views), sum(area.shared for area in views)
    lines = labelled(
        "process",
        f"{pid} {comm}: {plural(len(views), 'area')}, {format_bytes(rss)} in memory, {format_bytes(shared)} of it "
        "mapped more than once",
    )
    shown = list(views)
    if limit is not None and len(shown) > limit:
        kept = sorted(views, key=lambda area: -area.rss)[:limit]
        shown = [area for area in views if area in kept]
    rows = [
        (
            f"{area.start:x}-{area.end:x}",
            area.perms,
            format_bytes(area.rss),
            format_bytes(area.shared),
            format_count(area.most),
            format_bytes(area.swap) if area.swap else "-",
        )
        for area in shown
    ]
    table = columns(("VMA", "PERM", "RSS", "SHARED", "MOST", "SWAP"), rows, "<<>>>>", indent="  ")
    names = ["WHAT", *(_short(area.name, WIDTH - 2 - len(table[0])) for area in shown)]
    lines += ["", *(f"{line:<{len(table[0])}}  {name}".rstrip() for line, name in zip(table, names))]
    if len(shown) < len(views):
        lines.append("    " + more(len(views) - len(shown), "--all"))
    return [*lines, "", "MOST  mappers of the page of it that has most"]


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else "..." + name[len(name) - width + 3 :]


def mapped_file(view: FileView, *, limit: int | None) -> list[str]:
    """The lines of ``rmap who PATH``: ranges of equal mappers."""
    size = format_bytes(view.size) if view.size >= 0 else "of unknown size"
    lines = labelled("file", f"{view.path}, {size}")
    of = f" of {format_count(-(-view.size // PAGE_SIZE))}" if view.size >= 0 else ""
    lines += labelled("mapped", f"{format_count(view.mapped)}{of} pages, by {_processes(view.pids)}")
    if view.open_by:
        lines += labelled("open", f"by {_processes(view.open_by)}")
    if view.copies:
        copies = plural(view.copies, "private copy", "private copies")
        lines += labelled("besides", f"{copies} of its pages, made on writing: not the file's")
    shown = view.ranges[:limit]
    rows = [
        (
            f"{one.first << PAGE_SHIFT:#x}",
            format_count(one.pages),
            format_count(len(one.pids)),
            format_count(one.ptes),
            " ".join(map(str, one.pids[:_PIDS])) + (" ..." if len(one.pids) > _PIDS else ""),
        )
        for one in shown
    ]
    if rows:
        lines += ["", *columns(("OFFSET", "PAGES", "PROCS", "PTES", "PIDS"), rows, "<>>><", indent="  ")]
    if len(shown) < len(view.ranges):
        lines.append("    " + more(len(view.ranges) - len(shown), "--all"))
    return lines


def _processes(pids: Sequence[int]) -> str:
    named = ", ".join(map(str, pids[:_PIDS])) + (", ..." if len(pids) > _PIDS else "")
    return f"{plural(len(pids), 'process', 'processes')} ({named})" if pids else "nobody"
