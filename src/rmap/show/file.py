"""A file as a bar and as ranges: in memory or not, and who maps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rmap.show.text import WIDTH, columns, labelled, more, plural
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_bytes, format_count

if TYPE_CHECKING:
    from rmap.live.files.file import FilePages
    from rmap.snapshot.questions.file_ranges import Cell, FileRange
    from rmap.snapshot.questions.file_view import FileView

CELLS = 64
_NAMED = 3
_LEGEND = (
    ("0", "1-9 that many map a page there"),
    ("#", "# ten or more"),
    ("-", "- in memory, unmapped"),
    (",", ", partly in memory"),
    (".", ". not in memory"),
    ("?", "? unmapped; in memory or not is unknown"),
)
_STATUS = {
    "complete": "complete",
    "raced": "raced: mappings changed while they were looked for",
    "approximate": "approximate: this kernel counts mappings of large folios on average only",
    "unknown": "without page frames (`rmap doctor`) nobody can tell whether these are all",
}


def sorted_ranges(ranges: Sequence[FileRange], column: str) -> list[FileRange]:
    """By ``offset`` ascending, or by ``pages`` or ``procs`` descending."""
    if column == "pages":
        return sorted(ranges, key=lambda one: (-one.pages, one.first))
    if column == "procs":
        return sorted(ranges, key=lambda one: (-len(one.pids), one.first))
    return sorted(ranges, key=lambda one: one.first)


def file(
    pages: FilePages, ranges: Sequence[FileRange], cells: Sequence[Cell], *, limit: int | None
) -> list[str]:
    """The lines of ``rmap file PATH``.

    Args:
        ranges: in the order to be shown.
        cells: of the bar.
        limit: show at most so many ranges, None for all.
    """
    names = {one.pid: one.comm for one in pages.mappers}
    lines = labelled("file", f"{pages.path}, {format_bytes(pages.size)}")
    lines += labelled("memory", _memory(pages))
    lines += labelled("mapped", _mapped(pages))
    if pages.open_by:
        lines += labelled("open", f"by {_processes(sorted(pages.open_by), names)}")
    copies = sum(one.copies for one in pages.mappers)
    if copies:
        lines += labelled("besides", _copies(copies))
    if pages.refused:
        who = plural(len(pages.refused), "process", "processes")
        lines += labelled("hidden", f"the maps of {who} may not be read (`rmap doctor`): what only these map shows as "
                          "unmapped")  # fmt: skip
    return lines + _bar(cells, pages.residency.pages) + _table(ranges, names, limit)


def recorded_file(
    view: FileView, ranges: Sequence[FileRange], cells: Sequence[Cell], names: Mapping[int, str], *, limit: int | None
) -> list[str]:
    """The same of a picture, which knows what is mapped, and not what else is in memory."""
    size = format_bytes(view.size) if view.size >= 0 else "of unknown size"
    lines = labelled("file", f"{view.path}, {size}")
    lines += labelled("memory", "a picture has mapped pages only: what else of it was in memory is not known")
    lines += labelled("mapped", f"{plural(view.mapped, 'page')} by {_processes(view.pids, names)}")
    if view.open_by:
        lines += labelled("open", f"by {_processes(view.open_by, names)}")
    if view.copies:
        lines += labelled("besides", _copies(view.copies))
    return lines + _bar(cells, sum(cell.pages for cell in cells)) + _table(ranges, names, limit)


def as_data(pages: FilePages, ranges: Sequence[FileRange]) -> dict[str, Any]:
    """The object that ``--json`` prints; sizes in bytes, the rest in pages."""
    stat = pages.residency.stat
    return {
        "path": pages.path,
        "size": pages.size,
        "pages": pages.residency.pages,
        "resident": pages.residency.resident,
        "dirty": None if stat is None else stat.dirty,
        "writeback": None if stat is None else stat.writeback,
        "evicted": None if stat is None else stat.evicted,
        "mapped": sum(one.pages for one in ranges if one.pids),
        "ptes": pages.ptes,
        "counted": pages.counted,
        "status": pages.status,
        "mapped_by": [{"pid": one.pid, "comm": one.comm, "ptes": len(one.page)} for one in pages.mappers],
        "copies": sum(one.copies for one in pages.mappers),
        "open_by": [{"pid": pid, "fds": fds} for pid, fds in sorted(pages.open_by.items())],
        "refused": pages.refused,
        "ranges": list(ranges),
    }


def _memory(pages: FilePages) -> str:
    cached, stat = pages.residency, pages.residency.stat
    if cached.resident is None:
        return f"unknown: {cached.why_unknown}"
    size = format_bytes(cached.resident * PAGE_SIZE)
    text = f"{format_count(cached.resident)} of {plural(cached.pages, 'page')} ({size})"
    if stat is None:
        return text
    return f"{text}; {format_count(stat.dirty)} dirty, {format_count(stat.writeback)} being written"


def _mapped(pages: FilePages) -> str:
    if not pages.mappers:
        return "by none of the processes that this user may see" if pages.refused else "by nobody"
    mapped = sum(one.pages for one in pages.ranges if one.pids)
    names = {one.pid: one.comm for one in pages.mappers}
    text = f"{plural(mapped, 'page')} by {_processes(sorted(names), names)}; {plural(pages.ptes, 'PTE')}"
    if pages.status == "hidden" and pages.counted is not None:
        missing = pages.counted - pages.ptes
        return f"{text} of {format_count(pages.counted)}: {format_count(missing)} hidden"
    return f"{text}: {_STATUS[pages.status]}"


def _copies(copies: int) -> str:
    return f"{plural(copies, 'private copy', 'private copies')} of its pages, made on writing: not the file's"


def _bar(cells: Sequence[Cell], pages: int) -> list[str]:
    if not cells:
        return []
    text = "".join(map(_letter, cells))
    used = {"0" if letter.isdigit() else letter for letter in text}
    about = "about " if pages % len(cells) else ""
    each = f"a character is {about}{format_bytes(pages * PAGE_SIZE // len(cells))}"
    legend = [words for letter, words in _LEGEND if letter in used]
    return ["", f"  |{text}|", *_joined([each, *legend])]


def _joined(parts: Sequence[str]) -> list[str]:
    # Words that belong together stay on one line.
    lines = [f"   {parts[0]}"]
    for part in parts[1:]:
        if len(lines[-1]) + 3 + len(part) > WIDTH:
            lines.append(f"   {part}")
        else:
            lines[-1] += f"   {part}"
    return lines


def _letter(cell: Cell) -> str:
    if cell.most:
        return str(cell.most) if cell.most < 10 else "#"
    if cell.unknown:
        return "?"
    return "-" if cell.resident == cell.pages else "," if cell.resident else "."


def _table(ranges: Sequence[FileRange], names: Mapping[int, str], limit: int | None) -> list[str]:
    shown = ranges[:limit]
    if not shown:
        return []
    rows = [
        (
            f"{one.first << PAGE_SHIFT:#x}",
            format_count(one.pages),
            "?" if one.resident is None else "yes" if one.resident else "no",
            format_count(len(one.pids)),
        )
        for one in shown
    ]
    table = columns(("OFFSET", "PAGES", "MEMORY", "PROCS"), rows, "<><>", indent="  ")
    width = max(map(len, table))
    who = ["WHO", *(_who(one.pids, names, WIDTH - width - 2) for one in shown)]
    lines = ["", *(f"{line:<{width}}  {text}".rstrip() for line, text in zip(table, who))]
    return lines if len(shown) == len(ranges) else [*lines, "    " + more(len(ranges) - len(shown), "--all")]


def _who(pids: Sequence[int], names: Mapping[int, str], width: int) -> str:
    # As many names as fit.
    text = ""
    for done, pid in enumerate(pids):
        rest = f" +{format_count(len(pids) - done - 1)}" if done + 1 < len(pids) else ""
        longer = f"{text}{', ' if text else ''}{_name(pid, names)}"
        if text and len(longer) + len(rest) > width:
            return f"{text} +{format_count(len(pids) - done)}"
        text = longer
    return text


def _name(pid: int, names: Mapping[int, str]) -> str:
    return f"{pid} {names[pid]}" if names.get(pid) else str(pid)


def _processes(pids: Sequence[int], names: Mapping[int, str]) -> str:
    if not pids:
        return "nobody"
    named = ", ".join(_name(pid, names) for pid in pids[:_NAMED]) + (", ..." if len(pids) > _NAMED else "")
    return f"{plural(len(pids), 'process', 'processes')} ({named})"
