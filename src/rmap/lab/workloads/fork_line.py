"""fork-line: each process forks the next, as shells start shells and daemons detach.

An anon_vma chain has a link per ancestor, so each fork costs more than the one before it; where ancestors exit, their
anon_vmas are used again (rule 2.5). Chains do not care who forked whom.
"""

from __future__ import annotations

import numpy as np

from rmap.kernel import Kernel
from rmap.lab.workloads.base import (
    MAX_FRAMES,
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

MAX_DEPTH = 1000


def fork_line(
    kernel: Kernel, *, depth: int = 30, pages: int = 4096, rewrite: float = 0.1, exits: float = 0.0, seed: int = 1
) -> Steps:
    """A line of ``depth`` forks; each process rewrites a share, and some exit as soon as they have forked."""
    rng = np.random.default_rng(seed)
    yield f"the first process writes {pages:,} pages"
    first = last = kernel.spawn()
    heap = first.mmap(pages * PAGE_SIZE)
    first.write(heap, pages * PAGE_SIZE)
    leaving = set(rng.permutation(depth)[: share_of(depth, exits)].tolist())
    runs: list[tuple[int, int]] = []
    for generation in range(depth):
        yield f"generation {generation + 1:,} of {depth:,}"
        forked = last.fork()
        if generation in leaving:
            last.exit()
        last = forked
        runs = random_runs(rng, pages, share_of(pages, rewrite))
        write_runs(last, heap, runs)
    inherited = Sample("a page of the last process", ((last, heap, pages),))
    return (inherited, Sample("a page it wrote itself", places(last, heap, runs)))


def size(depth: int, pages: int, rewrite: float, exits: float) -> Size:
    """What it needs."""
    return Size(
        frames=pages + depth * share_of(pages, rewrite),
        ptes=(depth + 1) * pages,
        tables=(depth + 1) * tables_for(pages),
        vmas=depth + 1,
    )


WORKLOAD = Workload(
    "fork-line",
    "Each process forks the next one and rewrites a part of what it inherited.",
    (
        Parameter("depth", 30, "count", "forks in the line", 1, MAX_DEPTH),
        Parameter("pages", 4096, "count", "pages the first process writes", 1, MAX_FRAMES),
        Parameter("rewrite", 0.1, "share", "of the pages, that each process rewrites, in runs"),
        Parameter("exits", 0.0, "share", "of the ancestors, that exit once they have forked"),
    ),
    fork_line,
    size,
    shows=("fork", "COW", "exit"),
)
