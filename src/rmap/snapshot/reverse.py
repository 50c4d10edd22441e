"""The reverse map of a picture: its PTE relation transposed, in compressed-sparse-row form.

Sorting the present entries by the dense number of their frame (:mod:`rmap.snapshot.numbering`) gives, for each frame,
the slice of entries that map it. This is the oracle of a picture: it comes from the page tables alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmap.columns import I32, I64, expand
from rmap.errors import LimitError
from rmap.snapshot.flags import PTE_PRESENT
from rmap.snapshot.numbering import Numbering
from rmap.snapshot.tables import Ptes
from rmap.units import PAGE_SHIFT

_MAX_ENTRIES = 1 << 31


class Entries(NamedTuple):
    """Entries found: for each, which of the asked frames (position in the query), its extent, and its address."""

    position: I64
    extent: I64
    address: I64


class Transposed:
    """All present entries, grouped by frame.

    Args:
        ptes: the table of one valid picture.
        numbering: of its frames.

    Attributes:
        nr_frames: described frames.
        nr_ptes: present entries.
        found: int64 column over dense frame numbers: how many entries map each frame.

    Raises:
        LimitError: 2^31 entries or more.
    """

    def __init__(self, ptes: Ptes, numbering: Numbering) -> None:
        self._ptes = ptes
        self._numbering = numbering
        self.nr_frames = numbering.nr_frames
        extents = np.flatnonzero(ptes.flags & PTE_PRESENT)
        count = ptes.count[extents].astype(np.int64)
        self.nr_ptes = int(count.sum())
        if self.nr_ptes >= _MAX_ENTRIES:
            raise LimitError(f"a picture may hold up to 2^31 present entries, this one has {self.nr_ptes:,}")
        dense = expand(self.dense(ptes.pfn[extents]), count)
        self.found: I64 = np.bincount(dense, minlength=self.nr_frames).astype(np.int64)
        self._start: I64 = np.concatenate(([0], np.cumsum(self.found)))
        # One sort of unique numbers is several times faster than a stable argsort, and gives the same order.
        dense *= max(self.nr_ptes, 1)
        dense += np.arange(self.nr_ptes)
        dense.sort()
        entry = dense % max(self.nr_ptes, 1)
        self._extent: I32 = np.repeat(extents.astype(np.int32), count)[entry]
        within = np.arange(self.nr_ptes) - np.repeat(np.cumsum(count) - count, count)
        self._page: I32 = within.astype(np.int32)[entry]

    def dense(self, pfns: I64) -> I64:
        """Dense numbers of frames, -1 where the picture does not describe one."""
        return self._numbering.dense(pfns)

    def entries(self, pfns: I64) -> Entries:
        """Every present entry of these frames, in the order asked, then by process and address."""
        dense = self.dense(pfns)
        position = np.flatnonzero(dense >= 0)
        known = dense[position]
        count = self.found[known]
        position, known, count = position[count > 0], known[count > 0], count[count > 0]
        entry = expand(self._start[known], count)
        extent = self._extent[entry].astype(np.int64)
        address = self._ptes.address[extent] + (self._page[entry].astype(np.int64) << PAGE_SHIFT)
        return Entries(np.repeat(position, count), extent, address)
