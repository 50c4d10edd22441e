"""Page tables: one arena of rows of 512 entries, and stretches of it that array operations can work on.

A row is a page-table page. Columns beside the arena say which mm it belongs to and the first address it covers,
as the kernel's ``struct page`` of a page-table page does. So a *pte pointer* is one integer, ``row * 512 + slot``, from
which the mm and the address follow: exactly what a PTE chain stores. Row 0 is never used: pte pointer 0 means none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import numpy as np

from rmap.columns import I32, I64, scalar_view
from rmap.errors import InvariantError, LimitError
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.units import PAGE_SHIFT, PMD_SHIFT, PTRS_PER_TABLE

if TYPE_CHECKING:
    from rmap.mm.mm_types import Mm

SLOT_BITS = 9
MAX_TABLES = 1 << 27
SLOT_MASK = PTRS_PER_TABLE - 1


class PageTables:
    """The arena of page-table pages.

    Args:
        nr_tables: how many rows there can be. The memory is reserved, not used: the host gives it page by page
            as entries are written, and the arena never moves.

    Attributes:
        ptes: all entries, int64[nr_tables * 512].
        rows: the same memory, int64[nr_tables, 512].
        row_mm: int32 column; the id of the mm that owns a row, 0 if the row is free.
        row_addr: int64 column; the first address a row covers, in bytes.
        live: rows in use.
    """

    def __init__(self, nr_tables: int) -> None:
        if not 1 <= nr_tables <= MAX_TABLES:
            raise LimitError(f"a machine has 1 to {MAX_TABLES:,} page tables, not {nr_tables:,}")
        self.nr_tables = nr_tables
        self.ptes: I64 = np.zeros(nr_tables * PTRS_PER_TABLE, np.int64)
        self.rows: I64 = self.ptes.reshape(-1, PTRS_PER_TABLE)
        self.mv = scalar_view(self.ptes)
        self.row_mm: I32 = np.zeros(nr_tables, np.int32)
        self.row_addr: I64 = np.zeros(nr_tables, np.int64)
        self.mv_row_mm = scalar_view(self.row_mm)
        self.mv_row_addr = scalar_view(self.row_addr)
        self.live = 0
        self._next = 1
        self._free_runs: list[tuple[int, int]] = []

    @property
    def free_rows(self) -> int:
        """How many rows are left."""
        return self.nr_tables - 1 - self.live

    def need(self, count: int) -> None:
        """Make sure that so many rows are left; asked before an operation that must not stop half-way.

        Raises:
            LimitError: there are fewer.
        """
        if count > self.free_rows:
            raise LimitError(f"{count:,} page tables wanted, {self.free_rows:,} of {self.nr_tables:,} are left")

    def alloc(self, count: int) -> tuple[int, int]:
        """Take up to ``count`` neighbouring rows, fewer only where there is no such run.

        Returns:
            the first, and how many.

        Raises:
            LimitError: the arena is full.
        """
        self.need(1)
        runs = self._free_runs
        for i in range(len(runs) - 1, -1, -1):
            first, length = runs[i]
            if length >= count:
                if length == count:
                    runs.pop(i)
                else:
                    runs[i] = (first + count, length - count)
                self.live += count
                return first, count
        first = self._next
        if first < self.nr_tables:
            count = min(count, self.nr_tables - first)
            self._next = first + count
        else:
            first, count = runs.pop()
        self.live += count
        return first, count

    def free(self, first: int, count: int) -> None:
        """Give back rows that hold no entry.

        Raises:
            InvariantError: an entry is still there. A pte pointer dies with its row, so this is never harmless.
        """
        if self.rows[first : first + count].any():
            raise InvariantError("page-tables", f"a page table with entries was freed (row {first}, {count} rows)")
        self.row_mm[first : first + count] = 0
        self.live -= count
        runs = self._free_runs
        if first + count == self._next:
            self._next = first
        elif runs and runs[-1][0] + runs[-1][1] == first:
            runs[-1] = (runs[-1][0], runs[-1][1] + count)
        else:
            runs.append((first, count))

    def addr_of(self, pteps: I64) -> I64:
        """The virtual addresses that pte pointers map, in bytes."""
        return self.row_addr[pteps >> SLOT_BITS] + ((pteps & SLOT_MASK) << PAGE_SHIFT)

    def mm_of(self, pteps: I64) -> I32:
        """The ids of the mms that pte pointers belong to."""
        return self.row_mm[pteps >> SLOT_BITS]

    def addr_of1(self, ptep: int) -> int:
        """The scalar twin of :meth:`addr_of`."""
        return self.mv_row_addr[ptep >> SLOT_BITS] + ((ptep & SLOT_MASK) << PAGE_SHIFT)

    def live_rows(self) -> I64:
        """The numbers of all rows in use."""
        return np.flatnonzero(self.row_mm[: self._next])


class Span:
    """The entries of a stretch of addresses that has page tables from end to end.

    ``entries`` is a view of the arena where the rows are neighbours, else a staged copy of them: work on it, then
    :meth:`commit`. Two spans that are open together must not share a row unless both are views.

    Attributes:
        addr: the first address, in bytes.
        n: how many entries.
        entries: int64[n].
    """

    __slots__ = ("_first_slot", "_rows", "_stage", "_tables", "addr", "entries", "n")

    def __init__(self, tables: PageTables, addr: int, n: int, rows: list[int], contiguous: bool) -> None:
        self._tables = tables
        self.addr = addr
        self.n = n
        slot = (addr >> PAGE_SHIFT) & SLOT_MASK
        if contiguous:
            self._rows: I64 | None = None
            self._stage: I64 | None = None
            self._first_slot = rows[0] * PTRS_PER_TABLE + slot
            self.entries = tables.ptes[self._first_slot : self._first_slot + n]
        else:
            self._rows = np.array(rows, np.int64)
            self._stage = tables.rows[self._rows]
            self._first_slot = slot
            self.entries = self._stage.reshape(-1)[slot : slot + n]

    @property
    def nr_tables(self) -> int:
        """How many page tables this stretch lies in."""
        slot = (self.addr >> PAGE_SHIFT) & SLOT_MASK
        return (slot + self.n + SLOT_MASK) >> SLOT_BITS

    def commit(self) -> None:
        """Write staged entries back to the arena. Costs nothing for a view."""
        if self._rows is not None:
            assert self._stage is not None
            self._tables.rows[self._rows] = self._stage

    def pteps(self, offs: I64 | None) -> I64:
        """The pte pointers of entries ``offs`` (None: of all)."""
        if self._rows is None:
            if offs is None:
                return np.arange(self._first_slot, self._first_slot + self.n)
            return offs + self._first_slot
        slots = (np.arange(self.n) if offs is None else offs) + self._first_slot
        return (self._rows[slots >> SLOT_BITS] << SLOT_BITS) | (slots & SLOT_MASK)

    def tracked(self) -> tuple[I64, I64 | None]:
        """``(pfns, offs)`` of the tracked entries; ``offs`` is None when all are."""
        entries = self.entries
        everywhere, anywhere = int(np.bitwise_and.reduce(entries)), int(np.bitwise_or.reduce(entries))
        if everywhere & PRESENT and anywhere & TRACKED_MASK == PRESENT:
            return entries >> 12, None
        offs = np.flatnonzero((entries & TRACKED_MASK) == PRESENT)
        return entries[offs] >> 12, offs


def ensure(tables: PageTables, mm: Mm, start: int, end: int) -> None:
    """Make page tables for ``[start, end)`` wherever there are none (``__pte_alloc``)."""
    rows = mm.rows
    region, last = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
    while region <= last:
        if region in rows:
            region += 1
            continue
        first = region
        while region <= last and region not in rows:
            region += 1
        row, count = tables.alloc(region - first)
        region = first + count
        tables.row_mm[row : row + count] = mm.id
        if count == 1:
            tables.row_addr[row] = first << PMD_SHIFT
            rows[first] = row
        else:
            tables.row_addr[row : row + count] = np.arange(first, region) << PMD_SHIFT
            rows.update(zip(range(first, region), range(row, row + count)))


def regions_with_tables(mm: Mm, start: int, end: int) -> Iterator[tuple[int, list[int]]]:
    """Stretches of neighbouring 2 MiB regions of ``[start, end)`` that have page tables.

    Yields:
        ``(first region, rows)``. A sparse range is walked over the tables there are, not over the range.
    """
    rows = mm.rows
    first, last = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
    if last - first > 2 * len(rows):
        keys = sorted(rows)
        wanted = keys[bisect_left(keys, first) : bisect_left(keys, last + 1)]
    else:
        rows_in_range = list(map(rows.get, range(first, last + 1)))
        if None not in rows_in_range:
            yield first, cast("list[int]", rows_in_range)
            return
        wanted = [region for region, row in enumerate(rows_in_range, first) if row is not None]
    i = 0
    while i < len(wanted):
        j = i + 1
        while j < len(wanted) and wanted[j] == wanted[j - 1] + 1:
            j += 1
        yield wanted[i], [rows[region] for region in wanted[i:j]]
        i = j


def spans(tables: PageTables, mm: Mm, start: int, end: int) -> list[Span]:
    """The populated parts of ``[start, end)``, each contiguous in address, in ascending order."""
    pieces = []
    for region, rows in regions_with_tables(mm, start, end):
        low = max(start, region << PMD_SHIFT)
        high = min(end, (region + len(rows)) << PMD_SHIFT)
        contiguous = rows == list(range(rows[0], rows[0] + len(rows)))
        pieces.append(Span(tables, low, (high - low) >> PAGE_SHIFT, rows, contiguous))
    return pieces


def span(tables: PageTables, mm: Mm, start: int, end: int) -> Span:
    """The one span of a range that has page tables from end to end."""
    (only,) = spans(tables, mm, start, end)
    return only


def ptep_of(mm: Mm, addr: int) -> int:
    """The pte pointer of an address, 0 where there is no page table."""
    row = mm.rows.get(addr >> PMD_SHIFT, 0)
    return row * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & SLOT_MASK) if row else 0


def pteps_of(mm: Mm, addrs: I64) -> I64:
    """The pte pointers of addresses in any order; below 512 where there is no page table."""
    regions = addrs >> PMD_SHIFT
    low, high = int(regions.min()), int(regions.max())
    get = mm.rows.get
    if high - low < 4096:
        table = np.array([get(region, 0) for region in range(low, high + 1)], np.int64)
        row = table[regions - low]
    else:
        distinct, where = np.unique(regions, return_inverse=True)
        row = np.array([get(int(region), 0) for region in distinct], np.int64)[where]
    return (row << SLOT_BITS) | ((addrs >> PAGE_SHIFT) & SLOT_MASK)
