"""Processes and what they have in memory: a table, or the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import columns, more
from rmap.units import format_bytes, format_count

if TYPE_CHECKING:
    from rmap.snapshot.questions.usage import ProcessUsage

_SIZES = {"rss": "RSS", "pss": "PSS", "uss": "USS", "swap": "SWAP", "page_tables": "TABLES"}
_FIELDS = {"command": "comm", "tables": "page_tables", "shares": "shared_with"}
_HELP = {
    "rss": "Resident memory, shared pages counted in full",
    "pss": "Resident memory, each process counted for its part of a shared page",
    "uss": "Resident memory that no other process maps",
    "swap": "Entries that name a slot of swap",
    "page_tables": "Memory of the page tables",
}
_COMMAND_WIDTH = 15


def sorted_rows(rows: Sequence[ProcessUsage], column: str) -> list[ProcessUsage]:
    """By a column as the user types it: sizes and counts descending, pid and command ascending; then by pid."""
    name = _FIELDS.get(column, column)
    if name in ("pid", "comm"):
        return sorted(rows, key=lambda row: (getattr(row, name), row.pid))
    return sorted(rows, key=lambda row: (-(getattr(row, name) or 0), row.pid))


def ps(rows: Sequence[ProcessUsage], *, limit: int | None) -> list[str]:
    """The table.

    Args:
        limit: show at most so many rows, None for all; what is left out is counted.
    """
    shown = rows[:limit]
    sharing = any(row.shared_with is not None for row in rows)
    header = ("PID", "COMMAND", *_SIZES.values(), *(["SHARES"] if sharing else []))
    cells = [
        (
            str(row.pid),
            row.comm[:_COMMAND_WIDTH],
            *("?" if getattr(row, name) is None else format_bytes(getattr(row, name)) for name in _SIZES),
            *([format_count(row.shared_with or 0)] if sharing else []),
        )
        for row in shown
    ]
    lines = columns(header, cells, "><" + ">" * (len(header) - 2))
    if len(shown) < len(rows):
        lines.append(more(len(rows) - len(shown), "--all"))
    total = sum(row.pss for row in rows)
    return [*lines, "", f"{format_count(len(rows))} processes, together {format_bytes(total)} of PSS"]


def prometheus(rows: Sequence[ProcessUsage]) -> list[str]:
    """The text format of Prometheus, for its node exporter's textfile collector; every row, sizes in bytes."""
    lines = []
    for name, text in _HELP.items():
        metric = f"rmap_process_{name}_bytes"
        lines += [f"# HELP {metric} {text}.", f"# TYPE {metric} gauge"]
        for row in rows:
            value = getattr(row, name)
            if value is not None:
                lines.append(f'{metric}{{pid="{row.pid}",comm="{_escaped(row.comm)}"}} {value}')
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
