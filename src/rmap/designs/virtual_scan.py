"""No reverse map: Linux 2.4, and 2.5 until July 2002 (``mm/vmscan.c``, ``swap_out``).

Nothing says where a page is mapped. Memory is freed by going round the page tables: a hand points at an mm, and each mm
remembers the address where the scan of it stopped. Entry by entry, what was used since the last visit is marked old,
and what was not is unmapped; a page is free when the last of its entries has gone, each on a visit of its own.
:meth:`VirtualScan.swap_out` is that hand; :mod:`rmap.consumers.swap_out` is who turns it.

So a fault, a fork and an exit cost nothing, and not a byte is kept. To find all entries of one page means to look at
the entries of every process from the hand on, until they are found: that is what a walk does here.

Source: ``mm/vmscan.c`` before 3485c89197, which brought the reverse map. Left out: the active list, zones and page
locks, each of which made the scan pass over entries; the quota by priority. A file's VMAs were in lists, for truncation
only: an interval tree here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from rmap.columns import I64
from rmap.designs.parts.entry_scan import EntryScan, maps_something
from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.errors import InvariantError
from rmap.mm.interface import Candidate1, Candidates, DesignCore, How, Query, ReverseMap
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.page_tables import SLOT_BITS
from rmap.mm.profile import Profile
from rmap.units import PAGE_SHIFT, PMD_SHIFT, PTRS_PER_TABLE

CURSOR = {64: 8, 32: 4}


class VirtualScan(ReverseMap):
    """A ring of mms and a hand.

    ``mm.design`` is the address at which the scan of an mm goes on (``swap_address``).

    Attributes:
        ring: the mms, in the order in which the hand meets them; a child comes right behind its parent.
        hand: the mm at which it stands, None if there is none.

    Invariants: every living mm is in the ring once; the hand stands at one of them.
    """

    name = "virtual_scan"
    release = "2.4"
    moves_tables = False

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.ring: list[Mm] = []
        self.hand: Mm | None = None
        self._indexes: list[IntervalIndex] = []

    # -- processes ----------------------------------------------------------------------------------------------------
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        """Into the ring (``mmlist``)."""
        mm.design = 0
        at = len(self.ring) if parent is None else self.ring.index(parent) + 1
        self.ring.insert(at, mm)
        if self.hand is None:
            self.hand = mm

    def mm_exit(self, mm: Mm) -> None:
        """Out of the ring; the hand goes on to the next."""
        at = self.ring.index(mm)
        del self.ring[at]
        if self.hand is mm:
            self.hand = self.ring[at % len(self.ring)] if self.ring else None

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        """Nothing: ``mapping`` and ``index`` of an anonymous page say nothing here."""

    # -- the hand -----------------------------------------------------------------------------------------------------
    def swap_out(self) -> Generator[I64, int, None]:
        """The entries at the hand, a page table at a time; it stops where the caller has looked to."""
        while self.hand is not None:
            mm = self.hand
            for region in [region for region in sorted(mm.rows) if (region + 1) << PMD_SHIFT > mm.design]:
                if region not in mm.rows:  # unmapped by what the caller did
                    continue
                pteps = self._entries_of(mm, region, mm.design)
                looked = yield pteps
                if looked < len(pteps):
                    mm.design = self.core.tables.addr_of1(int(pteps[looked]))
                    break
                mm.design = (region + 1) << PMD_SHIFT
            else:
                mm.design = 0
                self.hand = self.ring[(self.ring.index(mm) + 1) % len(self.ring)]

    def _entries_of(self, mm: Mm, region: int, start: int = 0, end: int = 0) -> I64:
        # The pte pointers of one page table that map something, from an address on, or before one.
        row = mm.rows[region]
        low = max(0, (start >> PAGE_SHIFT) - (region << (PMD_SHIFT - PAGE_SHIFT)))
        high = PTRS_PER_TABLE
        if end:
            high = min(high, (end >> PAGE_SHIFT) - (region << (PMD_SHIFT - PAGE_SHIFT)))
        at = np.flatnonzero(maps_something(self.core.tables.rows[row, low:high]))
        return (row << SLOT_BITS) + low + at

    def _scan(self) -> Iterator[I64]:
        # All entries there are, from the hand round to the hand, a page table at a time. The hand stays where it is.
        if self.hand is None:
            return
        at = self.ring.index(self.hand)
        cursor = self.hand.design
        for region in sorted(self.hand.rows):
            if (region + 1) << PMD_SHIFT > cursor:
                yield self._entries_of(self.hand, region, cursor)
        for mm in self.ring[at + 1 :] + self.ring[:at]:
            for region in sorted(mm.rows):
                yield self._entries_of(mm, region)
        for region in sorted(self.hand.rows):
            if region << PMD_SHIFT < cursor:
                yield self._entries_of(self.hand, region, 0, cursor)

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Every entry of every process, until all are found."""
        scan = EntryScan(query, np.arange(len(query.pfns)), self.core.frames.nr_pages, self.core.costs.current)
        entries = self.core.tables.ptes
        for pteps in self._scan():
            if scan.over:
                return
            yield from scan.look(entries[pteps], pteps)

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        for pteps in self._scan():
            yield from pteps.tolist()

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> IntervalIndex:
        """An index of a file's VMAs, for truncation only."""
        index = IntervalIndex(self.core.costs)
        self._indexes.append(index)
        return index

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: the cursor in each mm."""
        return {"mm.swap_address": CURSOR[bits] * len(self.ring)}

    def validate(self) -> None:
        """Check ring and hand.

        Raises:
            InvariantError: ``ring``.
        """
        if len(set(self.ring)) != len(self.ring) or not all(mm.alive for mm in self.ring):
            raise InvariantError("ring", "an mm is in the ring twice, or dead")
        if (self.hand is None) != (not self.ring) or (self.hand is not None and self.hand not in self.ring):
            raise InvariantError("ring", f"the hand stands at {self.hand}")
        owners = set(self.core.tables.row_mm[self.core.tables.live_rows()].tolist())
        if not owners <= {mm.id for mm in self.ring}:
            raise InvariantError("ring", "an mm with page tables is not in the ring")
        for index in self._indexes:
            index.validate()

    def describe_page(self, pfn: int) -> str:
        """Nothing is known of a page."""
        return "nothing; the hand has to come by"
