"""file-windows: many processes map many windows of one file, as databases did with their shared segment.

No page is anonymous, and nothing is forked: what counts is how the VMAs of a file are found. Windows overlap, and only
a part of each is touched, so that an index of VMAs names windows in which the page is not mapped.
"""

from __future__ import annotations

import numpy as np

from rmap.errors import UsageError
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
)
from rmap.units import PAGE_SIZE

MAX_WINDOWS = 60_000
UNMAPPED_ONE_IN = 10


def file_windows(
    kernel: Kernel,
    *,
    processes: int = 20,
    windows: int = 100,
    pages: int = 64,
    file_pages: int = 16384,
    touched: float = 0.5,
    seed: int = 1,
) -> Steps:
    """``processes`` × ``windows`` shared windows of ``pages`` pages at random places of a file in memory.

    One window in ten is unmapped in the end."""
    rng = np.random.default_rng(seed)
    yield f"a file of {file_pages:,} pages is read in"
    file = kernel.open("/srv/segment", file_pages * PAGE_SIZE)
    file.read_in()
    kept: list[tuple[Process, int, int]] = []
    leaving: list[tuple[Process, int]] = []
    for number in range(1, processes + 1):
        yield f"process {number:,} of {processes:,}"
        process = kernel.spawn()
        for window, offset in enumerate(rng.integers(0, file_pages - pages + 1, windows).tolist()):
            at = process.mmap(pages * PAGE_SIZE, flags="shared", file=file, offset=offset * PAGE_SIZE)
            runs = random_runs(rng, pages, share_of(pages, touched), run=16)
            for first, n in runs:
                process.read(at + first * PAGE_SIZE, n * PAGE_SIZE)
            if window % UNMAPPED_ONE_IN:
                kept += places(process, at, runs)
            else:
                leaving.append((process, at))
    yield f"{len(leaving):,} windows are unmapped"
    for process, at in leaving:
        process.munmap(at, pages * PAGE_SIZE)
    return (Sample("a page of the file", tuple(kept)),)


def size(processes: int, windows: int, pages: int, file_pages: int, touched: float) -> Size:
    """What it needs.

    Raises:
        UsageError: a window is larger than the file.
    """
    if pages > file_pages:
        raise UsageError(f"--pages {pages:,} is more than the file has: --file-pages {file_pages:,}")
    mapped = processes * windows * pages
    return Size(
        frames=file_pages,
        ptes=mapped,
        tables=processes * tables_for(windows * pages),
        vmas=processes * windows,
    )


WORKLOAD = Workload(
    "file-windows",
    "Many processes map many windows of one file and touch a part of each.",
    (
        Parameter("processes", 20, "count", "processes", 1, MAX_PROCESSES),
        Parameter("windows", 100, "count", "windows of each process", 1, MAX_WINDOWS),
        Parameter("pages", 64, "count", "pages of a window", 1, MAX_FRAMES),
        Parameter("file_pages", 16384, "count", "pages of the file", 1, MAX_FRAMES),
        Parameter("touched", 0.5, "share", "of a window, that is read"),
    ),
    file_windows,
    size,
    shows=("fault", "unmap"),
)
