"""Swap-in: ``do_swap_page`` (``mm/memory.c``, rules 4.3 and 4.12).

Who the page belongs to afterwards is the point of it. Content that only this entry names is exclusive and hangs on the
VMA's active anon_vma; content that others may name hangs on the root, where all of the family will look.
"""

from __future__ import annotations

from rmap.mm.core import Core
from rmap.mm.costs import COPIES_ASKED, FAULTS, PAGES_COPIED, PTES_ADDED, SWAPIN
from rmap.mm.frames import ANON, EXCLUSIVE, KEPT_ANCHOR, MLOCK_KEPT, MLOCK_MISSED, SWAPBACKED, SWAPCACHE
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Vma
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SWP_EXCLUSIVE
from rmap.uapi.vm_flags import VM_LOCKED, VM_WRITE
from rmap.units import PAGE_SHIFT


def do_swap_page(core: Core, vma: Vma, addr: int, ptep: int, write: bool) -> None:
    """Replace one swap entry by the page. A write may still have to go through COW afterwards.

    The device is synchronous: in 6.18 a slot named by one entry only is read into a fresh page that stays out of the
    swap cache (``Profile.swapin_bypass``). The caller has reserved a frame.
    """
    before = core.costs.current
    counters = core.costs.current = core.costs.by_operation[SWAPIN]
    counters[FAULTS] += 1
    entry = core.tables.mv[ptep]
    slot = entry >> PAGE_SHIFT
    pfn, fresh = _page_of_slot(core, slot)
    frames, swap = core.frames, core.swap
    exclusive = fresh or bool(entry & SWP_EXCLUSIVE)
    if not core.profile.anon_exclusive:  # rule 4.12 of 5.1: a write by the only user, or nobody's
        exclusive = write and frames.mv_mapcount[pfn] == 0 and swap.count[slot] <= 1
    if not fresh and _must_copy(core, vma, addr, ptep, pfn):
        pfn, fresh, exclusive = frames.alloc1(), False, True
        frames.mv_flags[pfn] = SWAPBACKED
        counters[PAGES_COPIED] += 1
    swap.count[slot] -= 1
    bypass = core.profile.swapin_bypass
    if fresh:
        swap.release(slot)
    elif bypass and frames.mv_flags[pfn] & SWAPCACHE and _may_leave_swapcache(core, vma, pfn, slot, write):
        frames.extra[pfn] += 1  # the fault's own reference, while the cache gives up its one
        core.drop_swapcache(pfn)
        frames.extra[pfn] -= 1
    alone = not frames.mv_mapcount[pfn] and not frames.mv_extra[pfn]
    if core.profile.anon_exclusive and bypass and not exclusive and alone:
        exclusive = True  # the fault holds the only reference
        if frames.mv_flags[pfn] & ANON:
            frames.mv_flags[pfn] |= KEPT_ANCHOR
    value = pfn << PAGE_SHIFT | PRESENT | ACCESSED
    if exclusive:
        if core.profile.anon_exclusive:
            frames.mv_flags[pfn] |= EXCLUSIVE
        elif frames.mv_flags[pfn] & ANON:
            frames.mv_flags[pfn] |= KEPT_ANCHOR
        if vma.flags & VM_WRITE:
            value |= RW
            if write:
                value |= DIRTY
    _map(core, vma, addr, ptep, pfn, value, exclusive)
    if not bypass and not swap.count[slot] and frames.mv_flags[pfn] & SWAPCACHE and frames.mv_mapcount[pfn] == 1:
        core.drop_swapcache(pfn)  # a synchronous device gives the slot up as soon as nobody else needs it
    core.costs.current = before


def _page_of_slot(core: Core, slot: int) -> tuple[int, bool]:
    # The page that holds a slot's content, and whether it was made for this fault alone.
    frames, swap = core.frames, core.swap
    cached = int(swap.cached[slot])
    if cached:
        return cached, False
    pfn = frames.alloc1()
    frames.mv_flags[pfn] = SWAPBACKED
    if swap.count[slot] == 1 and core.profile.swapin_bypass:
        return pfn, True
    frames.mv_flags[pfn] |= SWAPCACHE
    frames.private[pfn] = slot
    frames.mv_extra[pfn] = 1
    swap.cached[slot] = pfn
    return pfn, False


def _must_copy(core: Core, vma: Vma, addr: int, ptep: int, pfn: int) -> bool:
    # A design may not want a page that is mapped elsewhere to be mapped here too (anonmm: at another address).
    if core.hooks.must_copy is None or not core.frames.mv_mapcount[pfn]:
        return False
    asked = core.hooks.must_copy(PteBatch.single(vma, addr, ptep, pfn, True), addr, "swapin")
    if asked is None or not asked[0]:
        return False
    core.costs.current[COPIES_ASKED] += 1
    return True


def _may_leave_swapcache(core: Core, vma: Vma, pfn: int, slot: int, write: bool) -> bool:
    # should_try_to_free_swap, then folio_free_swap: nobody else may name the slot.
    if core.swap.count[slot]:
        return False
    if vma.flags & VM_LOCKED or _is_mlocked(core, pfn):
        return True
    return write and core.frames.mv_mapcount[pfn] == 0


def _is_mlocked(core: Core, pfn: int) -> bool:
    # PG_mlocked: a locked area maps the page, or did when it was locked.
    flags = core.frames.mv_flags[pfn]
    if flags & MLOCK_KEPT:
        return True
    if flags & MLOCK_MISSED or not core.frames.mv_mapcount[pfn]:
        return False
    locked = (vma for mm in core.mms.values() if mm.locked_vm for vma in mm.vmas if vma.flags & VM_LOCKED)
    pieces = (piece for vma in locked for piece in core.spans(vma, vma.start, vma.end))
    return any(bool((piece.tracked()[0] == pfn).any()) for piece in pieces)


def _map(core: Core, vma: Vma, addr: int, ptep: int, pfn: int, value: int, exclusive: bool) -> None:
    frames = core.frames
    newly_anon = not frames.mv_flags[pfn] & ANON
    if not core.rmap.keeps_anchors and not frames.mv_mapcount[pfn]:
        newly_anon = True  # before 2.6.8 the last unmapping made a page anonymous no more
    frames.mv_mapcount[pfn] += 1
    if vma.flags & VM_LOCKED:
        # folio_add_new_anon_rmap does not lock the page, as folio_add_anon_rmap_ptes does.
        flags = frames.mv_flags[pfn]
        frames.mv_flags[pfn] = flags | MLOCK_MISSED if newly_anon else flags & ~MLOCK_MISSED
    if newly_anon:
        frames.mv_flags[pfn] |= ANON
        core.hooks.set_anon1(vma, addr, ptep, pfn, "new" if exclusive else "shared")
    core.tables.mv[ptep] = value
    core.costs.current[PTES_ADDED] += 1
    if core.hooks.added1:
        core.hooks.added1(vma, addr, ptep, pfn, True, "swapin")
