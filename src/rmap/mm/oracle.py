"""The oracle: which entries map which frames, by reading every page table. It shares no code with any design."""

from __future__ import annotations

import numpy as np

from rmap.columns import I32, I64
from rmap.mm.page_tables import PageTables
from rmap.mm.pte import PRESENT, SPECIAL


def transpose(tables: PageTables) -> tuple[I64, I32, I64]:
    """Every tracked entry there is, sorted by frame, mm and address.

    Returns:
        columns ``(pfn, mm id, address)``: int64, int32, int64.
    """
    rows = tables.live_rows()
    entries = tables.rows[rows]
    row, slot = np.nonzero((entries & (PRESENT | SPECIAL)) == PRESENT)
    pfns = entries[row, slot] >> 12
    mms = tables.row_mm[rows][row]
    addrs = tables.row_addr[rows][row] + slot * 4096
    order = np.lexsort((addrs, mms, pfns))
    return pfns[order], mms[order], addrs[order]


def mappers(tables: PageTables, pfn: int) -> list[tuple[int, int]]:
    """The entries that map one frame: ``(mm id, address)``, sorted."""
    rows = tables.live_rows()
    entries = tables.rows[rows]
    row, slot = np.nonzero(((entries >> 12) == pfn) & ((entries & (PRESENT | SPECIAL)) == PRESENT))
    mms = tables.row_mm[rows][row].tolist()
    addrs = (tables.row_addr[rows][row] + slot * 4096).tolist()
    return sorted(zip(mms, addrs))
