"""Which extents cover a frame, without looking at entries one by one.

An extent covers the dense numbers ``[first, behind)``. What all extents that cover a frame add up to is the running sum
of steps: up where one begins, down where it ends. And to find the extents that cover a few frames, each extent is asked
which of them it holds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmap.columns import I64, expand
from rmap.snapshot.flags import PTE_PRESENT
from rmap.snapshot.index.numbering import Numbering
from rmap.snapshot.tables import PteTable


class Mapped(NamedTuple):
    """The present extents: their rows in ``ptes``, and the dense numbers ``[first, behind)`` that each maps; int64."""

    extent: I64
    first: I64
    behind: I64

    def within(self, low: int, high: int) -> Mapped:
        """Those among the rows ``low`` to ``high - 1`` of ``ptes``."""
        rows = slice(*np.searchsorted(self.extent, (low, high)))
        return Mapped(self.extent[rows], self.first[rows], self.behind[rows])


def mapped(ptes: PteTable, numbering: Numbering) -> Mapped:
    """Where the present extents of a picture lie among its frames; -1 is the place of a frame that is not described."""
    extent = np.flatnonzero(ptes.flags & PTE_PRESENT)
    first = numbering.dense(ptes.pfn[extent])
    return Mapped(extent, first, first + ptes.count[extent])


def covered(first: I64, behind: I64, weight: I64, n: int) -> I64:
    """What the weights of all extents that cover each of n numbers add up to; int64[n], modulo 2^64."""
    steps = np.zeros(n + 1, np.int64)
    np.add.at(steps, first, weight)
    np.subtract.at(steps, behind, weight)
    return np.cumsum(steps[:-1])


def covering(numbers: I64, first: I64, behind: I64) -> tuple[I64, I64]:
    """Every pair of a number and an extent that covers it.

    Args:
        numbers: int64, dense numbers in any order; -1 is covered by none.

    Returns:
        ``(position, extent)``: places in ``numbers`` and in ``first``; sorted by extent, then by number.
    """
    order = np.argsort(numbers, kind="stable")
    # How many of the numbers lie before each number there is.
    before = np.cumsum(np.bincount(numbers + 1, minlength=int(behind.max(initial=0)) + 1))
    low, high = before[first], before[behind]
    held = np.flatnonzero(high > low)
    count = (high - low)[held]
    return order[expand(low[held], count)], np.repeat(held, count)
