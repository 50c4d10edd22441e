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

from collections.abc import Iterable

import numpy as np

from rmap.columns import I64, Bool
from rmap.designs.parts.anon_chains import AnonChains
from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.mm.interface import Candidate1, Candidates, DesignCore, PteBatch, Query, Why
from rmap.mm.page_tables import SLOT_BITS
from rmap.mm.profile import Profile
from rmap.mm.vma import Vma


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

    # -- accounts ---------------------------------------------------------------------------------------------------
    def truncation_bytes(self, bits: int = 64) -> int:
        """Bytes that only truncation needs: the list node ``vm_area_struct.shared`` of every file VMA."""
        return sum(map(len, self._indexes)) * 2 * bits // 8

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
