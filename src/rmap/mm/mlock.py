"""mlock and munlock (``mm/mlock.c``; rule 3.12). The process is privileged: no limit applies."""

from __future__ import annotations

import errno

import numpy as np

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import MLOCK
from rmap.mm.frames import PG_MLOCKED
from rmap.mm.merge import vma_modify_flags
from rmap.mm.mm_struct import Mm
from rmap.mm.populate import mm_populate
from rmap.mm.ranges import change_range
from rmap.mm.vma import VM_LOCKED, VM_LOCKED_MASK, VM_LOCKONFAULT, VM_SPECIAL, Vma
from rmap.units import PAGE_MASK, PAGE_SHIFT, page_align


def mlock(core: Core, mm: Mm, addr: int, length: int, onfault: bool = False) -> None:
    """Lock a range into memory.

    Args:
        addr, length: in bytes; widened to whole pages.
        onfault: lock pages as they come (MLOCK_ONFAULT), instead of faulting all of them in now.

    Raises:
        SyscallError: ENOMEM: a hole, too many areas, or pages that cannot be faulted in (PROT_NONE, beyond the end of a
            file). What was locked before that stays locked.
    """
    core.costs.enter(MLOCK)
    start, end = _whole_pages(addr, length, "mlock")
    _apply(core, mm, start, end, VM_LOCKED | (VM_LOCKONFAULT if onfault else 0), "mlock")
    failed = mm_populate(core, mm, start, end, stop_at_failure=True)
    if failed is not None:
        raise SyscallError(errno.ENOMEM, "mlock", f"{failed} cannot be faulted in")


def munlock(core: Core, mm: Mm, addr: int, length: int) -> None:
    """Undo :func:`mlock`.

    Raises:
        SyscallError: ENOMEM: a hole, or too many areas. What was unlocked before that stays unlocked.
    """
    core.costs.enter(MLOCK)
    start, end = _whole_pages(addr, length, "munlock")
    _apply(core, mm, start, end, 0, "munlock")


def _whole_pages(addr: int, length: int, call: str) -> tuple[int, int]:
    # The length is widened first, in 64 bits: one that is almost as large as can be becomes none.
    start = addr & PAGE_MASK
    end = start + page_align(addr - start + length) % (1 << 64)
    if not 0 <= length < 1 << 64 or end >= 1 << 64:
        raise SyscallError(errno.EINVAL, call, f"length {length:#x}")
    return start, end


def _apply(core: Core, mm: Mm, start: int, end: int, flags: int, call: str) -> None:
    change_range(
        mm,
        start,
        end,
        call,
        lambda vma, low, high: _mlock_fixup(core, vma, low, high, vma.flags & ~VM_LOCKED_MASK | flags, call),
    )


def _mlock_fixup(core: Core, vma: Vma, start: int, end: int, flags: int, call: str) -> Vma:
    old_flags = vma.flags
    if flags == old_flags or old_flags & VM_SPECIAL:
        return vma
    vma = vma_modify_flags(core, vma, start, end, flags, call)
    vma.flags = flags
    pages = (end - start) >> PAGE_SHIFT
    if not flags & VM_LOCKED:
        vma.mm.locked_vm -= pages
        _munlock_pages(core, vma, start, end)
    elif not old_flags & VM_LOCKED:
        vma.mm.locked_vm += pages
    return vma


def _munlock_pages(core: Core, vma: Vma, start: int, end: int) -> None:
    # Evictable again. If another locked area maps a page too, the next walk finds that out and marks it anew.
    for piece in core.spans(vma, start, end):
        core.frames.flags[piece.tracked()[0]] &= np.int32(~PG_MLOCKED)
