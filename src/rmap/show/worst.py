"""The worst sequence that was found, and the known one beside it."""

from __future__ import annotations

from collections.abc import Sequence

from rmap.lab.worst import WorstFound
from rmap.show.text import plural, wrap


def worst(found: WorstFound) -> list[str]:
    """The lines of ``rmap worst``."""
    lines = [f"WORST FOUND for {found.design}: {found.figure:,.2f} {found.counts}", *_script(found.sequence), ""]
    lines += [f"KNOWN ADVERSARY: {found.known_figure:,.2f}", *_script(found.known), ""]
    lines += wrap(_verdict(found))
    how = f"{plural(found.evaluations, 'sequence')} of up to {found.length} moves were tried, seed {found.seed}"
    lines += wrap(how + ("; ended early." if found.interrupted else "."))
    return lines


def _script(moves: Sequence[str]) -> list[str]:
    return [f"  {number:>2}  {move}" for number, move in enumerate(moves, 1)] or ["  nothing"]


def _verdict(found: WorstFound) -> str:
    if found.figure > 1.001 * found.known_figure:
        return "The search found something worse than what the design's critics knew."
    if found.figure >= 0.999 * found.known_figure:
        return "The search found what the design's critics knew."
    return "The search did not find what the design's critics knew: more seconds may."
