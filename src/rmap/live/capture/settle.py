"""Telling a race from a finding: what contradicts itself is read again.

The machine runs on while it is read, and two sources are never of one moment. So a contradiction is no finding yet. It
is read again: what is gone then was a race; what is there each time is a finding. Here stands how often, and what "each
time" means. No NumPy: one page is looked up without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from rmap.columns import I64, Bool

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

AGAIN = 3
"""How often what looks wrong is read again, before it is believed. A look-up of one page is made so often in all."""


def read_until(read: Callable[[], T], is_settled: Callable[[T], bool], *, readings: int, pause: float = 0.0) -> T:
    """Read until a reading does not contradict itself; the last one.

    Args:
        read: read once.
        is_settled: whether a reading can be believed.
        readings: how often at most.
        pause: seconds between two.
    """
    reading = read()
    for _ in range(readings - 1):
        if is_settled(reading):
            break
        if pause:
            time.sleep(pause)
        reading = read()
    return reading


def settle_rows(
    suspect: I64,
    changed: Callable[[I64], Bool],
    raced: Callable[[I64], None] = lambda rows: None,
    *,
    readings: int = AGAIN,
) -> I64:
    """Read rows that contradict themselves again, until none is left that does so.

    Args:
        suspect: int64, the rows.
        changed: which of some rows are not any more what they were, or contradict themselves no more; bool.
        raced: called with the rows that changed: they are of two moments.
        readings: how often at most.

    Returns:
        int64: the rows that contradict themselves each time.
    """
    for _ in range(readings):
        if not len(suspect):
            break
        gone = changed(suspect)
        raced(suspect[gone])
        suspect = suspect[~gone]
    return suspect


class Recurring(Generic[K, T]):
    """Differences that were there in every reading so far.

    Args:
        first: those of the first reading, by what identifies each.
        same: whether a difference that is there again is so in every word.

    Attributes:
        there: those that were there each time, as the first reading had them.
        moved: of these, which said something else once: there each time, but never the same.
    """

    def __init__(self, first: Mapping[K, T], same: Callable[[T, T], bool]) -> None:
        self.there = dict(first)
        self.moved: set[K] = set()
        self._same = same

    def read(self, now: Mapping[K, T]) -> None:
        """One more reading."""
        self.there = {key: one for key, one in self.there.items() if key in now}
        self.moved |= {key for key, one in self.there.items() if not self._same(one, now[key])}
