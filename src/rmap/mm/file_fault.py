"""Faults on files and shared memory: ``do_read_fault``, ``do_shared_fault``, ``do_cow_fault`` (``mm/memory.c``).

Rule 4.10. A read fault maps the page and, around it, whatever of an aligned 64 KiB window is in memory already
(``do_fault_around``): so more pages get mapped than are touched.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.costs import FAULTS, PTES_ADDED
from rmap.mm.frames import ONE, PG_DIRTY
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Vma
from rmap.mm.page_cache import READAHEAD_PAGES, add_to_page_cache, missing, page_for_fault
from rmap.mm.page_tables import Span, ensure, span
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW
from rmap.uapi.vm_flags import VM_SHARED, VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PMD_SIZE, PTRS_PER_TABLE

FAULT_AROUND_PAGES = 16


def wants_writenotify(vma: Vma) -> bool:
    """Whether a shared writable mapping starts write-protected, so that the first write is noticed (rule 4.10)."""
    return vma.mapping is not None and not vma.mapping.shmem and bool(vma.flags & VM_SHARED)


def page_bits(vma: Vma) -> int:
    """The bits of an entry that a read fault makes (``vma->vm_page_prot``)."""
    writable = vma.flags & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE and not wants_writenotify(vma)
    return PRESENT | ACCESSED | (RW if writable else 0)


def fault_around_window(vma: Vma, addr: int) -> tuple[int, int]:
    """The addresses ``[start, end)`` that a read fault at ``addr`` may map: 16 pages of the VMA and of one page table.

    They are aligned by address, except where the VMA begins inside the aligned block: then it is the 16 pages from its
    start.
    """
    slot = (addr >> PAGE_SHIFT) % PTRS_PER_TABLE
    into_vma = (addr - vma.start) >> PAGE_SHIFT
    first = max(slot - slot % FAULT_AROUND_PAGES, slot - min(slot, into_vma))
    stop = min(first + FAULT_AROUND_PAGES, PTRS_PER_TABLE, slot + vma.pages - into_vma)
    return addr + (first - slot) * PAGE_SIZE, addr + (stop - slot) * PAGE_SIZE


def read_file_range(core: Core, vma: Vma, start: int, end: int) -> None:
    """Read every page of a range of a file VMA. The caller has checked the file's size and made room."""
    ensure(core.tables, vma.mm, start, end)
    if end - start > FAULT_AROUND_PAGES * PAGE_SIZE:
        _read_long_range(core, vma, start, end)
    else:
        _read_page_by_page(core, vma, start, end)


def _read_long_range(core: Core, vma: Vma, start: int, end: int) -> None:
    # Memory files have no readahead: a page that is not there takes a fault of its own. All of them are made at once,
    # and counted as if they had been made one by one.
    counters = core.costs.current
    faults = counters[FAULTS] + _allocate_shmem(core, vma, start, end)
    if not _read_all_cached(core, vma, start, end):
        for low in range(start, end, PMD_SIZE):
            _read_page_by_page(core, vma, low, min(low + PMD_SIZE, end))
    counters[FAULTS] = max(counters[FAULTS], faults)


def _allocate_shmem(core: Core, vma: Vma, start: int, end: int) -> int:
    # Make the pages of a memory file that faults on this range would make. Returns how many faults those would be.
    mapping = vma.mapping
    assert mapping is not None
    if not mapping.shmem:
        return 0
    entries = span(core.tables, vma.mm, start, end).entries
    none = np.flatnonzero(entries == 0)
    first = vma.linear_page_index(start)
    absent = mapping.pages[none + first] <= 0
    if not absent.any():
        return 0
    faults = len(none)
    if not absent.all():
        faults, mapped_to = 0, 0
        for at, is_absent in zip(none.tolist(), absent.tolist()):
            addr = start + at * PAGE_SIZE
            if is_absent or addr >= mapped_to:
                faults += 1
                mapped_to = fault_around_window(vma, addr)[1]
    add_to_page_cache(core, mapping, none[absent] + first)
    return faults


def _read_page_by_page(core: Core, vma: Vma, start: int, end: int) -> None:
    addr = start
    while addr < end:
        addr = _next_none(core, vma, addr, end)
        if addr < end:
            _read_fault(core, vma, addr)
            addr += PAGE_SIZE


def _next_none(core: Core, vma: Vma, addr: int, end: int) -> int:
    # The first address from addr on whose entry is none; marks what is passed as accessed.
    for piece in core.spans(vma, addr, end):
        none = np.flatnonzero(piece.entries == 0)
        stop = int(none[0]) if len(none) else piece.n
        piece.entries[:stop] |= np.where(piece.entries[:stop] & PRESENT, ACCESSED, 0)
        piece.commit()
        if len(none):
            return piece.addr + stop * PAGE_SIZE
    return end


def _read_fault(core: Core, vma: Vma, addr: int) -> None:
    mapping = vma.mapping
    assert mapping is not None
    core.costs.current[FAULTS] += 1
    low, high = fault_around_window(vma, addr)
    piece = span(core.tables, vma.mm, low, high)
    first = vma.linear_page_index(low)
    at = (addr - low) >> PAGE_SHIFT
    _map_around(core, vma, piece, first)
    if not piece.entries[at]:
        page_for_fault(core, vma, first + at)
        if mapping.shmem:
            map_pages(core, vma, piece, np.array([at], np.int64), first, page_bits(vma))
        else:
            # The fault waits for the disk and is taken again: by now its neighbours are in memory too.
            _map_around(core, vma, piece, first)
    piece.commit()


def fault_behind_end(core: Core, vma: Vma, addr: int, for_write: bool) -> None:
    """What a fault leaves that lies behind the end of the file, where it ends in SIGBUS.

    A private write has prepared the VMA by then (``do_cow_fault``, rule 2.2), a read has mapped what lies around
    (``do_fault_around``, rule 4.10); a shared write leaves nothing.
    """
    core.costs.current[FAULTS] += 1
    if not for_write:
        low, high = fault_around_window(vma, addr)
        if _maps_around(vma, low, high):
            ensure(core.tables, vma.mm, low, high)
            piece = span(core.tables, vma.mm, low, high)
            _map_around(core, vma, piece, vma.linear_page_index(low))
            piece.commit()
    elif not vma.flags & VM_SHARED and not vma.faulted:
        core.prepare(vma)


def _maps_around(vma: Vma, low: int, high: int) -> bool:
    # Whether a window holds anything that fault-around maps. Where there is no page table yet, the kernel makes one
    # only if the first page found is not the file's last (can_map_large in filemap_map_pages; not so for shmem).
    mapping = vma.mapping
    assert mapping is not None
    first = vma.linear_page_index(low)
    cached = np.flatnonzero(_cached(mapping.pages, first, (high - low) >> PAGE_SHIFT, mapping.nr_pages) > 0)
    if not len(cached):
        return False
    has_table = low >> PMD_SHIFT in vma.mm.rows
    return has_table or mapping.shmem or first + int(cached[0]) < mapping.nr_pages - 1


def _map_around(core: Core, vma: Vma, piece: Span, first: int) -> None:
    mapping = vma.mapping
    assert mapping is not None
    cached = _cached(mapping.pages, first, piece.n, mapping.nr_pages)
    map_pages(core, vma, piece, np.flatnonzero((piece.entries == 0) & (cached > 0)), first, page_bits(vma))


def _cached(pages: I64, first: int, n: int, size: int) -> I64:
    # The page-cache column from page index first on, zeros beyond the end of the file.
    held = pages[first : min(first + n, size)]
    if len(held) == n:
        return held
    padded = np.zeros(n, np.int64)
    padded[: len(held)] = held
    return padded


def _read_all_cached(core: Core, vma: Vma, start: int, end: int) -> bool:
    # The common case in one step: nothing mapped yet, everything in memory. False: not that case, nothing done.
    mapping = vma.mapping
    assert mapping is not None
    low, windows, addr = fault_around_window(vma, start)[0], 0, start
    while addr < end:
        windows += 1
        addr = fault_around_window(vma, addr)[1]
    high = addr
    first = vma.linear_page_index(low)
    n = (high - low) >> PAGE_SHIFT
    if first + n > mapping.nr_pages or not (mapping.pages[first : first + n] > 0).all():
        return False
    piece = span(core.tables, vma.mm, low, high)
    if piece.entries.any():
        return False
    core.costs.current[FAULTS] += windows
    map_pages(core, vma, piece, None, first, page_bits(vma))
    piece.commit()
    return True


def map_pages(core: Core, vma: Vma, piece: Span, offs: I64 | None, first: int, bits: int) -> None:
    """Map pages of the file, in memory already.

    Args:
        offs: where in the span; None for all of it.
        first: the page index of the span's start.
        bits: of the entries.
    """
    mapping = vma.mapping
    assert mapping is not None
    pfns = mapping.pages[first : first + piece.n].copy() if offs is None else mapping.pages[offs + first]
    if not len(pfns):
        return
    np.add.at(core.frames.mapcount, pfns, ONE)
    if offs is None:
        piece.entries[:] = (pfns << PAGE_SHIFT) | bits
    else:
        piece.entries[offs] = (pfns << PAGE_SHIFT) | bits
    core.costs.current[PTES_ADDED] += len(pfns)
    if core.hooks.added:
        core.hooks.added(PteBatch(vma, piece, pfns, offs, False), "fault")


def write_shared_range(core: Core, vma: Vma, start: int, end: int) -> None:
    """Write every page of a range of a shared file VMA: no copies, the file itself changes."""
    mapping = vma.mapping
    assert mapping is not None
    ensure(core.tables, vma.mm, start, end)
    piece = span(core.tables, vma.mm, start, end)
    entries = piece.entries
    counters = core.costs.current
    none = np.flatnonzero(entries == 0)
    counters[FAULTS] += int(np.count_nonzero((entries & RW) == 0))
    first = vma.linear_page_index(start)
    bring_in(core, vma, none + first)
    map_pages(core, vma, piece, none, first, PRESENT | ACCESSED | RW | DIRTY)
    entries |= np.int64(RW | ACCESSED | DIRTY)
    core.frames.flags[entries >> PAGE_SHIFT] |= np.int32(PG_DIRTY)
    piece.commit()


def bring_in(core: Core, vma: Vma, indexes: I64) -> None:
    """Make sure that pages of a file are in memory, as faults in this order would."""
    mapping = vma.mapping
    assert mapping is not None
    absent = indexes[mapping.pages[indexes] <= 0]
    if mapping.shmem:
        add_to_page_cache(core, mapping, absent)
        return
    for index in absent.tolist():
        page_for_fault(core, vma, index)


def frames_needed(pages: int) -> int:
    """An upper bound of the frames that faults on so many pages of any file take, readahead included."""
    return 2 * pages + 2 * READAHEAD_PAGES


def frames_missing(vma: Vma, start: int, end: int, for_write: bool) -> int:
    """A closer bound, of faults on this range of a file VMA: what is not in memory now, and the copies."""
    mapping = vma.mapping
    assert mapping is not None
    pages = (end - start) >> PAGE_SHIFT
    copies = pages if for_write and not vma.flags & VM_SHARED else 0
    first = vma.linear_page_index(start)
    last = min(first + pages, mapping.nr_pages) - 1
    absent = len(missing(mapping, first, last))
    if absent and not mapping.shmem:
        last = min(last + READAHEAD_PAGES, mapping.nr_pages - 1)
        absent = len(missing(mapping, max(0, first - READAHEAD_PAGES), last))
    return absent + copies
