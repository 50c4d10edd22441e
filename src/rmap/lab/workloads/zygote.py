"""zygote: a process with many small areas is the parent of every application, as on Android.

Many VMAs and few pages in each: what costs per VMA is dear here, what costs per page is cheap.
"""

from __future__ import annotations

import numpy as np

from rmap.kernel import Kernel
from rmap.lab.workloads.base import (
    MAX_PROCESSES,
    Parameter,
    Sample,
    Size,
    Steps,
    Workload,
    share_of,
    tables_for,
)
from rmap.units import PAGE_SIZE

BASE = 0x7F0000000000
MAX_AREAS = 60_000
MAX_AREA_PAGES = 512


def zygote(
    kernel: Kernel, *, vmas: int = 1000, children: int = 50, pages: int = 4, rewrite: float = 0.1, seed: int = 1
) -> Steps:
    """``vmas`` areas of ``pages`` pages each, ``children`` forks; each child writes to a share of the areas."""
    rng = np.random.default_rng(seed)
    yield f"the zygote writes {vmas:,} areas"
    parent = kernel.spawn()
    # A hole behind every area: neighbours would merge, or share one anon_vma (rule 2.3).
    starts = [BASE + i * (pages + 1) * PAGE_SIZE for i in range(vmas)]
    for start in starts:
        parent.mmap(pages * PAGE_SIZE, addr=start)
        parent.write(start, pages * PAGE_SIZE)
    written = []
    for number in range(1, children + 1):
        yield f"child {number:,} of {children:,}"
        child = parent.fork()
        for area in sorted(rng.permutation(vmas)[: share_of(vmas, rewrite)].tolist()):
            child.write(starts[area], pages * PAGE_SIZE)
            written.append((child, starts[area], pages))
    inherited = Sample("a page of the zygote", tuple((parent, start, pages) for start in starts))
    return (inherited, Sample("a page of a child", tuple(written)))


def size(vmas: int, children: int, pages: int, rewrite: float) -> Size:
    """What it needs."""
    return Size(
        frames=vmas * pages + children * share_of(vmas, rewrite) * pages,
        ptes=(children + 1) * vmas * pages,
        tables=(children + 1) * tables_for(vmas * (pages + 1)),
        vmas=(children + 1) * vmas,
    )


WORKLOAD = Workload(
    "zygote",
    "A process with many small areas forks every application from itself.",
    (
        Parameter("vmas", 1000, "count", "areas of the zygote, none next to another", 1, MAX_AREAS),
        Parameter("children", 50, "count", "applications it forks", 1, MAX_PROCESSES),
        Parameter("pages", 4, "count", "pages written in each area", 1, MAX_AREA_PAGES),
        Parameter("rewrite", 0.1, "share", "of the areas, that each application writes to"),
    ),
    zygote,
    size,
    shows=("fork", "COW"),
)
