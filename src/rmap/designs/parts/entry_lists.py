"""For every page, a list of records, one for each entry that maps it: chains whose links are single cells.

The records are rows of columns, linked both ways. Where a design's list has links one way only, or an order of its own,
it says so; what is counted are the records that a search or a walk looks at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.columns import I32, I64, scalar_view
from rmap.errors import InvariantError
from rmap.mm.costs import BLOCKS_VISITED, ENTRIES_WRITTEN, LOCKS_CHAIN, Costs
from rmap.mm.interface import Candidates, Ptes, Query

FIRST_RECORDS = 4096


class EntryLists:
    """The lists of all pages.

    Args:
        nr_frames: how many frames there are.
        nr_pteps: how many pte pointers.
        costs: counted are one lock per page touched, one entry written per mapping added, records looked at.
        newest_first: a new record goes to the head of its list, else to the tail.

    Attributes:
        head, tail: int64 columns by frame: a record, 0 for none.
        length: int32 column by frame.
        ptep, next, prev, pfn: int64 columns by record; record 0 is never used. A free one has a ``ptep`` of 0.
        at: int32 column by pte pointer: its record. A design may look here instead of searching, where the original
            had another way to the record; what it does not search for, it does not pay for.

    Invariants: the list of a page goes from ``head`` to ``tail`` in ``length`` records, and back; every record is free,
    or in one list.
    """

    def __init__(self, nr_frames: int, nr_pteps: int, costs: Costs, newest_first: bool) -> None:
        self.at: I32 = np.zeros(nr_pteps, np.int32)
        self._costs = costs
        self._newest_first = newest_first
        self.head: I64 = np.zeros(nr_frames, np.int64)
        self.tail: I64 = np.zeros(nr_frames, np.int64)
        self.length: I32 = np.zeros(nr_frames, np.int32)
        self.ptep: I64 = np.zeros(1, np.int64)
        self.next: I64 = np.zeros(1, np.int64)
        self.prev: I64 = np.zeros(1, np.int64)
        self.pfn: I64 = np.zeros(1, np.int64)
        self._grow(FIRST_RECORDS)

    # -- changing -------------------------------------------------------------------------------------------------
    def add(self, pfns: I64, pteps: I64, records: I64) -> None:
        """Distinct pages begin to be mapped by these entries; ``records`` are free ones."""
        counters = self._costs.current
        counters[LOCKS_CHAIN] += len(pfns)
        counters[ENTRIES_WRITTEN] += len(pfns)
        if len(records) and int(records.max()) >= len(self.ptep):
            self._grow(int(records.max()) + 1)
        first, last = (self.head, self.tail) if self._newest_first else (self.tail, self.head)
        onward, back = (self.next, self.prev) if self._newest_first else (self.prev, self.next)
        before = first[pfns]
        self.ptep[records] = pteps
        self.at[pteps] = records
        self.pfn[records] = pfns
        onward[records] = before
        back[records] = 0
        back[before[before > 0]] = records[before > 0]
        first[pfns] = records
        last[pfns[before == 0]] = records[before == 0]
        self.length[pfns] += 1

    def search(self, pfns: I64, pteps: I64) -> I64:
        """The records of distinct pages that hold these pte pointers, searched for from the head.

        Counted: a lock for each page, every record looked at.

        Raises:
            InvariantError: ``list``, when one is not there.
        """
        counters = self._costs.current
        counters[LOCKS_CHAIN] += len(pfns)
        records = self.head[pfns]
        todo = np.arange(len(pfns))
        while len(todo):
            here = records[todo]
            if not here.all():
                raise InvariantError("list", "an entry of a page was removed that is not in its list")
            counters[BLOCKS_VISITED] += len(todo)
            todo = todo[self.ptep[here] != pteps[todo]]
            records[todo] = self.next[records[todo]]
        return records

    def take_out(self, records: I64) -> None:
        """Remove records of distinct pages; they are free then."""
        pfns, prev, next = self.pfn[records], self.prev[records], self.next[records]
        at_head, at_tail = prev == 0, next == 0
        self.head[pfns[at_head]] = next[at_head]
        self.next[prev[~at_head]] = next[~at_head]
        self.tail[pfns[at_tail]] = prev[at_tail]
        self.prev[next[~at_tail]] = prev[~at_tail]
        self.length[pfns] -= 1
        self.at[self.ptep[records]] = 0
        self.ptep[records] = 0

    def move(self, pteps: I64, new_pteps: I64) -> None:
        """Entries moved: their records say so from now on."""
        records = self.at[pteps]
        self.at[pteps] = 0
        self.at[new_pteps] = records
        self.ptep[records] = new_pteps

    def rename(self, records: I64, new: I64) -> None:
        """Records of distinct pages go on under other numbers, which are free."""
        for column in (self.ptep, self.next, self.prev, self.pfn):
            column[new] = column[records]
        pfns, prev, next = self.pfn[new], self.prev[new], self.next[new]
        self.head[pfns[prev == 0]] = new[prev == 0]
        self.next[prev[prev > 0]] = new[prev > 0]
        self.tail[pfns[next == 0]] = new[next == 0]
        self.prev[next[next > 0]] = new[next > 0]
        self.at[self.ptep[new]] = new
        self.ptep[records] = 0

    def migrate(self, old: I64, new: I64) -> None:
        """Pages moved to other frames: their lists move along."""
        for column in (self.head, self.tail, self.length):
            column[new] = column[old]
            column[old] = 0
        record = self.head[new]
        page = new
        while len(record):
            self.pfn[record] = page
            record = self.next[record]
            page, record = page[record > 0], record[record > 0]

    def _grow(self, wanted: int) -> None:
        n = max(wanted, 2 * len(self.ptep))
        for name in ("ptep", "next", "prev", "pfn"):
            column = np.zeros(n, np.int64)
            old = getattr(self, name)
            column[: len(old)] = old
            setattr(self, name, column)
        self._mv_ptep, self._mv_next = scalar_view(self.ptep), scalar_view(self.next)

    # -- walking --------------------------------------------------------------------------------------------------
    def candidates(self, query: Query, looks_up: int | None = None) -> Candidates:
        """The entries of every page, a record of each page per chunk.

        Args:
            looks_up: a counter that rises with each record, for a design whose records say an address, so that the
                page tables must be descended.
        """
        counters = self._costs.current
        counters[LOCKS_CHAIN] += query.asking(0, len(query.pfns))
        records = self.head[query.pfns]
        pos = np.flatnonzero(records)
        records = records[pos]
        while len(pos):
            if query.stop == "mapcount":
                asking = np.flatnonzero(query.left[pos])
                pos, records = pos[asking], records[asking]
            counters[BLOCKS_VISITED] += len(pos)
            if looks_up is not None:
                counters[looks_up] += len(pos)
            if len(pos):
                yield Ptes(pos, self.ptep[records])
            records = self.next[records]
            onward = np.flatnonzero(records)
            pos, records = pos[onward], records[onward]

    def candidates1(self, pfn: int, looks_up: int | None = None) -> Iterator[int]:
        """The scalar twin."""
        counters = self._costs.current
        counters[LOCKS_CHAIN] += 1
        record = int(self.head[pfn])
        while record:
            counters[BLOCKS_VISITED] += 1
            if looks_up is not None:
                counters[looks_up] += 1
            yield self._mv_ptep[record]
            record = self._mv_next[record]

    def records_of(self, pfn: int) -> list[int]:
        """The records of one page, for a look that costs nothing."""
        records = []
        record = int(self.head[pfn])
        while record:
            records.append(record)
            record = int(self.next[record])
        return records

    # -- checking -------------------------------------------------------------------------------------------------
    def validate(self) -> I64:
        """Check every list.

        Returns:
            the records in use, int64.

        Raises:
            InvariantError: ``list``.
        """
        used = np.flatnonzero(self.ptep)
        seen = np.zeros(len(self.ptep), np.bool_)
        pages = np.flatnonzero(self.head)
        length = np.zeros(len(self.head), np.int64)
        records, before = self.head[pages], np.zeros(len(pages), np.int64)
        while len(records):
            if seen[records].any() or not self.ptep[records].all() or (self.prev[records] != before).any():
                raise InvariantError("list", "a record is in two lists, free, or not linked both ways")
            if (self.pfn[records] != pages).any():
                raise InvariantError("list", "a record is in the list of another page")
            seen[records] = True
            length[pages] += 1
            following = self.next[records]
            if (self.tail[pages[following == 0]] != records[following == 0]).any():
                raise InvariantError("list", "a list does not end at its tail")
            onward = following > 0
            pages, before, records = pages[onward], records[onward], following[onward]
        if (self.at[self.ptep[used]] != used).any():
            raise InvariantError("list", "a record is not found at its entry")
        if np.count_nonzero(seen) != len(used) or (length != self.length).any():
            raise InvariantError("list", f"{len(used)} records are in use, {np.count_nonzero(seen)} are in lists")
        return used
