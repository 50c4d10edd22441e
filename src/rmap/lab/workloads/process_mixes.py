"""Mixes of short processes: compilations, shells, scripts. They live by fork, exec and exit, and share their libraries.

What a reverse map costs them is paid at fork and exit, entry by entry or area by area. How many run at once is a
parameter; each is a process that maps a program and its libraries, writes a little, and ends. Nothing is modelled of
what they compute, only of what they map.
"""

from __future__ import annotations

import numpy as np

from rmap.kernel import Kernel, OpenFile, Process
from rmap.lab.workloads.base import Parameter, Sample, Size, Steps, Workload, tables_for
from rmap.lab.workloads.published import Dimension, published
from rmap.units import PAGE_SIZE

LIBRARY_PAGES = 64
"""Of each library: what a process touches of it (256 KiB)."""


def mix(
    kernel: Kernel, *, jobs: int, alive: int, libraries: int, heap: int, forks: int, lifo: float, seed: int
) -> Steps:
    """``jobs`` processes one after another, ``alive`` at a time.

    A job is forked by a shell, execs a program with its libraries, writes its heap, and forks so many helpers that end
    before it does. The oldest ends first, or (``lifo``) the youngest.
    """
    rng = np.random.default_rng(seed)
    files = [kernel.open(f"/lib/lib{n}.so", LIBRARY_PAGES * PAGE_SIZE) for n in range(libraries)]
    for file in files:
        file.read_in()
    shell = kernel.spawn()
    _load(shell, files, heap)
    living: list[tuple[Process, int, int]] = []
    for number in range(1, jobs + 1):
        if number % 16 == 1:
            yield f"job {number:,} of {jobs:,}"
        if len(living) >= alive:
            living.pop(-1 if rng.random() < lifo else 0)[0].exit()
        job = shell.fork()
        job.write(shell_heap(shell), PAGE_SIZE)  # the child of a shell does a little before it execs
        job.exit()  # exec: the forked address space goes, and an empty one comes
        job = kernel.spawn()
        text, at = _load(job, files, heap)
        for _ in range(forks):
            helper = job.fork()
            helper.write(at, PAGE_SIZE)
            helper.exit()
        living.append((job, text, at))
    libraries_of = tuple((job, text, LIBRARY_PAGES) for job, text, _ in living)
    heaps = tuple((job, at, heap) for job, _, at in living)
    return (Sample("a page of a library", libraries_of), Sample("a page of a heap", heaps))


def shell_heap(shell: Process) -> int:
    """Where a process that :func:`_load` made has its heap: its last area but none."""
    return next(vma.start for vma in shell.mm.vmas if vma.mapping is None and vma.faulted)


def _load(process: Process, files: list[OpenFile], heap: int) -> tuple[int, int]:
    # Map every library privately and read it, write a heap; returns where the first library and the heap are.
    starts = []
    for file in files:
        at = process.mmap(LIBRARY_PAGES * PAGE_SIZE, "rx", file=file)
        process.read(at, LIBRARY_PAGES * PAGE_SIZE)
        data = process.mmap(2 * PAGE_SIZE, "rw", file=file)
        process.write(data, PAGE_SIZE)
        starts.append(at)
    at = process.mmap(heap * PAGE_SIZE)
    process.write(at, heap * PAGE_SIZE)
    return starts[0], at


def mix_size(jobs: int, alive: int, libraries: int, heap: int, forks: int, lifo: float) -> Size:
    """What it needs."""
    processes = min(alive, jobs) + 3
    each = libraries * (LIBRARY_PAGES + 2 + 16) + heap
    return Size(
        frames=libraries * LIBRARY_PAGES + processes * (libraries + heap + 2) + 256,
        ptes=processes * each,
        tables=processes * (tables_for(each) + 2 * libraries + 4),
        vmas=processes * (2 * libraries + 2),
    )


def _mix(name: str, summary: str, source: str, jobs: int, alive: int, libraries: int, heap: int, forks: int,
         lifo: float, scale: float) -> Workload:  # fmt: skip
    return published(
        name,
        summary,
        source,
        (
            Dimension("jobs", jobs, "processes in all"),
            Dimension("alive", alive, "processes at a time"),
            Dimension("libraries", libraries, "files that each maps", scales=False),
            Dimension("heap", heap, "pages that each writes", scales=False),
        ),
        mix,
        mix_size,
        shows=("fork", "exit"),
        scale=scale,
        others=(
            Parameter("forks", forks, "count", "helpers that each forks", 0, 64),
            Parameter("lifo", lifo, "share", "of the exits, that are the youngest's"),
        ),
        theme="process mixes",
    )


WORKLOADS = (
    _mix("kernbench", "make -j32: sh, make, gcc, cc1 and as by the thousand, over the same libraries.",
         "Martin Bligh, 19 February 2003 (J7, J8, J10)", 2000, 32, 3, 200, 2, 0.7, 0.1),
    _mix("sdet", "64 scripts of shell commands at once: fork, exec and exit, and little else.",
         "Martin Bligh, February and April 2003 (J7, J11)", 4000, 64, 2, 20, 1, 0.8, 0.1),
    _mix("patch-scripts", "64 patches are applied and removed: small processes, one after another.",
         "Andrew Morton, 22 February 2003 (J9)", 3200, 4, 2, 30, 1, 0.9, 0.1),
    _mix("shells-fifo", "Ten thousand shells live at once, and the oldest ends first.",
         "Anton Blanchard's ten thousand exiting shells, 2002 (J2)", 10_000, 5_000, 2, 8, 0, 0.0, 0.02),
    _mix("shells-lifo", "The same, but the youngest ends first, as chains were made for.",
         "Anton Blanchard's ten thousand exiting shells, 2002 (J2)", 10_000, 5_000, 2, 8, 0, 1.0, 0.02),
)  # fmt: skip
