"""Taking entries away: ``unmap_page_range`` and ``free_pgtables`` (``mm/memory.c``).

For each entry, in this order: it is cleared, the design is told (``removed``), the mapcount falls, and a page that
nobody references any more is freed. Swap entries give up their slot (rule 4.6).
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.core import Core
from rmap.mm.costs import LOCKS_PAGE_TABLE, PTES_REMOVED
from rmap.mm.frames import ANON, PG_MLOCKED
from rmap.mm.interface import PteBatch, Why
from rmap.mm.mm_types import TASK_SIZE, Mm, Vma
from rmap.mm.page_tables import Span
from rmap.mm.pte import PRESENT, SWAP, TRACKED_MASK
from rmap.uapi.vm_flags import VM_LOCKED, VM_NONLINEAR
from rmap.units import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PMD_SIZE, PTRS_PER_TABLE

SLOT_MASK = PTRS_PER_TABLE - 1


def unmap_page_range(core: Core, vma: Vma, start: int, end: int, why: Why, even_cows: bool = True) -> None:
    """Clear the entries of a range of one VMA.

    Args:
        start, end: addresses in bytes, page aligned, inside the VMA.
        why: for the design: ``unmap``, ``zap``, ``exit`` or ``truncate``.
        even_cows: False leaves anonymous pages and swap entries alone (hole punch, rule 5.8).
    """
    if end - start <= core.small_bytes or vma.flags & VM_NONLINEAR:
        _zap_small(core, vma, start, end, why, even_cows)
        return
    counters = core.costs.current
    for piece in core.spans(vma, start, end):
        counters[LOCKS_PAGE_TABLE] += piece.nr_tables
        if piece.entries.any():
            _zap_span(core, vma, piece, why, even_cows)


def _zap_span(core: Core, vma: Vma, piece: Span, why: Why, even_cows: bool) -> None:
    entries = piece.entries
    pfns, offs = piece.tracked()
    slots: list[int] = []
    if offs is not None and core.swap.used and even_cows:
        swapped = entries[(entries & (PRESENT | SWAP)) == SWAP]
        slots = (swapped >> PAGE_SHIFT).tolist()
    if even_cows:
        entries[:] = 0
    else:
        keep = _cow_pages(core, entries)
        offs = np.flatnonzero(((entries & TRACKED_MASK) == PRESENT) & ~keep)
        pfns = entries[offs] >> PAGE_SHIFT
        entries[~keep] = 0
    piece.commit()
    core.costs.current[PTES_REMOVED] += len(pfns)
    if vma.flags & VM_LOCKED:
        core.frames.flags[pfns] &= np.int32(~PG_MLOCKED)  # munlock_vma_folio; a walk finds other locked areas again
    if core.hooks.removed:
        for part, part_offs, anon in core.by_kind(vma, pfns, offs):
            core.hooks.removed(PteBatch(vma, piece, part, part_offs, anon), why)
    if len(pfns):
        core.put_pages(pfns)
    if slots:
        core.swap_put(slots)


def _cow_pages(core: Core, entries: I64) -> Bool:
    # The entries that hold private content: anonymous pages and swap entries.
    tracked = (entries & TRACKED_MASK) == PRESENT
    anon = np.zeros(len(entries), np.bool_)
    anon[tracked] = (core.frames.flags[entries[tracked] >> PAGE_SHIFT] & ANON) != 0
    return anon | ((entries & (PRESENT | SWAP)) == SWAP)


def _zap_small(core: Core, vma: Vma, start: int, end: int, why: Why, even_cows: bool) -> None:
    # The scalar twin: a few pages.
    entries, get_row = core.tables.mv, vma.mm.rows.get
    flags, removed1, counters = core.frames.mv_flags, core.hooks.removed1, core.costs.current
    region, row = -1, 0
    for addr in range(start, end, PAGE_SIZE):
        if addr >> PMD_SHIFT != region:
            region = addr >> PMD_SHIFT
            row = get_row(region, 0)
            if row:
                counters[LOCKS_PAGE_TABLE] += 1
        if not row:
            continue
        ptep = row * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & SLOT_MASK)
        entry = entries[ptep]
        if not entry:
            continue
        if entry & TRACKED_MASK == PRESENT:
            pfn = entry >> PAGE_SHIFT
            anon = flags[pfn] & ANON
            if anon and not even_cows:
                continue
            entries[ptep] = 0
            counters[PTES_REMOVED] += 1
            if vma.flags & VM_LOCKED:
                flags[pfn] &= ~PG_MLOCKED
            if removed1:
                removed1(vma, addr, ptep, pfn, bool(anon), why)
            core.put_page1(pfn)
        elif entry & (PRESENT | SWAP) == SWAP:
            if even_cows:
                entries[ptep] = 0
                core.swap_put([entry >> PAGE_SHIFT])
        else:
            entries[ptep] = 0


def free_pgtables(core: Core, mm: Mm, start: int, end: int) -> None:
    """Free the page tables of a range that no VMA needs any more: up to the neighbouring VMAs, whole tables only.

    Called when the VMAs of the range are gone.
    """
    i = bisect_left(mm.starts, start)
    low = mm.vmas[i - 1].end if i else 0
    high = mm.vmas[i].start if i < len(mm.vmas) else TASK_SIZE
    first = max(start >> PMD_SHIFT, (low + PMD_SIZE - 1) >> PMD_SHIFT)
    stop = min((end + PMD_SIZE - 1) >> PMD_SHIFT, high >> PMD_SHIFT)
    rows = mm.rows
    if stop - first > 2 * len(rows):
        gone = [region for region in rows if first <= region < stop]
    else:
        gone = list(filter(rows.__contains__, range(first, stop)))
    free_rows(core, [rows.pop(region) for region in gone])


def free_rows(core: Core, rows: list[int]) -> None:
    """Give rows back to the arena, neighbours together."""
    i = 0
    while i < len(rows):
        j = i + 1
        while j < len(rows) and rows[j] == rows[j - 1] + 1:
            j += 1
        core.tables.free(rows[i], j - i)
        i = j
