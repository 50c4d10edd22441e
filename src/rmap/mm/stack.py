"""Stacks grow downwards on their own: ``expand_downwards`` (``mm/vma.c``, rule 2.17)."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.merge import set_range
from rmap.mm.mm_types import MMAP_MIN_ADDR, STACK_GUARD_GAP, Vma
from rmap.uapi.vm_flags import VM_ACCESS, VM_GROWSDOWN, VM_LOCKED
from rmap.units import PAGE_MASK, PAGE_SHIFT

STACK_LIMIT = 8 << 20
"""RLIMIT_STACK, in bytes."""


def expand_stack(core: Core, vma: Vma, addr: int, written: Sequence[Vma] = ()) -> None:
    """Let an area grow down to the page of ``addr``, which lies in the hole below it.

    Page indexes stay linear: ``pgoff`` falls with ``start`` (rule 2.17). The area is prepared for anonymous pages
    first, even if the growth is refused then, as in the kernel.

    Args:
        addr: in bytes.
        written: areas that the same access has written before it came here, and so has prepared.

    Raises:
        SyscallError: EFAULT: not a stack, too near to another area, beyond the limit. The program would get SIGSEGV.
    """

    def refuse(why: str) -> SyscallError:
        return SyscallError(errno.EFAULT, "expand_stack", f"{addr:#x} in process {vma.mm.id}: {why}")

    start = addr & PAGE_MASK
    if not vma.flags & VM_GROWSDOWN:
        raise refuse("not mapped, and what is above does not grow")
    if start < MMAP_MIN_ADDR:
        raise refuse("below the lowest address")
    prev = core.neighbours(vma)[0]
    guarded = prev is not None and prev.flags & VM_ACCESS and not prev.flags & VM_GROWSDOWN
    if prev is not None and guarded and start - prev.end < STACK_GUARD_GAP:
        raise refuse(f"the stack would come within 1 MiB of {prev}")
    for area in (*written, vma):
        if not area.faulted:
            core.prepare(area)
    pages = (vma.start - start) >> PAGE_SHIFT
    if pages > vma.pgoff:
        raise refuse("no page index is left")
    if vma.end - start > STACK_LIMIT:
        raise refuse("the stack would exceed 8 MiB")
    if vma.flags & VM_LOCKED:
        vma.mm.locked_vm += pages
    set_range(core, vma, start, vma.end, vma.pgoff - pages)
