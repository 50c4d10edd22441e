"""What changed between two pictures: processes, then files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, columns, more, plural, wrap
from rmap.units import format_bytes

if TYPE_CHECKING:
    from rmap.snapshot.difference import Difference, FileChange, ProcessChange

_FILES = 5
_COMMAND = 15


def sorted_changes(changes: Sequence[ProcessChange], column: str) -> list[ProcessChange]:
    """By a column as the user types it, the largest first."""
    def key(one: ProcessChange) -> int:
        if column == "change":
            return -abs(one.after - one.before)
        return one.pid if column == "pid" else -int(getattr(one, column))

    return sorted(changes, key=lambda one: (key(one), one.pid))


def difference(found: Difference, changes: Sequence[ProcessChange], *, limit: int | None) -> list[str]:
    """The lines of ``rmap diff``.

    Args:
        changes: the processes, in the order to show.
        limit: show at most so many, None for all.
    """
    by = {state: sum(one.state == state for one in changes) for state in ("same", "new", "gone")}
    lines = wrap(
        f"mapped    {format_bytes(found.frames_before)} -> {format_bytes(found.frames_after)}, each frame once; "
        f"{plural(by['same'], 'process', 'processes')} changed, {by['new']} came, {by['gone']} went",
        rest=" " * 10,
    )
    shown = changes[:limit]
    if shown:
        header = ("PID", "COMMAND", "", "RSS", "CHANGE", "GAINED", "LOST", "REPLACED", "UNSHARED")
        lines += ["", *columns(header, [_cells(one) for one in shown], "><<>>>>>>")]
    if len(shown) < len(changes):
        lines.append(more(len(changes) - len(shown), "--all"))
    lines += _files(found.files, None if limit is None else _FILES)
    if changes:
        lines += ["", "UNSHARED  replaced pages that several mapped before, and this process alone now"]
    return lines


def _cells(one: ProcessChange) -> tuple[str, ...]:
    pages = [format_bytes(n) if n else "-" for n in (one.gained, one.lost, one.replaced, one.unshared)]
    mark = {"same": "", "new": "new", "gone": "gone"}[one.state]
    return (str(one.pid), one.comm[:_COMMAND], mark, format_bytes(one.after), signed(one.after - one.before), *pages)


def signed(size: int) -> str:
    """``+4.0 KiB``, ``-12.0 MiB``, ``0 B``."""
    return ("+" if size > 0 else "-" if size < 0 else "") + format_bytes(abs(size))


def _files(changes: Sequence[FileChange], limit: int | None) -> list[str]:
    if not changes:
        return []
    shown = changes[:limit]
    rows = [(signed(one.after - one.before), format_bytes(one.after)) for one in shown]
    table = columns(("MAPPED", "NOW"), rows, ">>")
    width = WIDTH - 2 - len(table[0])
    names = ["FILE", *(one.path if len(one.path) <= width else "..." + one.path[3 - width :] for one in shown)]
    lines = ["", *(f"{line}  {name}" for line, name in zip(table, names))]
    return lines + ([more(len(changes) - len(shown), "--all")] if len(shown) < len(changes) else [])
