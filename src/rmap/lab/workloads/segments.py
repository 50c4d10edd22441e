"""One large shared segment in very many processes: databases, whose chains exhausted the low memory of 32-bit machines.

A shared segment is a file in memory, mapped by all. Chains pay for every PTE of every process; objects for one VMA
each.
"""

from __future__ import annotations

import numpy as np

from rmap.kernel import Kernel, Process
from rmap.lab.workloads.base import Parameter, Sample, Size, Steps, random_runs, share_of, tables_for
from rmap.lab.workloads.published import Dimension, published
from rmap.units import PAGE_SIZE


def sga(kernel: Kernel, *, processes: int, pages: int, windows: int, touched: float, seed: int) -> Steps:
    """``processes`` map a segment of ``pages`` pages, whole or in ``windows`` parts, and touch a share of it."""
    rng = np.random.default_rng(seed)
    yield f"a segment of {pages:,} pages"
    file = kernel.open("/dev/shm/SGA", pages * PAGE_SIZE)
    file.read_in()
    each = -(-pages // windows)
    places: list[tuple[Process, int, int]] = []
    for number in range(1, processes + 1):
        yield f"process {number:,} of {processes:,}"
        process = kernel.spawn()
        base = process.mmap(pages * PAGE_SIZE, "")
        for window in _order(rng, -(-pages // each), windows):
            first = window * each
            n = min(each, pages - first)
            at = base + first * PAGE_SIZE
            process.mmap(n * PAGE_SIZE, flags="shared", file=file, offset=first * PAGE_SIZE, addr=at)
        for first, n in random_runs(rng, pages, max(1, share_of(pages, touched))):
            process.read(base + first * PAGE_SIZE, n * PAGE_SIZE)
            places.append((process, base + first * PAGE_SIZE, n))
    return (Sample("a page of the segment", tuple(places)),)


def _order(rng: np.random.Generator, parts: int, windows: int) -> list[int]:
    return rng.permutation(parts).tolist() if windows > 1 else [0]


def sga_size(processes: int, pages: int, windows: int, touched: float) -> Size:
    """What it needs: fault-around maps up to sixteen pages for one."""
    mapped = min(pages, max(1, share_of(pages, touched)) + 32 * (1 + share_of(pages, touched) // 64))
    return Size(pages + 64, processes * mapped, processes * tables_for(pages), processes * (2 * windows + 1))


def decision_support(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """All processes have all pages of a segment mapped at the peak.

    How many processes and pages it were is not published; 87 and 1 GiB make the published mappings and chain blocks.
    """
    yield f"a segment of {pages:,} pages"
    file = kernel.open("/dev/shm/buffers", pages * PAGE_SIZE)
    file.read_in()
    places: list[tuple[Process, int, int]] = []
    for number in range(1, processes + 1):
        yield f"process {number:,} of {processes:,}"
        process = kernel.spawn()
        base = process.mmap(pages * PAGE_SIZE, flags="shared", file=file)
        process.read(base, pages * PAGE_SIZE)
        places.append((process, base, pages))
    return (Sample("a page of the segment", tuple(places)),)


def decision_size(processes: int, pages: int) -> Size:
    """What it needs."""
    return Size(pages + 64, processes * pages, processes * tables_for(pages), processes)


SGA = (
    Dimension("processes", 512, "processes"),
    Dimension("pages", 65_536, "pages of the segment (256 MiB)"),
    Dimension("windows", 1, "areas that each maps it in", scales=False),
)

WORKLOADS = (
    published(
        "sga",
        "512 processes map a segment of 256 MiB and touch a part of it at random.",
        "Oracle's and others' database servers; Andrea Arcangeli, 9 March 2004 (J24)",
        SGA,
        sga,
        sga_size,
        shows=("fault",),
        scale=0.05,
        others=(Parameter("touched", 0.25, "share", "of the segment, that each reads"),),
        theme="shared segments",
    ),
    published(
        "sga-windows",
        "The same through many small areas, mapped in random order.",
        "databases on 32-bit machines, which moved windows over a segment larger than their address space",
        (
            Dimension("processes", 32, "processes"),
            SGA[1],
            Dimension("windows", 32_768, "areas that each maps it in"),
        ),
        sga,
        sga_size,
        shows=("fault",),
        scale=0.02,
        others=(Parameter("touched", 0.25, "share", "of the segment, that each reads"),),
        theme="shared segments",
    ),
    published(
        "decision-support",
        "22.8 million mappings of shared buffers at once: the peak of a 100 GB database run.",
        "Peter Wong (IBM), 17 September 2002 (J5)",
        (
            Dimension("processes", 87, "processes that share the buffers"),
            Dimension("pages", 262_274, "pages of the buffers (1 GiB)"),
        ),
        decision_support,
        decision_size,
        shows=("fault",),
        scale=0.1,
        theme="shared segments",
    ),
)
