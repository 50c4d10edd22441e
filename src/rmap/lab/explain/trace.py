"""A walk of one page, place by place: where the design says to look, why there, and what is found.

The same loop as :func:`rmap.mm.walk.walk1`, which only counts: each candidate is looked up in the page tables, and the
walk ends when every mapping has been found.
"""

from __future__ import annotations

from dataclasses import dataclass

from rmap.kernel import Kernel
from rmap.mm.interface import Candidate1
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.page_tables import SLOT_BITS, SLOT_MASK, ptep_of
from rmap.mm.pte import PFN_BITS, PRESENT, describe
from rmap.units import PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class Looked:
    """One place a walk looked at.

    Attributes:
        mm_id: whose page table.
        address: in bytes.
        how: the arithmetic that led there.
        held: what the entry holds, in words.
        hit: it maps the page.
    """

    mm_id: int
    address: int
    how: str
    held: str
    hit: bool


def trace(kernel: Kernel, pfn: int) -> list[Looked]:
    """Every place that a walk of this page looks at, in order."""
    core = kernel.core
    left = int(core.frames.mapcount[pfn])
    looked: list[Looked] = []
    if not left:
        return looked
    index = core.frames.anchor1(pfn)[1]
    for candidate in core.rmap.candidates1(pfn):
        mm_id, address, how, ptep = _place(kernel, candidate, index)
        entry = core.tables.mv[ptep] if ptep else 0
        hit = bool(entry & PRESENT) and entry & PFN_BITS == pfn << PAGE_SHIFT
        looked.append(Looked(mm_id, address, how, f"holds {describe(entry)}", hit))
        left -= hit
        if not left:
            break
    return looked


def _place(kernel: Kernel, candidate: Candidate1, index: int) -> tuple[int, int, str, int]:
    # (mm, address, how it was computed, pte pointer) of a candidate.
    tables = kernel.core.tables
    if isinstance(candidate, int):
        row, slot = candidate >> SLOT_BITS, candidate & SLOT_MASK
        how = f"its page table begins at {int(tables.row_addr[row]):#x}, slot {slot:#x}"
        return int(tables.row_mm[row]), tables.addr_of1(candidate), how, candidate
    where, address = candidate
    mm: Mm = where.mm if isinstance(where, Vma) else where
    how = f"{address:#x}"
    if isinstance(where, Vma):
        how = f"{where.start:#x} + ({index:#x} - {where.pgoff:#x}) pages"
    return mm.id, address, how, ptep_of(mm, address)
