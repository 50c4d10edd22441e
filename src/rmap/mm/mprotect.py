"""mprotect (``mm/mprotect.c``; rules 3.10, 3.11)."""

from __future__ import annotations

import errno

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import MPROTECT
from rmap.mm.fault import populate
from rmap.mm.merge import vma_modify_flags
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.protect import change_protection
from rmap.mm.ranges import change_range
from rmap.uapi.vm_flags import VM_ACCESS, VM_ACCOUNT, VM_LOCKED, VM_LOCKED_MASK, VM_NORESERVE, VM_SHARED, VM_WRITE
from rmap.units import PAGE_MASK, page_align

MAY_SHIFT = 4
"""VM_MAYREAD is VM_READ, this many bits to the left; so are the others."""


def mprotect(core: Core, mm: Mm, addr: int, length: int, prot: int) -> None:
    """Change the protection of a range.

    Args:
        addr, length: in bytes; ``addr`` page aligned.
        prot: ``VM_READ``, ``VM_WRITE``, ``VM_EXEC``; 0 for PROT_NONE.

    Raises:
        SyscallError: EINVAL: unaligned, or an unknown protection; ENOMEM: a hole, or too many areas; EACCES: a shared
            mapping of a file that is not open for writing. Areas before the one refused stay changed.
    """
    core.costs.enter(MPROTECT)
    if addr & ~PAGE_MASK:
        raise SyscallError(errno.EINVAL, "mprotect", f"address {addr:#x}")
    if not length:
        return
    end = addr + page_align(length)
    if length < 0 or end >= 1 << 64:
        raise SyscallError(errno.ENOMEM, "mprotect", f"length {length:#x}")
    if prot & ~VM_ACCESS:
        raise SyscallError(errno.EINVAL, "mprotect", f"protection {prot:#x}")

    def change(vma: Vma, low: int, high: int) -> Vma:
        flags = vma.flags & ~VM_ACCESS | prot
        if prot & ~(flags >> MAY_SHIFT):
            raise SyscallError(errno.EACCES, "mprotect", f"{vma} cannot become writable")
        return mprotect_fixup(core, vma, low, high, flags)

    change_range(mm, addr, end, "mprotect", change)


def mprotect_fixup(core: Core, vma: Vma, start: int, end: int, flags: int) -> Vma:
    """Give a part of an area other flags; returns the area that covers it then."""
    old_flags = vma.flags
    if flags == old_flags:
        return vma
    flags = _account(vma, flags)
    vma = vma_modify_flags(core, vma, start, end, flags, "mprotect")
    vma.flags = flags
    change_protection(core, vma, start, end, old_flags)
    if flags & VM_WRITE and old_flags & (VM_WRITE | VM_SHARED | VM_LOCKED_MASK) == VM_LOCKED:
        # A locked area shall take no faults: its pages are copied now.
        populate(core, vma, start, end, True)
    return vma


def _account(vma: Vma, flags: int) -> int:
    # What could be written once stays charged, except where nothing ever was. Charged and not charged do not merge.
    if flags & VM_WRITE:
        return flags if vma.flags & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE) else flags | VM_ACCOUNT
    if vma.mapping is None and not vma.faulted:
        return flags & ~VM_ACCOUNT
    return flags
