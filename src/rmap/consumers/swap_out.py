"""Eviction without a reverse map: ``swap_out`` (``mm/vmscan.c`` of 2.4).

The design's hand names entries, process after process; here they are tried one by one (``try_to_swap_out``). An entry
that was used since the last visit is marked old and left. Another one is taken away: anonymous content gets a swap
slot, and the page is free when no entry and no cache holds it any more. Which page becomes free, and when, nobody
chooses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TypeAlias

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.costs import LOCKS_PAGE_TABLE, PTES_CHECKED, PTES_IN_VAIN, PTES_UNMAPPED, UNMAP_WALK
from rmap.mm.pte import ACCESSED
from rmap.uapi.vm_flags import VM_LOCKED

SWAP_CLUSTER_MAX = 32
"""Entries that one call takes away at most."""

TakeEntry: TypeAlias = Callable[[int, int], bool]
"""Takes one entry away: ``(pte pointer, pfn)``; False if the page may not go."""


def swap_out(core: Core, take_entry: TakeEntry, rounds: int = 2) -> int:
    """Turn the hand until 32 entries were taken away, or it has gone round so often: once to make entries old, once
    more to find that they still are.

    Returns:
        how many entries were taken away.
    """
    assert core.hooks.swap_out is not None
    counters = core.costs.enter(UNMAP_WALK)
    budget = rounds * (int(core.frames.mapcount.sum(dtype=int)) + core.tables.live)
    taken = 0
    hand = core.hooks.swap_out()
    pteps = next(hand, None)
    while pteps is not None:
        counters[LOCKS_PAGE_TABLE] += 1
        looked = 0
        for ptep in pteps.tolist():
            if taken == SWAP_CLUSTER_MAX:
                break
            looked += 1
            if _try_to_swap_out(core, ptep, take_entry):
                taken += 1
            else:
                counters[PTES_IN_VAIN] += 1
        counters[PTES_CHECKED] += looked
        budget -= looked + 1
        if taken == SWAP_CLUSTER_MAX or budget <= 0:
            _stop(hand, looked)
            break
        pteps = hand.send(looked)
    counters[PTES_UNMAPPED] += taken
    return taken


def _stop(hand: Generator[I64, int, None], looked: int) -> None:
    # Tell the hand where to stop; what it would show next is not wanted.
    with contextlib.suppress(StopIteration):
        hand.send(looked)


def _try_to_swap_out(core: Core, ptep: int, take_entry: TakeEntry) -> bool:
    tables = core.tables
    vma = core.mms[tables.mv_row_mm[ptep >> 9]].find(tables.addr_of1(ptep))
    entry = tables.mv[ptep]
    if vma is None or vma.flags & VM_LOCKED:
        return False
    if entry & ACCESSED:
        tables.mv[ptep] = entry & ~ACCESSED
        return False
    return take_entry(ptep, entry >> 12)
