"""Looking for pages by looking at entries, one after another: what is left where nothing says where a page may be.

Every entry passed is an entry checked, for each page that is still looked for: so much does a walk of one page pay, and
so much is counted for each page of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.costs import PTES_CHECKED, PTES_IN_VAIN
from rmap.mm.interface import Ptes, Query
from rmap.mm.pte import MIGRATION, PRESENT, SPECIAL
from rmap.units import PAGE_SHIFT


def maps_something(entries: I64) -> Bool:
    """Which entries name a frame that a reverse map tracks: bool[n]."""
    kind = entries & (PRESENT | SPECIAL | MIGRATION)
    mapped: Bool = ((kind & (PRESENT | SPECIAL)) == PRESENT) | ((kind & (PRESENT | MIGRATION)) == MIGRATION)
    return mapped


class EntryScan:
    """A scan for the pages of a query.

    Args:
        query: as a walk has it.
        positions: int64[m], which of its positions are looked for.
        nr_frames: how many frames there are.
        counters: entries looked at in vain are counted here; those that hit, by the walk.
    """

    def __init__(self, query: Query, positions: I64, nr_frames: int, counters: list[int]) -> None:
        self._query = query
        self._positions = positions
        self._counters = counters
        self._wanted: I64 = np.full(nr_frames, -1, np.int64)
        self._wanted[query.want[positions] >> PAGE_SHIFT] = positions

    @property
    def over(self) -> bool:
        """Whether every page has been found as often as it is mapped."""
        return self._query.asking_at(self._positions) == 0

    def look(self, entries: I64, pteps: I64) -> Iterator[Ptes]:
        """Look at entries in this order; those that map a page of the query are candidates, a page's first one first.

        Args:
            entries, pteps: int64[n]: the entries that map something, and where they are.
        """
        query = self._query
        asking = query.asking_at(self._positions)
        position = self._wanted[entries >> PAGE_SHIFT]
        at = np.flatnonzero(position >= 0)
        at = at[(entries[at] & query.mask) == query.want[position[at]]]
        position = position[at]
        times = _how_often_before(position)
        looked = asking * len(entries)
        if query.stop == "mapcount":
            left = query.left[position]
            within = times < left
            last = times + 1 == left
            looked -= int((len(entries) - 1 - at[last]).sum())
            at, position, times = at[within], position[within], times[within]
        in_vain = looked - len(at)
        self._counters[PTES_CHECKED] += in_vain
        self._counters[PTES_IN_VAIN] += in_vain
        for again in range(int(times.max()) + 1 if len(times) else 0):
            turn = times == again
            yield Ptes(position[turn], pteps[at[turn]])


def _how_often_before(values: I64) -> I64:
    # For each value, how often it came before.
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.searchsorted(ordered, ordered)
    times = np.empty(len(values), np.int64)
    times[order] = np.arange(len(values)) - first
    return times
