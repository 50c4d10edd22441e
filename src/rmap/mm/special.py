"""Pages the kernel owns and maps into processes: the vDSO, and frames of a device (``remap_pfn_range``).

``vm_normal_page()`` knows nothing of them: no reverse map tracks such an entry, whatever the design, because nothing
could be done with the answer. The kernel neither evicts nor moves these pages (rule 4.17).
"""

from __future__ import annotations

import errno

import numpy as np

from rmap.columns import I64
from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import FAULTS, MMAP
from rmap.mm.frames import KERNEL_OWNED
from rmap.mm.mm_types import File, Mm, Vma
from rmap.mm.page_tables import ensure, ptep_of, span
from rmap.mm.placement import get_unmapped_area
from rmap.mm.pte import ACCESSED, PRESENT, RW, SPECIAL
from rmap.uapi.vm_flags import (
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_IO,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from rmap.units import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT

TABLE_BITS = PMD_SHIFT - PAGE_SHIFT

MAY_ALL = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
KINDS = {
    # A page of kernel text and data, read and executed by everybody. VM_MIXEDMAP stands for its fault handler: the
    # entries are there from the start, and fork copies them.
    "vdso": VM_READ | VM_EXEC | MAY_ALL | VM_DONTEXPAND | VM_MIXEDMAP,
    # Device memory: frame numbers without a struct page of their own.
    "pfnmap": VM_READ | VM_WRITE | VM_SHARED | VM_MAYSHARE | MAY_ALL | VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP,
}


def kernel_pages(core: Core, nr_pages: int) -> I64:
    """Take frames for the kernel itself, for good; int64[n]."""
    core.reserve(nr_pages)
    pfns = core.frames.alloc(nr_pages)
    core.frames.flags[pfns] = KERNEL_OWNED
    return pfns


def special_mapping(core: Core, name: str, nr_pages: int) -> File:
    """What a special mapping of the kernel's (``_install_special_mapping``: the vDSO) has in place of a file.

    Its pages are mapped by faults, one by one. VMAs of one such object show the same frames.
    """
    return File(None, name, special=kernel_pages(core, nr_pages))


def fault_special(core: Core, vma: Vma, addr: int, ptep: int) -> None:
    """Map one page of a special mapping, where no entry is yet (``special_mapping_fault``, rule 4.17)."""
    assert vma.file is not None and vma.file.special is not None
    pages = vma.file.special
    core.costs.current[FAULTS] += 1
    pfn = int(pages[vma.linear_page_index(addr) % len(pages)])
    core.tables.mv[ptep] = pfn << PAGE_SHIFT | PRESENT | SPECIAL | ACCESSED


def fault_special_range(core: Core, vma: Vma, start: int, end: int) -> None:
    """The same for every page of a range (rule 4.17)."""
    ensure(core.tables, vma.mm, start, end)
    for addr in range(start, end, PAGE_SIZE):
        ptep = ptep_of(vma.mm, addr)
        if core.tables.mv[ptep]:
            core.tables.mv[ptep] |= ACCESSED
        else:
            fault_special(core, vma, addr, ptep)


def map_kernel_pages(core: Core, mm: Mm, pfns: I64, kind: str) -> int:
    """Map pages of the kernel into a process, all at once; returns the address.

    Args:
        pfns: int64[n], from :func:`kernel_pages`.
        kind: ``vdso`` or ``pfnmap``.

    Raises:
        SyscallError: ENOMEM: no room, or too many areas.
        LimitError: no page tables are left.
    """
    core.costs.enter(MMAP)
    if len(mm.vmas) > core.max_map_count:
        raise SyscallError(errno.ENOMEM, "mmap", f"process {mm.id} has {len(mm.vmas):,} areas")
    core.tables.need((len(pfns) >> TABLE_BITS) + 2)
    flags = KINDS[kind]
    length = len(pfns) << PAGE_SHIFT
    start = get_unmapped_area(mm, length, hint=0, fixed=False, shared=bool(flags & VM_SHARED), file=None, pgoff=0)
    pgoff = int(pfns[0]) if flags & VM_PFNMAP else 0
    mm.insert(Vma(mm, start, start + length, flags, pgoff))
    ensure(core.tables, mm, start, start + length)
    piece = span(core.tables, mm, start, start + length)
    bits = PRESENT | SPECIAL | ACCESSED | (RW if flags & VM_WRITE else 0)
    np.bitwise_or(pfns << PAGE_SHIFT, bits, out=piece.entries)
    piece.commit()
    return start
