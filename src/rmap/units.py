"""Pages, bytes and numbers: the conventions of the whole project, and how they are read and written.

Addresses and PFNs are shown in hex, sizes with a unit, counts with thousands commas. Imports nothing, so
that ``rmap --help`` stays quick.
"""

from __future__ import annotations

import re

from rmap.errors import UsageError

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = ~(PAGE_SIZE - 1)
PMD_SHIFT = 21
PMD_SIZE = 1 << PMD_SHIFT
PTRS_PER_TABLE = 512

_UNITS = ("KiB", "MiB", "GiB", "TiB")
_SIZE = re.compile(r"(0x[0-9a-f]+|[0-9]+(?:\.[0-9]+)?)\s*(?:([kmgt])i?b?|b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smh])?")


def page_align(length: int) -> int:
    """Round a length in bytes up to whole pages."""
    return (length + PAGE_SIZE - 1) & PAGE_MASK


def format_bytes(n: int | float) -> str:
    """``0 B``, ``814 KiB``, ``54.0 MiB``: a size with its unit, three to four significant digits."""
    if n < 1024:
        return f"{n:.0f} B"
    size = float(n)
    for unit in _UNITS:
        size /= 1024
        if size < 9999.5 or unit == _UNITS[-1]:
            return f"{size:,.0f} {unit}" if size >= 99.95 else f"{size:.1f} {unit}"
    raise AssertionError("unreachable")


def format_count(n: int) -> str:
    """A count with thousands commas."""
    return f"{n:,}"


def parse_size(text: str) -> int:
    """Read a size in bytes: decimal or hex, with an optional K, M, G or T (powers of 1024).

    Raises:
        UsageError: the text is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a size: {text!r} (examples: 4096, 0x1000, 64K, 1.5G)")
    number, unit = match.groups()
    factor = 1 << (10 * ("kmgt".index(unit.lower()) + 1)) if unit else 1
    value = int(number, 16) * factor if number[:2].lower() == "0x" else float(number) * factor
    if value != int(value):
        raise UsageError(f"not a whole number of bytes: {text!r}")
    return int(value)


def parse_share(text: str) -> float:
    """Read a share of one: ``10%`` or ``0.1``.

    Raises:
        UsageError: not a number, or outside 0 to 1.
    """
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"not a share: {text!r} (examples: 10%, 0.1)") from None
    if not 0 <= share <= 1:
        raise UsageError(f"a share lies between 0 and 100%: {text!r}")
    return share


def parse_duration(text: str) -> float:
    """Read a time in seconds: ``90``, ``90s``, ``2m``, ``1.5h``.

    Raises:
        UsageError: the text is not a time above zero.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"] if match is not None else 0.0
    if not seconds:
        raise UsageError(f"not a time: {text!r} (examples: 90s, 2m, 1.5h)")
    return seconds
