"""Swap: slots that entries and the swap cache refer to (``mm/swapfile.c``, ``mm/swap_state.c``).

Modelled is a device with synchronous I/O, as zram is: a slot that only one entry names is read into a fresh
page that never enters the swap cache (rule 4.12).
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I32, I64
from rmap.errors import LimitError

MAX_SLOTS = 1 << 34


class SwapSlots:
    """The swap area.

    Args:
        nr_slots: its size in pages. 0 means: no swap, anonymous pages cannot be evicted.

    Attributes:
        count: int32 column; how many entries (of page tables, or of a shmem file) name a slot (the swap map).
        cached: int64 column; the frame in the swap cache, 0 if none.
        used: slots in use.

    Invariants: slot 0 is never used; a slot is in use iff ``count`` or ``cached`` is not 0.
    """

    def __init__(self, nr_slots: int) -> None:
        if not 0 <= nr_slots <= MAX_SLOTS:
            raise LimitError(f"a machine has 0 to {MAX_SLOTS:,} swap slots, not {nr_slots:,}")
        self.nr_slots = nr_slots
        self.count: I32 = np.zeros(nr_slots + 1, np.int32)
        self.cached: I64 = np.zeros(nr_slots + 1, np.int64)
        self.used = 0
        self._next = 1
        self._free: list[int] = []

    @property
    def free(self) -> int:
        """How many slots are left."""
        return self.nr_slots - self.used

    @property
    def ever_used(self) -> bool:
        """Whether a slot was ever taken."""
        return self._next > 1

    def alloc(self, n: int) -> I64:
        """Take ``n`` slots, counts zero.

        Raises:
            LimitError: swap is full.
        """
        if n > self.free:
            raise LimitError(f"{n:,} swap slots wanted, {self.free:,} of {self.nr_slots:,} are free")
        self.used += n
        fresh = min(n, self.nr_slots + 1 - self._next)
        slots = np.arange(self._next, self._next + fresh, dtype=np.int64)
        self._next += fresh
        if fresh < n:
            old = np.array([self._free.pop() for _ in range(n - fresh)], np.int64)
            slots = np.concatenate((slots, old))
        return slots

    def release(self, slot: int) -> None:
        """Give back a slot that neither an entry nor the swap cache names."""
        self.used -= 1
        self._free.append(slot)
