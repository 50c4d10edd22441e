"""Odd pictures: they are loaded whole, or what is left out is counted."""

from __future__ import annotations

import numpy as np
import pytest

from rmap import Kernel
from rmap.snapshot import SnapshotBuilder
from tests.support import PAGE

DESIGNS = ("anon_vma_chain", "pte_chain")


@pytest.mark.parametrize("kind", ["vdso", "pfnmap"])
def test_pages_of_the_kernel_are_in_the_picture(kind: str) -> None:
    kernel = Kernel(nr_pages=64)
    process = kernel.spawn()
    process.map_kernel_pages(2, kind)
    child = process.fork()
    child.mmap(PAGE, populate=True)
    copy = Kernel.adopt(kernel.snapshot())
    copy.check()
    assert [str(row) for row in copy.processes[child.pid].maps()] == [str(row) for row in child.maps()]


def test_a_picture_is_loaded_under_its_own_release() -> None:
    kernel = Kernel(profile="7.0", nr_pages=1 << 10)
    process = kernel.spawn()
    heap = process.mmap(2 * PAGE)
    for _ in range(4):
        process.write(heap, PAGE)
        process = process.fork()
    snapshot = kernel.snapshot()
    assert Kernel.adopt(snapshot).core.profile.release == "7.0"
    for profile in ("6.18", "7.0"):
        copy = Kernel.adopt(snapshot, profile=profile)
        copy.check()
        page = kernel.pfn(process, heap) or 0
        assert copy.walk(int(copy.from_snapshot(np.array([page]))[0])) == kernel.walk(page)


@pytest.mark.parametrize("design", DESIGNS)
def test_processes_that_are_their_own_ancestors(design: str) -> None:
    # Pids are used again while a picture is taken.
    builder = SnapshotBuilder("kernel")
    for pid, ppid in ((5, 7), (6, 5), (7, 6), (8, 8), (9, 5)):
        builder.add_process(pid, ppid=ppid)
    kernel = Kernel.adopt(builder.build(), design)
    kernel.check()
    assert set(kernel.processes) == {5, 6, 7, 8, 9}
    assert sum(process.parent is None for process in kernel.processes.values()) == 2


def test_a_process_with_more_areas_than_usual() -> None:
    builder = SnapshotBuilder("kernel")
    process = builder.add_process(1)
    for i in range(65_600):
        builder.add_vma(process, 0x10000 + 2 * i * PAGE, 0x10000 + (2 * i + 1) * PAGE, 1 | 2 * (i % 2))
    kernel = Kernel.adopt(builder.build())
    assert kernel.core.max_map_count == 65_600
    kernel.check()
