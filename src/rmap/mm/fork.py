"""Fork and exit: ``dup_mmap`` (``kernel/fork.c``), ``copy_page_range`` (``mm/memory.c``), ``exit_mmap``."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.costs import EXIT, FORK, LOCKS_PAGE_TABLE, PTES_ADDED, VMAS_FORKED
from rmap.mm.frames import ANON, EXCLUSIVE, NOT_EXCLUSIVE, ONE, as_run
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.page_tables import Span, ensure, regions_with_tables, span
from rmap.mm.pte import ACCESSED, NOT_ACCESSED, NOT_RW, PRESENT, RW, SWAP, SWP_EXCLUSIVE, TRACKED_MASK
from rmap.mm.shared_anonymous import release_if_unmapped
from rmap.mm.zap import free_rows, unmap_page_range
from rmap.uapi.vm_flags import (
    VM_DONTCOPY,
    VM_LOCKED_MASK,
    VM_MAYWRITE,
    VM_MIXEDMAP,
    VM_NONLINEAR,
    VM_PFNMAP,
    VM_SHARED,
    VM_WIPEONFORK,
)
from rmap.units import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PTRS_PER_TABLE

SLOT_MASK = PTRS_PER_TABLE - 1
ALWAYS_COPIED = VM_PFNMAP | VM_MIXEDMAP | VM_NONLINEAR


def fork(core: Core, parent: Mm) -> Mm:
    """``dup_mmap``: a child with the same VMAs, sharing every private page copy-on-write.

    Which VMAs are copied is rule 2.20, which entries rule 4.4, what happens to them rules 4.5 and 4.6. No frame is
    needed.

    Raises:
        LimitError: no page tables are left for the child. Nothing was changed.
    """
    if len(parent.rows) > core.tables.free_rows:
        core.tables.need(_tables_copied(parent))
    counters = core.costs.enter(FORK)
    child = core.new_mm(parent)
    prepare_fork = core.rmap.vma_fork
    for vma in parent.vmas:
        flags = vma.flags
        if flags & VM_DONTCOPY:
            continue
        copy = Vma(child, vma.start, vma.end, flags & ~VM_LOCKED_MASK, vma.pgoff, vma.file, vma.mapping)
        child.append(copy)
        if vma.mapping is not None:
            core.link_file(copy, vma)
        if flags & VM_WIPEONFORK:
            if core.profile.wipeonfork_prepares:  # rule 2.20 of 5.1: the copy still has its parent's neighbours
                core.stand_in = vma
                core.prepare(copy)
                core.stand_in = None
            continue
        if vma.faulted:
            copy.faulted = True
            counters[VMAS_FORKED] += 1
            prepare_fork(copy, vma)
        elif not flags & ALWAYS_COPIED:
            continue
        copy_page_range(core, copy, vma)
    return child


def _tables_copied(parent: Mm) -> int:
    # How many page tables a child gets: those of areas whose entries are copied.
    copied: set[int] = set()
    for vma in parent.vmas:
        if not vma.flags & (VM_DONTCOPY | VM_WIPEONFORK) and (vma.faulted or vma.flags & ALWAYS_COPIED):
            for region, rows in regions_with_tables(parent, vma.start, vma.end):
                copied.update(range(region, region + len(rows)))
    return len(copied)


def copy_page_range(core: Core, child: Vma, parent: Vma) -> None:
    """Copy the entries of a VMA to the child's (rule 4.5: both sides lose write permission in a COW mapping)."""
    if parent.end - parent.start <= core.small_bytes or parent.flags & VM_NONLINEAR:
        _copy_small(core, child, parent)
        return
    for piece in core.spans(parent, parent.start, parent.end):
        _copy_span(core, child, parent, piece)


def _copy_span(core: Core, child: Vma, parent: Vma, piece: Span) -> None:
    frames, tables = core.frames, core.tables
    entries = piece.entries
    anywhere = int(np.bitwise_or.reduce(entries))
    pfns, offs = piece.tracked()
    if anywhere & RW and parent.is_cow_mapping:
        np.bitwise_and(entries, NOT_RW, out=entries)
        piece.commit()
    if offs is not None and core.swap.used and anywhere & SWAP:
        _share_swap_entries(core, entries)
        piece.commit()
    end = piece.addr + piece.n * PAGE_SIZE
    ensure(tables, child.mm, piece.addr, end)
    copy = span(tables, child.mm, piece.addr, end)
    np.bitwise_and(entries, NOT_ACCESSED, out=copy.entries)  # the child has not touched anything yet
    copy.commit()
    counters = core.costs.current
    counters[LOCKS_PAGE_TABLE] += 2 * piece.nr_tables
    if not len(pfns):
        return
    counters[PTES_ADDED] += len(pfns)
    where = as_run(pfns)
    if isinstance(where, slice):
        frames.mapcount[where] += ONE
    else:
        np.add.at(frames.mapcount, pfns, ONE)
    frames.flags[where] &= NOT_EXCLUSIVE
    if core.hooks.added:
        for part, part_offs, anon in core.by_kind(child, pfns, offs):
            core.hooks.added(PteBatch(child, copy, part, part_offs, anon), "fork")


def _share_swap_entries(core: Core, entries: I64) -> None:
    # Rule 4.6: one more entry names the slot, and neither may call it exclusive.
    swapped = (entries & (PRESENT | SWAP)) == SWAP
    np.add.at(core.swap.count, entries[swapped] >> PAGE_SHIFT, ONE)
    entries[swapped] &= np.int64(~SWP_EXCLUSIVE)


def _copy_small(core: Core, child: Vma, parent: Vma) -> None:
    # The scalar twin: a few pages.
    entries, frames = core.tables.mv, core.frames
    mapcount, flags = frames.mv_mapcount, frames.mv_flags
    parent_rows, child_rows = parent.mm.rows, child.mm.rows
    added1, counters = core.hooks.added1, core.costs.current
    cow = parent.flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE
    region, source, target = -1, 0, 0
    for addr in range(parent.start, parent.end, PAGE_SIZE):
        if addr >> PMD_SHIFT != region:
            region = addr >> PMD_SHIFT
            source = parent_rows.get(region, 0) * PTRS_PER_TABLE
            if source:
                if region not in child_rows:
                    ensure(core.tables, child.mm, addr, addr + PAGE_SIZE)
                target = child_rows[region] * PTRS_PER_TABLE
                counters[LOCKS_PAGE_TABLE] += 2
        if not source:
            continue
        slot = (addr >> PAGE_SHIFT) & SLOT_MASK
        entry = entries[source + slot]
        if not entry:
            continue
        if entry & (PRESENT | SWAP) == SWAP:
            entry &= ~SWP_EXCLUSIVE
            core.swap.count[entry >> PAGE_SHIFT] += 1
            entries[source + slot] = entry
        elif cow and entry & RW:
            entry &= ~RW
            entries[source + slot] = entry
        entries[target + slot] = entry & ~ACCESSED
        if entry & TRACKED_MASK != PRESENT:
            continue
        pfn = entry >> PAGE_SHIFT
        mapcount[pfn] += 1
        flags[pfn] &= ~EXCLUSIVE
        counters[PTES_ADDED] += 1
        if added1:
            added1(child, addr, target + slot, pfn, bool(flags[pfn] & ANON), "fork")


def exit_mmap(core: Core, mm: Mm) -> None:
    """The last process of an mm is gone (rule 2.19): all zaps, then all unlinks, then the page tables."""
    core.costs.enter(EXIT)
    for vma in mm.vmas:
        unmap_page_range(core, vma, vma.start, vma.end, "exit")
    for vma in mm.vmas:
        if vma.faulted:
            core.rmap.vma_unlink(vma, None)
            vma.faulted = False
        core.unlink_file(vma)
        release_if_unmapped(core, vma.mapping)
    free_rows(core, list(mm.rows.values()))
    mm.clear()
    core.rmap.mm_exit(mm)
    del core.mms[mm.id]
