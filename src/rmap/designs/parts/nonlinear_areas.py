"""The nonlinear areas of a file, for a design that computes where pages are (``i_mmap_nonlinear``, 2.6.7 to 3.19).

Where a page lies in such an area cannot be computed. ``page_referenced`` passed these areas over; ``try_to_unmap`` went
through them by the cluster (:mod:`rmap.consumers.clusters`). A walk that only looks must answer right here, so it
looks at every entry of every such area: what no kernel ever did, and what it counts as looked at in vain.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from rmap.columns import I64
from rmap.designs.parts.entry_scan import EntryScan, maps_something
from rmap.mm.costs import NODES_VISITED
from rmap.mm.interface import Candidates, DesignCore, Query
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import spans
from rmap.uapi.vm_flags import VM_LOCKED
from rmap.units import PAGE_SIZE

CLUSTER = 32 * PAGE_SIZE


class NonlinearAreas:
    """The nonlinear VMAs of one file, in the order in which they became so.

    Attributes:
        vmas: the areas, each with its cursor: how far the clusters have come, in bytes.
    """

    __slots__ = ("vmas",)

    def __init__(self) -> None:
        self.vmas: dict[Vma, int] = {}

    def candidates(self, core: DesignCore, query: Query, lo: int, hi: int) -> Candidates:
        """Every entry of every area, for positions ``lo`` to ``hi``; nothing where a kernel did not look either."""
        if not self.vmas or query.purpose in ("referenced", "unmap"):
            return
        counters = core.costs.current
        scan = EntryScan(query, np.arange(lo, hi), core.frames.nr_pages, counters)
        for vma in self.vmas:
            if scan.over:
                return
            counters[NODES_VISITED] += query.asking(lo, hi)
            for entries, pteps in _entries_of(core, vma):
                yield from scan.look(entries, pteps)

    def candidates1(self, core: DesignCore) -> Iterator[int]:
        """The scalar twin: every entry of every area."""
        for vma in self.vmas:
            core.costs.current[NODES_VISITED] += 1
            for _, pteps in _entries_of(core, vma):
                yield from pteps.tolist()

    def clusters(self, core: DesignCore, wanted: int) -> Generator[I64, int, None]:
        """Clusters of entries from the cursors on, until so many were cleared (``try_to_unmap_file``)."""
        open_areas = [vma for vma in self.vmas if not vma.flags & VM_LOCKED]
        if not open_areas:
            return
        size = -(-max(vma.end - vma.start for vma in open_areas) // CLUSTER) * CLUSTER
        limit = max(CLUSTER, max(self.vmas[vma] for vma in open_areas))
        while limit <= size:
            for vma in open_areas:
                while self.vmas[vma] < min(limit, vma.end - vma.start):
                    start = vma.start + self.vmas[vma]
                    self.vmas[vma] += CLUSTER
                    for entries, pteps in _entries_of(core, vma, start, min(start + CLUSTER, vma.end)):
                        if len(entries):
                            wanted -= yield pteps
                    if wanted <= 0:
                        return
            limit += CLUSTER
        for vma in open_areas:  # round and round for ever would not help: perhaps all that is left is locked
            self.vmas[vma] = 0


def _entries_of(core: DesignCore, vma: Vma, start: int = 0, end: int = 0) -> Iterator[tuple[I64, I64]]:
    for piece in spans(core.tables, vma.mm, start or vma.start, end or vma.end):
        offs = np.flatnonzero(maps_something(piece.entries))
        yield piece.entries[offs], piece.pteps(offs)
