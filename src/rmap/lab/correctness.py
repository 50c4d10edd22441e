"""Is a design right? Its answer for every page, held against the page tables read by brute force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.columns import I64
from rmap.kernel import Kernel
from rmap.lab.results import Correctness
from rmap.mm.costs import Costs
from rmap.mm.oracle import transpose
from rmap.mm.walk import walk_many

PTES_AT_A_TIME = 1 << 21
"""Entries whose walks are held in memory at a time."""

Columns = Sequence[npt.NDArray[Any]]
"""``(pfn, mm id, address)`` of entries."""


@contextmanager
def uncounted(costs: Costs) -> Iterator[None]:
    """What happens inside leaves no trace in the costs: looking is not an operation of the machine."""
    before = costs.current
    counters = [list(row) for row in costs.by_operation]
    calls = list(costs.calls)
    try:
        yield
    finally:
        for row, saved in zip(costs.by_operation, counters):
            row[:] = saved
        costs.calls[:] = calls
        costs.current = before


def correctness(kernel: Kernel) -> Correctness:
    """Walk every page that is mapped, without stopping at its mapcount, and compare with the oracle."""
    core = kernel.core
    oracle = transpose(core.tables)
    mappers = np.bincount(oracle[0], minlength=core.frames.nr_pages)
    pages = np.flatnonzero((mappers > 0) | (core.frames.mapcount > 0))
    ends = np.searchsorted(oracle[0], pages, side="right")
    found = invented = wrong = 0
    with uncounted(core.costs):
        for low, high in _pieces(ends):
            start = int(ends[low - 1]) if low else 0
            rows = slice(start, int(ends[high - 1]))
            truth = (oracle[0][rows], oracle[1][rows], oracle[2][rows])
            answer = walk_many(core, pages[low:high], stop_at_mapcount=False)
            right, surplus, differing = _compare(truth, answer)
            found += right
            invented += surplus
            wrong += differing
    return Correctness(
        ptes_found=found,
        ptes_total=len(oracle[0]),
        ptes_invented=invented,
        pages=len(pages),
        pages_wrong=wrong,
    )


def _pieces(ends: I64) -> Iterator[tuple[int, int]]:
    # Cut the pages into pieces of about so many entries: (first, stop).
    low = 0
    while low < len(ends):
        done = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + PTES_AT_A_TIME)))
        yield low, high
        low = high


def _compare(truth: Columns, answer: Columns) -> tuple[int, int, int]:
    # (entries in both, entries of the answer alone, pages that differ). The truth is sorted by page, mm, address.
    order = np.lexsort((answer[2], answer[1], answer[0]))
    answer = [column[order] for column in answer]
    if len(answer[0]) == len(truth[0]) and all(np.array_equal(a, b) for a, b in zip(truth, answer)):
        return len(answer[0]), 0, 0
    page, mm, addr = (np.concatenate(columns) for columns in zip(truth, answer))
    answered = np.arange(len(page)) >= len(truth[0])
    order = np.lexsort((answered, addr, mm, page))
    page, mm, addr = page[order], mm[order], addr[order]
    answered = answered[order]
    same = (page[1:] == page[:-1]) & (mm[1:] == mm[:-1]) & (addr[1:] == addr[:-1])
    pair = np.flatnonzero(same & answered[1:] & ~answered[:-1])
    alone = np.ones(len(page), np.bool_)
    alone[pair] = alone[pair + 1] = False
    return len(pair), int(np.count_nonzero(alone & answered)), len(np.unique(page[alone]))
