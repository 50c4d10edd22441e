"""fork-server: a server loads its data, forks its workers, and each worker rewrites a part.

What every pre-forking server does: the parent's heap is shared by all of them, page by page less so. Chains grow with
every child and are paid for at every fork; an anon_vma costs a few objects per child and VMA.
"""

from __future__ import annotations

import numpy as np

from rmap.kernel import Kernel, Process
from rmap.lab.workloads.base import (
    MAX_FRAMES,
    MAX_PROCESSES,
    Parameter,
    Sample,
    Size,
    Steps,
    Workload,
    places,
    random_runs,
    share_of,
    tables_for,
    write_runs,
)
from rmap.units import PAGE_SIZE


def fork_server(
    kernel: Kernel, *, children: int = 100, pages: int = 65536, rewrite: float = 0.1, seed: int = 1
) -> Steps:
    """The parent writes ``pages`` pages and forks ``children`` workers, then each rewrites a share. All stay alive."""
    rng = np.random.default_rng(seed)
    yield f"the parent writes {pages:,} pages"
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    workers = []
    for number in range(1, children + 1):
        yield f"fork {number:,} of {children:,}"
        workers.append(parent.fork())
    rewritten: list[tuple[Process, int, int]] = []
    for number, child in enumerate(workers, 1):
        yield f"child {number:,} of {children:,} rewrites its share"
        runs = random_runs(rng, pages, share_of(pages, rewrite))
        write_runs(child, heap, runs)
        rewritten += places(child, heap, runs)
    return (Sample("a page of the parent", ((parent, heap, pages),)), Sample("a page of a child", tuple(rewritten)))


def size(children: int, pages: int, rewrite: float) -> Size:
    """What it needs."""
    return Size(
        frames=pages + children * share_of(pages, rewrite),
        ptes=(children + 1) * pages,
        tables=(children + 1) * tables_for(pages),
        vmas=children + 1,
    )


WORKLOAD = Workload(
    "fork-server",
    "A server loads its data and forks workers; each rewrites a part of it.",
    (
        Parameter("children", 100, "count", "workers the parent forks", 1, MAX_PROCESSES),
        Parameter("pages", 65536, "count", "pages the parent writes", 1, MAX_FRAMES),
        Parameter("rewrite", 0.1, "share", "of the pages, that each worker rewrites, in runs"),
    ),
    fork_server,
    size,
    shows=("fork", "COW"),
)
