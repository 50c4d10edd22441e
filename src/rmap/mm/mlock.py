"""mlock, munlock and their -all forms (``mm/mlock.c``; rule 3.12). The process is privileged: no limit applies."""

from __future__ import annotations

import errno
from contextlib import suppress

import numpy as np

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import MLOCK
from rmap.mm.frames import MLOCK_MISSED, PG_MLOCKED
from rmap.mm.merge import vma_modify_flags
from rmap.mm.mm_types import TASK_SIZE, Mm, Vma
from rmap.mm.populate import mm_populate
from rmap.mm.ranges import change_range, find_vma
from rmap.uapi.vm_flags import VM_LOCKED, VM_LOCKED_MASK, VM_LOCKONFAULT, VM_SPECIAL
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


def mlockall(core: Core, mm: Mm, *, current: bool, future: bool, onfault: bool = False) -> None:
    """Lock everything there is (``current``), everything that will be mapped (``future``), or both.

    A second call replaces what the first one said of the future. Special mappings are passed over.

    Raises:
        SyscallError: EINVAL: neither.
    """
    core.costs.enter(MLOCK)
    if not (current or future):
        raise SyscallError(errno.EINVAL, "mlockall", "neither MCL_CURRENT nor MCL_FUTURE")
    flags = VM_LOCKED | (VM_LOCKONFAULT if onfault else 0)
    mm.def_flags = mm.def_flags & ~VM_LOCKED_MASK | (flags if future else 0)
    if current:
        _apply_to_all(core, mm, flags, "mlockall")
        mm_populate(core, mm, 0, TASK_SIZE)


def munlockall(core: Core, mm: Mm) -> None:
    """Undo :func:`mlockall`, and every :func:`mlock`."""
    core.costs.enter(MLOCK)
    mm.def_flags &= ~VM_LOCKED_MASK
    _apply_to_all(core, mm, 0, "munlockall")


def _apply_to_all(core: Core, mm: Mm, flags: int, call: str) -> None:
    # apply_mlockall_flags: area after area; one that cannot be changed (too many areas) is passed over.
    at = 0
    while (vma := find_vma(mm, at)) is not None:
        with suppress(SyscallError):
            vma = _mlock_fixup(core, vma, vma.start, vma.end, vma.flags & ~VM_LOCKED_MASK | flags, call)
        at = vma.end


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
    # The flags take part in merging (rule 3.12): a part is cut out, and joined again when it is unlocked.
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
        _mlock_pages(core, vma, start, end)
    return vma


def _mlock_pages(core: Core, vma: Vma, start: int, end: int) -> None:
    # Every page that is there now is locked, also one that was swapped into a locked area.
    for piece in core.spans(vma, start, end):
        core.frames.flags[piece.tracked()[0]] &= np.int32(~MLOCK_MISSED)


def _munlock_pages(core: Core, vma: Vma, start: int, end: int) -> None:
    # Evictable again. If another locked area maps a page too, the next walk finds that out and marks it anew.
    for piece in core.spans(vma, start, end):
        core.frames.flags[piece.tracked()[0]] &= np.int32(~PG_MLOCKED)
