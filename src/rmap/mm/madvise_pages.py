"""What advice does to pages: MADV_DONTNEED, FREE, COLD, PAGEOUT, WILLNEED and REMOVE (``mm/madvise.c``).

FREE, COLD and PAGEOUT leave alone what others map too, and pages of large folios, which the kernel would split first.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.core import Core
from rmap.mm.frames import LARGE, PG_DIRTY, PG_REFERENCED, SWAPBACKED, SWAPCACHE
from rmap.mm.mm_types import Vma
from rmap.mm.nonlinear import zap_nonlinear_range
from rmap.mm.page_cache import add_to_page_cache, missing
from rmap.mm.pte import ACCESSED, DIRTY, NOT_ACCESSED, PRESENT, SWAP
from rmap.mm.truncate import punch_hole
from rmap.mm.zap import free_rows, unmap_page_range
from rmap.uapi.vm_flags import VM_NONLINEAR
from rmap.units import PAGE_SHIFT, PMD_SHIFT, PMD_SIZE

LARGEST_REQUEST_PAGES = 320
"""1280 KiB: the most that one call reads ahead (``max_sectors_kb`` of an ordinary disk)."""


def dontneed(core: Core, vma: Vma, start: int, end: int) -> None:
    """Drop the pages of a range; whole page tables that are empty then go too (``CONFIG_PT_RECLAIM``)."""
    if vma.flags & VM_NONLINEAR:
        zap_nonlinear_range(core, vma, start, end)
        return
    unmap_page_range(core, vma, start, end, "zap")
    rows = vma.mm.rows
    first, stop = (start + PMD_SIZE - 1) >> PMD_SHIFT, end >> PMD_SHIFT
    if stop - first > 2 * len(rows):
        empty = sorted(region for region in rows if first <= region < stop)
    else:
        empty = [region for region in range(first, stop) if region in rows]
    free_rows(core, [rows.pop(region) for region in empty])


def lazy_free(core: Core, vma: Vma, start: int, end: int) -> None:
    """MADV_FREE: pages may go once memory is short, unless they are written again. Swapped ones go at once.

    A page that was never swapped is given up even if others map it too (its entries are dirty, it is not): it goes if
    no entry is dirty by then.
    """
    for piece in core.spans(vma, start, end):
        entries = piece.entries
        swapped = (entries & (PRESENT | SWAP)) == SWAP
        slots = (entries[swapped] >> PAGE_SHIFT).tolist()
        entries[swapped] = 0
        pfns, offs = piece.tracked()
        given_up = _small(core, pfns) & _out_of_swapcache(core, pfns)
        given_up &= (core.frames.mapcount[pfns] == 1) | ((core.frames.flags[pfns] & PG_DIRTY) == 0)
        core.frames.flags[pfns[given_up]] &= np.int32(~(SWAPBACKED | PG_DIRTY))
        entries[np.flatnonzero(given_up) if offs is None else offs[given_up]] &= np.int64(~(DIRTY | ACCESSED))
        piece.commit()
        core.swap_put(slots)


def _alone(core: Core, pfns: I64) -> Bool:
    # Small pages that nothing else maps.
    return _small(core, pfns) & (core.frames.mapcount[pfns] == 1)


def _small(core: Core, pfns: I64) -> Bool:
    small: Bool = (core.frames.flags[pfns] & LARGE) == 0
    return small


def _out_of_swapcache(core: Core, pfns: I64) -> Bool:
    # folio_free_swap: pages mapped once leave the swap cache, unless another entry names their slot. True: not in it.
    out: Bool = (core.frames.flags[pfns] & SWAPCACHE) == 0
    for i in np.flatnonzero(~out).tolist():
        pfn = int(pfns[i])
        if core.frames.mapcount[pfn] == 1 and not core.swap.count[core.frames.private[pfn]]:
            core.drop_swapcache(pfn)
            out[i] = True
    return out


def cold(core: Core, vma: Vma, start: int, end: int) -> None:
    """MADV_COLD: forget that the pages were used, so that they are evicted before others."""
    for piece in core.spans(vma, start, end):
        pfns, offs = piece.tracked()
        alone = _alone(core, pfns)
        core.frames.flags[pfns[alone]] &= np.int32(~PG_REFERENCED)
        piece.entries[np.flatnonzero(alone) if offs is None else offs[alone]] &= NOT_ACCESSED
        piece.commit()


def pageout(core: Core, vma: Vma, start: int, end: int) -> None:
    """MADV_PAGEOUT: evict the pages now (rule 4.12). What cannot go stays, and nobody hears of it."""
    if core.reclaimer is None:
        return
    victims = []
    for piece in core.spans(vma, start, end):
        pfns = piece.tracked()[0]
        victims.append(pfns[_alone(core, pfns)])
    if not victims:
        return
    pages = np.concatenate(victims)
    core.frames.flags[pages] &= np.int32(~PG_REFERENCED)
    before = core.costs.current
    core.reclaimer.reclaim(pages)
    core.costs.current = before


def willneed(core: Core, vma: Vma, start: int, end: int) -> None:
    """MADV_WILLNEED: read ahead, into the page cache or the swap cache. No entry changes."""
    mapping = vma.mapping
    if mapping is None:
        _read_into_swapcache(core, vma, start, end)
        return
    first = vma.linear_page_index(start)
    last = min(vma.linear_page_index(end), mapping.nr_pages) - 1
    if mapping.shmem:
        wanted = np.flatnonzero(mapping.pages[first : last + 1] < 0) + first
    else:
        wanted = missing(mapping, first, min(last, first + LARGEST_REQUEST_PAGES - 1))
    core.reserve(len(wanted))
    add_to_page_cache(core, mapping, wanted)


def _read_into_swapcache(core: Core, vma: Vma, start: int, end: int) -> None:
    frames, swap = core.frames, core.swap
    for piece in core.spans(vma, start, end):
        entries = piece.entries
        slots = entries[(entries & (PRESENT | SWAP)) == SWAP] >> PAGE_SHIFT
        slots = slots[swap.cached[slots] == 0]
        if not len(slots):
            continue
        core.reserve(len(slots))
        pfns = frames.alloc(len(slots))
        frames.flags[pfns] = SWAPBACKED | SWAPCACHE
        frames.private[pfns] = slots
        frames.extra[pfns] = 1
        swap.cached[slots] = pfns


def remove(core: Core, vma: Vma, start: int, end: int) -> None:
    """MADV_REMOVE: punch a hole into the file itself."""
    assert vma.mapping is not None
    before = core.costs.current
    punch_hole(core, vma.mapping, vma.linear_page_index(start) << PAGE_SHIFT, end - start)
    core.costs.current = before
