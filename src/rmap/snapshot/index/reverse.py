"""The reverse map of a picture: its PTE relation transposed, in compressed-sparse-row form.

An extent of entries maps a run of dense frame numbers (:mod:`.numbering`). Cut where any extent begins or
ends, the frames fall into *segments*, all frames of which are mapped by the same extents; sorting the pairs of segment
and extent gives, for each frame, the slice of extents that map it. A forked family has its extents in the same places,
so that there are about as many pairs as extents; there are never more than entries. This is the oracle of a picture: it
comes from the page tables alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmap.columns import I32, I64, expand
from rmap.errors import LimitError
from rmap.snapshot.index.coverage import Mapped
from rmap.snapshot.index.numbering import Numbering
from rmap.snapshot.tables import PteTable
from rmap.units import PAGE_SHIFT

_MAX_ENTRIES = 1 << 31
_EXTENT_BITS = 31


class ReverseEntries(NamedTuple):
    """Entries found: for each, which of the asked frames (position in the query), its extent, and its address."""

    position: I64
    extent: I64
    address: I64


class Transposed:
    """All present entries, grouped by frame.

    Args:
        ptes: the table of one valid picture.
        mapped: its present extents.
        numbering: of its frames.

    Attributes:
        nr_frames: described frames.
        nr_ptes: present entries.
        found: int64 column over dense frame numbers: how many entries map each frame.

    Raises:
        LimitError: 2^31 entries or more.
    """

    def __init__(self, ptes: PteTable, mapped: Mapped, numbering: Numbering) -> None:
        self._ptes = ptes
        self._numbering = numbering
        self.nr_frames = numbering.nr_frames
        extents, first, behind = mapped
        self.nr_ptes = int((behind - first).sum())
        if self.nr_ptes >= _MAX_ENTRIES:
            raise LimitError(f"a picture may hold up to 2^31 present entries, this one has {self.nr_ptes:,}")
        self._first = np.zeros(len(ptes), np.int64)
        self._first[extents] = first
        cut = np.zeros(self.nr_frames + 1, np.bool_)
        cut[first] = cut[behind] = True
        self._segment: I32 = np.cumsum(cut[:-1], dtype=np.int32)
        segment = self._segment[first].astype(np.int64)
        segments = self._segment[behind - 1] - segment + 1
        # Segment and extent as one number: sorting these is the transposition, and moves nothing else.
        pairs = _rising(segment << _EXTENT_BITS | extents, segments, 1 << _EXTENT_BITS)
        pairs.sort()
        mappers = np.bincount(pairs >> _EXTENT_BITS, minlength=int(self._segment.max(initial=-1)) + 1)
        self._start: I64 = np.cumsum(mappers) - mappers
        pairs &= (1 << _EXTENT_BITS) - 1
        self._extent: I32 = pairs.astype(np.int32)
        self.found: I64 = mappers[self._segment]

    def entries(self, pfns: I64) -> ReverseEntries:
        """Every present entry of these frames, in the order asked, then by process and address."""
        dense = self._numbering.dense(pfns)
        position = np.flatnonzero(dense >= 0)
        frame = dense[position]
        count = self.found[frame]
        position, frame, count = position[count > 0], frame[count > 0], count[count > 0]
        at = expand(self._start[self._segment[frame]], count)
        extent = self._extent[at].astype(np.int64)
        page = np.repeat(frame, count) - self._first[extent]
        address = self._ptes.address[extent] + (page << PAGE_SHIFT)
        return ReverseEntries(np.repeat(position, count), extent, address)


def _rising(first: I64, count: I64, step: int) -> I64:
    # For each run its first number and those that follow it by a step; int64, one array from end to end.
    total = int(count.sum())
    if not total:
        return np.empty(0, np.int64)
    numbers = np.full(total, step, np.int64)
    numbers[0] = first[0]
    numbers[np.cumsum(count)[:-1]] = first[1:] - first[:-1] - (count[:-1] - 1) * step
    return np.cumsum(numbers, out=numbers)
