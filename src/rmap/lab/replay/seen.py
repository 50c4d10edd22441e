"""What events have shown of an address space since the last picture: which pages took faults, which were there.

A replay holds it against a difference: only what no event can have shown may be put down to somebody else. What was
unmapped since is not accounted for.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.core import Core
from rmap.mm.frames import ANON
from rmap.mm.mm_types import TASK_SIZE, Mm
from rmap.mm.page_tables import spans
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.units import PAGE_SHIFT, page_align

NEVER = -1
AROUND = 16
"""Pages that a fault maps around it, itself included: 64 KiB, aligned, or from where its VMA begins (rule 4.10)."""


class Seen:
    """Of one mm. Moments are numbers of faults so far.

    Attributes:
        faults: of every fault since the last picture, or since the mm began, its page number times two, and one more if
            it was a write.
        freed: ranges that were given up with MADV_FREE: ``(start, end)`` in bytes.
        unmodelled: ranges that a call which the model does not have may have changed since, likewise.
    """

    def __init__(self) -> None:
        self.faults: list[int] = []
        self.freed: list[tuple[int, int]] = []
        self.unmodelled: list[tuple[int, int]] = []
        self._refused: list[tuple[int, int]] = []  # when, page number
        self._present: list[tuple[int, I64]] = []  # since when, page numbers
        self._gone: list[tuple[int, int, int]] = []  # since when, first page, page behind the last
        self._populated: list[tuple[int, int, int]] = []  # likewise
        self._written_from = 0  # faults before it were before the last fork
        self._own_from = 0  # faults before it were the parent's

    def child(self) -> Seen:
        """What a fork hands on: the child has what the parent had, and has written nothing yet."""
        inherited = Seen()
        inherited._present = list(self._present)
        inherited._gone = list(self._gone)
        inherited._populated = list(self._populated)
        inherited.faults = list(self.faults)
        inherited._written_from = inherited._own_from = len(self.faults)
        inherited.freed = list(self.freed)
        inherited.unmodelled = list(self.unmodelled)
        self._written_from = len(self.faults)
        return inherited

    # -- what happens ---------------------------------------------------------------------------------------------
    def fault(self, page: int, n: int, write: bool) -> None:
        """Faults of ``n`` pages, from a page number on."""
        first = page << 1 | write
        if n == 1:
            self.faults.append(first)
        else:
            self.faults.extend(range(first, first + 2 * n, 2))

    def refuse(self, page: int) -> None:
        """A fault that the model answers with a signal. The kernel may have done otherwise."""
        self._refused.append((len(self.faults), page))

    def populate(self, start: int, length: int) -> None:
        """The kernel itself made a range of bytes present, and what it maps around each page."""
        self._populated.append(self._range(start, length))

    def add_present(self, core: Core, mm: Mm, start: int, end: int) -> None:
        """The anonymous pages that the model has in a range are accounted for: exec or mremap brought them."""
        for piece in spans(core.tables, mm, start, end):
            offs = np.flatnonzero((piece.entries & TRACKED_MASK) == PRESENT)
            anon = (core.frames.flags[piece.entries[offs] >> PAGE_SHIFT] & ANON) != 0
            self._present.append((len(self.faults), (piece.addr >> PAGE_SHIFT) + offs[anon]))

    def move(self, start: int, result: int, length: int) -> None:
        """A range of bytes was moved: its faults since the last fork count where it is now."""
        recent = np.array(self.faults[self._own_from :], np.int64)
        if len(recent):
            before_fork = np.arange(len(recent)) + self._own_from < self._written_from
            first = start >> PAGE_SHIFT
            inside = (recent >> 1 >= first) & (recent >> 1 < first + (page_align(length) >> PAGE_SHIFT))
            # A write from before the fork made a page that is shared now: it is a fault, but no write since.
            recent[before_fork] &= ~1
            self.faults += (recent[inside] + ((result - start) >> PAGE_SHIFT << 1)).tolist()

    def forget(self, start: int, length: int) -> None:
        """A range of bytes was unmapped, mapped anew, or dropped."""
        self._gone.append(self._range(start, length))

    def not_modelled(self, start: int = 0, length: int = TASK_SIZE) -> None:
        """A call that the model does not have was made for a range of bytes."""
        self.unmodelled.append((start, start + page_align(length)))

    def restart(self, anonymous_pages: I64) -> None:
        """A picture was taken, and the model is equal to it: these are its anonymous pages."""
        self.faults = []
        self._refused = []
        self.unmodelled = []
        self._present = [(0, anonymous_pages)]
        self._gone, self._populated = [], []
        self._written_from = self._own_from = 0

    def _range(self, start: int, length: int) -> tuple[int, int, int]:
        return len(self.faults), start >> PAGE_SHIFT, (start + page_align(length)) >> PAGE_SHIFT

    # -- what is asked, by page number ----------------------------------------------------------------------------
    def present(self, pages: I64) -> Bool:
        """Which of these pages an earlier picture, or a write, accounts for."""
        since = self._gone_since(pages)
        accounted = self._last(pages, writes=True) >= np.maximum(since, 0)
        for moment, there in self._present:
            accounted |= np.isin(pages, there) & (moment >= since)
        return accounted

    def written(self, pages: I64) -> Bool:
        """Which of these pages took a write fault since the last picture and the last fork."""
        return self._last(pages, writes=True) >= np.maximum(self._gone_since(pages), self._written_from)

    def touched(self, pages: I64) -> Bool:
        """Which of these pages took a fault of this process's own."""
        return self._last(pages) >= np.maximum(self._gone_since(pages), self._own_from)

    def refused(self, pages: I64) -> Bool:
        """Which of these pages took a fault of this process's own that the model answered with a signal."""
        when, page = np.array(self._refused, np.int64).reshape(-1, 2).T
        at = np.argsort(page, kind="stable")
        distinct, last = np.unique(page[at][::-1], return_index=True)
        return _moments(distinct, when[at][::-1][last], pages) >= np.maximum(self._gone_since(pages), 0)

    def near(self, pages: I64, index: I64, order: I64) -> Bool:
        """Which of these pages a fault may have mapped around it: one less than 64 KiB away, or in the same folio.

        Args:
            index, order: the page's index and the order of its folio; 0 where there is none.
        """
        since = np.maximum(self._gone_since(pages), 0)
        faulted, moment = self._latest(writes=False)
        around = np.zeros(len(pages), np.bool_)
        for step in range(1 - AROUND, AROUND):
            around |= _moments(faulted, moment, pages + step) >= since
        for when, first, behind in self._populated:
            around |= (pages > first - AROUND) & (pages < behind + AROUND - 1) & (when >= since)
        for at in np.flatnonzero(~around & (order > 0)).tolist():
            first = int(pages[at]) - (int(index[at]) & ((1 << int(order[at])) - 1))
            inside = slice(*np.searchsorted(faulted, (first, first + (1 << int(order[at])))).tolist())
            around[at] = (moment[inside] >= since[at]).any()
        return around

    def given_up(self, pages: I64) -> Bool:
        """Which of these pages lie in a range of MADV_FREE."""
        return _in_ranges(pages << PAGE_SHIFT, self.freed)

    def untold(self, pages: I64) -> Bool:
        """Which of these pages lie in a range of a call that the model does not have."""
        return _in_ranges(pages << PAGE_SHIFT, self.unmodelled)

    def untold_area(self, start: int, end: int) -> bool:
        """Whether an area overlaps such a range, or touches it: what became of one may decide what merges beside it."""
        return any(start <= behind and end >= first for first, behind in self.unmodelled)

    def _gone_since(self, pages: I64) -> I64:
        # The moment when each page was last unmapped or dropped, NEVER for none.
        since = np.full(len(pages), NEVER, np.int64)
        if len(pages) and self._gone:
            gone = np.array(self._gone, np.int64)
            touched = (gone[:, 1] <= pages.max()) & (gone[:, 2] > pages.min())
            for moment, first, behind in gone[touched].tolist():
                since[(pages >= first) & (pages < behind)] = moment
        return since

    def _last(self, pages: I64, *, writes: bool = False) -> I64:
        # The moment of the last fault of each page, NEVER for none.
        return _moments(*self._latest(writes), pages)

    def _latest(self, writes: bool) -> tuple[I64, I64]:
        # Every page that took a fault, ascending, and when it took the last one.
        faults = np.array(self.faults, np.int64)
        moments = np.flatnonzero(faults & 1) if writes else np.arange(len(faults))
        distinct, newest = np.unique((faults[moments] >> 1)[::-1], return_index=True)
        return distinct, moments[::-1][newest]


def _moments(distinct: I64, moments: I64, pages: I64) -> I64:
    if not len(distinct):
        return np.full(len(pages), NEVER, np.int64)
    at = np.minimum(np.searchsorted(distinct, pages), len(distinct) - 1)
    of_pages: I64 = np.where(distinct[at] == pages, moments[at], NEVER)
    return of_pages


def _in_ranges(addrs: I64, ranges: list[tuple[int, int]]) -> Bool:
    inside = np.zeros(len(addrs), np.bool_)
    for start, end in ranges:
        inside |= (addrs >= start) & (addrs < end)
    return inside
