"""What changed between two pictures: totals, a row per process, a row per file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, columns, labelled, more, wrap
from rmap.units import PAGE_SHIFT, format_bytes, format_count

if TYPE_CHECKING:
    from rmap.snapshot.questions.difference import Difference, FileChange, ProcessChange

COLUMNS = ("change", "pid", "command", "before", "after", "gained", "lost", "unshared", "shared")
FILES = 8
"""Files shown, where rows are limited at all."""

_FIELDS = {
    "pid": "pid",
    "command": "comm",
    "before": "rss_before",
    "after": "rss_after",
    "gained": "gained",
    "lost": "lost",
    "unshared": "unshared",
    "shared": "newly_shared",
}
_HEADER = ("PID", "COMMAND", "BEFORE", "AFTER", "GAINED", "LOST", "UNSHARED", "SHARED")
_NARROWEST = 7


def sorted_changes(rows: Iterable[ProcessChange], column: str) -> list[ProcessChange]:
    """By a column as the user types it: sizes descending, pid and command ascending, change by its amount; then pid."""
    if column == "change":
        return sorted(rows, key=lambda row: (-_amount(row), row.pid))
    name = _FIELDS[column]
    if name in ("pid", "comm"):
        return sorted(rows, key=lambda row: (getattr(row, name), row.pid))
    return sorted(rows, key=lambda row: (-getattr(row, name), row.pid))


def difference(changes: Difference, rows: Sequence[ProcessChange], *, names: str, limit: int | None) -> list[str]:
    """The lines of ``rmap diff``.

    Args:
        rows: of processes, in their order; those that changed are shown.
        names: of the two pictures, in words.
        limit: show at most so many processes, None for all.
    """
    lines = [*_totals(changes, rows)]
    for warning in changes.warnings:
        lines += _labelled("note", warning)
    changed = [row for row in rows if row.changed]
    if changed:
        lines += ["", *_table(changed, limit)]
    lines += ["", *_legend(changed)] if changed else []
    if changes.files:
        lines += ["", *_files(changes.files, limit)]
    return [*lines, "", *_labelled("compared", names)]


def _totals(changes: Difference, rows: Sequence[ProcessChange]) -> list[str]:
    came, went = (sum(row.state == state for row in rows) for state in ("came", "went"))
    still = sum(not row.changed for row in rows)
    clauses = [f"{format_count(len(rows) - came - went)} in both"]
    if came:
        clauses.append(f"{format_count(came)} came")
    if went:
        clauses.append(f"{format_count(went)} went")
    reused = sum(row.reused and row.state == "came" for row in rows)
    if reused:
        clauses.append(f"{format_count(reused)} of the new ones under a pid that another had before")
    clauses.append(f"{format_count(still)} unchanged")
    before, after = changes.memory_before, changes.memory_after
    memory = f"{format_bytes(before)} before, {format_bytes(after)} after ({_signed(after - before)}): every frame once"
    pages = ", ".join(
        f"{word} {_size(sum(getattr(row, name) for row in rows))}"
        for word, name in (
            ("gained", "gained"),
            ("lost", "lost"),
            ("unshared", "unshared"),
            ("newly shared", "newly_shared"),
        )
    )
    left, out = sum(row.left for row in rows), sum(row.swapped_out for row in rows)
    if left:
        pages += f", left by the others {_size(left)}"
    if out:
        pages += f"; of the lost, {_size(out)} went to swap"
    return [*_labelled("memory", memory), *_labelled("processes", ", ".join(clauses)), *_labelled("pages", pages)]


def _table(changed: Sequence[ProcessChange], limit: int | None) -> list[str]:
    shown = changed[:limit]
    cells = [_cells(row) for row in shown]
    lines = columns(_HEADER, cells, "><" + ">" * 6)
    over = max(map(len, lines)) - WIDTH
    if over > 0:  # the name of the command gives way, not a number
        width = max(_NARROWEST, max(len(cell[1]) for cell in cells) - over)
        lines = columns(_HEADER, [(cell[0], cell[1][:width], *cell[2:]) for cell in cells], "><" + ">" * 6)
    if len(shown) < len(changed):
        lines.append(more(len(changed) - len(shown), "--all"))
    return lines


def _cells(row: ProcessChange) -> tuple[str, ...]:
    return (
        str(row.pid),
        row.comm + (" *" if row.reused else " +" if row.ran else ""),
        "-" if row.state == "came" else format_bytes(row.rss_before),
        "-" if row.state == "went" else format_bytes(row.rss_after),
        *(_size(pages) for pages in (row.gained, row.lost, row.unshared, row.newly_shared)),
    )


def _legend(changed: Sequence[ProcessChange]) -> list[str]:
    lines = [
        "UNSHARED  mapped by others before, now a frame of its own: a write copied it",
        "SHARED    nobody else's before, now mapped by others too",
    ]
    if any(row.state != "stayed" for row in changed):
        lines.append("-         not there: it came, or went")
    if any(row.reused for row in changed):
        lines.append("*         its pid belongs to another process in the other picture")
    if any(row.ran for row in changed):
        lines.append("+         it runs another program now (exec)")
    return lines


def _files(files: Sequence[FileChange], limit: int | None) -> list[str]:
    ordered = sorted(files, key=lambda file: (-abs(file.after - file.before), file.path))
    shown = ordered if limit is None else ordered[:FILES]
    cells = [(format_bytes(one.before), format_bytes(one.after), _signed(one.after - one.before)) for one in shown]
    table = columns(("BEFORE", "AFTER", "CHANGE"), cells, ">>>")
    width = max(map(len, table))
    paths = ["FILE, MAPPED PAGES", *(_short(one.path, WIDTH - width - 2) for one in shown)]
    lines = [f"{line:<{width}}  {path}" for line, path in zip(table, paths)]
    if len(shown) < len(ordered):
        lines.append(more(len(ordered) - len(shown), "--all"))
    return lines


def notes(changes: Difference) -> list[str]:
    """The warnings, as talk for stderr beside ``--json`` and ``--jsonl``."""
    return [line for warning in changes.warnings for line in wrap(warning, "rmap: ")]


def _labelled(label: str, text: str) -> list[str]:
    return labelled(label, text, 11)


def _amount(row: ProcessChange) -> int:
    return abs(row.rss_after - row.rss_before)


def _size(pages: int) -> str:
    return format_bytes(pages << PAGE_SHIFT)


def _signed(n: int) -> str:
    return ("-" if n < 0 else "+") + format_bytes(abs(n))


def _short(path: str, width: int) -> str:
    return path if len(path) <= width else "..." + path[len(path) - width + 3 :]
