"""Walking a sample: how many entries a walk looks at, and how many of them map the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from rmap.columns import I64
from rmap.kernel import Kernel, Process
from rmap.lab.compare.figures import Meter
from rmap.lab.results import Figure, WalkFigures
from rmap.mm.walk import walk1, walk_many
from rmap.units import PAGE_SIZE

SAMPLE_PAGES = 1000
"""Pages walked of each kind, at most."""

WALKED_ALONE = 100
VISITS_ALONE = 2_000_000
"""Pages walked one by one, at most; and when to stop, where each walk is long."""

VISITS = ("blocks_visited", "nodes_visited")

LOOKED_AT = "looked at"
REALLY_MAPPING = "of them really mapping it"

Places = Sequence[tuple[Process, int, int]]
"""Where pages are mapped: ``(process, address in bytes, pages)``."""


def draw(kernel: Kernel, places: Places, rng: np.random.Generator) -> I64:
    """Draw distinct pages from these places, evenly; int64, ascending, ``SAMPLE_PAGES`` at most."""
    ends = list(accumulate(pages for _, _, pages in places))
    if not ends:
        return np.empty(0, np.int64)
    chosen = np.sort(rng.choice(ends[-1], min(SAMPLE_PAGES, ends[-1]), replace=False))
    pfns: set[int] = set()
    for place, at in zip(np.searchsorted(ends, chosen, side="right").tolist(), chosen.tolist()):
        process, start, pages = places[place]
        pfn = kernel.pfn(process, start + (at - ends[place] + pages) * PAGE_SIZE)
        if pfn:
            pfns.add(pfn)
    return np.array(sorted(pfns), np.int64)


def measure_walks(kernel: Kernel, pfns: I64, label: str) -> WalkFigures:
    """Walk pages, all at once for the averages, and some of them one by one for the worst.

    Args:
        pfns: int64, distinct; at least one.
        label: ``"a page of the parent"``.
    """
    meter = Meter(kernel.costs)
    walk_many(kernel.core, pfns)
    checked, in_vain = meter.get("walk", "ptes_checked"), meter.get("walk", "ptes_in_vain")
    visits = sum(meter.get("walk", counter) for counter in VISITS)
    worst, spent, alone = 0, 0, 0
    for pfn in pfns[:: max(1, len(pfns) // WALKED_ALONE)].tolist():
        one = Meter(kernel.costs)
        walk1(kernel.core, pfn)
        looked = sum(one.get("walk", counter) for counter in (*VISITS, "ptes_checked"))
        worst = max(worst, looked)
        spent += looked
        alone += 1
        if spent > VISITS_ALONE:
            break
    n = len(pfns)
    return WalkFigures(label, n, (checked - in_vain) / n, checked / n, in_vain / n, visits / n, worst, alone)


def walk_figures(kernel: Kernel, pfns: I64, label: str) -> list[Figure]:
    """Walk these pages, each until all its mappings are found; what was looked at per page.

    Args:
        pfns: int64, distinct; at least one.
        label: ``"a page of the parent"``.
    """
    meter = Meter(kernel.costs)
    walk_many(kernel.core, pfns)
    checked, in_vain = meter.get("walk", "ptes_checked"), meter.get("walk", "ptes_in_vain")
    return [
        Figure("walk", f"{label}: {LOOKED_AT}", checked / len(pfns)),
        Figure("walk", REALLY_MAPPING, (checked - in_vain) / len(pfns), part_of_above=True),
    ]
