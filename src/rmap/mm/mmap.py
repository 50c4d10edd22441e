"""mmap and munmap (``mm/mmap.c``, ``mm/vma.c`` of 6.18; rules 2.10, 2.12, 3.8)."""

from __future__ import annotations

import errno

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import MMAP, MUNMAP
from rmap.mm.merge import Proposal, split_vma, unlink_vma, vma_merge_new_range
from rmap.mm.mm_types import TASK_SIZE, File, Mm, Vma
from rmap.mm.placement import get_unmapped_area, round_hint
from rmap.mm.populate import mm_populate
from rmap.mm.shared_anonymous import release_if_unmapped, shmem_zero_setup
from rmap.mm.zap import free_pgtables, unmap_page_range
from rmap.uapi.vm_flags import (
    VM_ACCESS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from rmap.units import PAGE_MASK, PAGE_SHIFT, page_align

VM_MAY_ALL = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
MAX_FILE_OFFSET = (1 << 63) - 1
MAX_DEVICE_OFFSET = (1 << 64) - 1


def mmap(
    core: Core,
    mm: Mm,
    length: int,
    *,
    prot: int = VM_READ | VM_WRITE,
    shared: bool = False,
    file: File | None = None,
    offset: int = 0,
    addr: int | None = None,
    fixed: bool = False,
    noreplace: bool = False,
    growsdown: bool = False,
    populate: bool = False,
    noreserve: bool = False,
    locked: bool = False,
    stack: bool = False,
) -> int:
    """Map memory; returns the address.

    Args:
        length: in bytes; rounded up to pages.
        prot: ``VM_READ``, ``VM_WRITE``, ``VM_EXEC``.
        file: what to map; None for anonymous memory. With ``shared`` that is a new shmem file of its own.
        offset: into the file, in bytes, page aligned.
        addr: a hint; with ``fixed`` the address, whatever is there; ``noreplace`` implies ``fixed``.
        growsdown, populate, noreserve, locked: the MAP flags of these names.
        stack: MAP_STACK, which since 6.7 means VM_NOHUGEPAGE and so keeps areas from merging (rule 3.1).

    Raises:
        SyscallError: EINVAL: unaligned, empty, or an impossible combination; ENOMEM: no room, or too many areas;
            EEXIST: ``noreplace``, and something is there; EACCES: shared for writing, and the file is open for
            reading; EOVERFLOW: beyond the largest file.
    """
    core.costs.enter(MMAP)
    fixed = fixed or noreplace
    if offset & ~PAGE_MASK or offset < 0 or length <= 0:
        raise SyscallError(errno.EINVAL, "mmap", f"length {length:#x}, offset {offset:#x}")
    length = page_align(length)
    if len(mm.vmas) > core.max_map_count:
        raise SyscallError(errno.ENOMEM, "mmap", f"process {mm.id} has {len(mm.vmas):,} areas")
    hint = addr or 0
    start = get_unmapped_area(
        mm,
        length,
        hint=hint if fixed else round_hint(hint),
        fixed=fixed,
        shared=shared,
        file=file,
        pgoff=offset >> PAGE_SHIFT,
    )
    if noreplace and mm.overlapping(start, start + length):
        raise SyscallError(errno.EEXIST, "mmap", f"{start:#x} is in use in process {mm.id}")
    if file is not None and offset + length > (MAX_DEVICE_OFFSET if file.zero_device else MAX_FILE_OFFSET):
        raise SyscallError(errno.EOVERFLOW, "mmap", f"offset {offset:#x}")
    flags = _vm_flags(prot, shared, file, growsdown)
    flags |= (VM_LOCKED if locked else 0) | (VM_NORESERVE if noreserve else 0)
    flags |= VM_NOHUGEPAGE if stack and core.profile.stack_is_nohugepage else 0
    flags |= mm.def_flags
    _mmap_region(core, mm, start, start + length, flags, file, offset >> PAGE_SHIFT)
    if populate or flags & VM_LOCKED:
        mm_populate(core, mm, start, start + length)
    return start


def _vm_flags(prot: int, shared: bool, file: File | None, growsdown: bool) -> int:
    flags = prot & VM_ACCESS | VM_MAY_ALL
    if shared:
        flags |= VM_SHARED | VM_MAYSHARE
        if file is not None and not file.writable:
            if prot & VM_WRITE:
                raise SyscallError(errno.EACCES, "mmap", f"{file.name} is open for reading only")
            flags &= ~(VM_SHARED | VM_MAYWRITE)
    if growsdown:
        if shared or file is not None:
            raise SyscallError(errno.EINVAL, "mmap", "only private anonymous memory grows downwards")
        flags |= VM_GROWSDOWN
    return flags


def _mmap_region(core: Core, mm: Mm, start: int, end: int, flags: int, file: File | None, pgoff: int) -> None:
    do_munmap(core, mm, start, end, "mmap")
    if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
        flags |= VM_ACCOUNT
    if flags & VM_SHARED and (file is None or file.zero_device):
        # Its file is made only now, so it never merges with what is there.
        # A mapping of /dev/zero keeps the offset that was asked for, though its file is as long as the mapping only.
        pgoff = pgoff if file is not None else 0
        file = shmem_zero_setup(core, end - start)
        _new_vma(core, Vma(mm, start, end, flags, pgoff, file, file.mapping))
    else:
        _map_or_merge(core, mm, start, end, flags, file, pgoff)
    if flags & VM_LOCKED:
        mm.locked_vm += (end - start) >> PAGE_SHIFT


def _map_or_merge(core: Core, mm: Mm, start: int, end: int, flags: int, file: File | None, pgoff: int) -> None:
    # The first pgoff (rule 2.10): of anonymous memory its address; of a file, and of /dev/zero, what was asked for.
    if file is None:
        pgoff = start >> PAGE_SHIFT
    proposal = Proposal(start, end, pgoff, flags, file)
    if vma_merge_new_range(core, proposal, *mm.neighbours(start, end)) is None:
        # A private mapping of /dev/zero is anonymous (rule 1.8), but keeps its file and offset.
        _new_vma(core, Vma(mm, start, end, flags, pgoff, file, file.mapping if file is not None else None))


def _new_vma(core: Core, vma: Vma) -> None:
    vma.mm.insert(vma)
    core.link_file(vma)


def munmap(core: Core, mm: Mm, addr: int, length: int) -> None:
    """Unmap a range; holes in it are fine.

    Raises:
        SyscallError: EINVAL: unaligned, empty, or beyond the address space; ENOMEM: it would take one more area than
            a process may have.
    """
    core.costs.enter(MUNMAP)
    if addr & ~PAGE_MASK or length <= 0:
        raise SyscallError(errno.EINVAL, "munmap", f"address {addr:#x}, length {length:#x}")
    do_munmap(core, mm, addr, addr + page_align(length), "munmap")


def do_munmap(core: Core, mm: Mm, start: int, end: int, call: str) -> None:
    """Unmap ``[start, end)`` on behalf of a system call: cut the areas at both ends, zap, unlink, free the
    tables. What is left above begins at another address and another ``pgoff`` (rule 2.12).

    Raises:
        SyscallError: EINVAL: beyond the address space, or a part of a special mapping (an area before it may have been
            cut); ENOMEM: a hole in the middle of an area, and no more areas are allowed. Nothing was changed.
    """
    if not 0 <= start < end <= TASK_SIZE:
        raise SyscallError(errno.EINVAL, call, f"{start:#x} to {end:#x} is not in the address space")
    vmas = mm.overlapping(start, end)
    if not vmas:
        return
    first, last = vmas[0], vmas[-1]
    if first.start < start:
        if end < first.end and len(mm.vmas) >= core.max_map_count:
            raise SyscallError(errno.ENOMEM, call, f"process {mm.id} has {len(mm.vmas):,} areas")
        split_vma(core, first, start, new_below=True)
    if end < last.end:
        split_vma(core, last, end, new_below=False)
    for vma in vmas:
        unmap_page_range(core, vma, vma.start, vma.end, "unmap")
    for vma in vmas:
        if vma.flags & VM_LOCKED:
            mm.locked_vm -= vma.pages
        unlink_vma(core, vma)
        release_if_unmapped(core, vma.mapping)
    free_pgtables(core, mm, start, end)
