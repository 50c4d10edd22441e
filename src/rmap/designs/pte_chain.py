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

from rmap.columns import I64
from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.designs.parts.pte_chains import PteChains
from rmap.errors import InvariantError
from rmap.mm.interface import Candidate1, Candidates, DesignCore, How, PteBatch, Query, ReverseMap, Why
from rmap.mm.page_tables import SLOT_BITS
from rmap.mm.profile import Profile
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.mm.vma import Vma
from rmap.units import PAGE_SHIFT

WORD = {64: 8, 32: 4}
BLOCK = {64: 64, 32: 32}


class PteChain(ReverseMap):
    """A chain of pte pointers on every page.

    Attributes:
        chains: heads and blocks.

    Invariants: the entries of a page are exactly the entries that map it, each once.
    """

    name = "pte_chain"
    release = "2.6.0"
    moves_tables = False
    nonlinear = True

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.chains = PteChains(core.frames.nr_pages, core.costs)
        self._indexes: list[IntervalIndex] = []

    # -- pages ------------------------------------------------------------------------------------------------------
    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        """Nothing, and quickly: ``mapping`` and ``index`` of an anonymous page say nothing here."""

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

    def unmapped(self, query: Query, pos: I64, pteps: I64) -> None:
        """A walk cleared these entries: they go without a search.

        Raises:
            InvariantError: ``chain``, when a page that nothing maps any more had other entries than the cleared.
        """
        pfns = query.pfns[pos]
        partly = self.core.frames.mapcount[pfns] > 0
        touched = np.zeros(len(query.pfns), np.bool_)
        touched[pos[~partly]] = True
        dropped = self.chains.drop_all(query.pfns[touched])
        if dropped != len(pos) - int(np.count_nonzero(partly)):
            raise InvariantError("chain", f"{dropped} entries were dropped with their pages, others were cleared")
        for pfn, ptep in zip(pfns[partly].tolist(), pteps[partly].tolist()):
            self.chains.forget1(pfn, ptep)

    def migrated(self, old: I64, new: I64) -> None:
        """The chain goes with the page."""
        self.chains.migrate(old, new)

    # -- walks ------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Every entry of every page; ``page_referenced`` leaves no chain with one entry behind."""
        yield from self.chains.candidates(query)
        if query.purpose == "referenced":
            self.chains.collapse(query.pfns)

    def candidates1(self, pfn: int) -> Iterable[Candidate1]:
        """The pte pointers of one page."""
        return self.chains.candidates1(pfn)

    # -- files ------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> IntervalIndex:
        """An index of a file's VMAs, for truncation only."""
        index = IntervalIndex(self.core.costs)
        self._indexes.append(index)
        return index

    # -- accounts ---------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: the field in ``struct page``, counted for mapped pages, and the blocks."""
        mapped = int(np.count_nonzero(self.core.frames.mapcount))
        return {"page.pte": mapped * WORD[bits], "pte_chain": self.chains.live * BLOCK[bits]}

    def truncation_bytes(self, bits: int = 64) -> int:
        """Bytes that only truncation needs: the list node ``vm_area_struct.shared`` of every file VMA."""
        return sum(map(len, self._indexes)) * 2 * WORD[bits]

    def validate(self) -> None:
        """Check blocks, and entries against page tables and mapcounts.

        Raises:
            InvariantError: ``chain``.
        """
        self.chains.validate()
        for index in self._indexes:
            index.validate()
        frames, tables = self.core.frames, self.core.tables
        pfns, pteps = self.chains.entries()
        entries = tables.ptes[pteps]
        wrong = np.flatnonzero(((entries & TRACKED_MASK) != PRESENT) | (entries >> PAGE_SHIFT != pfns))
        if len(wrong):
            at = int(wrong[0])
            raise InvariantError("chain", f"frame {int(pfns[at]):#x} has {int(pteps[at]):#x}, which maps another")
        if len(np.unique(pteps)) != len(pteps):
            raise InvariantError("chain", "a pte pointer is in the chains twice")
        counts = np.bincount(pfns, minlength=frames.nr_pages)
        wrong = np.flatnonzero(counts != frames.mapcount)
        if len(wrong):
            pfn = int(wrong[0])
            raise InvariantError(
                "chain", f"frame {pfn:#x} has {counts[pfn]} entries and a mapcount of {frames.mapcount[pfn]}"
            )

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
