"""Nonlinear file areas: ``sys_remap_file_pages`` (``mm/fremap.c`` of 2.6.7, until 4.0), and what stands for it today.

In a nonlinear area any page of the file may lie at any address, so that one area does the work of thousands. Which page
it is, only the entry says; an entry whose page was taken away keeps its number (``pte_file``). No reverse map of
objects can compute where such a page lies: see the designs.

Under a design whose release had no such areas the call maps each range anew, as the kernel does since 4.0
(``mm/mmap.c``): one area per range.

A page may be mapped by an area twice, so everything here goes entry by entry.
"""

from __future__ import annotations

import errno

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import FAULTS, MMAP, PTES_ADDED
from rmap.mm.file_fault import page_bits
from rmap.mm.frames import PG_DIRTY
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.page_cache import page_for_fault
from rmap.mm.page_tables import ensure, ptep_of
from rmap.mm.pte import ACCESSED, DIRTY, FILE, PRESENT, RW
from rmap.mm.zap import unmap_page_range
from rmap.uapi.vm_flags import VM_NONLINEAR, VM_SHARED, VM_WRITE
from rmap.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, page_align


def checked_range(mm: Mm, addr: int, length: int, pgoff: int) -> Vma:
    """The shared file area that a call of remap_file_pages names.

    Raises:
        SyscallError: EINVAL: unaligned, empty, not within one shared mapping of a file, or behind the file's end.
            Linux 2.6 found the end only after the area had become nonlinear; here nothing has changed.
    """
    length = page_align(length)
    vma = mm.find(addr)
    if addr & ~PAGE_MASK or length <= 0 or pgoff < 0 or vma is None:
        raise SyscallError(errno.EINVAL, "remap_file_pages", f"address {addr:#x}, length {length:#x}, page {pgoff}")
    if vma.mapping is None or not vma.flags & VM_SHARED or addr + length > vma.end:
        raise SyscallError(errno.EINVAL, "remap_file_pages", f"{addr:#x} is not in one shared mapping of a file")
    if pgoff + (length >> PAGE_SHIFT) > vma.mapping.nr_pages:
        raise SyscallError(errno.EINVAL, "remap_file_pages", f"page {pgoff} and what follows is behind the file's end")
    return vma


def remap_nonlinear(core: Core, vma: Vma, addr: int, length: int, pgoff: int) -> None:
    """Install the pages of the file from ``pgoff`` on at ``addr`` (``filemap_populate``, ``install_page``)."""
    core.costs.enter(MMAP)
    pages = page_align(length) >> PAGE_SHIFT
    core.reserve(2 * pages)
    if pgoff != vma.linear_page_index(addr) and not vma.flags & VM_NONLINEAR:
        _make_nonlinear(core, vma)
    for at in range(pages):
        where = addr + at * PAGE_SIZE
        unmap_page_range(core, vma, where, where + PAGE_SIZE, "zap")
        _install(core, vma, where, pgoff + at, page_bits(vma))


def _make_nonlinear(core: Core, vma: Vma) -> None:
    core.has_nonlinear = True
    if core.hooks.vma_nonlinear:
        core.hooks.vma_nonlinear(vma)
    core.unlink_file(vma)
    vma.flags |= VM_NONLINEAR
    core.link_file(vma)


def _install(core: Core, vma: Vma, addr: int, index: int, bits: int) -> None:
    pfn = page_for_fault(core, vma, index)
    ensure(core.tables, vma.mm, addr, addr + PAGE_SIZE)
    ptep = ptep_of(vma.mm, addr)
    core.frames.mv_mapcount[pfn] += 1
    core.tables.mv[ptep] = pfn << PAGE_SHIFT | bits
    if bits & DIRTY:
        core.frames.mv_flags[pfn] |= PG_DIRTY
    core.costs.current[PTES_ADDED] += 1
    if core.hooks.added1:
        core.hooks.added1(vma, addr, ptep, pfn, False, "fault")


def touch_nonlinear(core: Core, vma: Vma, start: int, end: int, for_write: bool) -> None:
    """Fault a range in (``do_file_page``): an empty entry means the page that linearity puts there."""
    entries, frames = core.tables.mv, core.frames
    wanted = page_bits(vma) | (RW | DIRTY if for_write else 0)
    _refuse_behind_end(core, vma, start, end)
    for addr in range(start, end, PAGE_SIZE):
        ptep = ptep_of(vma.mm, addr)
        entry = entries[ptep] if ptep else 0
        if not entry & PRESENT:
            core.costs.current[FAULTS] += 1
            index = entry >> PAGE_SHIFT if entry & FILE else vma.linear_page_index(addr)
            _install(core, vma, addr, index, wanted)
            continue
        if for_write:
            core.costs.current[FAULTS] += not entry & RW
            frames.mv_flags[entry >> PAGE_SHIFT] |= PG_DIRTY
        entries[ptep] = entry | ACCESSED | (RW | DIRTY if for_write and vma.flags & VM_WRITE else 0)


def _refuse_behind_end(core: Core, vma: Vma, start: int, end: int) -> None:
    assert vma.mapping is not None
    for addr in range(start, end, PAGE_SIZE):
        ptep = ptep_of(vma.mm, addr)
        entry = core.tables.mv[ptep] if ptep else 0
        index = entry >> PAGE_SHIFT if entry & FILE else vma.linear_page_index(addr)
        if not entry & PRESENT and index >= vma.mapping.nr_pages:
            detail = f"{addr:#x} in process {vma.mm.id}: beyond the end of the file (SIGBUS)"
            raise SyscallError(errno.EFAULT, "touch", detail)


def file_entry(vma: Vma, addr: int, index: int) -> int:
    """What stays in an entry whose page is taken away: its number, unless linearity says it (``pgoff_to_pte``)."""
    return 0 if index == vma.linear_page_index(addr) else index << PAGE_SHIFT | FILE


def zap_nonlinear_range(core: Core, vma: Vma, start: int, end: int) -> None:
    """Drop the pages of a range, and keep in mind which they were (``zap_pte_range`` with ``nonlinear_vma``)."""
    for addr in range(start, end, PAGE_SIZE):
        ptep = ptep_of(vma.mm, addr)
        entry = core.tables.mv[ptep] if ptep else 0
        if entry & PRESENT:
            index = core.frames.anchor1(entry >> PAGE_SHIFT)[1]
            unmap_page_range(core, vma, addr, addr + PAGE_SIZE, "zap")
            core.tables.mv[ptep] = file_entry(vma, addr, index)


def zap_nonlinear(core: Core, vma: Vma, first: int, last: int) -> None:
    """Drop the pages ``first`` to ``last`` of the file wherever the area maps them: all its entries are looked at."""
    for piece in core.spans(vma, vma.start, vma.end):
        for at, entry in enumerate(piece.entries.tolist()):
            if entry & PRESENT and first <= core.frames.anchor1(entry >> PAGE_SHIFT)[1] <= last:
                addr = piece.addr + at * PAGE_SIZE
                zap_nonlinear_range(core, vma, addr, addr + PAGE_SIZE)


def keep_in_mind(core: Core, pteps: list[int], pfns: list[int]) -> None:
    """Entries of file pages were cleared by a walk: those in nonlinear areas keep the page's number."""
    tables = core.tables
    for ptep, pfn in zip(pteps, pfns):
        addr = tables.addr_of1(ptep)
        vma = core.mms[tables.mv_row_mm[ptep >> 9]].find(addr)
        if vma is not None and vma.flags & VM_NONLINEAR:
            tables.mv[ptep] = file_entry(vma, addr, core.frames.anchor1(pfn)[1])
