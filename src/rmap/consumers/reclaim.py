"""Reclaim: ``try_to_unmap`` (``mm/rmap.c``), ``shrink_folio_list`` (``mm/vmscan.c``).

Evicting a page clears *every* entry that maps it, through the design's walk and nothing else. Rules 4.12 and 5.8.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64, Bool
from rmap.consumers.clusters import clear_clusters
from rmap.consumers.locked import mark_locked, stop_at_locked
from rmap.consumers.split import split_folios
from rmap.consumers.swap_out import swap_out
from rmap.mm.core import Core
from rmap.mm.costs import PTES_UNMAPPED, UNMAP_WALK
from rmap.mm.frames import (
    ANON,
    EXCLUSIVE,
    KERNEL_OWNED,
    LARGE,
    MINUS_ONE,
    MLOCK_KEPT,
    ONE,
    PG_DIRTY,
    PG_MLOCKED,
    SWAPBACKED,
    SWAPCACHE,
    TAG_SHIFT,
)
from rmap.mm.interface import Query
from rmap.mm.nonlinear import keep_in_mind
from rmap.mm.pte import DIRTY, SWAP, SWP_EXCLUSIVE
from rmap.mm.walk import hits
from rmap.units import PAGE_SHIFT


class WalkReclaimer:
    """Evicts pages of one machine (satisfies :class:`rmap.mm.interface.Reclaimer`).

    Args:
        core: the machine.

    Attributes:
        hand: the frame at which the search for victims goes on when memory runs out.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.hand = 1

    def reclaim(self, pfns: I64) -> int:
        """Evict these pages as far as the rules allow.

        Args:
            pfns: int64[n], distinct. Pages that are not evictable (locked, kernel-owned, referenced from elsewhere,
                or anonymous with no swap slot left) stay. A page of a large folio goes alone: its folio is split.

        Returns:
            how many frames were freed.
        """
        core, frames = self.core, self.core.frames
        free_before = frames.free_top
        counted_to = core.costs.current
        mark_locked(core, pfns)
        pfns = self.evictable(pfns)
        self._split(pfns)
        if len(pfns):
            slots = self._add_to_swap(pfns)
            unmap(core, pfns, slots)
            self._drop_unmapped(pfns)
        core.costs.current = counted_to
        return frames.free_top - free_before

    def make_room(self, wanted: int) -> int:
        """Evict pages in frame order, from where the last search ended, until so many frames are free.

        A design that has no reverse map but a hand (``swap_out``) names entries instead of pages.
        """
        if self.core.hooks.swap_out:
            return self._make_room_by_scanning(wanted)
        frames = self.core.frames
        seen = 0
        while frames.free_top < wanted and seen < frames.nr_pages:
            n = min(max(64, 2 * (wanted - frames.free_top)), frames.nr_pages - seen)
            victims = (np.arange(self.hand, self.hand + n) % frames.nr_pages).astype(np.int64)
            self.hand = (self.hand + n) % frames.nr_pages
            seen += n
            self.reclaim(victims[frames.mapcount[victims] + frames.extra[victims] > 0])
        return frames.free_top

    def _make_room_by_scanning(self, wanted: int) -> int:
        core, frames = self.core, self.core.frames
        counted_to = core.costs.current
        self._drop_unmapped(self.evictable(np.flatnonzero((frames.extra > 0) & (frames.mapcount == 0))))
        while frames.free_top < wanted and swap_out(core, self._take_entry):
            pass
        core.costs.current = counted_to
        return frames.free_top

    def _take_entry(self, ptep: int, pfn: int) -> bool:
        # One entry of a page goes; with the last one the page does.
        page = np.array([pfn], np.int64)
        if not len(self.evictable(page)):
            return False
        self._split(page)
        flags = int(self.core.frames.flags[pfn])
        slots = self._add_to_swap(page)
        if flags & (ANON | SWAPBACKED) == ANON | SWAPBACKED and not slots[0]:
            return False  # no swap is left
        _clear(self.core, page, slots, np.array([ptep], np.int64))
        if not self.core.frames.mapcount[pfn]:
            if not self.core.frames.extra[pfn]:
                self.core.free_pages(page)
            else:
                self._drop_unmapped(page)
        return True

    def evictable(self, pfns: I64) -> I64:
        """Those of these pages that may be evicted: not locked, not the kernel's, and referenced, with their whole
        folio, by nothing but mappings and caches."""
        frames = self.core.frames
        flags = frames.flags[pfns]
        extra = frames.extra[pfns]
        cached = ((flags & (ANON | SWAPCACHE)) != ANON).astype(np.int32)  # one reference by the page or swap cache
        possible = (flags & (KERNEL_OWNED | PG_MLOCKED | MLOCK_KEPT) == 0) & (extra == cached)
        possible &= frames.mapcount[pfns] + extra > 0
        if frames.has_large:
            possible &= ~np.isin(pfns - frames.head_offset[pfns], self._pinned_folios(pfns))
        return pfns[possible]

    def _heads(self, pfns: I64) -> I64:
        large = pfns[(self.core.frames.flags[pfns] & LARGE) != 0]
        return np.unique(large - self.core.frames.head_offset[large])

    def _pinned_folios(self, pfns: I64) -> I64:
        # Large folios that cannot be split: a page of theirs is referenced from elsewhere.
        frames = self.core.frames
        pinned = [head for head in self._heads(pfns).tolist() if (frames.extra[frames.folio_of(head)] > 1).any()]
        return np.array(pinned, np.int64)

    def _split(self, pfns: I64) -> None:
        if self.core.frames.has_large:
            split_folios(self.core, self._heads(pfns))

    def _add_to_swap(self, pfns: I64) -> I64:
        # Give every swap-backed page a slot and put it into the swap cache; 0 where none is needed or none is left.
        frames, swap = self.core.frames, self.core.swap
        flags = frames.flags[pfns]
        slots = np.where((flags & SWAPCACHE) != 0, frames.private[pfns], 0)
        wanting = np.flatnonzero(((flags & SWAPBACKED) != 0) & ((flags & (ANON | SWAPCACHE)) == ANON))
        wanting = wanting[: swap.free]
        if len(wanting):
            fresh = swap.alloc(len(wanting))
            slots[wanting] = fresh
            page = pfns[wanting]
            swap.cached[fresh] = page
            frames.private[page] = fresh
            frames.flags[page] |= np.int32(SWAPCACHE)
            frames.extra[page] += ONE
        return slots

    def _drop_unmapped(self, pfns: I64) -> None:
        # shrink_folio_list: what is unmapped now leaves its cache, and with that reference the frame is free.
        core, frames, swap = self.core, self.core.frames, self.core.swap
        flags = frames.flags[pfns]
        swapcached = (flags & SWAPCACHE) != 0
        for pfn in pfns[swapcached].tolist():
            if not frames.mapcount[pfn] or not swap.count[frames.private[pfn]]:
                core.drop_swapcache(pfn)
        # Lazily freed pages are gone already: what is held still, and unmapped, is held by a page cache.
        of_file = ~swapcached & ((flags & ANON) == 0) & (frames.extra[pfns] > 0)
        for pfn in pfns[of_file & (frames.mapcount[pfns] == 0)].tolist():
            self._drop_file_page(pfn)

    def _drop_file_page(self, pfn: int) -> None:
        core, frames = self.core, self.core.frames
        mapping = core.mappings[(int(frames.mapping[pfn]) >> TAG_SHIFT) - 1]
        index = int(frames.index[pfn])
        if mapping.shmem:  # rule 4.11: the file remembers the slot, no page table does
            if not core.swap.free:
                return
            slot = int(core.swap.alloc(1)[0])
            core.swap.count[slot] = 1
            mapping.pages[index] = -slot
        else:
            mapping.pages[index] = 0  # dirty pages are written back first; the model keeps no contents
        mapping.nr_cached -= 1
        frames.extra[pfn] -= 1
        core.free_pages(np.array([pfn], np.int64))


def try_to_unmap(core: Core, pfns: I64) -> Bool:
    """Clear every entry that maps these pages, without evicting them: each keeps its frame in the swap cache.

    Returns:
        bool[n]: which of them nothing maps any more.
    """
    reclaimer = WalkReclaimer(core)
    mark_locked(core, pfns)
    evictable = reclaimer.evictable(pfns)
    if len(evictable):
        reclaimer._split(evictable)
        unmap(core, evictable, reclaimer._add_to_swap(evictable))
    return core.frames.mapcount[pfns] == 0


def unmap(core: Core, pfns: I64, slots: I64) -> None:
    """The walk of ``try_to_unmap``: entries become swap entries (anonymous), or none (files, lazily freed pages).

    Args:
        slots: int64[n]; the swap slot of each page. An anonymous page without one stays mapped, unless it was
            given up by MADV_FREE and not written since.
    """
    frames = core.frames
    counters = core.costs.enter(UNMAP_WALK)
    lazy = (frames.flags[pfns] & (ANON | SWAPBACKED)) == ANON
    _keep_dirty_lazyfree(core, pfns[lazy])
    may_go = (slots > 0) | ((frames.flags[pfns] & ANON) == 0) | ((frames.flags[pfns] & SWAPBACKED) == 0)
    by_pfn = np.argsort(pfns[may_go])
    pages, their_slots = pfns[may_go][by_pfn], slots[may_go][by_pfn]
    query = Query(frames, pages, purpose="unmap")
    cleared_pos: list[I64] = []
    cleared_pteps: list[I64] = []
    for step in hits(core, query):
        pos, pteps = stop_at_locked(core, query, step)
        if not len(pos):
            continue
        page = query.pfns[pos]
        _clear(core, page, their_slots[np.searchsorted(pages, page)], pteps)
        counters[PTES_UNMAPPED] += len(pos)
        cleared_pos.append(pos)
        cleared_pteps.append(pteps)
    if core.hooks.unmapped and cleared_pos:
        core.hooks.unmapped(query, np.concatenate(cleared_pos), np.concatenate(cleared_pteps))
    if core.hooks.collateral and core.has_nonlinear:
        clear_clusters(core, query)
    gone = pages[(frames.mapcount[pages] == 0) & (frames.extra[pages] == 0)]
    if len(gone):
        core.free_pages(gone)


def _keep_dirty_lazyfree(core: Core, pfns: I64) -> None:
    # MADV_FREE promised these pages away, but they were written again: they are ordinary pages once more.
    if not len(pfns):
        return
    rewritten = (core.frames.flags[pfns] & PG_DIRTY) != 0
    query = Query(core.frames, pfns[~rewritten])
    dirty = [pfns[rewritten]]
    for step in hits(core, query):
        dirty.append(query.pfns[step.pos][(core.tables.ptes[step.pteps] & DIRTY) != 0])
    core.frames.flags[np.concatenate(dirty)] |= np.int32(SWAPBACKED | PG_DIRTY)


def _clear(core: Core, pfns: I64, slots: I64, pteps: I64) -> None:
    # Each page once: one step of the walk. The entry keeps in mind whether the page was exclusive (rule 4.12).
    frames, entries = core.frames, core.tables.ptes
    swapped = slots > 0
    value = np.where(swapped, (slots << PAGE_SHIFT) | SWAP, 0)
    value[swapped & ((frames.flags[pfns] & EXCLUSIVE) != 0)] |= SWP_EXCLUSIVE
    entries[pteps] = value
    if core.has_nonlinear:
        of_file = np.flatnonzero((frames.flags[pfns] & ANON) == 0)
        keep_in_mind(core, pteps[of_file].tolist(), pfns[of_file].tolist())
    frames.flags[pfns] &= np.int32(~EXCLUSIVE)
    np.add.at(frames.mapcount, pfns, MINUS_ONE)
    np.add.at(core.swap.count, slots[swapped], ONE)
