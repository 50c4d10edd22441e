"""Moving entries to another address: ``move_page_tables`` (``mm/mremap.c``).

Where source and target lie alike within 2 MiB, whole page tables change hands: 0.5 ns a page instead of 12 in the
kernel. A page's ``mapping`` and ``index`` are never touched (rule 2.13).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.costs import COPIES_ASKED
from rmap.mm.fault import wp_page_copy
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.page_tables import Span, ensure, regions_with_tables, span
from rmap.uapi.vm_flags import VM_NONLINEAR
from rmap.units import PAGE_SIZE, PMD_SHIFT, PMD_SIZE


def move_page_tables(core: Core, old_vma: Vma, old_addr: int, new_vma: Vma, new_addr: int, length: int) -> None:
    """Move every entry of ``[old_addr, old_addr + length)`` to ``new_addr``. The target holds no entry.

    Pages that the design does not want to share an entry move with (``must_copy``) are copied first. The caller has
    made sure that page tables are left (:func:`tables_needed`).
    """
    end = old_addr + length
    delta = new_addr - old_addr
    if core.hooks.must_copy and not old_vma.flags & VM_NONLINEAR:
        _copy_early(core, old_vma, old_addr, end, delta)
    low, high = end, end
    if old_vma.flags & VM_NONLINEAR:  # a page may be there twice, and a batch names it once
        for addr in range(old_addr, end, PAGE_SIZE):
            _move_entries(core, old_vma, addr, addr + PAGE_SIZE, new_vma, delta)
        return
    if delta % PMD_SIZE == 0 and core.rmap.moves_tables:
        low, high = min(end, -(-old_addr // PMD_SIZE) * PMD_SIZE), end // PMD_SIZE * PMD_SIZE
    if low < high:
        _move_entries(core, old_vma, old_addr, low, new_vma, delta)
        _move_whole_tables(core, old_vma, low, high, new_vma, delta)
        _move_entries(core, old_vma, high, end, new_vma, delta)
    else:
        _move_entries(core, old_vma, old_addr, end, new_vma, delta)


def tables_needed(mm: Mm, old_addr: int, new_addr: int, length: int) -> int:
    """An upper bound of the page tables that :func:`move_page_tables` makes."""
    stretches = [len(rows) for _, rows in regions_with_tables(mm, old_addr, old_addr + length)]
    last = (new_addr + length - 1) >> PMD_SHIFT
    return min(sum(stretches) + len(stretches), last - (new_addr >> PMD_SHIFT) + 1)


def copies_needed(core: Core, vma: Vma, old_addr: int, new_addr: int, length: int) -> int:
    """How many pages :func:`move_page_tables` copies because the design wants it: so many frames must be free."""
    if core.hooks.must_copy is None or vma.flags & VM_NONLINEAR:
        return 0
    copied = _to_be_copied(core, vma, old_addr, old_addr + length, new_addr - old_addr)
    return sum(len(pfns) for _, pfns, _ in copied)


def _to_be_copied(core: Core, vma: Vma, start: int, end: int, delta: int) -> Iterator[tuple[Span, I64, I64]]:
    # One address per page in the whole family: a design may ask for a private copy before the move.
    assert core.hooks.must_copy is not None
    for piece in core.spans(vma, start, end):
        pfns, offs = piece.tracked()
        for part, part_offs, anon in core.by_kind(vma, pfns, offs):
            asked = core.hooks.must_copy(PteBatch(vma, piece, part, part_offs, anon), piece.addr + delta, "move")
            if asked is not None and asked.any():
                yield piece, part[asked], np.flatnonzero(asked) if part_offs is None else part_offs[asked]


def _copy_early(core: Core, vma: Vma, start: int, end: int, delta: int) -> None:
    for piece, pfns, at in _to_be_copied(core, vma, start, end, delta):
        core.costs.current[COPIES_ASKED] += len(pfns)
        wp_page_copy(core, vma, piece, pfns, at)
        piece.commit()


def _move_entries(core: Core, old_vma: Vma, start: int, end: int, new_vma: Vma, delta: int) -> None:
    if start >= end:
        return
    for piece in core.spans(old_vma, start, end):
        entries = piece.entries.copy()
        if not entries.any():
            continue
        pfns, offs = piece.tracked()
        # The two ranges may share a page table, so the source is written back before the target is read.
        piece.entries[:] = 0
        piece.commit()
        new_addr = piece.addr + delta
        ensure(core.tables, new_vma.mm, new_addr, new_addr + piece.n * PAGE_SIZE)
        target = span(core.tables, new_vma.mm, new_addr, new_addr + piece.n * PAGE_SIZE)
        target.entries[:] = entries
        target.commit()
        if core.hooks.moved:
            for part, part_offs, anon in core.by_kind(old_vma, pfns, offs):
                batch = PteBatch(old_vma, piece, part, part_offs, anon)
                core.hooks.moved(batch, new_vma, new_addr, target.pteps(part_offs))


def _move_whole_tables(core: Core, old_vma: Vma, start: int, end: int, new_vma: Vma, delta: int) -> None:
    tables, rows = core.tables, old_vma.mm.rows
    shift = delta >> PMD_SHIFT
    for region, moving in regions_with_tables(old_vma.mm, start, end):
        stop = region + len(moving)
        if not rows.keys().isdisjoint(range(region + shift, stop + shift)):
            _move_entries(core, old_vma, region << PMD_SHIFT, stop << PMD_SHIFT, new_vma, delta)
            continue
        for source in range(region, stop):
            del rows[source]
        rows.update(zip(range(region + shift, stop + shift), moving))
        tables.row_addr[np.array(moving)] += delta
        if core.hooks.moved and core.rmap.stores_addresses:
            _tell_of_tables(core, old_vma, region, new_vma, moving, delta)


def _tell_of_tables(core: Core, old_vma: Vma, region: int, new_vma: Vma, moving: list[int], delta: int) -> None:
    # A design that stores addresses hears of tables that moved too; the pte pointers are the same as before.
    addr = region << PMD_SHIFT
    piece = Span(core.tables, addr, len(moving) * 512, moving, False)
    pfns, offs = piece.tracked()
    for part, part_offs, anon in core.by_kind(old_vma, pfns, offs):
        core.hooks.moved(
            PteBatch(old_vma, piece, part, part_offs, anon), new_vma, addr + delta, piece.pteps(part_offs)
        )
