"""Words and columns: the few shapes that every screen is made of.

Addresses and PFNs are in hex, sizes with their unit, counts with thousands commas; numbers stand right-aligned under
their heading. Width is counted in characters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rmap.units import format_count

WIDTH = 80
GAP = "  "


def hex_address(n: int) -> str:
    """An address, or a PFN: ``0x7f5a176cb000``."""
    return f"{n:#x}"


def whole_size(n: int) -> str:
    """The size of a page or folio in its largest whole unit: ``4 KiB``, ``2 MiB``."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if n and not n % (1 << shift):
            return f"{format_count(n >> shift)} {unit}"
    return f"{format_count(n)} B"


def plural(n: int, one: str, many: str = "") -> str:
    """A count with its noun: ``1 mapping``, ``2,304 mappings``."""
    return f"{format_count(n)} {one if n == 1 else many or one + 's'}"


def wrap(text: str, first: str = "", rest: str | None = None, *, width: int = WIDTH) -> list[str]:
    """Break a sentence into lines, the first behind ``first``, the others behind ``rest`` (as many spaces if None)."""
    rest = " " * len(first) if rest is None else rest
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [first.rstrip()]


def labelled(label: str, text: str, width: int = 10) -> list[str]:
    """A fact behind its name, wrapped under itself: ``mappings  found 4 of 4: complete``."""
    return wrap(text, f"{label:<{width}}")


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], align: str, indent: str = "") -> list[str]:
    """A table under its header.

    Args:
        header: the column names.
        rows: the cells, as text.
        align: one letter per column: ``<`` or ``>``.
        indent: stands before every line.
    """
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(align))]
    return [
        (indent + GAP.join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths))).rstrip()
        for row in table
    ]


def more(left_out: int, how: str) -> str:
    """The line that counts rows left out: ``... 46 more (--all)``."""
    return f"... {format_count(left_out)} more ({how})"
