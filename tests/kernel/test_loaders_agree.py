"""A picture of one process, loaded as a machine (adopt) and as an address space (exec), is the same process.

What they do otherwise is not in these pictures: exec brings pages back from swap, and gives a special mapping of the
kernel's frames of its own, where adopt lets the zero page stand for them.
"""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest

from rmap import Kernel, Process, Snapshot, SyscallError
from rmap.kernel.entries import ANON, FILE, KINDS, SHMEM, ZERO, spread
from rmap.kernel.inodes import Inodes
from rmap.snapshot import SnapshotBuilder
from rmap.uapi.vm_flags import VM_LOCKED, VM_READ, VM_WRITE
from rmap.units import PAGE_SIZE

SEEDS = range(12)


def machine_with_everything() -> Kernel:
    """A heap, an area in pieces, private copies of a file, a file and memory that are shared, zero and locked pages."""
    kernel = Kernel(nr_pages=1 << 12)
    process = kernel.spawn()
    heap = process.mm.brk
    process.brk(heap + 6 * PAGE_SIZE)
    process.write(heap, 3 * PAGE_SIZE)
    area = process.mmap(12 * PAGE_SIZE)
    process.write(area, 5 * PAGE_SIZE)
    process.read(area + 8 * PAGE_SIZE, 4 * PAGE_SIZE)
    process.mprotect(area + 2 * PAGE_SIZE, 2 * PAGE_SIZE, "r")
    process.mremap(area + 9 * PAGE_SIZE, 3 * PAGE_SIZE, 3 * PAGE_SIZE, addr=0x600000000000)
    library = kernel.open("/lib/libc.so", size=8 * PAGE_SIZE)
    code = process.mmap(6 * PAGE_SIZE, file=library, offset=2 * PAGE_SIZE)
    process.read(code, 6 * PAGE_SIZE)
    process.write(code + PAGE_SIZE, PAGE_SIZE)
    data = process.mmap(4 * PAGE_SIZE, flags="shared", file=kernel.open("/var/data", size=4 * PAGE_SIZE))
    process.write(data, 2 * PAGE_SIZE)
    shared = process.mmap(4 * PAGE_SIZE, flags="shared")
    process.write(shared, 3 * PAGE_SIZE)
    locked = process.mmap(2 * PAGE_SIZE, locked=True)
    process.munmap(locked, PAGE_SIZE)
    return kernel


def random_machine(seed: int) -> Kernel:
    draw = random.Random(seed)
    kernel = Kernel(nr_pages=1 << 12)
    process = kernel.spawn()
    process.brk(process.mm.brk + PAGE_SIZE)
    files = [None, None, kernel.open("/a", 20 * PAGE_SIZE), kernel.open("/m", 20 * PAGE_SIZE, shmem=True)]
    areas: list[tuple[int, int]] = []
    for _ in range(40):
        pages = draw.randint(1, 20)
        if not areas or draw.random() < 0.3:
            flags = draw.choice(["private", "private", "shared"])
            areas.append((process.mmap(pages * PAGE_SIZE, "rw", flags, draw.choice(files)), pages))
            continue
        start, size = draw.choice(areas)
        at = start + draw.randrange(size) * PAGE_SIZE
        length = min(pages * PAGE_SIZE, start + size * PAGE_SIZE - at)
        with suppress(SyscallError):
            call = draw.choice(["write", "write", "read", "mprotect", "munmap", "mlock", "mremap"])
            if call == "mprotect":
                process.mprotect(at, length, draw.choice(["r", "rw"]))
            elif call == "mremap":
                process.mremap(at, length, length, addr=0x600000000000 + draw.randrange(1 << 10) * PAGE_SIZE)
            else:
                getattr(process, call)(at, length)
    return kernel


def snapshot_of(kernel: Kernel, topology: bool) -> Snapshot:
    """The model's own picture; without topology as /proc would show it: no anon_vmas, no anonymous page offsets."""
    if topology:
        return kernel.snapshot()
    snapshot = Kernel.adopt(kernel.snapshot(), "pte_chain").snapshot()
    assert snapshot.about["topology"] == "none"
    tables = dict(snapshot.tables)
    vmas = tables["vmas"] = tables["vmas"].take(np.arange(len(snapshot.vmas)))
    vmas.pgoff[vmas.file < 0] = -1  # type: ignore[attr-defined]
    return Snapshot(tables, snapshot.about)


def loaded_by_exec(snapshot: Snapshot, design: str) -> Kernel:
    kernel = Kernel(design, nr_pages=1 << 12)
    assert kernel.exec(kernel.spawn(), snapshot, Inodes(kernel.core)) == {}
    return kernel


def the_process(kernel: Kernel) -> Process:
    (process,) = kernel.processes.values()
    return process


def kinds_of_entries(kernel: Kernel) -> list[tuple[int, str]]:
    entries = spread(kernel.snapshot())
    return list(zip(entries.address.tolist(), (KINDS[kind] for kind in entries.kind.tolist())))


def they_agree(snapshot: Snapshot, design: str) -> None:
    both = Kernel.adopt(snapshot, design), loaded_by_exec(snapshot, design)
    for kernel in both:
        kernel.check()
    adopted, image = (the_process(kernel) for kernel in both)
    assert adopted.maps() == image.maps(), "start, end, flags, pgoff and file name of every VMA"
    assert kinds_of_entries(both[0]) == kinds_of_entries(both[1])
    accounts = [(mm.start_brk, mm.brk, mm.locked_vm) for mm in (adopted.mm, image.mm)]
    assert accounts[0] == accounts[1]


@pytest.mark.parametrize("design", ["anon_vma_chain", "pte_chain", "anonmm"])
@pytest.mark.parametrize("topology", [True, False], ids=["with anon_vmas", "without"])
def test_a_process_with_everything(design: str, topology: bool) -> None:
    kernel = machine_with_everything()
    snapshot = snapshot_of(kernel, topology)
    assert set(spread(snapshot).kind.tolist()) == {ANON, FILE, SHMEM, ZERO}
    they_agree(snapshot, design)
    if topology:
        assert the_process(Kernel.adopt(snapshot, design)).maps() == the_process(kernel).maps()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("topology", [True, False], ids=["with anon_vmas", "without"])
def test_random_processes(seed: int, topology: bool) -> None:
    they_agree(snapshot_of(random_machine(seed), topology), "anon_vma_chain")


def test_a_heap_in_two_pieces_and_a_locked_area_are_counted_alike() -> None:
    builder = SnapshotBuilder("kernel")
    builder.add_process(1)
    start = 0x555555560000
    for at, flags in ((start, VM_READ | VM_WRITE), (start + 4 * PAGE_SIZE, VM_READ | VM_LOCKED)):
        builder.add_vma(0, at, at + 4 * PAGE_SIZE, flags, label="[heap]")
    snapshot = builder.build()
    they_agree(snapshot, "anon_vma_chain")
    mm = the_process(loaded_by_exec(snapshot, "anon_vma_chain")).mm
    assert (mm.start_brk, mm.brk, mm.locked_vm) == (start, start + 8 * PAGE_SIZE, 4)
