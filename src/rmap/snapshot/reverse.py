"""The reverse map of a picture: its PTE relation transposed, in compressed-sparse-row form.

Every frame of the picture has a dense number (its position when all runs are laid out in order). Sorting the present
entries by that number gives, for each frame, the slice of entries that map it. This is the oracle of a picture: it
comes from the page tables alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmap.columns import I32, I64, expand
from rmap.errors import LimitError
from rmap.snapshot.flags import PTE_PRESENT
from rmap.snapshot.tables import Frames, Ptes
from rmap.units import PAGE_SHIFT

_MAX_ENTRIES = 1 << 31
_MAX_TABLE = 1 << 24  # frames from the first to the last, 64 GiB: a table of 64 MiB


class Entries(NamedTuple):
    """Entries found: for each, which of the asked frames (position in the query), its extent, and its address."""

    position: I64
    extent: I64
    address: I64


class Transposed:
    """All present entries, grouped by frame.

    Args:
        ptes, frames: the tables of one valid picture.

    Attributes:
        nr_frames: described frames.
        nr_ptes: present entries.
        found: int64 column over dense frame numbers: how many entries map each frame.

    Raises:
        LimitError: 2^31 entries or more.
    """

    def __init__(self, ptes: Ptes, frames: Frames) -> None:
        self._ptes = ptes
        self._frames = frames
        self._base: I64 = np.cumsum(frames.count, dtype=np.int64) - frames.count
        self.nr_frames = int(frames.count.sum(dtype=np.int64))
        self._first = int(frames.pfn[0]) if len(frames) else 0
        self._numbers = self._numbered()
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
        frames = self._frames
        if not len(frames):
            return np.full(len(pfns), -1, np.int64)
        if self._numbers is not None:
            at = pfns - self._first
            inside = (at >= 0) & (at < len(self._numbers))
            return np.where(inside, self._numbers[np.where(inside, at, 0)], -1)
        row = np.searchsorted(frames.pfn, pfns, side="right") - 1
        offset = pfns - frames.pfn[row]
        return np.where((row >= 0) & (offset < frames.count[row]), self._base[row] + offset, -1)

    # The dense number of every frame from the first to the last, where that is not too much memory: looking up a frame
    # there takes a tenth of the time that a search takes.
    def _numbered(self) -> I32 | None:
        frames = self._frames
        if not len(frames):
            return None
        span = int(frames.pfn[-1]) + int(frames.count[-1]) - self._first
        if span > _MAX_TABLE:
            return None
        numbers: I32 = np.full(span, -1, np.int32)
        count = frames.count.astype(np.int64)
        numbers[expand(frames.pfn - self._first, count)] = np.arange(self.nr_frames, dtype=np.int32)
        return numbers

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
