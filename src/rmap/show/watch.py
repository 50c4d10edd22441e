"""A family, round by round: a line each; at the end, which areas were unshared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import columns, more, plural
from rmap.units import PAGE_SIZE, format_bytes, format_count

if TYPE_CHECKING:
    from rmap.live.watch import Round

_AREAS = 10
_WIDTHS = (7, 6, 10, 10, 10, 9, 8, 8)
_HEADER = ("TIME", "PROCS", "SHARED", "PRIVATE", "UNSHARED", "PAGES/S", "LEFT", "GONE")


def header() -> str:
    """The heading of the rounds."""
    return "".join(f"{word:>{width}}" for word, width in zip(_HEADER, _WIDTHS))


def line(one: Round, since: float) -> str:
    """One round.

    Args:
        since: seconds since the round before.
    """
    cells = (
        f"{one.at:.1f} s",
        format_count(one.processes),
        format_bytes(one.shared * PAGE_SIZE),
        format_bytes(one.private * PAGE_SIZE),
        format_bytes(one.unshared * PAGE_SIZE),
        f"{one.unshared / since:,.0f}" if since else "-",
        format_count(one.left),
        format_count(one.gone),
    )
    text = "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS))
    return text + (f"  +{len(one.came)}" if one.came else "") + (f"  -{len(one.went)}" if one.went else "")


def summary(rounds: Sequence[Round]) -> list[str]:
    """What happened over all rounds, and where."""
    first, last = rounds[0], rounds[-1]
    unshared = sum(one.unshared for one in rounds)
    seconds = last.at - first.at
    rate = f", {unshared / seconds:,.0f} pages/s" if seconds else ""
    lines = [
        "",
        f"unshared  {format_bytes(unshared * PAGE_SIZE)} in {seconds:.1f} s{rate}, by copies on writing",
        f"shared    {format_bytes(first.shared * PAGE_SIZE)} -> {format_bytes(last.shared * PAGE_SIZE)}, by entries",
        f"cost      {sum(one.seconds for one in rounds) / len(rounds):.3f} s to read each of "
        f"{plural(len(rounds), 'round')}",
    ]
    areas: dict[str, int] = {}
    for one in rounds:
        for name, pages in one.by_area.items():
            areas[name] = areas.get(name, 0) + pages
    if areas:
        ordered = sorted(areas.items(), key=lambda pair: (-pair[1], pair[0]))
        rows = [(format_bytes(pages * PAGE_SIZE), name) for name, pages in ordered[:_AREAS]]
        lines += ["", *columns(("UNSHARED", "AREA"), rows, "><")]
        if len(ordered) > _AREAS:
            lines.append(more(len(ordered) - _AREAS, "--json"))
    return lines
