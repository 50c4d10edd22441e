"""Faulting ranges in ahead of use: ``mm_populate`` and ``faultin_page_range`` (``mm/gup.c``)."""

from __future__ import annotations

import errno

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.fault import populate
from rmap.mm.mm_types import Mm, Vma
from rmap.uapi.vm_flags import VM_ACCESS, VM_IO, VM_LOCKONFAULT, VM_PFNMAP, VM_READ, VM_SHARED, VM_WRITE


def mm_populate(core: Core, mm: Mm, start: int, end: int, stop_at_failure: bool = False) -> Vma | None:
    """Fault in a range, area by area, as MAP_POPULATE and mlock do: private writable areas are written, others read.

    Args:
        stop_at_failure: end at the first area that cannot be faulted in to its end (PROT_NONE, end of the file), as
            mlock does. mmap and mremap go on all the same, and nobody hears of it.

    Returns:
        the first such area, or None.
    """
    failed = None
    for vma in mm.overlapping(start, end) if start < end else ():
        if vma.flags & (VM_IO | VM_PFNMAP | VM_LOCKONFAULT):
            continue
        for_write = vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE
        low, high = max(start, vma.start), min(end, vma.end)
        if vma.flags & VM_ACCESS and populate(core, vma, low, high, for_write):
            continue
        failed = failed or vma
        if stop_at_failure:
            break
    return failed


def madvise_populate(core: Core, mm: Mm, start: int, end: int, write: bool) -> None:
    """MADV_POPULATE_READ and MADV_POPULATE_WRITE: fault in a range, up to the first page that refuses.

    Raises:
        SyscallError: ENOMEM: a hole; EINVAL: the area forbids the access; EFAULT: beyond the end of a file.
    """
    at = start
    while at < end:
        vma = mm.find(at)
        if vma is None:
            raise SyscallError(errno.ENOMEM, "madvise", f"{at:#x} is not mapped in process {mm.id}")
        if vma.flags & (VM_IO | VM_PFNMAP) or not vma.flags & (VM_WRITE if write else VM_READ):
            raise SyscallError(errno.EINVAL, "madvise", f"{vma} does not allow {'writing' if write else 'reading'}")
        stop = min(end, vma.end)
        if not populate(core, vma, at, stop, write):
            raise SyscallError(errno.EFAULT, "madvise", f"{vma} reaches beyond the end of its file")
        at = stop
