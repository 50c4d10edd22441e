"""The public kernel: questions, untracked pages, processes that share an mm, limits, errors."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from rmap import Kernel, SyscallError, UntrackedPage
from rmap.errors import LimitError, UsageError
from tests.support import PAGE

DESIGNS = ("anon_vma_chain", "pte_chain")


@pytest.fixture(params=DESIGNS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return Kernel(request.param, nr_pages=1 << 12)


def test_walk_and_oracle_agree_and_are_sorted(kernel: Kernel) -> None:
    parent = kernel.spawn()
    heap = parent.mmap(4 * PAGE)
    parent.write(heap, 4 * PAGE)
    child = parent.fork()
    child.munmap(heap, PAGE)
    page = kernel.pfn(parent, heap + PAGE)
    assert page is not None
    assert kernel.walk(page) == kernel.oracle(page) == [(parent.pid, heap + PAGE), (child.pid, heap + PAGE)]
    assert kernel.who(page).kind == "anon" and kernel.who(page).mapcount == 2
    assert kernel.pfn(child, heap) is None
    pages, pids, addrs = kernel.walk_many([page])
    assert sorted(zip(pages.tolist(), pids.tolist(), addrs.tolist())) == [
        (page, parent.pid, heap + PAGE),
        (page, child.pid, heap + PAGE),
    ]


def test_untracked_pages_say_why(kernel: Kernel) -> None:
    process = kernel.spawn()
    heap = process.mmap(PAGE)
    process.read(heap)
    assert kernel.pfn(process, heap) == kernel.zero_pfn
    vdso = process.map_kernel_pages(2)
    device = process.map_kernel_pages(1, "pfnmap")
    other = process.fork()
    assert kernel.pfn(other, vdso) == kernel.pfn(process, vdso), "the vDSO is one page for all"
    for addr, kind in ((heap, "zero"), (vdso, "kernel"), (device, "kernel")):
        page = kernel.pfn(process, addr)
        assert page is not None
        with pytest.raises(UntrackedPage) as refused:
            kernel.walk(page)
        assert refused.value.kind == kind and len(refused.value.reason) > 20
        assert kernel.who(page).mappings == [] and kernel.who(page).kind == kind
    kernel.check()
    process.exit()
    other.exit()
    kernel.check()
    with pytest.raises(UntrackedPage, match="free"):
        kernel.walk(1)


def test_a_shared_mm_answers_with_its_lowest_pid_and_lives_until_its_last_process(kernel: Kernel) -> None:
    first = kernel.spawn()
    heap = first.mmap(PAGE)
    first.write(heap)
    second = first.clone_vm()
    third = second.vfork()
    page = kernel.pfn(third, heap)
    assert page is not None
    assert kernel.walk(page) == [(first.pid, heap)]
    assert kernel.who(page).mapcount == 1, "one page table, one entry"
    first.exit()
    assert kernel.walk(page) == [(second.pid, heap)]
    second.exit()
    third.exit()
    kernel.check()
    assert kernel.who(page).kind == "free"


def test_memory_pressure_goes_through_the_walk(kernel: Kernel) -> None:
    parent = kernel.spawn()
    heap = parent.mmap(3000 * PAGE)
    parent.write(heap, 3000 * PAGE)
    child = parent.fork()
    child.write(heap, 3000 * PAGE)
    kernel.check()
    assert kernel.core.swap.used > 0
    child.read(heap, 3000 * PAGE)
    parent.read(heap, 3000 * PAGE)
    kernel.check()


def test_no_swap_means_out_of_memory_and_nothing_changed() -> None:
    kernel = Kernel(nr_pages=64, nr_swap=0)
    process = kernel.spawn()
    heap = process.mmap(100 * PAGE)
    process.write(heap, 60 * PAGE)
    with pytest.raises(LimitError, match="out of memory"):
        process.write(heap + 60 * PAGE, 40 * PAGE)
    kernel.check()
    assert kernel.pfn(process, heap + 60 * PAGE) is None


def test_pages_of_a_locked_area_stay(kernel: Kernel) -> None:
    parent = kernel.spawn()
    heap = parent.mmap(4 * PAGE)
    parent.write(heap, 4 * PAGE)
    child = parent.fork()
    child.mlock(heap, PAGE, onfault=True)
    pages = [kernel.pfn(parent, heap + i * PAGE) for i in range(4)]
    kernel.reclaim([page for page in pages if page is not None])
    kernel.check()
    assert kernel.pfn(child, heap) == pages[0], "locked"
    assert kernel.pfn(child, heap + PAGE) is None and kernel.pfn(parent, heap + PAGE) is None


def test_try_to_unmap_clears_every_entry_and_keeps_the_page(kernel: Kernel) -> None:
    parent = kernel.spawn()
    heap = parent.mmap(2 * PAGE)
    parent.write(heap, 2 * PAGE)
    child = parent.fork()
    page = kernel.pfn(parent, heap)
    assert page is not None
    assert kernel.try_to_unmap(page).tolist() == [True]
    kernel.check()
    assert kernel.who(page).kind == "anon" and kernel.who(page).mappings == []
    child.read(heap)
    assert kernel.pfn(child, heap) == page, "found in the swap cache"
    kernel.check()


def test_referenced_counts_entries_once(kernel: Kernel) -> None:
    parent = kernel.spawn()
    heap = parent.mmap(PAGE)
    parent.write(heap)
    child = parent.fork()
    page = kernel.pfn(parent, heap)
    assert page is not None
    assert kernel.folio_referenced(page).tolist() == [1], "the child has not touched it"
    child.read(heap)
    parent.read(heap)
    assert kernel.folio_referenced(page).tolist() == [2]
    assert kernel.folio_referenced(page).tolist() == [0]
    parent.read(heap)
    parent.madvise(heap, PAGE, "random")
    assert kernel.folio_referenced(page).tolist() == [0], "areas read at random do not count"
    kernel.check()


def test_mkclean_makes_the_next_write_noticed(kernel: Kernel) -> None:
    first, second = kernel.spawn(), kernel.spawn()
    file = kernel.open("/data", size=4 * PAGE)
    areas = [process.mmap(4 * PAGE, flags="shared", file=file) for process in (first, second)]
    first.write(areas[0], 4 * PAGE)
    second.read(areas[1], 4 * PAGE)
    page = kernel.pfn(first, areas[0])
    assert page is not None
    assert kernel.folio_mkclean(page) == 1, "only one of the two entries is writable"
    assert kernel.folio_mkclean(page) == 0
    faults = kernel.costs["fault"]["faults"]
    first.write(areas[0])
    assert kernel.costs["fault"]["faults"] == faults + 1
    kernel.check()


def test_refusals_carry_linux_errors(kernel: Kernel) -> None:
    process = kernel.spawn()
    heap = process.mmap(2 * PAGE, "r")
    file = kernel.open("/data", size=PAGE)
    area = process.mmap(2 * PAGE, "r", file=file)
    for number, call in (
        (errno.EFAULT, lambda: process.write(heap)),
        (errno.EFAULT, lambda: process.read(0x1000)),
        (errno.EFAULT, lambda: process.read(area + PAGE)),
        (errno.EINVAL, lambda: process.munmap(heap + 1, PAGE)),
        (errno.EINVAL, lambda: process.read(heap, 0)),
        (errno.EINVAL, lambda: file.truncate(-1)),
        (errno.EINVAL, lambda: kernel.open("/dev/zero").truncate(PAGE)),
    ):
        with pytest.raises(SyscallError) as refused:
            call()
        assert refused.value.errno == number
    kernel.check()
    process.exit()
    with pytest.raises(SyscallError, match="exited"):
        process.fork()
    with pytest.raises(SyscallError, match="exited"):
        process.write(heap)


def test_impossible_requests() -> None:
    with pytest.raises(UsageError, match="pte_chain"):
        Kernel(design="no_such_design")
    with pytest.raises(UsageError, match=r"6\.18"):
        Kernel(profile="5.4")
    with pytest.raises(LimitError):
        Kernel(nr_pages=1)
    kernel = Kernel(nr_pages=64)
    with pytest.raises(UsageError, match="frame"):
        kernel.walk(64)
    kernel.open("/a", size=PAGE)
    with pytest.raises(UsageError, match="4,096"):
        kernel.open("/a", size=2 * PAGE)
    process = kernel.spawn()
    for request in (lambda: process.mmap(PAGE, "rq"), lambda: process.mmap(PAGE, flags="public")):
        with pytest.raises(UsageError):
            request()


def test_costs_are_left_alone_by_checking(kernel: Kernel) -> None:
    process = kernel.spawn()
    heap = process.mmap(64 * PAGE)
    process.write(heap, 64 * PAGE)
    process.fork()
    before = kernel.costs.as_dict()
    kernel.check()
    assert kernel.costs.as_dict() == before
    assert before["fork"]["ptes_added"] == 64
    kernel.walk_many(np.flatnonzero(kernel.core.frames.mapcount))
    assert kernel.costs["walk"]["pages_walked"] == 64
