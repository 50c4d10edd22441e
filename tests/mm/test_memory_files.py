"""Long ranges of memory files are touched in one step, with the state and the costs of one page after the other."""

from __future__ import annotations

from random import Random

import pytest

from rmap import Kernel
from rmap.kernel.process import Process
from rmap.mm.costs import FAULT, FAULTS, PTES_ADDED
from tests.support import PAGE

PAGES = 1400


def costs(kernel: Kernel) -> tuple[int, int]:
    counters = kernel.core.costs.by_operation[FAULT]
    return counters[FAULTS], counters[PTES_ADDED]


def scattered(seed: int, shmem: bool) -> tuple[Kernel, Process, int]:
    """A mapping of a file some pages of which are in memory, some swapped out, some mapped already."""
    random = Random(seed)
    kernel = Kernel(nr_pages=1 << 13)
    file = kernel.open("file", PAGES * PAGE, shmem=shmem)
    other = kernel.spawn()
    view = other.mmap(PAGES * PAGE, file=file, flags="shared")
    for _ in range(seed % 4 * 20):
        other.write(view + random.randrange(PAGES) * PAGE)
    kernel.reclaim([page for page in file.file.mapping.pages.tolist() if page > 0 and random.random() < 0.3])
    process = kernel.spawn()
    skipped = random.choice((0, 5, 16, 21))
    addr = 0x10000000 + random.choice((0, 3, 16, 500)) * PAGE
    length = (PAGES - skipped) * PAGE
    process.mmap(length, addr=addr, file=file, offset=skipped * PAGE, flags=random.choice(("shared", "private")))
    process.read(addr + random.randrange(300) * PAGE)
    return kernel, process, addr


def entries(kernel: Kernel, process: Process, addr: int) -> list[int | None]:
    """The page index of what each address maps."""
    pages = [kernel.pfn(process, addr + at * PAGE) for at in range(PAGES)]
    return [None if pfn is None else kernel.who(pfn).index for pfn in pages]


@pytest.mark.parametrize("shmem", [True, False])
@pytest.mark.parametrize("how", ["read", "write"])
@pytest.mark.parametrize("seed", range(8))
def test_a_long_range_is_touched_as_page_after_page(seed: int, how: str, shmem: bool) -> None:
    random = Random(seed)
    first, last = random.randrange(100), random.randrange(1000, PAGES - 21)
    states = []
    for step in (1, last - first):
        kernel, process, addr = scattered(seed, shmem)
        before = costs(kernel)
        for page in range(first, last, step):
            getattr(process, how)(addr + page * PAGE, step * PAGE)
        after = costs(kernel)
        kernel.check()
        states.append((entries(kernel, process, addr), [a - b for a, b in zip(after, before)]))
    assert states[0][0] == states[1][0]
    assert states[0][1] == states[1][1]


@pytest.mark.parametrize("locker_first", [True, False])
def test_reclaim_does_not_begin_to_unmap_a_page_that_is_locked_somewhere(locker_first: bool) -> None:
    kernel = Kernel(nr_pages=64)
    file = kernel.open("file", PAGE, shmem=True)
    views = []
    for locks in (locker_first, not locker_first):
        process = kernel.spawn()
        at = process.mmap(PAGE, file=file, flags="shared", populate=True)
        if locks:
            process.mlock(at, PAGE)
            locker = process
        views.append((process.pid, at))
    page = file.file.mapping.pages[0]
    assert not kernel.reclaim([page]) and kernel.walk(page) == views
    assert kernel.try_to_unmap([page]).tolist() == [False] and kernel.walk(page) == views
    locker.exit()
    assert kernel.reclaim([page]) == 1
    kernel.check()


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_fault_asks_for_no_more_memory_than_it_takes(how: str) -> None:
    kernel = Kernel(nr_pages=8)
    file = kernel.open("file", 2 * PAGE)
    process = kernel.spawn()
    heap = process.mmap(3 * PAGE)
    process.write(heap, 3 * PAGE)
    view = process.mmap(2 * PAGE, file=file)
    getattr(process, how)(view, 2 * PAGE)
    assert kernel.core.frames.free_top == (2 if how == "read" else 0)
    assert not kernel.core.swap.used, "nothing had to go"
    kernel.check()
