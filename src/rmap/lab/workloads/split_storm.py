"""split-storm: processes of one family change the protection of single pages, as a garbage collector or a JIT does.

Each change splits a VMA, each undone change merges three. Every piece hangs on all the anon_vmas of the family, so
splitting costs objects and tree work here; chains know no VMAs.
"""

from __future__ import annotations

import numpy as np

from rmap.errors import UsageError
from rmap.kernel import Kernel
from rmap.lab.workloads.base import MAX_FRAMES, Parameter, Sample, Size, Steps, Workload, share_of, tables_for
from rmap.units import PAGE_SIZE

MAX_CHILDREN = 1000
MAX_SPLITS = 30_000  # two more VMAs each, and a process may have 65,530


def split_storm(
    kernel: Kernel, *, splits: int = 500, children: int = 8, pages: int = 4096, merge: float = 0.5, seed: int = 1
) -> Steps:
    """Each of ``children`` forks makes single pages read-only, in random order, and undoes a share of that."""
    rng = np.random.default_rng(seed)
    yield f"the parent writes {pages:,} pages"
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    for number in range(1, children + 1):
        yield f"child {number:,} of {children:,}"
        child = parent.fork()
        # Every second page at most: each change then makes an area of its own.
        chosen = (2 * rng.permutation(pages // 2)[:splits]).tolist()
        for page in chosen:
            child.mprotect(heap + page * PAGE_SIZE, PAGE_SIZE, "r")
        for page in chosen[: share_of(splits, merge)]:
            child.mprotect(heap + page * PAGE_SIZE, PAGE_SIZE, "rw")
    return (Sample("a page of the parent", ((parent, heap, pages),)),)


def size(splits: int, children: int, pages: int, merge: float) -> Size:
    """What it needs.

    Raises:
        UsageError: there are not enough pages for so many splits.
    """
    if 2 * splits > pages:
        raise UsageError(f"--splits {splits:,} needs at least --pages {2 * splits:,}: every second page is split off")
    return Size(
        frames=pages,
        ptes=(children + 1) * pages,
        tables=(children + 1) * tables_for(pages),
        vmas=(children + 1) * (2 * splits + 1),
    )


WORKLOAD = Workload(
    "split-storm",
    "Forked processes change the protection of single pages, and undo a part of it.",
    (
        Parameter("splits", 500, "count", "pages whose protection each process changes", 1, MAX_SPLITS),
        Parameter("children", 8, "count", "processes that do so", 1, MAX_CHILDREN),
        Parameter("pages", 4096, "count", "pages of the area", 1, MAX_FRAMES),
        Parameter("merge", 0.5, "share", "of the changes, that are undone"),
    ),
    split_storm,
    size,
    shows=("fork", "mprotect"),
)
