"""Object-based for files, chains for the rest: Dave McCracken's partial objrmap of February 2003 (2.5-mm and -mjb).

A page of a file knows its address_space, and that knows the VMAs that map it: so nothing need be written per mapping,
if a walk is willing to compute addresses and look. Anonymous pages had no object, and stayed on PTE chains. What a page
of a file pays is a mapcount in the place of its chain.

The VMAs are in two lists, which do not help a search: every VMA of the file is asked. One big file mapped by many small
windows (databases of the day) makes each walk as long as there are windows: so it was not merged as it was.

A page of a nonlinear area cannot be computed. When an area becomes nonlinear, all pages of the file that are mapped get
chains (``page_convert_anon``), and so does every page that is mapped there later; they keep them while they are mapped.

Source: "objrmap" of 2.5.62-mjb2 and 2.5.63-mm, as its author posted it (linux-mm, February 2003); that a walk stops
when all mappings are found, and passes mms without resident pages, is Hugh Dickins' addition of March 2004. Left out: a
lock that is not to be had (``down_trylock``), and what :mod:`rmap.designs.parts.pte_chains` leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from rmap.columns import I64, Bool, runs, scalar_view
from rmap.designs.parts.anon_chains import AnonChains
from rmap.designs.parts.file_lists import FileLists, linear_candidates, linear_candidates1
from rmap.errors import InvariantError
from rmap.mm.costs import DESCENTS, LOCKS_CHAIN, LOCKS_I_MMAP, PTES_CHECKED, PTES_IN_VAIN
from rmap.mm.frames import ANON, TAG_BITS, TAG_FILE, TAG_SHIFT
from rmap.mm.interface import Candidate1, Candidates, DesignCore, PteBatch, Query, Why
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import ptep_of
from rmap.mm.profile import Profile
from rmap.mm.pte import PRESENT
from rmap.mm.walk import ENTRY_MASK
from rmap.uapi.vm_flags import VM_NONLINEAR
from rmap.units import PAGE_SHIFT


class Objrmap(AnonChains):
    """Lists of VMAs for the pages of files; chains for anonymous pages and those of nonlinear areas.

    Attributes:
        converted: bool column by frame: a page of a file that is on a chain.

    Invariants: those of the chains; only anonymous and converted pages have one; every VMA of a file is in one of its
    lists, once.
    """

    name = "objrmap"
    release = "2003"
    nonlinear = True

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.converted = np.zeros(core.frames.nr_pages, np.bool_)
        self._lists: list[FileLists] = []

    # -- nonlinear areas ----------------------------------------------------------------------------------------------
    def vma_nonlinear(self, vma: Vma) -> None:
        """Every page of the file that is mapped goes on a chain, while its entries can still be computed."""
        assert vma.mapping is not None
        cached = vma.mapping.pages[vma.mapping.pages > 0]
        for pfn in cached[(self.core.frames.mapcount[cached] > 0) & ~self.converted[cached]].tolist():
            self._convert(pfn)

    def _convert(self, pfn: int) -> None:
        # page_convert_anon: a last walk by the lists; what it finds is kept on a chain from now on.
        counters, entries = self.core.costs.current, self.core.tables.mv
        for where, addr in self._of_file1(*self.core.frames.anchor1(pfn)):
            ptep = ptep_of(where.mm, addr)
            counters[DESCENTS] += 1
            counters[PTES_CHECKED] += 1
            if ptep and entries[ptep] & ENTRY_MASK == pfn << PAGE_SHIFT | PRESENT:
                self.chains.add1(pfn, ptep)
            else:
                counters[PTES_IN_VAIN] += 1
        self.converted[pfn] = True

    def _on_chains(self, batch: PteBatch) -> bool | I64:
        # Which pages of a batch have chains: all, none, or these.
        if batch.anon:
            return True
        converted = self.converted[batch.pfns]
        if converted.all():
            return True
        return np.flatnonzero(converted) if converted.any() else False

    # -- pages --------------------------------------------------------------------------------------------------------
    def added(self, batch: PteBatch, why: Why) -> None:
        """``page_add_rmap``: a chain for anonymous and converted pages."""
        which = self._on_chains(batch)
        if which is True:
            self.chains.add(batch.pfns, batch.pteps)
        elif which is not False:
            self.chains.add(batch.pfns[which], batch.pteps[which])

    def added1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`added`; a page that a nonlinear area maps is converted first."""
        if vma.flags & VM_NONLINEAR and not self.converted[pfn]:
            self._convert(pfn)
        if anon or self.converted[pfn]:
            self.chains.add1(pfn, ptep)

    def removed(self, batch: PteBatch, why: Why) -> None:
        """``page_remove_rmap``; a page that nothing maps any more is an ordinary one again."""
        which = self._on_chains(batch)
        if which is False:
            return
        pfns, pteps = (batch.pfns, batch.pteps) if which is True else (batch.pfns[which], batch.pteps[which])
        self.chains.remove(pfns, pteps)
        self.converted[pfns[self.core.frames.mapcount[pfns] == 1]] = False

    def removed1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`removed`."""
        if anon or self.converted[pfn]:
            self.chains.remove1(pfn, ptep)
            if self.core.frames.mv_mapcount[pfn] == 1:
                self.converted[pfn] = False

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """mremap: entries of chains are removed and added; those of files are where the new VMA says."""
        which = self._on_chains(batch)
        if which is False:
            return
        at = slice(None) if which is True else which
        self.chains.remove(batch.pfns[at], batch.pteps[at])
        self.chains.add(batch.pfns[at], new_pteps[at])

    def unmapped(self, query: Query, pos: I64, pteps: I64) -> None:
        """A walk cleared these entries."""
        pfns = query.pfns[pos]
        on_chains = self.has_chain(pfns)
        if on_chains.any():
            super().unmapped(query, pos[on_chains], pteps[on_chains])
            gone = pfns[on_chains & (self.core.frames.mapcount[pfns] == 0)]
            self.converted[gone] = False

    def migrated(self, old: I64, new: I64) -> None:
        """The chain goes with the page."""
        super().migrated(old, new)
        self.converted[new] = self.converted[old]
        self.converted[old] = False

    def has_chain(self, pfns: I64) -> Bool:
        """Anonymous and converted pages."""
        return ((self.core.frames.flags[pfns] & ANON) != 0) | self.converted[pfns]

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Chains first, then every VMA of every file asked for; the private list, then the shared one."""
        if not len(query.pfns):
            return
        counters = self.core.costs.current
        mapping, index = query.sort_by_anchor()
        keys = scalar_view(index)
        yield from self.chain_candidates(query)
        by_object = ~self.has_chain(query.pfns)
        cuts = (np.flatnonzero(np.diff(mapping)) + 1).tolist()
        for lo, hi in pairwise([0, *cuts, len(mapping)]):
            anchor = int(mapping[lo])
            if anchor & TAG_BITS != TAG_FILE or not anchor:
                continue
            lists = self.core.mapping_index(anchor >> TAG_SHIFT)
            for first, count in zip(*(part.tolist() for part in runs(np.flatnonzero(by_object[lo:hi]) + lo))):
                counters[LOCKS_I_MMAP] += query.asking(first, first + count)
                yield from linear_candidates(lists, query, keys, first, first + count, counters)

    def candidates1(self, pfn: int) -> Iterable[Candidate1]:
        """The scalar twin."""
        frames = self.core.frames
        if frames.mv_flags[pfn] & ANON or self.converted[pfn]:
            return self.chain_candidates1(pfn)
        return self._of_file1(*frames.anchor1(pfn))

    def _of_file1(self, anchor: int, index: int) -> Iterator[tuple[Vma, int]]:
        if anchor & TAG_BITS == TAG_FILE and anchor:
            counters = self.core.costs.current
            counters[LOCKS_CHAIN] += 1
            counters[LOCKS_I_MMAP] += 1
            yield from linear_candidates1(self.core.mapping_index(anchor >> TAG_SHIFT), index, counters)

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> FileLists:
        """The two lists of a file's VMAs."""
        lists = FileLists(self.core.costs)
        self._lists.append(lists)
        return lists

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: the union in ``struct page``, the chains, and the list node in every file VMA."""
        return {**super().metadata_bytes(bits), "vma.shared": 2 * bits // 8 * sum(map(len, self._lists))}

    def validate(self) -> None:
        """Check chains and lists.

        Raises:
            InvariantError: ``chain`` or ``I22``.
        """
        super().validate()
        if (self.converted & (self.core.frames.mapcount == 0)).any():
            raise InvariantError("chain", "a page that nothing maps is still converted")
        for lists in self._lists:
            lists.validate()
