"""What events have shown of an address space since the last picture: which pages were written, which were there.

A replay holds it against a difference: a page that the kernel has and the model has not, and that no fault and no
earlier picture accounts for, was made by an access that no event shows.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.core import Core
from rmap.mm.frames import ANON
from rmap.mm.mm_struct import Mm
from rmap.mm.page_tables import spans
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.units import PAGE_SHIFT


class Seen:
    """Of one mm.

    Attributes:
        writes: page numbers of write faults since the last picture, or since the mm began.
        freed: ranges that were given up with MADV_FREE: ``(start, end)`` in bytes.
        unmodelled: a call that the model does not have was made since.
    """

    def __init__(self, present: tuple[I64, ...] = ()) -> None:
        self.writes: list[int] = []
        self.freed: list[tuple[int, int]] = []
        self.unmodelled = False
        self._present = list(present)

    def child(self) -> Seen:
        """What a fork hands on: the child has what the parent had."""
        if self.writes:
            # From now on these are pages that were there, for both.
            self._present.append(np.array(self.writes, np.int64))
        inherited = Seen(tuple(self._present))
        inherited.freed = list(self.freed)
        inherited.unmodelled = self.unmodelled
        return inherited

    def add_present(self, core: Core, mm: Mm, start: int, end: int) -> None:
        """The anonymous pages that the model has in a range are accounted for: exec or mremap brought them."""
        for piece in spans(core.tables, mm, start, end):
            offs = np.flatnonzero((piece.entries & TRACKED_MASK) == PRESENT)
            anon = (core.frames.flags[piece.entries[offs] >> PAGE_SHIFT] & ANON) != 0
            self._present.append((piece.addr >> PAGE_SHIFT) + offs[anon])

    def present(self, pages: I64) -> Bool:
        """Which of these page numbers an earlier picture, or a write, accounts for."""
        known = [*self._present, np.array(self.writes, np.int64)]
        found: Bool = np.isin(pages, np.concatenate(known))
        return found

    def written(self, pages: I64) -> Bool:
        """Which of these page numbers took a write fault since the last picture."""
        found: Bool = np.isin(pages, np.array(self.writes, np.int64))
        return found

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
        self._present = [anonymous_pages]
