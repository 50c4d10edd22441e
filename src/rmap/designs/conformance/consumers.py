"""Who asks the reverse map: eviction, referenced, mkclean and migration, page by page and as plainly as can be.

The kernel's own consumers live elsewhere (:mod:`rmap.consumers`); these exist so that a design is tested by the
interface alone: what a walk finds is checked, cleared, and told to the design. Rules 4.12, 4.18, 5.8.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.columns import I64
from rmap.errors import InvariantError
from rmap.mm.core import Core
from rmap.mm.costs import MKCLEAN, PTES_UNMAPPED, REFERENCED, UNMAP_WALK, WALK
from rmap.mm.frames import ANON, EXCLUSIVE, LARGE, PG_DIRTY, PG_MLOCKED, SWAPBACKED, SWAPCACHE, TAG_SHIFT
from rmap.mm.interface import Query
from rmap.mm.mm_types import Vma
from rmap.mm.nonlinear import keep_in_mind
from rmap.mm.page_cache import remove_from_page_cache
from rmap.mm.pte import ACCESSED, DIRTY, FLAG_BITS, MIGRATION, PFN_BITS, PRESENT, RW, SWAP, SWP_EXCLUSIVE
from rmap.mm.walk import hits
from rmap.uapi.vm_flags import VM_LOCKED, VM_SHARED
from rmap.units import PAGE_SHIFT


def each_hit(core: Core, query: Query) -> Iterator[tuple[int, int, Vma]]:
    """Walk a query; every entry found as ``(position, pte pointer, VMA)``."""
    for step in hits(core, query):
        pos = step.pos
        positions = range(pos.start, pos.stop) if isinstance(pos, slice) else pos.tolist()
        for position, ptep in zip(positions, step.pteps.tolist()):
            vma = core.mm_by_id(core.tables.mv_row_mm[ptep >> 9]).find(core.tables.addr_of1(ptep))
            assert vma is not None
            yield position, ptep, vma


class Evictor:
    """Evicts pages through the walk and nothing else (satisfies :class:`rmap.mm.interface.Reclaimer`).

    Args:
        core: the machine.
    """

    def __init__(self, core: Core) -> None:
        self.core = core

    def reclaim(self, pfns: I64) -> int:
        """Evict pages. Those in VM_LOCKED areas, of shmem, or held by others stay; returns how many frames went."""
        frames = self.core.frames
        free_before = frames.free_top
        flags = frames.flags[pfns]
        anon = ((flags & (ANON | LARGE | PG_MLOCKED | SWAPCACHE)) == ANON) & (frames.extra[pfns] == 0)
        anon &= (flags & SWAPBACKED) != 0
        cached = ((flags & (ANON | LARGE | PG_MLOCKED | SWAPBACKED | SWAPCACHE)) == 0) & (frames.extra[pfns] == 1)
        victims = pfns[anon & (frames.mapcount[pfns] > 0)][: self.core.swap.free]
        self._unmap(np.concatenate((victims, pfns[cached])), self._add_to_swap(victims))
        for pfn in victims.tolist():
            if not frames.mapcount[pfn] or not self.core.swap.count[frames.private[pfn]]:
                self.core.drop_swapcache(pfn)
        for pfn in pfns[cached].tolist():
            if not frames.mapcount[pfn]:
                mapping = self.core.mappings[(int(frames.mapping[pfn]) >> TAG_SHIFT) - 1]
                remove_from_page_cache(self.core, mapping, int(frames.index[pfn]), int(frames.index[pfn]))
        return frames.free_top - free_before

    def make_room(self, wanted: int) -> int:
        """Evict whatever can go until so many frames are free."""
        frames = self.core.frames
        for pfn in range(1, frames.nr_pages):
            if frames.free_top >= wanted:
                break
            if frames.mapcount[pfn]:
                self.reclaim(np.array([pfn], np.int64))
        return frames.free_top

    def _add_to_swap(self, pfns: I64) -> dict[int, int]:
        frames, swap = self.core.frames, self.core.swap
        slots = swap.alloc(len(pfns))
        swap.cached[slots] = pfns
        frames.private[pfns] = slots
        frames.flags[pfns] |= np.int32(SWAPCACHE)
        frames.extra[pfns] += 1
        return dict(zip(pfns.tolist(), slots.tolist()))

    def _unmap(self, pfns: I64, slots: dict[int, int]) -> None:
        core, frames = self.core, self.core.frames
        counters = core.costs.enter(UNMAP_WALK)
        query = Query(frames, pfns, purpose="unmap")
        positions, pteps = [], []
        for position, ptep, vma in each_hit(core, query):
            if vma.flags & VM_LOCKED:
                query.left[position] = 0
                continue
            pfn = int(query.pfns[position])
            slot = slots.get(pfn)
            entry = 0
            if slot is not None:
                entry = slot << PAGE_SHIFT | SWAP | (SWP_EXCLUSIVE if frames.flags[pfn] & EXCLUSIVE else 0)
                core.swap.count[slot] += 1
                frames.flags[pfn] &= ~EXCLUSIVE
            core.tables.mv[ptep] = entry
            if core.has_nonlinear and slot is None:
                keep_in_mind(core, [ptep], [pfn])
            frames.mapcount[pfn] -= 1
            positions.append(position)
            pteps.append(ptep)
        counters[PTES_UNMAPPED] += len(pteps)
        if core.hooks.unmapped and pteps:
            core.hooks.unmapped(query, np.array(positions, np.int64), np.array(pteps, np.int64))


def referenced(core: Core, pfns: I64) -> int:
    """Clear the accessed bits of pages; returns how many were set. Designs may tidy up after this walk."""
    core.costs.enter(REFERENCED)
    entries = core.tables.mv
    young = 0
    for _, ptep, _ in each_hit(core, Query(core.frames, pfns, purpose="referenced")):
        young += bool(entries[ptep] & ACCESSED)
        entries[ptep] &= ~ACCESSED
    return young


def mkclean(core: Core, pfns: I64) -> int:
    """Write-protect and clean shared mappings; returns how many entries changed. Other VMAs are not wanted."""
    core.costs.enter(MKCLEAN)
    frames, entries = core.frames, core.tables.mv
    query = Query(frames, pfns, skip_vma=_is_private, purpose="mkclean")
    changed = 0
    for position, ptep, vma in each_hit(core, query):
        if vma.flags & VM_SHARED and entries[ptep] & (RW | DIRTY):
            if entries[ptep] & DIRTY:
                frames.flags[query.pfns[position]] |= PG_DIRTY
            entries[ptep] &= ~(RW | DIRTY)
            changed += 1
    return changed


def _is_private(vma: Vma) -> bool:
    return not vma.flags & VM_SHARED


def move_pages(core: Core, pfns: I64) -> int:
    """Migrate pages to other frames by two walks (rule 4.18); returns how many moved.

    Raises:
        InvariantError: ``migrate``, when the second walk does not find the entries that the first one found.
    """
    frames, entries = core.frames, core.tables.mv
    flags = frames.flags[pfns]
    held = np.where((flags & ANON) != 0, 0, 1)
    old = pfns[((flags & (LARGE | SWAPCACHE)) == 0) & (frames.extra[pfns] == held) & (frames.mapcount[pfns] > 0)]
    old = old[: frames.free_top]
    if not len(old):
        return 0
    core.costs.enter(WALK)
    query = Query(frames, old)
    marked = 0
    for position, ptep, _ in each_hit(core, query):
        entries[ptep] = entries[ptep] & ~PRESENT | MIGRATION
        frames.mapcount[query.pfns[position]] -= 1
        marked += 1
    new = _copy_frames(core, old)
    if core.hooks.migrated:
        core.hooks.migrated(old, new)
    query = Query(frames, new, "never")
    query.mask = PFN_BITS | PRESENT | MIGRATION
    query.want = old << PAGE_SHIFT | MIGRATION
    for position, ptep, _ in each_hit(core, query):
        bits = entries[ptep] & FLAG_BITS & ~MIGRATION
        entries[ptep] = int(query.pfns[position]) << PAGE_SHIFT | bits | PRESENT
        frames.mapcount[query.pfns[position]] += 1
        marked -= 1
    if marked:
        raise InvariantError("migrate", f"{marked} entries of migrating pages were not found again")
    frames.free(old)
    return len(old)


def _copy_frames(core: Core, old: I64) -> I64:
    # New frames with what the old ones say; the page cache learns of them.
    frames = core.frames
    new = frames.alloc(len(old))
    for column in (frames.flags, frames.mapping, frames.index, frames.extra):
        column[new] = column[old]
    frames.extra[old] = 0
    for source, target in zip(old.tolist(), new.tolist()):
        if not frames.flags[source] & ANON:
            core.mappings[(int(frames.mapping[source]) >> TAG_SHIFT) - 1].pages[frames.index[source]] = target
    return new
