"""T1 to T4: rmap-test, with which Andrew Morton and others judged the reverse maps of 2003 and 2004.

One file; every task maps the same windows of it, shared, with a gap between any two so that they do not merge; the
tasks dirty their pages. Memory is a little smaller than the file: who goes through it in order (T1, T3) finds nothing
of it any more the next time, so every page is evicted once in each iteration; T2 touches less than fits. T1 is what
took object-based reverse mapping by lists ten times as long as chains: 10,000 VMAs, of which 100 map the page."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.kernel import Kernel, Process
from rmap.lab.workloads.base import Parameter, Sample, Size, Steps, Workload, tables_for
from rmap.lab.workloads.published import Dimension, published
from rmap.units import PAGE_SIZE

GAP = 1
"""Pages between the windows, in the file and in the address space."""
SOURCE = "Andrew Morton, 5 April 2003 (J13); Rajesh Venkatasubramanian, 21 March 2004 (J18)"


def rmap_test(
    kernel: Kernel,
    *,
    tasks: int,
    vmas: int,
    pages: int,
    iterations: int,
    touched: float,
    evicted: float,
    linear: bool,
    seed: int,
) -> Steps:
    """``tasks`` x ``vmas`` shared windows of ``pages`` pages, dirtied and evicted ``iterations`` times."""
    rng = np.random.default_rng(seed)
    length = vmas * (pages + GAP)
    file = kernel.open("/srv/rmap-test", length * PAGE_SIZE)
    family: list[tuple[Process, int]] = []
    for number in range(1, tasks + 1):
        yield f"task {number:,} of {tasks:,} maps {vmas:,} windows"
        task = kernel.spawn()
        base = task.mmap(length * PAGE_SIZE, "")  # a place for them all
        for window in range(vmas):
            at = window * (pages + GAP) * PAGE_SIZE
            task.mmap(pages * PAGE_SIZE, flags="shared", file=file, offset=at, addr=base + at)
        family.append((task, base))
    for iteration in range(1, iterations + 1):
        for number, (task, base) in enumerate(family, 1):
            yield f"iteration {iteration}: task {number:,} of {tasks:,} dirties its pages"
            for window in _chosen(rng, vmas, touched, linear):
                task.write(base + window * (pages + GAP) * PAGE_SIZE, pages * PAGE_SIZE)
        yield f"iteration {iteration}: pages are evicted"
        kernel.reclaim(_victims(kernel, rng, evicted if iteration < iterations else evicted / 2))
    places = tuple((task, base + w * (pages + GAP) * PAGE_SIZE, pages) for task, base in family for w in range(vmas))
    return (Sample("a page of the file", places),)


def _chosen(rng: np.random.Generator, vmas: int, touched: float, linear: bool) -> list[int]:
    # The windows that a task dirties: the first ones in order, or as many at random.
    n = max(1, round(vmas * touched))
    return list(range(n)) if linear else rng.choice(vmas, n, replace=False).tolist()


def _victims(kernel: Kernel, rng: np.random.Generator, share: float) -> I64:
    mapped = np.flatnonzero(kernel.core.frames.mapcount)
    return np.sort(rng.choice(mapped, int(len(mapped) * share), replace=False))


def size(
    tasks: int, vmas: int, pages: int, iterations: int, touched: float, evicted: float, linear: bool
) -> Size:
    """What it needs."""
    return Size(
        frames=vmas * (pages + GAP) + 64,
        ptes=round(tasks * max(1, round(vmas * touched)) * pages * 1.2) + 64 if not linear else tasks * vmas * pages,
        tables=tasks * tables_for(vmas * (pages + GAP)),
        vmas=tasks * (2 * vmas + 1),
    )


def _t(number: int, options: str, says: str, tasks: int, vmas: int, pages: int, touched: float, linear: bool,
       scale: float, iterations: int, evicted: float) -> Workload:  # fmt: skip
    def run(kernel: Kernel, **settings: int | float) -> Steps:
        return rmap_test(kernel, linear=linear, **settings)  # type: ignore[arg-type]

    def needs(**settings: int | float) -> Size:
        return size(linear=linear, **settings)  # type: ignore[arg-type]

    return published(
        f"T{number}",
        f"rmap-test {options}: {says}",
        SOURCE,
        (
            Dimension("tasks", tasks, "processes"),
            Dimension("vmas", vmas, "windows of each, the same ones"),
            Dimension("pages", pages, "pages of a window"),
            Dimension("iterations", iterations, "rounds of dirtying and evicting", scales=False),
        ),
        run,
        needs,
        shows=("fault", "evict"),
        scale=scale,
        others=(
            Parameter("touched", touched, "share", "of the windows, that a task dirties"),
            Parameter("evicted", evicted, "share", "of the mapped pages, after an iteration (half after the last)"),
        ),
        theme="files in windows",
    )


WORKLOADS = (
    _t(1, "-l -i 10 -n 100 -s 600 -t 100", "100 tasks, 100 windows each.", 100, 100, 600, 1.0, True, 0.2, 1, 1.0),
    _t(2, "-V 2 -r -i 1 -n 100 -s 600 -t 100", "2 of 100 windows each.", 100, 100, 600, 0.02, False, 0.2, 1, 0.0),
    _t(3, "-l -i 10 -n 10000 -s 7 -t 1", "one task, ten thousand windows.", 1, 10_000, 7, 1.0, True, 0.1, 1, 1.0),
    _t(4, "-r -i 1 -n 1 -s 65000 -t 512", "512 tasks, one large window.", 512, 1, 65_000, 1.0, False, 0.03, 1, 0.05),
)
