"""Evict a tenth of the mapped pages, through a design's own walk, and fault them back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rmap.columns import I32, I64, Bool, runs
from rmap.kernel import Kernel
from rmap.lab.compare.figures import Meter
from rmap.lab.compare.workers import Say
from rmap.lab.results import EvictionFigures
from rmap.mm.fault import refusal
from rmap.mm.mm_types import Mm
from rmap.mm.oracle import transpose
from rmap.units import PAGE_SHIFT, PAGE_SIZE


def evict_a_tenth(kernel: Kernel, rng: np.random.Generator, say: Say) -> EvictionFigures:
    """Evict a tenth of the mapped pages, drawn from those that reclaim may take; then read them back.

    The oracle says which entries there were, and that none is left.
    """
    core = kernel.core
    pages = np.flatnonzero(core.frames.mapcount)
    candidates = kernel.reclaimer.evictable(pages)
    n = min(len(candidates), len(pages) // 10)
    victims = np.sort(rng.choice(candidates, n, replace=False))
    say(f"evicting {n:,} pages")
    before = transpose(core.tables)
    mapping_them = _among(before[0], victims, core.frames.nr_pages)
    meter = Meter(kernel.costs)
    kernel.reclaim(victims)
    cleared = meter.get("unmap_walk", "ptes_unmapped")
    left = int(np.count_nonzero(_among(transpose(core.tables)[0], victims, core.frames.nr_pages)))
    say("faulting them back")
    back = _fault_back(kernel, before[1][mapping_them], before[2][mapping_them])
    return EvictionFigures(
        pages=n,
        ptes_cleared=cleared,
        ptes_left=left,
        pages_barred=len(pages) - len(candidates),
        ptes_faulted_back=back,
    )


def _among(pfns: I64, wanted: I64, nr_pages: int) -> Bool:
    is_wanted = np.zeros(nr_pages, np.bool_)
    is_wanted[wanted] = True
    return is_wanted[pfns]


def _fault_back(kernel: Kernel, mm_ids: I32, addrs: I64) -> int:
    # Each process reads what it had, page after page; how many entries came back.
    order = np.lexsort((addrs, mm_ids))
    mm_ids, addrs = mm_ids[order], addrs[order]
    processes = {process.mm.id: process for process in kernel.processes.values()}
    cuts = (np.flatnonzero(np.diff(mm_ids)) + 1).tolist()
    back = 0
    for low, high in pairwise([0, *cuts, len(mm_ids)] if len(mm_ids) else []):
        process = processes[int(mm_ids[low])]
        for first, n in zip(*(column.tolist() for column in runs(addrs[low:high] >> PAGE_SHIFT))):
            for start, end in _readable(process.mm, first << PAGE_SHIFT, (first + n) << PAGE_SHIFT):
                process.read(start, end - start)
                back += (end - start) // PAGE_SIZE
    return back


def _readable(mm: Mm, start: int, end: int) -> list[tuple[int, int]]:
    # The parts of a range that the process may read (a page under PROT_NONE stays where it went).
    return [(max(start, vma.start), min(end, vma.end)) for vma in mm.overlapping(start, end) if not refusal(vma, False)]
