"""The answer of a query as a table that fits, or as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any

from rmap.show.text import WIDTH, columns, plural, wrap

if TYPE_CHECKING:
    from rmap.snapshot.sql import Answer

_ADDRESSES = ("address", "pfn", "vma_start", "vma_end", "start", "end")


def tables(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Tables and their columns."""
    width = max(map(len, found)) + 2
    return [line for name, names in found.items() for line in wrap(", ".join(names), f"{name:<{width}}")]


def answer(told: Answer) -> list[str]:
    """A table; texts are cut where it would not fit."""
    if not told.columns:
        return ["done"]
    numbers = [all(isinstance(value, (int, float, NoneType)) for value in column) for column in zip(*told.rows)]
    numbers = numbers or [False] * len(told.columns)
    cells = [tuple(_cell(name, value) for name, value in zip(told.columns, row)) for row in told.rows]
    room = _room(told.columns, cells, numbers)
    cut = [tuple(text if len(text) <= room else "..." + text[3 - room :] for text in row) for row in cells]
    align = "".join(">" if number else "<" for number in numbers)
    return [*columns(told.columns, cut, align), "", plural(len(told.rows), "row")]


# How wide a cell may be, so that the whole line fits; at least 12.
def _room(names: Sequence[str], cells: Sequence[Sequence[str]], numbers: Sequence[bool]) -> int:
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(names)]
    fixed = sum(width for width, number in zip(widths, numbers) if number) + 2 * (len(names) - 1)
    texts = sum(not number for number in numbers)
    return max(12, (WIDTH - fixed) // texts) if texts else WIDTH


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool) and name in _ADDRESSES:
        return f"{value:#x}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def comma_separated(told: Answer) -> str:
    """Comma-separated values (RFC 4180), numbers as they are."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(told.columns)
    writer.writerows(told.rows)
    return text.getvalue()
