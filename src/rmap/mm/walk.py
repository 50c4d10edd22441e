"""The walk: from pages to the entries that map them (``rmap_walk``, ``page_vma_mapped_walk``; rules 5.1 to 5.7).

A design proposes candidates; here they are looked up in the page tables, counted, and stopped when every mapping has
been found. :func:`hits` streams the answer of a batch, :func:`walk1` is the scalar twin for one page.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from rmap.columns import I32, I64, Bool
from rmap.mm.core import Core
from rmap.mm.costs import DESCENTS, PAGES_WALKED, PTES_CHECKED, PTES_IN_VAIN, WALK
from rmap.mm.interface import At, Linear, Query
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.page_tables import PageTables, Span, pteps_of, spans
from rmap.mm.pte import PFN_BITS, PRESENT
from rmap.units import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PTRS_PER_TABLE

ENTRY_MASK = PFN_BITS | PRESENT
SLOT_MASK = PTRS_PER_TABLE - 1


class Hits:
    """Entries that map pages of the query: one position of the query, one pte pointer each.

    Attributes:
        pos: positions in the query: int64[n], or a slice of them.
        vma: the VMA, where the design's candidates name one.
    """

    __slots__ = ("_offs", "_pteps", "_span", "_tables", "n", "pos", "vma")

    def __init__(
        self,
        tables: PageTables,
        pos: I64 | slice,
        n: int,
        vma: Vma | None = None,
        *,
        pteps: I64 | None = None,
        span: Span | None = None,
        offs: I64 | None = None,
    ) -> None:
        self._tables = tables
        self.pos = pos
        self.n = n
        self.vma = vma
        self._pteps = pteps
        self._span = span
        self._offs = offs

    @property
    def pteps(self) -> I64:
        """The pte pointers, int64[n]."""
        if self._pteps is None:
            assert self._span is not None
            self._pteps = self._span.pteps(self._offs)
        return self._pteps

    @property
    def mm_ids(self) -> I32:
        """The mms, int32[n]."""
        return self._tables.mm_of(self.pteps)

    @property
    def addrs(self) -> I64:
        """The addresses in bytes, int64[n]."""
        return self._tables.addr_of(self.pteps)


def hits(core: Core, query: Query) -> Iterator[Hits]:
    """Walk every page of a query (``rmap_walk``, rule 5.1); the answers come as they are found, not sorted."""
    core.costs.current[PAGES_WALKED] += len(query.pfns)
    if not len(query.pfns):
        return
    candidates = core.rmap.candidates(query)
    breaks: I64 | None = None
    chunk = next(candidates, None)
    while chunk is not None:
        steps: list[Hits]
        if isinstance(chunk, Linear):
            if query.skip_vma is not None and query.skip_vma(chunk.vma):
                steps = []
            else:
                if breaks is None:
                    assert query.index is not None
                    breaks = np.flatnonzero(np.diff(query.index) != 1)
                steps = _check_linear(core, query, chunk, breaks)
        elif isinstance(chunk, At):
            core.costs.current[DESCENTS] += query.asking_at(chunk.pos)
            steps = _check_entries(core, query, chunk.pos, pteps_of(chunk.mm, chunk.addrs))
        else:
            steps = _check_entries(core, query, chunk.pos, chunk.pteps)
        yield from steps
        try:
            chunk = candidates.send(_positions(steps))
        except StopIteration:
            return


def _positions(steps: list[Hits]) -> I64 | slice:
    if len(steps) == 1:
        return steps[0].pos
    parts = [np.arange(h.pos.start, h.pos.stop) if isinstance(h.pos, slice) else h.pos for h in steps]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _check_linear(core: Core, query: Query, chunk: Linear, breaks: I64) -> list[Hits]:
    # Candidates of one VMA. Neighbouring page indexes are neighbouring entries, so runs are compared in place.
    counters = core.costs.current
    asked = query.asking(chunk.lo, chunk.hi)
    counters[PTES_CHECKED] += asked
    counters[DESCENTS] += asked
    inside = breaks[np.searchsorted(breaks, chunk.lo) : np.searchsorted(breaks, chunk.hi - 1)]
    assert query.index is not None
    if len(inside) > max(4, (chunk.hi - chunk.lo) // 16):
        vma, index = chunk.vma, query.index[chunk.lo : chunk.hi]
        addrs = vma.start + ((index - vma.pgoff) << PAGE_SHIFT)
        pos = np.arange(chunk.lo, chunk.hi)
        steps = _matching(core, query, pos, pteps_of(vma.mm, addrs), vma)
    else:
        steps = []
        bounds = [chunk.lo, *(inside + 1).tolist(), chunk.hi]
        for lo, hi in pairwise(bounds):
            steps += _check_run(core, query, chunk.vma, lo, hi)
    counters[PTES_IN_VAIN] += asked - sum(h.n for h in steps)
    return steps


def _check_run(core: Core, query: Query, vma: Vma, lo: int, hi: int) -> list[Hits]:
    # Positions lo to hi have consecutive page indexes. An entry counts if it holds the page's frame (rule 5.4).
    assert query.index is not None
    start = vma.start + ((int(query.index[lo]) - vma.pgoff) << PAGE_SHIFT)
    steps = []
    for piece in spans(core.tables, vma.mm, start, start + (hi - lo) * PAGE_SIZE):
        at = lo + ((piece.addr - start) >> PAGE_SHIFT)
        hit = (piece.entries & query.mask) == query.want[at : at + piece.n]
        n = _take(query, slice(at, at + piece.n), hit)
        if n == piece.n:
            steps.append(Hits(core.tables, slice(at, at + n), n, vma, span=piece))
        elif n:
            offs = np.flatnonzero(hit)
            steps.append(Hits(core.tables, offs + at, n, vma, span=piece, offs=offs))
    return steps


def _take(query: Query, where: slice, hit: Bool) -> int:
    # Count hits off what is left to find; a page that has all its mappings takes no more (`done` of rule 5.7).
    if query.stop == "mapcount":
        left = query.left[where]
        np.logical_and(hit, left > 0, out=hit)
        np.subtract(left, hit, out=left, casting="unsafe")
    return int(np.count_nonzero(hit))


def _check_entries(core: Core, query: Query, pos: I64, pteps: I64) -> list[Hits]:
    counters = core.costs.current
    asked = query.asking_at(pos)
    counters[PTES_CHECKED] += asked
    steps = _matching(core, query, pos, pteps, None)
    counters[PTES_IN_VAIN] += asked - sum(h.n for h in steps)
    return steps


def _matching(core: Core, query: Query, pos: I64, pteps: I64, vma: Vma | None) -> list[Hits]:
    # Entry by entry: which of these pte pointers map the page at their position (rule 5.4).
    hit = ((core.tables.ptes[pteps] & query.mask) == query.want[pos]) & (pteps >= PTRS_PER_TABLE)
    if query.stop == "mapcount":
        left = query.left[pos]
        hit &= left > 0
        query.left[pos] = left - hit
    if hit.all():
        return [Hits(core.tables, pos, len(pos), vma, pteps=pteps)] if len(pos) else []
    at = np.flatnonzero(hit)
    return [Hits(core.tables, pos[at], len(at), vma, pteps=pteps[at])] if len(at) else []


def walk_many(core: Core, pfns: I64, stop_at_mapcount: bool = True) -> tuple[I64, I32, I64]:
    """The answers of a walk of many pages as columns ``(pfn, mm id, address)``, in the order they were found."""
    core.costs.enter(WALK)
    query = Query(core.frames, pfns, "mapcount" if stop_at_mapcount else "never")
    steps = list(hits(core, query))
    if not steps:
        return np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64)
    return (
        np.concatenate([query.pfns[h.pos] for h in steps]),
        np.concatenate([h.mm_ids for h in steps]),
        np.concatenate([h.addrs for h in steps]),
    )


def walk1(core: Core, pfn: int) -> list[tuple[int, int]]:
    """Walk one page.

    Returns:
        ``(mm id, address)`` of every entry that maps it, in the order found.
    """
    counters = core.costs.enter(WALK)
    counters[PAGES_WALKED] += 1
    left = core.frames.mv_mapcount[pfn]
    mappings: list[tuple[int, int]] = []
    if not left:
        return mappings
    entries, tables = core.tables.mv, core.tables
    want = pfn << PAGE_SHIFT | PRESENT
    for candidate in core.rmap.candidates1(pfn):
        if isinstance(candidate, int):
            ptep, mm_id, addr = candidate, tables.mv_row_mm[candidate >> 9], tables.addr_of1(candidate)
        else:
            where, addr = candidate
            counters[DESCENTS] += 1
            mm: Mm = where.mm if isinstance(where, Vma) else where
            mm_id = mm.id
            row = mm.rows.get(addr >> PMD_SHIFT, 0)
            ptep = row * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & SLOT_MASK)
        counters[PTES_CHECKED] += 1
        if ptep >= PTRS_PER_TABLE and entries[ptep] & ENTRY_MASK == want:
            mappings.append((mm_id, addr))
            left -= 1
            if not left:
                break
        else:
            counters[PTES_IN_VAIN] += 1
    return mappings
