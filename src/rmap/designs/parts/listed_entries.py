"""What designs that keep one record per entry have in common: the hooks, over :class:`EntryLists`.

A design says where new records come from and where old ones go (a slab, a chunk of its process, an array made at boot),
and what it stores in them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.columns import I64
from rmap.designs.parts.entry_lists import EntryLists
from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.errors import InvariantError
from rmap.mm.interface import Candidate1, Candidates, DesignCore, How, PteBatch, Query, ReverseMap, Why
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import SLOT_BITS
from rmap.mm.profile import Profile
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.units import PAGE_SHIFT


class ListedEntries(ReverseMap):
    """A record for every entry of every page.

    Attributes:
        lists: the records by page.
        newest_first: where a new record goes. looks_up: the counter that rises with each record of a walk, or None.

    Invariants: the records of a page name exactly the entries that map it.
    """

    newest_first = True
    looks_up: int | None = None

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.lists = EntryLists(core.frames.nr_pages, len(core.tables.ptes), core.costs, self.newest_first)
        self._indexes: list[IntervalIndex] = []

    # -- what a design says -------------------------------------------------------------------------------------------
    def take_records(self, batch: PteBatch, pteps: I64) -> I64:
        """New records for these entries, int64[n]."""
        raise NotImplementedError

    def give_records(self, records: I64) -> None:
        """These records are free again."""
        raise NotImplementedError

    # -- pages --------------------------------------------------------------------------------------------------------
    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        """Nothing: ``mapping`` and ``index`` of an anonymous page say nothing here."""

    def added(self, batch: PteBatch, why: Why) -> None:
        """A record for each entry."""
        self.lists.add(batch.pfns, batch.pteps, self.take_records(batch, batch.pteps))

    def removed(self, batch: PteBatch, why: Why) -> None:
        """Each record is searched for from the head of its list, and taken out."""
        records = self.lists.search(batch.pfns, batch.pteps)
        self.lists.take_out(records)
        self.give_records(records)

    def unmapped(self, query: Query, pos: I64, pteps: I64) -> None:
        """A walk cleared these entries: it stood at their records, so they go without a search."""
        pfns = query.pfns[pos]
        while len(pfns):  # one entry of each page at a time
            first = np.sort(np.unique(pfns, return_index=True)[1])
            records = self.lists.at[pteps[first]].astype(np.int64)
            self.lists.take_out(records)
            self.give_records(records)
            rest = np.ones(len(pfns), np.bool_)
            rest[first] = False
            pfns, pteps = pfns[rest], pteps[rest]

    def migrated(self, old: I64, new: I64) -> None:
        """The list goes with the page."""
        self.lists.migrate(old, new)

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Every record of every page."""
        return self.lists.candidates(query, self.looks_up)

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        return self.lists.candidates1(pfn, self.looks_up)

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> IntervalIndex:
        """An index of a file's VMAs, for truncation only."""
        index = IntervalIndex(self.core.costs)
        self._indexes.append(index)
        return index

    # -- accounts -----------------------------------------------------------------------------------------------------
    def validate(self) -> None:
        """Check lists, and records against page tables and mapcounts.

        Raises:
            InvariantError: ``list``.
        """
        used = self.lists.validate()
        for index in self._indexes:
            index.validate()
        frames, tables, lists = self.core.frames, self.core.tables, self.lists
        entries = tables.ptes[lists.ptep[used]]
        if (((entries & TRACKED_MASK) != PRESENT) | (entries >> PAGE_SHIFT != lists.pfn[used])).any():
            raise InvariantError("list", "a record names an entry that maps another page")
        if len(np.unique(lists.ptep[used])) != len(used):
            raise InvariantError("list", "two records name one entry")
        wrong = np.flatnonzero(lists.length != frames.mapcount)
        if len(wrong):
            pfn = int(wrong[0])
            raise InvariantError(
                "list", f"frame {pfn:#x} has {lists.length[pfn]} records and a mapcount of {frames.mapcount[pfn]}"
            )

    def describe_page(self, pfn: int) -> str:
        """``[0x7f0000000000 in mm 1, ...]``, from the head."""
        tables = self.core.tables
        pteps = [int(self.lists.ptep[record]) for record in self.lists.records_of(pfn)]
        places = [f"{tables.addr_of1(ptep):#x} in mm {tables.mv_row_mm[ptep >> SLOT_BITS]}" for ptep in pteps]
        return f"[{', '.join(places)}]"
