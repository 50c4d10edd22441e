"""The scalar twin of anonymous faults: one page, no array.

Same rules, same state, same costs as :mod:`rmap.mm.fault`; a tenth of its time for a single page.
"""

from __future__ import annotations

import errno

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import COW, FAULTS, PAGES_COPIED, PTES_ADDED, PTES_REMOVED
from rmap.mm.frames import ANON, EXCLUSIVE, LARGE, SWAPCACHE
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import ensure
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SPECIAL, SWAP
from rmap.mm.special import fault_special
from rmap.mm.swap_in import do_swap_page
from rmap.uapi.vm_flags import VM_EXEC, VM_PFNMAP, VM_READ, VM_SHARED, VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PTRS_PER_TABLE

SLOT_MASK = PTRS_PER_TABLE - 1
WRITABLE = PRESENT | RW
TOUCHED = ACCESSED | DIRTY
NEW_ENTRY_BITS = PRESENT | RW | ACCESSED | DIRTY
ZERO_ENTRY = PRESENT | SPECIAL | ACCESSED


def write1(core: Core, vma: Vma, addr: int) -> None:
    """Write to one page of an anonymous VMA (``do_anonymous_page``, ``do_wp_page``). A frame is free.

    Args:
        addr: in bytes, page aligned, inside the VMA.
    """
    if not vma.flags & VM_WRITE:
        raise SyscallError(errno.EFAULT, "write", f"{addr:#x} in process {vma.mm.id}: not writable")
    row = vma.mm.rows.get(addr >> PMD_SHIFT)
    if row is None:
        ensure(core.tables, vma.mm, addr, addr + PAGE_SIZE)
        row = vma.mm.rows[addr >> PMD_SHIFT]
    ptep = row * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & SLOT_MASK)
    entries = core.tables.mv
    entry = entries[ptep]
    if entry & SWAP and not entry & PRESENT:
        do_swap_page(core, vma, addr, ptep, True)
        entry = entries[ptep]
    if entry & WRITABLE == WRITABLE:
        entries[ptep] = entry | TOUCHED
        return
    if not vma.faulted:
        if vma.flags & (VM_PFNMAP | VM_SHARED):
            return  # frames of a device: they are mapped from the start, or not at all
        core.prepare(vma)
    counters = core.costs.current
    counters[FAULTS] += 1
    if entry & PRESENT and not entry & SPECIAL:
        pfn = entry >> PAGE_SHIFT
        if _reusable(core, vma, addr, ptep, pfn):
            entries[ptep] = entry | RW | TOUCHED
        else:
            _copy1(core, vma, addr, ptep, pfn)
        return
    frames, hooks = core.frames, core.hooks
    pfn = frames.alloc1()
    frames.mv_flags[pfn] = core.new_anon
    frames.mv_mapcount[pfn] = 1
    hooks.set_anon1(vma, addr, ptep, pfn, "new")
    entries[ptep] = pfn << PAGE_SHIFT | NEW_ENTRY_BITS
    counters[PTES_ADDED] += 1
    if hooks.added1:
        hooks.added1(vma, addr, ptep, pfn, True, "fault")


def _reusable(core: Core, vma: Vma, addr: int, ptep: int, pfn: int) -> bool:
    # wp_can_reuse_anon_folio: exclusive already, or the only reference there is; then the anchor moves here.
    frames = core.frames
    flags = frames.mv_flags[pfn]
    if flags & EXCLUSIVE:
        return True
    newest = core.profile.anon_exclusive
    if frames.mv_mapcount[pfn] != 1 or flags & ((ANON | LARGE) if newest else ANON) != ANON:
        return False
    extra = frames.mv_extra[pfn]
    if extra and (newest or flags & SWAPCACHE):
        if extra != 1 or not flags & SWAPCACHE or core.swap.count[frames.private[pfn]]:
            return False
        core.drop_swapcache(pfn)
    if core.profile.anon_exclusive:
        frames.mv_flags[pfn] |= EXCLUSIVE  # rule 1.7: on the page itself
    core.hooks.set_anon1(vma, addr, ptep, pfn, "reuse")
    return True


def _copy1(core: Core, vma: Vma, addr: int, ptep: int, old: int) -> None:
    # wp_page_copy: the twin of rmap.mm.fault.wp_page_copy.
    costs, frames, hooks = core.costs, core.frames, core.hooks
    before = costs.current
    counters = costs.current = costs.by_operation[COW]
    counters[PAGES_COPIED] += 1
    counters[PTES_REMOVED] += 1
    if hooks.removed1:
        hooks.removed1(vma, addr, ptep, old, True, "cow")
    core.put_page1(old)
    pfn = frames.alloc1()
    frames.mv_flags[pfn] = core.new_anon
    frames.mv_mapcount[pfn] = 1
    hooks.set_anon1(vma, addr, ptep, pfn, "new")
    core.tables.mv[ptep] = pfn << PAGE_SHIFT | NEW_ENTRY_BITS
    counters[PTES_ADDED] += 1
    if hooks.added1:
        hooks.added1(vma, addr, ptep, pfn, True, "fault")
    costs.current = before


def read1(core: Core, vma: Vma, addr: int) -> None:
    """Read one page of an anonymous VMA: the zero page, if there is none yet (rule 4.1)."""
    if not vma.flags & (VM_READ | VM_EXEC | VM_WRITE):
        raise SyscallError(errno.EFAULT, "read", f"{addr:#x} in process {vma.mm.id}: not readable")
    row = vma.mm.rows.get(addr >> PMD_SHIFT)
    if row is None:
        ensure(core.tables, vma.mm, addr, addr + PAGE_SIZE)
        row = vma.mm.rows[addr >> PMD_SHIFT]
    ptep = row * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & SLOT_MASK)
    entries = core.tables.mv
    entry = entries[ptep]
    if entry & PRESENT:
        entries[ptep] = entry | ACCESSED
    elif entry & SWAP:
        do_swap_page(core, vma, addr, ptep, False)
    elif vma.file is not None and vma.file.special is not None:
        fault_special(core, vma, addr, ptep)
    elif not vma.flags & (VM_PFNMAP | VM_SHARED):
        core.costs.current[FAULTS] += 1
        entries[ptep] = ZERO_ENTRY
