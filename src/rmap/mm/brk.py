"""brk: the heap (``mm/mmap.c``, ``do_brk_flags`` in ``mm/vma.c``; rule 3.9)."""

from __future__ import annotations

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import BRK
from rmap.mm.merge import Proposal, vma_merge_new_range
from rmap.mm.mm_types import TASK_SIZE, Mm, Vma
from rmap.mm.mmap import VM_MAY_ALL, do_munmap
from rmap.mm.placement import vm_start_gap
from rmap.mm.populate import mm_populate
from rmap.mm.ranges import find_vma
from rmap.uapi.vm_flags import VM_ACCOUNT, VM_LOCKED, VM_READ, VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE, page_align

HEAP_FLAGS = VM_READ | VM_WRITE | VM_MAY_ALL | VM_ACCOUNT


def brk(core: Core, mm: Mm, addr: int) -> int:
    """Move the end of the heap to ``addr``, in bytes.

    Returns:
        where it is then. The kernel does not say why it refuses: it answers with the old end, as to ``brk(0)``.
    """
    core.costs.enter(BRK)
    if addr < mm.start_brk:
        return mm.brk
    old, new = page_align(mm.brk), page_align(addr)
    if old == new or (_shrink(core, mm, new, old) if addr < mm.brk else _grow(core, mm, old, new)):
        mm.brk = addr
    return mm.brk


def _shrink(core: Core, mm: Mm, new: int, old: int) -> bool:
    if not mm.overlapping(new, old):
        return False
    try:
        do_munmap(core, mm, new, old, "brk")
    except SyscallError:
        return False
    return True


def _grow(core: Core, mm: Mm, old: int, new: int) -> bool:
    next = find_vma(mm, old)
    if new > TASK_SIZE or (next is not None and new + PAGE_SIZE > vm_start_gap(next)):
        return False
    if len(mm.vmas) > core.max_map_count:
        return False
    pgoff = old >> PAGE_SHIFT
    heap = mm.neighbours(old, old)[0]
    if heap is not None and heap.end <= mm.start_brk:
        heap = None
    # Only the heap below may take the range in: the next area is a page away.
    flags = HEAP_FLAGS | mm.def_flags
    if vma_merge_new_range(core, Proposal(old, new, pgoff, flags, None), heap, None) is None:
        mm.insert(Vma(mm, old, new, flags, pgoff))
    if flags & VM_LOCKED:
        mm.locked_vm += (new - old) >> PAGE_SHIFT
        mm_populate(core, mm, old, new)
    return True
