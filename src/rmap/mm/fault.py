"""Page faults on ranges: ``handle_mm_fault`` and below (``mm/memory.c``), many pages at a time.

Faults within one VMA commute up to renaming of frames, so a range is handled kind by kind: what is swapped out, what
is not there, what is there but shared. Ranges of a few pages of anonymous memory take :mod:`rmap.mm.fault1` instead.
"""

from __future__ import annotations

import errno

import numpy as np

from rmap.columns import I64
from rmap.errors import SyscallError
from rmap.mm.core import SMALL_PAGES, Core
from rmap.mm.costs import COW, FAULT, FAULTS, PAGES_COPIED, PTES_ADDED, PTES_REMOVED
from rmap.mm.fault1 import read1, write1
from rmap.mm.file_fault import (
    bring_in,
    fault_behind_end,
    frames_missing,
    frames_needed,
    read_file_range,
    write_shared_range,
)
from rmap.mm.frames import ANON, EXCLUSIVE, LARGE, ONE, SWAPCACHE, as_run
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.nonlinear import touch_nonlinear
from rmap.mm.page_tables import Span, ensure
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SPECIAL, SWAP
from rmap.mm.special import fault_special_range
from rmap.mm.stack import expand_stack
from rmap.mm.swap_in import do_swap_page
from rmap.uapi.vm_flags import VM_EXEC, VM_GROWSDOWN, VM_NONLINEAR, VM_PFNMAP, VM_READ, VM_SHARED, VM_WRITE
from rmap.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

ZERO_ENTRY = PRESENT | SPECIAL | ACCESSED
NEW_ENTRY_BITS = PRESENT | RW | ACCESSED | DIRTY


def write(core: Core, mm: Mm, addr: int, length: int = 1) -> None:
    """Write to every page of ``[addr, addr + length)``.

    Args:
        addr: in bytes; need not be aligned.
        length: in bytes, at least 1.

    Raises:
        SyscallError: EFAULT, where the hardware would signal: not mapped, not writable, beyond the end of the file.
            Nothing was changed, unless a stack grew on the way, or the very first page lies beyond the end of a file:
            then there is what a fault leaves that finds that out (:func:`.file_fault.fault_behind_end`).
        LimitError: the machine is out of frames, swap or page tables. Long ranges go in pieces, area by area, as
            accesses would: what was touched before stays.
    """
    touch(core, mm, addr, length, True)


def read(core: Core, mm: Mm, addr: int, length: int = 1) -> None:
    """Read from every page of ``[addr, addr + length)``; see :func:`write`."""
    touch(core, mm, addr, length, False)


def touch(core: Core, mm: Mm, addr: int, length: int, for_write: bool) -> None:
    """Fault a range in, page after page, as a program's accesses would."""
    # The hottest entry there is: what costs.enter, page_align and mm.find do is written out.
    costs = core.costs
    costs.calls[FAULT] += 1
    costs.current = costs.by_operation[FAULT]
    start, end = addr & PAGE_MASK, (addr + length + PAGE_SIZE - 1) & PAGE_MASK
    if end - start <= core.small_bytes and length > 0 and core.frames.free_top >= SMALL_PAGES:
        vma: Vma | None = mm.hit
        if vma is None or not vma.start <= start < vma.end:
            vma = mm.find(start)
        if vma is not None and end <= vma.end and vma.mapping is None:
            fault1 = write1 if for_write else read1
            fault1(core, vma, start)
            while (start := start + PAGE_SIZE) < end:
                fault1(core, vma, start)
            return
    if length <= 0:
        raise SyscallError(errno.EINVAL, "touch", "a length of 1 or more is needed")
    for vma in _accessible(core, mm, start, end, for_write):
        _fault_in(core, vma, max(start, vma.start), min(end, vma.end), for_write)


def populate(core: Core, vma: Vma, start: int, end: int, for_write: bool) -> bool:
    """Fault in a range of one VMA (``populate_vma_page_range``). False: it went only up to the end of the file."""
    readable = file_end(vma)
    _fault_in(core, vma, start, min(end, readable), for_write)
    if end <= readable:
        return True
    fault_behind_end(core, vma, max(start, readable), for_write)
    return False


def file_end(vma: Vma) -> int:
    """The first address of a VMA that lies beyond the end of its file; ``end`` for others."""
    if vma.mapping is None or vma.flags & VM_NONLINEAR:
        return vma.end
    return max(vma.start, min(vma.end, vma.start + ((vma.mapping.nr_pages - vma.pgoff) << PAGE_SHIFT)))


def refusal(vma: Vma, for_write: bool) -> str:
    """Why the hardware or ``access_error`` forbids an access to this VMA; empty if it does not."""
    if for_write:
        return "" if vma.flags & VM_WRITE else "not writable"
    return "" if vma.flags & (VM_READ | VM_EXEC | VM_WRITE) else "not readable"


def _accessible(core: Core, mm: Mm, start: int, end: int, for_write: bool) -> list[Vma]:
    # The VMAs of a range that is about to be touched. Everything that can refuse does so here, before a change.
    vmas = mm.overlapping(start, end)
    _check_access(core, mm, vmas, start, end, for_write)
    if not mm.covers(start, end):
        _grow_stacks(core, mm, start, end, for_write)
        vmas = mm.overlapping(start, end)
        _check_access(core, mm, vmas, start, end, for_write)
    return vmas


def _check_access(core: Core, mm: Mm, vmas: list[Vma], start: int, end: int, for_write: bool) -> None:
    for vma in vmas:
        why = refusal(vma, for_write)
        if not why and min(end, vma.end) > file_end(vma):
            why = "beyond the end of the file (SIGBUS)"
            if start >= file_end(vma):
                fault_behind_end(core, vma, start, for_write)
        if why:
            at = max(start, vma.start)
            raise SyscallError(errno.EFAULT, "write" if for_write else "read", f"{at:#x} in process {mm.id}: {why}")


def _grow_stacks(core: Core, mm: Mm, start: int, end: int, for_write: bool) -> None:
    # The only holes that an access may have are below stacks, each of which grows down over its hole. They are tried in
    # the order of the accesses; one that has grown stays so, if a later one refuses. What lies before a hole has been
    # written by then, and was prepared while the hole was still there: whom it shares with depends on that (rule 2.3).
    at = start
    passed: list[Vma] = []
    while at < end:
        vma = mm.find(at)
        if vma is None:
            vma = mm.neighbours(at, at)[1]
            if vma is None or not vma.flags & VM_GROWSDOWN:
                raise SyscallError(errno.EFAULT, "touch", f"{at:#x} is not mapped in process {mm.id}")
            expand_stack(core, vma, at, passed)
        if for_write and not vma.flags & (VM_SHARED | VM_PFNMAP):
            passed.append(vma)
        at = vma.end


def _fault_in(core: Core, vma: Vma, start: int, end: int, for_write: bool) -> None:
    if vma.file is not None and vma.file.special is not None and not for_write:
        fault_special_range(core, vma, start, end)
        return
    if vma.flags & VM_PFNMAP or (vma.flags & VM_SHARED and vma.mapping is None):
        _mark_touched(core, vma, start, end, for_write)
        return
    # In pieces, so that a range larger than the machine can go through swap.
    step = max(64, core.frames.nr_pages // 4) * PAGE_SIZE
    for low in range(start, end, step):
        high = min(low + step, end)
        _make_room(core, vma, low, high, for_write)
        if vma.flags & VM_NONLINEAR:
            touch_nonlinear(core, vma, low, high, for_write)
            continue
        if core.swap.used:
            swap_in_range(core, vma, low, high, for_write)
        if vma.flags & VM_SHARED:
            if for_write:
                write_shared_range(core, vma, low, high)
            else:
                read_file_range(core, vma, low, high)
        elif for_write:
            _write_private_range(core, vma, low, high)
        elif vma.mapping is not None:
            read_file_range(core, vma, low, high)
        else:
            _read_anonymous_range(core, vma, low, high)


def _mark_touched(core: Core, vma: Vma, start: int, end: int, for_write: bool) -> None:
    # Frames of a device are mapped from the start: an access leaves its marks and is no fault.
    marks = np.int64(ACCESSED | DIRTY if for_write else ACCESSED)
    for piece in core.spans(vma, start, end):
        piece.entries[(piece.entries & PRESENT) != 0] |= marks
        piece.commit()


def _make_room(core: Core, vma: Vma, start: int, end: int, for_write: bool) -> None:
    # Frames for the worst case; if there are not so many to be had, for what is really missing.
    pages = (end - start) >> PAGE_SHIFT
    wanted = pages if vma.mapping is None else frames_needed(pages)
    if core.frames.free_top >= wanted and not core.swap.used:
        return
    for _ in range(3):
        # A page that comes back from swap takes a frame, and one more if it must be copied then. Making room may send
        # further pages of this range to swap.
        if vma.mapping is not None:
            wanted = frames_missing(vma, start, end, for_write)
        needed = wanted + _count(core, vma, start, end, PRESENT | SWAP, SWAP)
        if core.frames.free_top >= needed:
            return
        if core.reclaimer is not None:
            core.reclaimer.make_room(needed)
    present = PRESENT | RW if for_write else PRESENT
    there = _count(core, vma, start, end, present, present)
    core.reserve(needed - there if vma.mapping is None else min(needed, frames_needed(pages - there)))


def _count(core: Core, vma: Vma, start: int, end: int, mask: int, value: int) -> int:
    # How many entries of a range have these bits.
    return sum(int(np.count_nonzero((piece.entries & mask) == value)) for piece in core.spans(vma, start, end))


def swap_in_range(core: Core, vma: Vma, start: int, end: int, for_write: bool) -> None:
    """Bring back every swapped page of a range."""
    for piece in core.spans(vma, start, end):
        swapped = np.flatnonzero((piece.entries & (PRESENT | SWAP)) == SWAP)
        if len(swapped):
            addrs = (piece.addr + swapped * PAGE_SIZE).tolist()
            for addr, ptep in zip(addrs, piece.pteps(swapped).tolist()):
                do_swap_page(core, vma, addr, ptep, for_write)


def _read_anonymous_range(core: Core, vma: Vma, start: int, end: int) -> None:
    # Rule 4.1: the zero page, which nobody counts.
    ensure(core.tables, vma.mm, start, end)
    for piece in core.spans(vma, start, end):
        entries = piece.entries
        none = np.flatnonzero(entries == 0)
        core.costs.current[FAULTS] += len(none)
        entries |= np.int64(ACCESSED)
        entries[none] = ZERO_ENTRY
        piece.commit()


def _write_private_range(core: Core, vma: Vma, start: int, end: int) -> None:
    ensure(core.tables, vma.mm, start, end)
    for piece in core.spans(vma, start, end):
        _write_private(core, vma, piece)
        piece.commit()


def _write_private(core: Core, vma: Vma, piece: Span) -> None:
    entries = piece.entries
    everywhere, anywhere = int(np.bitwise_and.reduce(entries)), int(np.bitwise_or.reduce(entries))
    if everywhere & (PRESENT | RW) == PRESENT | RW:
        np.bitwise_or(entries, np.int64(ACCESSED | DIRTY), out=entries)
        return
    if not vma.faulted:
        core.prepare(vma)
    if not anywhere:
        core.costs.current[FAULTS] += len(entries)
        do_anonymous_pages(core, vma, piece, None)
        return
    if everywhere & PRESENT and not anywhere & (RW | SPECIAL):
        core.costs.current[FAULTS] += len(entries)
        do_wp_pages(core, vma, piece, entries >> PAGE_SHIFT, None)
        return
    writable = (entries & (PRESENT | RW)) == PRESENT | RW
    shared = np.flatnonzero((entries & (PRESENT | RW | SPECIAL)) == PRESENT)
    absent = np.flatnonzero((entries == 0) | ((entries & SPECIAL) != 0))
    entries[writable] |= np.int64(ACCESSED | DIRTY)
    core.costs.current[FAULTS] += len(shared) + len(absent)
    if len(absent):
        do_anonymous_pages(core, vma, piece, absent)
    if len(shared):
        do_wp_pages(core, vma, piece, entries[shared] >> PAGE_SHIFT, shared)


def do_anonymous_pages(core: Core, vma: Vma, piece: Span, offs: I64 | None) -> None:
    """New exclusive pages where there was nothing, the zero page, or a page of a file (rules 4.2, 4.10)."""
    if vma.mapping is not None:
        _read_for_cow(core, vma, piece, offs)
    _map_new_pages(core, vma, piece, offs)


def _map_new_pages(core: Core, vma: Vma, piece: Span, offs: I64 | None) -> None:
    n = piece.n if offs is None else len(offs)
    frames = core.frames
    pfns = frames.alloc(n)
    where = as_run(pfns)
    frames.flags[where] = core.new_anon
    frames.mapcount[where] = ONE
    batch = PteBatch(vma, piece, pfns, offs, True)
    core.rmap.set_anon(batch, "new")
    value = pfns << PAGE_SHIFT
    value |= NEW_ENTRY_BITS
    if offs is None:
        piece.entries[:] = value
    else:
        piece.entries[offs] = value
    core.costs.current[PTES_ADDED] += n
    if core.hooks.added:
        core.hooks.added(batch, "fault")


def _read_for_cow(core: Core, vma: Vma, piece: Span, offs: I64 | None) -> None:
    # do_cow_fault copies from the page cache, so the file's page is read in first.
    first = vma.linear_page_index(piece.addr)
    bring_in(core, vma, (np.arange(piece.n) if offs is None else offs) + first)


def do_wp_pages(core: Core, vma: Vma, piece: Span, pfns: I64, offs: I64 | None) -> None:
    """Writes to pages that are mapped read-only: reuse or copy (``do_wp_page``, rule 4.7)."""
    frames = core.frames
    flags = frames.flags[pfns]
    exclusive = (flags & EXCLUSIVE) != 0
    if exclusive.all():
        _make_writable(piece, offs)
        return
    small = (ANON | LARGE) if core.profile.anon_exclusive else ANON
    sole = ~exclusive & ((flags & small) == ANON) & (frames.mapcount[pfns] == 1)
    if sole.any():
        held = frames.extra[pfns] != 0
        for i in np.flatnonzero(sole & held).tolist():
            sole[i] = may_reuse_swapcache(core, int(pfns[i]))
    writable = exclusive | sole
    if writable.any():
        _make_writable(piece, np.flatnonzero(writable) if offs is None else offs[writable])
    if sole.any():
        where = np.flatnonzero(sole)
        if core.profile.anon_exclusive:
            frames.flags[pfns[where]] |= np.int32(EXCLUSIVE)  # rule 1.7: on the pages themselves
        core.rmap.set_anon(PteBatch(vma, piece, pfns[where], where if offs is None else offs[where], True), "reuse")
    if not writable.all():
        copied = np.flatnonzero(~writable)
        if len(copied) == len(pfns):
            wp_page_copy(core, vma, piece, pfns, offs)
        else:
            wp_page_copy(core, vma, piece, pfns[copied], copied if offs is None else offs[copied])


def _make_writable(piece: Span, offs: I64 | None) -> None:
    bits = np.int64(RW | ACCESSED | DIRTY)
    if offs is None:
        np.bitwise_or(piece.entries, bits, out=piece.entries)
    else:
        piece.entries[offs] |= bits


def may_reuse_swapcache(core: Core, pfn: int) -> bool:
    """Whether a page mapped once, with other references, is this mapping's alone once it has left the swap cache."""
    frames = core.frames
    if not core.profile.anon_exclusive and not frames.flags[pfn] & SWAPCACHE:
        return True  # reuse_swap_page: other references do not matter (rule 4.7 of 5.1)
    if frames.extra[pfn] != 1 or not frames.flags[pfn] & SWAPCACHE or core.swap.count[frames.private[pfn]]:
        return False
    core.drop_swapcache(pfn)
    return True


def wp_page_copy(core: Core, vma: Vma, piece: Span, pfns: I64, offs: I64 | None) -> None:
    """Copy shared pages into new ones of the writing VMA; the old ones lose a mapping."""
    before = core.costs.current
    counters = core.costs.current = core.costs.by_operation[COW]
    n = len(pfns)
    counters[PAGES_COPIED] += n
    counters[PTES_REMOVED] += n
    if core.hooks.removed:
        for part, part_offs, anon in core.by_kind(vma, pfns, offs):
            core.hooks.removed(PteBatch(vma, piece, part, part_offs, anon), "cow")
    core.put_pages(pfns)
    _map_new_pages(core, vma, piece, offs)
    core.costs.current = before
