"""Where a mapping goes: ``get_unmapped_area`` (``mm/mmap.c``, ``mm/vma.c``, x86-64 of 6.18, without randomisation).

Rule 3.13: the highest gap that is large enough, below ``MMAP_BASE``. What can use 2 MiB pages is aligned to them: a
private anonymous length that is a multiple of 2 MiB, and files on a disk.
"""

from __future__ import annotations

import errno
from bisect import bisect_left

from rmap.errors import SyscallError
from rmap.mm.mm_types import MMAP_BASE, MMAP_MIN_ADDR, STACK_GUARD_GAP, TASK_SIZE, File, Mm, Vma
from rmap.mm.ranges import find_vma
from rmap.uapi.vm_flags import VM_GROWSDOWN
from rmap.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE

LEGACY_BASE = 0x2AAAAAAAB000
"""A third of the address space: where the search goes upwards when there is no gap below ``MMAP_BASE``."""


def get_unmapped_area(
    mm: Mm,
    length: int,
    *,
    hint: int = 0,
    fixed: bool = False,
    shared: bool = False,
    file: File | None = None,
    pgoff: int = 0,
    call: str = "mmap",
) -> int:
    """Choose an address (rule 3.13).

    Args:
        length: in bytes, a multiple of the page size.
        hint: taken if it is free; 0 for none. With ``fixed`` it is taken in any case.
        shared, file, pgoff: what will be mapped; they decide the alignment. ``pgoff`` is in pages.
        call: the system call, for errors.

    Raises:
        SyscallError: ENOMEM: no room, or beyond the end of the address space; EINVAL: an unaligned fixed address.
    """
    if length > TASK_SIZE:
        raise SyscallError(errno.ENOMEM, call, f"{length:#x} bytes are more than an address space")
    if fixed:
        addr: int | None = hint
    elif _wants_alignment(length, hint, shared, file):
        offset = pgoff << PAGE_SHIFT if file is not None else 0
        addr = _aligned(mm, length, hint, offset) or _search(mm, length, hint)
    else:
        addr = _search(mm, length, hint)
    if addr is None or not 0 <= addr <= TASK_SIZE - length:
        raise SyscallError(errno.ENOMEM, call, f"no room for {length:#x} bytes in process {mm.id}")
    if addr & ~PAGE_MASK:
        raise SyscallError(errno.EINVAL, call, f"address {addr:#x} is not page aligned")
    return addr


def vm_start_gap(vma: Vma) -> int:
    """The lowest address that must stay free below a VMA: a stack keeps 1 MiB away from others."""
    return max(0, vma.start - STACK_GUARD_GAP) if vma.flags & VM_GROWSDOWN else vma.start


def _wants_alignment(length: int, hint: int, shared: bool, file: File | None) -> bool:
    # Files on a disk have thp_get_unmapped_area, and so has a private /dev/zero; shared memory does without huge pages.
    if file is None:
        return not shared and not hint and length % PMD_SIZE == 0
    if file.mapping is None:
        return not shared
    return not file.mapping.shmem


def _aligned(mm: Mm, length: int, hint: int, offset: int) -> int | None:
    # A place where address and file offset agree modulo 2 MiB, if a whole huge page fits into the mapping.
    first_huge = -(-offset // PMD_SIZE) * PMD_SIZE
    if offset + length - first_huge < PMD_SIZE or length + PMD_SIZE > TASK_SIZE:
        return None
    addr = _search(mm, length + PMD_SIZE, hint)
    if addr is None or addr == hint:
        return addr
    return addr + ((offset - addr) % PMD_SIZE or PMD_SIZE)


def _search(mm: Mm, length: int, hint: int) -> int | None:
    if hint and hint <= TASK_SIZE - length:
        above = find_vma(mm, hint)
        if above is None or hint + length <= vm_start_gap(above):
            return hint
    addr = _top_down(mm, length)
    return _bottom_up(mm, length) if addr is None else addr


def _top_down(mm: Mm, length: int) -> int | None:
    # The end of the highest gap that is large enough, minus the length. Only such a gap loses the guard of a stack
    # above it; if it is too small then, the guard bounds all further gaps.
    at = bisect_left(mm.starts, MMAP_BASE)
    above = mm.vmas[at] if at < len(mm.vmas) else None
    limit = end = MMAP_BASE
    for below in reversed(mm.vmas[:at]):
        if end - below.end >= length:
            limit = end = _under_guard(end, above)
            if end - below.end >= length:
                break
        above = below
        end = below.start
        if end > limit:
            end = limit
    else:
        end = _under_guard(end, above)
    return end - length if end - length >= MMAP_MIN_ADDR else None


def _under_guard(end: int, above: Vma | None) -> int:
    return end if above is None else min(end, vm_start_gap(above))


def _bottom_up(mm: Mm, length: int) -> int | None:
    # The lowest gap above LEGACY_BASE, up to the end of the address space.
    low = LEGACY_BASE
    above = find_vma(mm, low)
    at = len(mm.vmas) if above is None else bisect_left(mm.starts, above.start)
    for vma in mm.vmas[at:]:
        if vma.start - low >= length and vm_start_gap(vma) >= low + length - 1:
            return low
        low = vma.end
    return low if TASK_SIZE - low >= length else None


def round_hint(hint: int) -> int:
    """A hint as mmap takes it: rounded down to a page, and not below ``MMAP_MIN_ADDR`` unless 0."""
    hint &= PAGE_MASK
    return (MMAP_MIN_ADDR + PAGE_SIZE - 1) & PAGE_MASK if 0 < hint < MMAP_MIN_ADDR else hint
