"""What a page-table entry holds: bits of an ``int64``, and the things an entry can be.

========  =====================================================================================
present   ``pfn << 12 | PRESENT | ...``
swap      ``slot << 12 | SWAP [| SWP_EXCLUSIVE]``: the page's content is in a swap slot
migration ``pfn << 12 | MIGRATION | ...``: the page is being moved; its old frame is named
file      ``index << 12 | FILE``: page ``index`` of the file belongs here (nonlinear areas only)
none      0
========  =====================================================================================

Bit 63 is never needed, so the column is ``int64``: a frame number taken from an entry indexes other
columns without a conversion. ``SPECIAL`` marks entries that no reverse map tracks (rules 1.4, 4.1, 4.17): the
zero page and frames the kernel owns.
"""

from __future__ import annotations

import numpy as np

PRESENT = 0x001
RW = 0x002
SWAP = 0x004
SWP_EXCLUSIVE = 0x008
MIGRATION = 0x010
ACCESSED = 0x020
DIRTY = 0x040
FILE = 0x080
SPECIAL = 0x200

PFN_SHIFT = 12
FLAG_BITS = (1 << PFN_SHIFT) - 1
PFN_BITS = ~FLAG_BITS

TRACKED_MASK = PRESENT | SPECIAL
"""An entry is tracked (mapped by a frame that counts it) iff ``entry & TRACKED_MASK == PRESENT``."""

NOT_RW = np.int64(~RW)
NOT_ACCESSED = np.int64(~ACCESSED)


def describe(entry: int) -> str:
    """An entry in words, for the reader of an error or a story."""
    if not entry:
        return "none"
    if entry & PRESENT:
        bits = [name for bit, name in ((RW, "rw"), (DIRTY, "dirty"), (SPECIAL, "special")) if entry & bit]
        return f"pfn {entry >> PFN_SHIFT:#x}" + (f" ({', '.join(bits)})" if bits else "")
    if entry & SWAP:
        return f"swap slot {entry >> PFN_SHIFT:#x}" + (" (exclusive)" if entry & SWP_EXCLUSIVE else "")
    if entry & FILE:
        return f"page {entry >> PFN_SHIFT:#x} of the file"
    return f"migration entry of pfn {entry >> PFN_SHIFT:#x}"
