"""The public kernel and whoever calls it with odd arguments: what it answers, and that nothing is left broken."""

from __future__ import annotations

import errno

import pytest

from rmap import Kernel, SyscallError
from rmap.errors import UsageError
from rmap.kernel.machine import MAX_PID
from rmap.kernel.process import Process
from tests.support import PAGE

CONSUMERS = ("walk_many", "reclaim", "try_to_unmap", "folio_referenced", "folio_mkclean")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(nr_pages=1 << 10)


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("pfn", [-1, 1 << 10, 1 << 40, 1 << 64])
def test_consumers_refuse_frames_that_do_not_exist(kernel: Kernel, consumer: str, pfn: int) -> None:
    with pytest.raises(UsageError, match="not"):
        getattr(kernel, consumer)([1, pfn])
    kernel.check()


def test_consumers_take_any_iterable_of_frames(kernel: Kernel) -> None:
    process = kernel.spawn()
    heap = process.mmap(4 * PAGE)
    process.write(heap, 4 * PAGE)
    pages = [kernel.pfn(process, heap + i * PAGE) or 0 for i in range(4)]
    assert kernel.folio_referenced(page for page in pages).tolist() == [1, 1, 1, 1]
    assert sorted(kernel.walk_many(set(pages))[0].tolist()) == sorted(pages)
    assert kernel.folio_referenced(pages[0]).tolist() == [0]
    assert kernel.reclaim(iter(pages)) == 4


def test_a_frame_named_twice_is_one_frame(kernel: Kernel) -> None:
    process = kernel.spawn()
    heap = process.mmap(2 * PAGE)
    process.write(heap, 2 * PAGE)
    first, second = (kernel.pfn(process, heap + i * PAGE) or 0 for i in range(2))
    assert kernel.folio_referenced([second, first, second]).tolist() == [1, 1, 1]
    assert kernel.try_to_unmap([second, second, first]).tolist() == [True, True, True]
    assert kernel.core.swap.used == 2
    kernel.check()


@pytest.mark.parametrize("call", ["fork", "clone_vm", "exit"])
def test_a_process_that_has_exited_does_nothing_more(kernel: Kernel, call: str) -> None:
    sharer = kernel.spawn()
    process = sharer.clone_vm()
    heap = process.mmap(PAGE)
    process.exit()
    for act in (
        lambda: getattr(kernel, call)(process),
        lambda: process.write(heap),
        lambda: process.read(heap),
        lambda: process.map_kernel_pages(1),
    ):
        with pytest.raises(SyscallError) as refusal:
            act()
        assert refusal.value.errno == errno.ESRCH
    assert kernel.pfn(sharer, heap) is None
    kernel.check()


def test_pids_start_again_from_the_lowest_that_is_free(kernel: Kernel) -> None:
    first = kernel.spawn()
    kernel.reserve_pids(MAX_PID - 1)
    assert [kernel.spawn().pid, kernel.fork(first).pid] == [MAX_PID, first.pid + 1]


def test_walks_name_the_lowest_pid_of_those_that_share_an_mm(kernel: Kernel) -> None:
    kernel.reserve_pids(MAX_PID - 1)
    process = kernel.spawn()
    sharer: Process = process.clone_vm()
    heap = process.mmap(PAGE)
    process.write(heap)
    assert sharer.pid < process.pid
    assert [ref.pid for ref in kernel.walk(kernel.pfn(process, heap) or 0)] == [sharer.pid]
