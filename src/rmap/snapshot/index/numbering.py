"""Dense numbers for the frames of a picture: a frame's position when all runs are laid out in order.

Frame numbers have holes; a column over frames has none. An extent of page-table entries is contiguous in frames, and so
in dense numbers, too, because a picture describes every frame that it maps.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I32, I64, expand

_MAX_TABLE = 1 << 24  # frames from the first to the last, 64 GiB: a table of 64 MiB


class Numbering:
    """The dense numbers of the frames that some runs describe.

    Args:
        pfn, count: the runs, ascending and disjoint: columns of ``frames``.

    Attributes:
        nr_frames: described frames.
    """

    def __init__(self, pfn: I64, count: I32 | I64) -> None:
        self._pfn, self._count = pfn, count.astype(np.int64)
        self._base: I64 = np.cumsum(self._count) - self._count
        self.nr_frames = int(self._count.sum())
        self._first = int(pfn[0]) if len(pfn) else 0
        self._numbers = self._numbered()

    def dense(self, pfns: I64) -> I64:
        """Dense numbers of frames, -1 where the picture does not describe one."""
        if not len(self._pfn):
            return np.full(len(pfns), -1, np.int64)
        if self._numbers is not None:
            return self._numbers.take(pfns - (self._first - 1), mode="clip").astype(np.int64)
        row = np.searchsorted(self._pfn, pfns, side="right") - 1
        offset = pfns - self._pfn[row]
        return np.where((row >= 0) & (offset < self._count[row]), self._base[row] + offset, -1)

    def _numbered(self) -> I32 | None:
        # The dense number of every frame from the first to the last, between two -1 for all that lies beyond, where
        # that is not too much memory: looking up a frame there takes a tenth of the time that a search takes.
        if not len(self._pfn):
            return None
        span = int(self._pfn[-1]) + int(self._count[-1]) - self._first
        if span > _MAX_TABLE:
            return None
        numbers: I32 = np.full(span + 2, -1, np.int32)
        numbers[expand(self._pfn - (self._first - 1), self._count)] = np.arange(self.nr_frames, dtype=np.int32)
        return numbers
