"""ANON_VMA_LAZY: no anon_vma before the first fork (a proposal of May 2026, rejected as too complex).

Most anonymous pages belong to one process for ever: on Android 98 of 100. For them anon_vma and its link say nothing
that the VMA itself could not say. So a page points at its VMA, and only when that is forked does it get an anon_vma,
with all its pages hung on it; from there on everything is as in :mod:`rmap.designs.parts.chained_anon_vmas`.

The price is that pages know a VMA, and VMAs come and go: a split, a merge and a move must re-point the pages of the
part that changes hands, one by one; and a VMA that has an anon_vma cannot merge with one that has not.

What is known: the cover letter of 27 May 2026 (15 patches by Tao and wangtao) with its figures. The model's own
choices: pages are re-pointed at once; a page that nothing maps is anchored anew by its next mapper; 8 bytes for the
VMA's identity are not counted, as the proposal's are not known. "A child's VMA may use the parent's": not modelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import numpy as np

from rmap.columns import I64, scalar_view
from rmap.designs.parts.anon_vma import AnonVma
from rmap.designs.parts.anon_vma_check import check_anon_vmas, check_pages, check_vmas
from rmap.designs.parts.chained_anon_vmas import ChainedAnonVmas, Sizes
from rmap.errors import InvariantError
from rmap.mm.costs import ENTRIES_WRITTEN, NODES_VISITED
from rmap.mm.frames import TAG_BITS, TAG_LAZY, TAG_SHIFT
from rmap.mm.interface import Candidate1, Candidates, CloneWhy, DesignCore, How, Linear, PteBatch, Query
from rmap.mm.mm_types import Vma
from rmap.mm.profile import Profile
from rmap.units import PAGE_SHIFT


class LazyAnchor:
    """What the pages of a VMA hang on that was never forked: the VMA.

    Attributes:
        id: never used twice. handle: what ``mapping`` of the pages holds.
        vma: the VMA.
    """

    __slots__ = ("handle", "id", "vma")

    def __init__(self, id: int, vma: Vma) -> None:
        self.id = id
        self.handle = id << TAG_SHIFT | TAG_LAZY
        self.vma = vma


class AnonVmaLazy(ChainedAnonVmas):
    """``vma.anon`` is a :class:`LazyAnchor` until the VMA is forked, then the active anon_vma; ``vma.chain`` is empty
    before.

    Attributes:
        lazy: the anchors of VMAs, by id.

    Invariants: those of the chains for VMAs that have one; every page of another VMA points at it (I13).
    """

    name = "anon_vma_lazy"
    release = "2026"
    stores_addresses = True
    keeps_anchors = False
    sizes: ClassVar[dict[int, Sizes]] = {64: Sizes(24, 32, 104, 64, (39, 64))}

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.lazy: dict[int, LazyAnchor] = {}
        self._next_lazy = 0
        self._ranges: dict[Vma, tuple[int, int]] = {}

    # -- VMAs ---------------------------------------------------------------------------------------------------------
    def anon_vma_prepare(self, vma: Vma) -> None:
        """A neighbour's anon_vma, if it has one to share; else the VMA itself will do."""
        if self._find_mergeable_anon_vma(vma) is not None:
            super().anon_vma_prepare(vma)
        else:
            self._make_lazy(vma)

    def _make_lazy(self, vma: Vma) -> None:
        vma.anon = self.lazy[self._next_lazy] = LazyAnchor(self._next_lazy, vma)
        vma.chain = []
        self._next_lazy += 1

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        """The first fork: the parent's VMA gets an anon_vma, and its pages are hung on it."""
        if isinstance(parent.anon, LazyAnchor):
            before = parent.anon.handle
            del self.lazy[parent.anon.id]
            parent.anon = parent.chain = None
            super().anon_vma_prepare(parent)
            self._repoint(parent, before, parent.anon.handle)
        super().vma_fork(child, parent)

    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        """A split or a move: the new VMA's pages point at it. A merge: the survivor is as the absorbed one."""
        if not isinstance(old.anon, LazyAnchor):
            super().vma_clone(new, old, why)
            return
        self._make_lazy(new)
        if why == "split":
            self._repoint(new, old.anon.handle, new.anon.handle, old)

    def _repoint(self, vma: Vma, before: int, after: int, where: Vma | None = None) -> None:
        # The pages of a VMA's range that hang on one anchor get another.
        for batch in self.core.batches(vma if where is None else where, vma.start, vma.end):
            mapping, _ = self._frames.anchor(batch.pfns)
            pfns = batch.pfns[mapping == before]
            self._costs.current[ENTRIES_WRITTEN] += len(pfns)
            if len(pfns):
                self._frames.set_mapping(pfns, after)

    def pre_update(self, vma: Vma) -> None:
        """A lazy VMA is in no tree; its range is kept in mind."""
        if isinstance(vma.anon, LazyAnchor):
            self._ranges[vma] = (vma.start, vma.end)
        else:
            super().pre_update(vma)

    def post_update(self, vma: Vma) -> None:
        """Where a lazy VMA has grown over a neighbour's pages, they point at it from now on."""
        if not isinstance(vma.anon, LazyAnchor):
            super().post_update(vma)
            return
        start, end = self._ranges.pop(vma, (vma.end, vma.end))
        for low, high in ((vma.start, min(start, vma.end)), (max(end, vma.start), vma.end)):
            if low < high:
                self._take_over(vma, low, high)

    def _take_over(self, vma: Vma, start: int, end: int) -> None:
        for batch in self.core.batches(vma, start, end):
            mapping, _ = self._frames.anchor(batch.pfns)
            pfns = batch.pfns[((mapping & TAG_BITS) == TAG_LAZY) & (mapping != vma.anon.handle)]
            self._costs.current[ENTRIES_WRITTEN] += len(pfns)
            if len(pfns):
                self._frames.set_mapping(pfns, vma.anon.handle)

    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        """A lazy VMA goes; an heir has taken its pages over by now, as it has grown over them."""
        if not isinstance(vma.anon, LazyAnchor):
            super().vma_unlink(vma, heir)
            return
        del self.lazy[vma.anon.id]
        vma.anon = vma.chain = None

    def is_mergeable_anon_vma(self, target: Vma, source: Vma | None) -> bool:
        """Both lazy, or as the chains have it; never one of each."""
        ours = None if source is None else source.anon
        lazy = [isinstance(anon, LazyAnchor) for anon in (target.anon, ours)]
        if not any(lazy):
            return super().is_mergeable_anon_vma(target, source)
        return all(lazy) or target.anon is None or ours is None

    def are_anon_vmas_compatible(self, prev: Vma, next: Vma) -> bool:
        """Likewise."""
        lazy = [isinstance(vma.anon, LazyAnchor) for vma in (prev, next)]
        return all(lazy) or super().are_anon_vmas_compatible(prev, next)

    def _find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        anon_vma = super()._find_mergeable_anon_vma(vma)
        return None if isinstance(anon_vma, LazyAnchor) else anon_vma

    # -- pages --------------------------------------------------------------------------------------------------------
    def set_anon(self, batch: PteBatch, how: How) -> None:
        """A lazy VMA's pages are its own, whatever may be shared elsewhere."""
        assert batch.vma is not None
        anchor = batch.vma.anon
        if not isinstance(anchor, LazyAnchor):
            super().set_anon(batch, how)
        elif how == "reuse":
            self._frames.set_mapping(batch.pfns, anchor.handle)
        else:
            self._frames.set_anchor(batch.pfns, anchor.handle, batch.pgoffs)

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        """The scalar twin of :meth:`set_anon`."""
        if isinstance(vma.anon, LazyAnchor):
            self.set_anon(PteBatch.single(vma, addr, ptep, pfn, True), how)
        else:
            super().set_anon1(vma, addr, ptep, pfn, how)

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """Pages of a lazy VMA point at the VMA that they are in now."""
        if batch.anon and isinstance(new_vma.anon, LazyAnchor):
            self._costs.current[ENTRIES_WRITTEN] += len(batch.pfns)
            self._frames.set_mapping(batch.pfns, new_vma.anon.handle)

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """A lazy page: its VMA. Others: the trees."""
        if not len(query.pfns):
            return
        counters = self._costs.current
        mapping, index = query.sort_by_anchor()
        keys = scalar_view(index)
        cuts = (np.flatnonzero(np.diff(mapping)) + 1).tolist()
        for lo, hi in pairwise([0, *cuts, len(mapping)]):
            anchor = int(mapping[lo])
            if anchor & TAG_BITS != TAG_LAZY:
                yield from self.group_candidates(query, anchor, keys, lo, hi)
                continue
            lazy = self.lazy.get(anchor >> TAG_SHIFT)
            if lazy is not None:
                counters[NODES_VISITED] += query.asking(lo, hi)
                first, end = np.searchsorted(index[lo:hi], (lazy.vma.pgoff, lazy.vma.last + 1)).tolist()
                if first < end:
                    yield Linear(lazy.vma, lo + first, lo + end)

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        anchor, index = self._frames.anchor1(pfn)
        if anchor & TAG_BITS != TAG_LAZY:
            yield from super().candidates1(pfn)
            return
        lazy = self.lazy.get(anchor >> TAG_SHIFT)
        if lazy is not None:
            self._costs.current[NODES_VISITED] += 1
            vma = lazy.vma
            if vma.pgoff <= index <= vma.last:
                yield vma, vma.start + ((index - vma.pgoff) << PAGE_SHIFT)

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """As of the chains; a lazy VMA has the fields too."""
        structures = super().metadata_bytes(bits)
        if structures:
            structures["vma.anon_vma"] += self.sizes[bits].vma_anon * len(self.lazy)
        return structures

    def validate(self) -> None:
        """Check chains, and that lazy VMAs and their pages know each other.

        Raises:
            InvariantError: with the invariant's number.
        """
        vmas = [vma for mm in self._mms.values() for vma in mm.vmas]
        lazy = {vma for vma in vmas if isinstance(vma.anon, LazyAnchor)}
        if {anchor.vma for anchor in self.lazy.values()} != lazy or any(vma.anon.vma is not vma for vma in lazy):
            raise InvariantError("I1", "a lazy anchor is of no VMA, or of another")
        chained = [vma for vma in vmas if vma not in lazy]
        check_vmas(chained, self.profile)
        check_anon_vmas(chained, self.anon_vmas)
        for index in self._indexes:
            index.validate()
        for vma in chained:
            for batch in self.core.batches(vma, vma.start, vma.end):
                check_pages(self._frames, vma, batch)
        for vma in lazy:
            for batch in self.core.batches(vma, vma.start, vma.end):
                mapping, index_of_page = self._frames.anchor(batch.pfns)
                if (mapping != vma.anon.handle).any():
                    raise InvariantError("I13", f"a page in {vma}, which is lazy, points elsewhere")
                if (index_of_page != batch.pgoffs).any():
                    raise InvariantError("I14", f"a page index does not fit its place in {vma}")

    def topology(self) -> dict[str, I64] | None:
        """None: lazy VMAs have no anon_vma, and half of a topology would be a lie."""
        return None

    def describe_vma(self, vma: Vma) -> str:
        """``lazy``, or the chain."""
        return "itself" if isinstance(vma.anon, LazyAnchor) else super().describe_vma(vma)

    def describe_page(self, pfn: int) -> str:
        """``its VMA``, or as of the chains."""
        anchor, _ = self._frames.anchor1(pfn)
        return "its VMA" if anchor & TAG_BITS == TAG_LAZY else super().describe_page(pfn)
