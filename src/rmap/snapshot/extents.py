"""Extents of page-table entries: how an entry's value rises within one, cutting them into pages, joining them again.

The step rule: from one page of an extent to the next, a frame goes up by 1, a swap entry by ``SWAP_STEP`` (its area
stands in the low bits), and a marker has no value that could rise (``docs/data-model.md``, ``ptes``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmap.columns import I32, I64, Bool, expand
from rmap.snapshot.flags import PTE_PRESENT, PTE_SWAP, SWAP_STEP
from rmap.snapshot.tables import PteTable
from rmap.units import PAGE_SHIFT


@dataclass(frozen=True)
class Extents:
    """Page-table entries, as :meth:`rmap.snapshot.builder.SnapshotBuilder.add_ptes` takes them; int64 columns."""

    vma: I64
    address: I64
    pfn: I64
    count: I64
    flags: I64

    @classmethod
    def of(cls, ptes: PteTable, rows: I64 | Bool | slice = slice(None)) -> Extents:
        """Some rows of a picture's table."""
        columns = (ptes.vma, ptes.address, ptes.pfn, ptes.count, ptes.flags)
        return cls(*(column[rows].astype(np.int64) for column in columns))

    def columns(self) -> tuple[I64, I64, I64, I64, I64]:
        """All five, in order."""
        return self.vma, self.address, self.pfn, self.count, self.flags

    def table(self) -> PteTable:
        """The same as a table of a picture."""
        return PteTable.of(dict(zip(("vma", "address", "pfn", "count", "flags"), self.columns())))

    def take(self, rows: I64 | Bool) -> Extents:
        """Only these rows, in this order."""
        return Extents(*(column[rows] for column in self.columns()))


def concatenated(parts: list[Extents]) -> Extents:
    """Extents one after the other; none give none."""
    if not parts:
        return Extents(*[np.empty(0, np.int64)] * 5)
    return Extents(*(np.concatenate(column) for column in zip(*(part.columns() for part in parts))))


def step_of(flags: I32 | I64) -> I64:
    """By how much ``pfn`` goes up from page to page of extents with these ``PTE_*`` flags; int64."""
    return np.where(flags & PTE_PRESENT, 1, np.where(flags & PTE_SWAP, SWAP_STEP, 0))


def single_pages(extents: Extents) -> Extents:
    """Extents cut into single pages, in the same order."""
    count = extents.count
    within = expand(np.zeros(len(count), np.int64), count)
    return Extents(
        np.repeat(extents.vma, count),
        np.repeat(extents.address, count) + (within << PAGE_SHIFT),
        np.repeat(extents.pfn, count) + within * np.repeat(step_of(extents.flags), count),
        np.ones(len(within), np.int64),
        np.repeat(extents.flags, count),
    )


def join_extents(extents: Extents) -> Extents:
    """Join rows that continue the one before: same VMA and flags, next address, next frame or slot."""
    vma, address, pfn, count, flags = extents.columns()
    if not len(vma):
        return extents
    follows = (
        (vma[1:] == vma[:-1])
        & (flags[1:] == flags[:-1])
        & (address[1:] == address[:-1] + (count[:-1] << PAGE_SHIFT))
        & (pfn[1:] == pfn[:-1] + step_of(flags[:-1]) * count[:-1])
    )
    first = np.concatenate(([0], np.flatnonzero(~follows) + 1))
    return Extents(vma[first], address[first], pfn[first], np.add.reduceat(count, first), flags[first])


def entry_at(ptes: PteTable, vma: int, address: int) -> tuple[int, int] | None:
    """The entry at an address (bytes, within that VMA): its ``PTE_*`` flags and its own pfn; None if there is none."""
    first, last = np.searchsorted(ptes.vma, [vma, vma + 1])
    row = int(first + np.searchsorted(ptes.address[first:last], address, side="right")) - 1
    page = (address - int(ptes.address[row])) >> PAGE_SHIFT if row >= first else 0
    if row < first or page >= ptes.count[row]:
        return None
    flags = int(ptes.flags[row])
    return flags, int(ptes.pfn[row]) + page * int(step_of(ptes.flags[row]))


def entries_of_slot(ptes: PteTable, entry: int) -> tuple[I64, I64]:
    """Where a swap entry (``type | offset << SWAP_TYPE_BITS``) stands: rows of ``ptes``, and addresses in bytes."""
    behind = entry - ptes.pfn
    inside = (behind >= 0) & (behind % SWAP_STEP == 0) & (behind < ptes.count.astype(np.int64) * SWAP_STEP)
    rows = np.flatnonzero(((ptes.flags & PTE_SWAP) != 0) & inside)
    return rows, ptes.address[rows] + (behind[rows] // SWAP_STEP << PAGE_SHIFT)
