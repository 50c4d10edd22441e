"""The answer of a query, as a table that fits the terminal; and what there is to ask."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rmap.show.text import GAP, hex_address, more, plural, wrap
from rmap.units import format_count

if TYPE_CHECKING:
    from rmap.snapshot.export.sql import TableOf

HEX = ("address", "pfn", "start", "end", "vma_start", "vma_end")
"""Columns of these names are addresses and frames, and shown in hex; ``--json``, ``--jsonl`` and ``--csv`` do not."""

_NARROWEST = 8
_CUT = "..."


def table(
    names: Sequence[str], rows: Sequence[Sequence[Any]], *, total: int | None, width: int, shown_all: str = "--all"
) -> list[str]:
    """The rows under their names; one below the other where they cannot stand side by side.

    Args:
        names: of the columns.
        rows: those that are shown.
        total: how many there are, None if there are more and nobody counted them.
        width: of the terminal, characters.
        shown_all: how the others are to be had.
    """
    if not names:
        return ["done: nothing to show"]
    cells = [[_text(name, value) for name, value in zip(names, row)] for row in rows]
    widths = _fitting(names, cells, width)
    lines = _blocks(names, cells, width) if widths is None else _side_by_side(names, cells, rows, widths)
    if widths is not None and any(len(cell) > wide for row in cells for cell, wide in zip(row, widths)):
        lines.append(f"cells that end in {_CUT} are cut: --csv or --json has them whole")
    if total is None:
        return [*lines, f"... more than {plural(len(rows), 'row')} ({shown_all})"]
    if total > len(rows):
        return [*lines, more(total - len(rows), shown_all)]
    return [*lines, f"({plural(total, 'row')})"]


def contents(tables: Sequence[TableOf], functions: Mapping[str, str], examples: Sequence[tuple[str, str]]) -> list[str]:
    """Every table with its columns, the functions, and queries to begin with."""
    lines = []
    for one in tables:
        lines.append(f"{one.name}  ({plural(one.rows, 'row')})")
        listing = ", ".join(f"{name} {kind.lower()}" for name, kind in one.columns)
        lines += wrap(listing, "    ")
    lines += ["", "The id of a row is what other tables name it by; -1 is none."]
    lines += ["", "functions"]
    lines += [f"    {name:<18}{what}" for name, what in functions.items()]
    lines += ["", "examples"]
    for what, query in examples:
        lines += [f"    {what}", *(f"      {line}" for line in textwrap.wrap(query, 72, break_long_words=False))]
    return lines


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return hex_address(value) if name in HEX and value >= 0 else format_count(value)
    if isinstance(value, float):
        return f"{value:,.6g}"
    return " ".join(str(value).split("\n"))


def _fitting(names: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int] | None:
    # The width of each column, the widest cut until all fit; None if that would leave too little of them.
    wide = [max([len(name), *(len(row[at]) for row in cells)]) for at, name in enumerate(names)]
    room = width - len(GAP) * (len(names) - 1)
    while sum(wide) > room:
        widest = max(wide)
        if widest <= _NARROWEST:
            return None
        below = max([n for n in wide if n < widest], default=0)
        at = [i for i, n in enumerate(wide) if n == widest]
        step = max(1, min(widest - max(below, _NARROWEST), -(-(sum(wide) - room) // len(at))))
        for i in at:
            wide[i] -= step
    return wide


def _side_by_side(
    names: Sequence[str], cells: Sequence[Sequence[str]], rows: Sequence[Sequence[Any]], widths: Sequence[int]
) -> list[str]:
    right = [
        all(isinstance(row[at], int | float) and not isinstance(row[at], bool) for row in rows if row[at] is not None)
        and any(row[at] is not None for row in rows)
        for at in range(len(names))
    ]
    lines = []
    for row in [list(names), *cells]:
        fields = [_cut(cell, wide) for cell, wide in zip(row, widths)]
        lines.append(GAP.join(f"{x:>{w}}" if r else f"{x:<{w}}" for x, w, r in zip(fields, widths, right)).rstrip())
    return lines


def _blocks(names: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[str]:
    # Each row as a block: a line for each column.
    label = min(max(map(len, names)), width // 2)
    lines = []
    for number, row in enumerate(cells, 1):
        lines.append(f"-- {number}")
        for name, cell in zip(names, row):
            lines += wrap(cell, f"{_cut(name, label):<{label}}  ", width=width)
    return lines


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - len(_CUT)] + _CUT
