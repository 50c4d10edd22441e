"""The worst sequence that was found, and the known one beside it."""

from __future__ import annotations

from collections.abc import Sequence

from rmap.lab.worst import WorstFound
from rmap.show.text import plural, wrap


def worst(result: WorstFound) -> list[str]:
    """The lines of ``rmap worst``."""
    lines = [f"WORST FOUND for {result.design}: {result.figure:,.2f} {result.counts}", *_script(result.sequence), ""]
    lines += [f"KNOWN ADVERSARY: {result.known_figure:,.2f}", *_script(result.known), ""]
    lines += wrap(_verdict(result))
    how = f"{plural(result.evaluations, 'sequence')} of up to {result.length} moves were tried, seed {result.seed}"
    lines += wrap(how + ("; ended early." if result.interrupted else "."))
    return lines


def _script(moves: Sequence[str]) -> list[str]:
    return [f"  {number:>2}  {move}" for number, move in enumerate(moves, 1)] or ["  nothing"]


def _verdict(result: WorstFound) -> str:
    if result.figure > 1.001 * result.known_figure:
        return "The search found something worse than what the design's critics knew."
    if result.figure >= 0.999 * result.known_figure:
        return "The search found what the design's critics knew."
    return "The search did not find what the design's critics knew: more seconds may."
