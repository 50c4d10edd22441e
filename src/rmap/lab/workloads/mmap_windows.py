"""test-mmap2, test-mmap3 and Morton's thought case: very many small windows of one file.

Ingo Molnar's test-mmap3 maps 18,000 single pages in reverse order, so that no two merge, and forks until 32 processes
have them: 576,000 VMAs on one file. On his machine object-based reverse mapping by lists hung for half an hour (J19);
chains and prio_trees took 14 seconds (J18). Where all processes map the same windows, no tree helps below their
number.
"""

from __future__ import annotations

from rmap.kernel import Kernel, Process
from rmap.lab.workloads.base import Sample, Size, Steps, tables_for
from rmap.lab.workloads.published import Dimension, published
from rmap.units import PAGE_SIZE


def windows(kernel: Kernel, *, processes: int, vmas: int, seed: int) -> Steps:
    """``vmas`` windows of a page in reverse order, touched, then forks until ``processes`` have them."""
    yield f"the first process maps {vmas:,} pages, the last one first"
    file = kernel.open("/dev/shm/test-mmap", vmas * PAGE_SIZE)
    first = kernel.spawn()
    base = first.mmap(vmas * PAGE_SIZE, "")
    for window in range(vmas):
        at = base + window * PAGE_SIZE
        first.mmap(PAGE_SIZE, flags="shared", file=file, offset=(vmas - 1 - window) * PAGE_SIZE, addr=at)
        first.write(at, PAGE_SIZE)
    family = [first]
    while len(family) < processes:
        yield f"{len(family):,} of {processes:,} processes"
        for parent in family[: processes - len(family)]:
            family.append(parent.fork())
    for number, process in enumerate(family[1:], 2):
        yield f"process {number:,} of {processes:,} touches its pages"
        process.read(base, vmas * PAGE_SIZE)
    return (Sample("a page of the file", tuple((process, base, vmas) for process in family)),)


def windows_size(processes: int, vmas: int) -> Size:
    """What it needs."""
    return Size(vmas + 64, processes * vmas, processes * tables_for(vmas), processes * vmas + 1)


def thought_case(kernel: Kernel, *, processes: int, vmas: int, seed: int) -> Steps:
    """Each process maps every page of the file by itself; only some of them are ever touched."""
    file = kernel.open("/srv/segment", 2 * vmas * PAGE_SIZE)
    file.read_in()
    members: list[tuple[Process, int, int]] = []
    for number in range(1, processes + 1):
        yield f"process {number:,} of {processes:,} maps {vmas:,} windows"
        process = kernel.spawn()
        base = process.mmap(2 * vmas * PAGE_SIZE, "")
        for window in range(vmas):
            at = base + 2 * window * PAGE_SIZE
            process.mmap(PAGE_SIZE, flags="shared", file=file, offset=2 * window * PAGE_SIZE, addr=at)
        touched = base + 2 * (number % vmas) * PAGE_SIZE
        process.read(touched, PAGE_SIZE)
        members.append((process, touched, 1))
    return (Sample("a page of the file", tuple(members)),)


def thought_size(processes: int, vmas: int) -> Size:
    """What it needs."""
    return Size(2 * vmas + 64, processes * 2, processes * tables_for(2 * vmas), processes * (2 * vmas + 1))


WORKLOADS = (
    published(
        "test-mmap2",
        "32 processes map 1,800 single pages of a file, in reverse order.",
        "Ingo Molnar, March 2004",
        (Dimension("processes", 32, "processes"), Dimension("vmas", 1800, "single-page windows of each")),
        windows,
        windows_size,
        shows=("fault", "fork"),
        scale=0.25,
        theme="files in windows",
    ),
    published(
        "test-mmap3",
        "18,000 single pages of a file in reverse order, in 32 processes.",
        "Ingo Molnar, 9 March 2004 (J18, J19)",
        (
            Dimension("processes", 32, "processes", scales=False),
            Dimension("vmas", 18_000, "single-page windows of each"),
        ),
        windows,
        windows_size,
        shows=("fault", "fork"),
        scale=0.02,
        theme="files in windows",
    ),
    published(
        "thought-case",
        "A thousand processes with a thousand windows of one file, hardly touched.",
        "Andrew Morton, April 2003 (J14)",
        (Dimension("processes", 1000, "processes"), Dimension("vmas", 1000, "single-page windows of each")),
        thought_case,
        thought_size,
        shows=("fault",),
        scale=0.05,
        theme="files in windows",
    ),
)
