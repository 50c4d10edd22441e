"""PTE chains, as in Linux 2.6.0 (``mm/rmap.c``): every page knows every entry that maps it.

Nothing but the pte pointer is stored for a mapping. The mm and the address follow from the page-table page it lies
in (``pgtable_add_rmap``), which says whose it is and which address it begins at. So a walk looks at nothing in
vain, and each mapping made or ended costs a write, and from the second on 64 bytes for up to seven of them.

Files and anonymous memory are alike here: nothing hangs on a VMA, and every VMA may merge with every other.
mremap moves entry by entry, for page tables could not move whole then. The VMAs of a file are indexed for
truncation only; 2.6.0 had two lists there, the model an interval tree.

Read in the history of the kernel: minimal rmap 3485c89197, PageDirect 4250169826, blocks d5c8293240, the index in the
next word 7cb2b0f4b6; removed by 369bfc8a8a. Left out: see :mod:`rmap.designs.parts.pte_chains`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from rmap.columns import I64, Bool
from rmap.designs.parts.anon_chains import AnonChains
from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.designs.parts.listed_entries import ListedEntries
from rmap.designs.parts.slab import Places
from rmap.mm.costs import BLOCKS_VISITED, OBJECTS_FREED, OBJECTS_MADE
from rmap.mm.interface import Candidate1, Candidates, DesignCore, PteBatch, Query, Why
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import SLOT_BITS
from rmap.mm.profile import Profile


class PteChain(AnonChains):
    """A chain of pte pointers on every page, of a file or anonymous.

    Invariants: the entries of a page are exactly the entries that map it, each once.
    """

    name = "pte_chain"
    release = "2.6.0"
    nonlinear = True

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self._indexes: list[IntervalIndex] = []

    def has_chain(self, pfns: I64) -> Bool:
        """Every page."""
        return np.ones(len(pfns), np.bool_)

    # -- pages ------------------------------------------------------------------------------------------------------
    def added(self, batch: PteBatch, why: Why) -> None:
        """``page_add_rmap`` for each entry."""
        self.chains.add(batch.pfns, batch.pteps)

    def added1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`added`."""
        self.chains.add1(pfn, ptep)

    def removed(self, batch: PteBatch, why: Why) -> None:
        """``page_remove_rmap`` for each entry: a search from the head."""
        self.chains.remove(batch.pfns, batch.pteps)

    def removed1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`removed`."""
        self.chains.remove1(pfn, ptep)

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """mremap: the old entry is removed, the new one added (``move_one_page``)."""
        self.chains.remove(batch.pfns, batch.pteps)
        self.chains.add(batch.pfns, new_pteps)

    # -- walks ------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Every entry of every page."""
        return self.chain_candidates(query)

    def candidates1(self, pfn: int) -> Iterable[Candidate1]:
        """The pte pointers of one page."""
        return self.chain_candidates1(pfn)

    # -- files ------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> IntervalIndex:
        """An index of a file's VMAs, for truncation only."""
        index = IntervalIndex(self.core.costs)
        self._indexes.append(index)
        return index

    def validate(self) -> None:
        """Check blocks, and entries against page tables and mapcounts.

        Raises:
            InvariantError: ``chain``.
        """
        super().validate()
        for index in self._indexes:
            index.validate()

    def describe_page(self, pfn: int) -> str:
        """``direct 0x7f0000000000 in mm 1``, or the chain from its head."""
        tables = self.core.tables
        places = [
            f"{tables.addr_of1(ptep):#x} in mm {tables.mv_row_mm[ptep >> SLOT_BITS]}"
            for ptep in self.chains.entries1(pfn)
        ]
        if self.chains.head[pfn] < 0:
            return f"chain [{', '.join(places)}]"
        return f"direct {places[0]}" if places else "none"


class PteCells(ListedEntries):
    """The chains of July 2002 (2.5.27 to 2.5.33): single cells of two words, a pointer to the next and a pte pointer.

    A page that is mapped once has the pte pointer itself (*PageDirect*, 4250169826, the same day); with the second
    mapping both get a cell, and when one is left it is direct again. Half of a cell is link: blocks mended that.

    Invariants: those of the lists.
    """

    name = "pte_chain:cells"
    release = "2.5.27"
    moves_tables = False

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self._places = Places()

    def take_records(self, batch: PteBatch, pteps: I64) -> I64:
        """A cell for each entry but a page's first; with its second, one for the first as well."""
        length = self.lists.length[batch.pfns]
        counters = self.core.costs.current
        counters[OBJECTS_MADE] += int(np.count_nonzero(length)) + int(np.count_nonzero(length == 1))
        return np.array([self._places.take() + 1 for _ in range(len(pteps))], np.int64)

    def give_records(self, records: I64) -> None:
        """Cells are free again; that of the last entry but one goes with it."""
        length = self.lists.length[self.lists.pfn[records]]
        counters = self.core.costs.current
        counters[OBJECTS_FREED] += int(np.count_nonzero(length)) + int(np.count_nonzero(length == 1))
        for record in records.tolist():
            self._places.give(record - 1)

    def removed(self, batch: PteBatch, why: Why) -> None:
        """``page_remove_rmap``: a search, unless the entry is direct."""
        self.core.costs.current[BLOCKS_VISITED] -= int(np.count_nonzero(self.lists.length[batch.pfns] == 1))
        super().removed(batch, why)

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """mremap: the old entry is removed, the new one added."""
        self.removed(batch, "move")
        self.lists.add(batch.pfns, new_pteps, self.take_records(batch, new_pteps))

    def candidates(self, query: Query) -> Candidates:
        """Every cell of every page; a direct entry is no cell."""
        direct = self.lists.length[query.pfns] == 1
        self.core.costs.current[BLOCKS_VISITED] -= query.asking_at(np.flatnonzero(direct))
        return super().candidates(query)

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        if self.lists.length[pfn] == 1:
            self.core.costs.current[BLOCKS_VISITED] -= 1
        return super().candidates1(pfn)

    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: the union in ``struct page``, counted for mapped pages, and the cells."""
        length = self.lists.length
        mapped, cells = int(np.count_nonzero(length)), int(length[length > 1].sum())
        return {"page.pte": mapped * bits // 8, "pte_chain": cells * bits // 4}
