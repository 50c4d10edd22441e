"""Anonymous pages on PTE chains: the half of the first object-based reverse maps that was as before (2003, early 2004).

A design adds the other half: how the pages of files are found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.columns import I64, Bool
from rmap.designs.parts.pte_chains import PteChains
from rmap.designs.parts.slab import objects_per_slab_2_6_0
from rmap.errors import InvariantError
from rmap.mm.costs import VMAS_LOOKED_UP
from rmap.mm.frames import ANON
from rmap.mm.interface import Candidates, DesignCore, How, PteBatch, Query, ReverseMap, Why
from rmap.mm.mm_types import Vma
from rmap.mm.profile import Profile
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.units import PAGE_SHIFT

WORD = {64: 8, 32: 4}
BLOCK = {64: 64, 32: 32}


class AnonChains(ReverseMap):
    """Chains for the pages that :meth:`has_chain` names: anonymous ones, unless a design says more.

    Attributes:
        chains: heads and blocks.

    Invariants: the entries of such a page are exactly those that map it; no other page has any.
    """

    moves_tables = False

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.chains = PteChains(core.frames.nr_pages, core.costs)

    def has_chain(self, pfns: I64) -> Bool:
        """Which pages are on chains: bool[n]."""
        on: Bool = (self.core.frames.flags[pfns] & ANON) != 0
        return on

    # -- pages --------------------------------------------------------------------------------------------------------
    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        """Nothing: ``mapping`` and ``index`` of an anonymous page say nothing here."""

    def added(self, batch: PteBatch, why: Why) -> None:
        """``page_add_rmap``, for anonymous pages."""
        if batch.anon:
            self.chains.add(batch.pfns, batch.pteps)

    def added1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`added`."""
        if anon:
            self.chains.add1(pfn, ptep)

    def removed(self, batch: PteBatch, why: Why) -> None:
        """``page_remove_rmap``, for anonymous pages."""
        if batch.anon:
            self.chains.remove(batch.pfns, batch.pteps)

    def removed1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`removed`."""
        if anon:
            self.chains.remove1(pfn, ptep)

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """mremap: the old entry is removed, the new one added."""
        if batch.anon:
            self.chains.remove(batch.pfns, batch.pteps)
            self.chains.add(batch.pfns, new_pteps)

    def unmapped(self, query: Query, pos: I64, pteps: I64) -> None:
        """A walk cleared these entries: they go without a search, but each VMA was looked up (VM_LOCKED).

        Raises:
            InvariantError: ``chain``, when a page that nothing maps any more had other entries than the cleared.
        """
        pfns = query.pfns[pos]
        on_chains = self.has_chain(pfns)
        pos, pfns, pteps = pos[on_chains], pfns[on_chains], pteps[on_chains]
        if not len(pos):
            return
        self.core.costs.current[VMAS_LOOKED_UP] += len(pos)
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

    # -- walks --------------------------------------------------------------------------------------------------------
    def chain_candidates(self, query: Query) -> Candidates:
        """Every entry of every page that has a chain; ``page_referenced`` leaves no chain of one behind.

        The lock of each page is taken, whether it has a chain or not: its mapcount is under it.
        """
        yield from self.chains.candidates(query)
        if query.purpose == "referenced":
            self.chains.collapse(query.pfns)

    def chain_candidates1(self, pfn: int) -> Iterator[int]:
        """The pte pointers of one page."""
        return self.chains.candidates1(pfn)

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: the field in ``struct page``, counted for mapped pages, and the blocks."""
        mapped = int(np.count_nonzero(self.core.frames.mapcount))
        return {"page.pte": mapped * WORD[bits], "pte_chain": self.chains.live * BLOCK[bits]}

    def slab_bytes(self, bits: int = 64) -> dict[str, int]:
        """Whole slabs with a living block in them, packed as in 2.6.0."""
        return {"pte_chain": self.chains.slab_bytes(objects_per_slab_2_6_0(BLOCK[bits]))}

    def validate(self) -> None:
        """Check blocks, and entries against page tables and mapcounts.

        Raises:
            InvariantError: ``chain``.
        """
        self.chains.validate()
        frames, tables = self.core.frames, self.core.tables
        pfns, pteps = self.chains.entries()
        entries = tables.ptes[pteps]
        wrong = np.flatnonzero(((entries & TRACKED_MASK) != PRESENT) | (entries >> PAGE_SHIFT != pfns))
        if len(wrong):
            at = int(wrong[0])
            raise InvariantError("chain", f"frame {int(pfns[at]):#x} has {int(pteps[at]):#x}, which maps another")
        if len(np.unique(pteps)) != len(pteps):
            raise InvariantError("chain", "a pte pointer is in the chains twice")
        every = np.arange(frames.nr_pages)
        wanted = np.where(self.has_chain(every), frames.mapcount, 0)
        counts = np.bincount(pfns, minlength=frames.nr_pages)
        wrong = np.flatnonzero(counts != wanted)
        if len(wrong):
            pfn = int(wrong[0])
            raise InvariantError(
                "chain", f"frame {pfn:#x} has {counts[pfn]} entries and a mapcount of {frames.mapcount[pfn]}"
            )
