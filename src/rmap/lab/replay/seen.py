"""What events have shown of an address space since the last picture: which pages were written, which were there.

A replay holds it against a difference: a page that the kernel has and the model has not, and that no fault and no
earlier picture accounts for, was made by an access that no event shows. What was unmapped since is not accounted for.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.core import Core
from rmap.mm.frames import ANON
from rmap.mm.mm_struct import Mm
from rmap.mm.page_tables import spans
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.units import PAGE_SHIFT, page_align

NEVER = -1


class Seen:
    """Of one mm. Moments are numbers of write faults so far.

    Attributes:
        writes: page numbers of write faults since the last picture, or since the mm began.
        freed: ranges that were given up with MADV_FREE: ``(start, end)`` in bytes.
        unmodelled: a call that the model does not have was made since.
    """

    def __init__(self) -> None:
        self.writes: list[int] = []
        self.freed: list[tuple[int, int]] = []
        self.unmodelled = False
        self._present: list[tuple[int, I64]] = []  # since when, page numbers
        self._gone: list[tuple[int, int, int]] = []  # since when, first page, page behind the last
        self._written_from = 0

    def child(self) -> Seen:
        """What a fork hands on: the child has what the parent had, and has written nothing yet."""
        inherited = Seen()
        inherited._present = list(self._present)
        inherited._gone = list(self._gone)
        inherited.writes = list(self.writes)
        inherited._written_from = len(self.writes)
        inherited.freed = list(self.freed)
        inherited.unmodelled = self.unmodelled
        self._written_from = len(self.writes)
        return inherited

    def add_present(self, core: Core, mm: Mm, start: int, end: int) -> None:
        """The anonymous pages that the model has in a range are accounted for: exec or mremap brought them."""
        for piece in spans(core.tables, mm, start, end):
            offs = np.flatnonzero((piece.entries & TRACKED_MASK) == PRESENT)
            anon = (core.frames.flags[piece.entries[offs] >> PAGE_SHIFT] & ANON) != 0
            self._present.append((len(self.writes), (piece.addr >> PAGE_SHIFT) + offs[anon]))

    def forget(self, start: int, length: int) -> None:
        """A range of bytes was unmapped, mapped anew, or dropped."""
        self._gone.append((len(self.writes), start >> PAGE_SHIFT, (start + page_align(length)) >> PAGE_SHIFT))

    def present(self, pages: I64) -> Bool:
        """Which of these page numbers an earlier picture, or a write, accounts for."""
        since = self._gone_since(pages)
        found = self._last_write(pages) >= np.maximum(since, 0)
        for moment, known in self._present:
            found |= np.isin(pages, known) & (moment >= since)
        return found

    def written(self, pages: I64) -> Bool:
        """Which of these page numbers took a write fault since the last picture and the last fork."""
        return self._last_write(pages) >= np.maximum(self._gone_since(pages), self._written_from)

    def given_up(self, addrs: I64) -> Bool:
        """Which of these addresses lie in a range of MADV_FREE."""
        found = np.zeros(len(addrs), np.bool_)
        for start, end in self.freed:
            found |= (addrs >= start) & (addrs < end)
        return found

    def restart(self, anonymous_pages: I64) -> None:
        """A picture was taken, and the model is equal to it: these are its anonymous pages."""
        self.writes = []
        self.unmodelled = False
        self._present = [(0, anonymous_pages)]
        self._gone = []
        self._written_from = 0

    def _gone_since(self, pages: I64) -> I64:
        # The moment when each page was last unmapped or dropped, NEVER for none.
        since = np.full(len(pages), NEVER, np.int64)
        if len(pages) and self._gone:
            gone = np.array(self._gone, np.int64)
            touched = (gone[:, 1] <= pages.max()) & (gone[:, 2] > pages.min())
            for moment, first, behind in gone[touched].tolist():
                since[(pages >= first) & (pages < behind)] = moment
        return since

    def _last_write(self, pages: I64) -> I64:
        # The moment of the last write to each page, NEVER for none.
        last = np.full(len(pages), NEVER, np.int64)
        if self.writes:
            newest_first = np.array(self.writes[::-1], np.int64)
            distinct, first = np.unique(newest_first, return_index=True)
            at = np.minimum(np.searchsorted(distinct, pages), len(distinct) - 1)
            last = np.where(distinct[at] == pages, len(self.writes) - 1 - first[at], NEVER)
        return last
