"""Loading a picture: what is in it stays as it is, what it does not say is inferred and said to be."""

from __future__ import annotations

import numpy as np
import pytest

from rmap import Kernel, Snapshot
from rmap.snapshot import SnapshotBuilder, shipped
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.rules.isomorphic import isomorphic
from rmap.uapi.kpageflags import KPF_ANON, KPF_KSM
from rmap.uapi.vm_flags import VM_READ, VM_WRITE
from tests.support import PAGE

DESIGNS = ("anon_vma_chain", "pte_chain")
HEAP = 0x7F0000000000


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def busy_machine(design: str = "anon_vma_chain", profile: str = "6.18") -> Kernel:
    """Forks, COW, a reused anon_vma, a file mapped privately and shared, shared memory, swap."""
    kernel = Kernel(design, profile, nr_pages=1 << 13)
    parent = kernel.spawn()
    heap = parent.mmap(40 * PAGE)
    parent.write(heap, 40 * PAGE)
    child = parent.fork()
    grandchild = child.fork()
    child.write(heap, 9 * PAGE)
    grandchild.write(heap + 3 * PAGE, 9 * PAGE)
    child.exit()
    other = grandchild.fork()
    other.write(heap, PAGE)
    file = kernel.open("/lib/libc.so", size=16 * PAGE)
    code = other.mmap(16 * PAGE, "rw", file=file)
    other.write(code, 3 * PAGE)
    other.read(code, 16 * PAGE)
    shared = other.mmap(8 * PAGE, flags="shared")
    other.write(shared, 8 * PAGE)
    last = other.fork()
    last.munmap(heap, 2 * PAGE)
    last.mremap(heap + 10 * PAGE, 5 * PAGE, 5 * PAGE, addr=0x600000000000)
    last.read(shared, 8 * PAGE)
    pages = [kernel.pfn(other, heap + 20 * PAGE), kernel.pfn(grandchild, heap + 3 * PAGE)]
    kernel.reclaim([page for page in pages if page is not None])
    kernel.check()
    return kernel


@pytest.mark.parametrize("profile", ["6.18", "7.0"])
def test_a_picture_of_the_model_comes_back_as_it_was(profile: str) -> None:
    snapshot = busy_machine(profile=profile).snapshot()
    again = Kernel.adopt(snapshot, profile=profile)
    again.check()
    assert again.adoption is not None and again.adoption.inferred == () and again.adoption.copied == 0
    assert isomorphic(snapshot, again.snapshot()) is None


@pytest.mark.parametrize("design", DESIGNS)
def test_a_picture_without_anon_vmas_loads_into_every_design(design: str) -> None:
    snapshot = busy_machine("pte_chain").snapshot()
    tables = dict(snapshot.tables)
    tables["vmas"] = tables["vmas"].take(np.arange(len(snapshot.vmas)))
    anonymous = tables["vmas"].file < 0  # type: ignore[attr-defined]
    tables["vmas"].pgoff[anonymous] = -1  # type: ignore[attr-defined]
    machine = Kernel.adopt(Snapshot(tables, snapshot.about), design)
    checked = machine.check()
    assert checked["ptes"] == snapshot.nr_ptes
    assert machine.adoption is not None and len(machine.adoption.inferred) == 2
    walked = machine.walk_many(np.flatnonzero(machine.core.frames.mapcount))
    assert len(walked[0]) == snapshot.nr_ptes


def test_page_offsets_follow_from_shared_pages() -> None:
    # Parent and child share a page that the child has moved: only one difference of their offsets explains it.
    builder = SnapshotBuilder("kernel")
    for pid, ppid in ((1, 0), (2, 1)):
        builder.add_process(pid, ppid=ppid)
    own = builder.add_vma(0, HEAP, HEAP + 4 * PAGE, VM_READ | VM_WRITE)
    moved = builder.add_vma(1, HEAP + (1 << 30), HEAP + (1 << 30) + 2 * PAGE, VM_READ | VM_WRITE)
    builder.add_ptes(own, numbers(HEAP + 2 * PAGE), numbers(0x5000), f.PTE_PRESENT)
    builder.add_ptes(moved, numbers(HEAP + (1 << 30)), numbers(0x5000), f.PTE_PRESENT)
    builder.set_frames(numbers(0x5000), mapcount=2, kind=k.ANON, flags=KPF_ANON)
    machine = Kernel.adopt(builder.build())
    machine.check()
    (first,), (second,) = machine.processes[1].maps(), machine.processes[2].maps()
    assert second.pgoff - first.pgoff == 2
    page = int(machine.from_snapshot(numbers(0x5000))[0])
    assert {(ref.pid, ref.address) for ref in machine.walk(page)} == {(1, HEAP + 2 * PAGE), (2, HEAP + (1 << 30))}


def test_a_page_shared_by_siblings_alone_hangs_on_an_ancestor_that_is_gone() -> None:
    builder = SnapshotBuilder("kernel")
    for pid, ppid in ((1, 0), (2, 1), (3, 1)):
        builder.add_process(pid, ppid=ppid)
    for row in (1, 2):
        vma = builder.add_vma(row, HEAP, HEAP + PAGE, VM_READ | VM_WRITE)
        builder.add_ptes(vma, numbers(HEAP), numbers(0x77), f.PTE_PRESENT)
    builder.set_frames(numbers(0x77), mapcount=2, kind=k.ANON, flags=KPF_ANON)
    machine = Kernel.adopt(builder.build())
    machine.check()
    chains = [[link.anon_vma for link in machine.processes[pid].mm.vmas[0].chain] for pid in (2, 3)]
    assert chains[0][-1] is chains[1][-1], "both hang below one root"
    assert chains[0][0] is not chains[1][0], "each has its own for new pages"
    assert chains[0][-1].num_active_vmas == 0, "the ancestor has no VMA"


def test_a_large_folio_mapped_at_two_places_of_one_process() -> None:
    # Rule 7f: the VMA was split, and one part moved; the folio stayed whole.
    builder = SnapshotBuilder("kernel")
    builder.add_process(1)
    first = builder.add_vma(0, HEAP, HEAP + 2 * PAGE, VM_READ | VM_WRITE)
    second = builder.add_vma(0, HEAP + (1 << 21), HEAP + (1 << 21) + 2 * PAGE, VM_READ | VM_WRITE)
    builder.add_ptes(first, numbers(HEAP, HEAP + PAGE), numbers(0x100, 0x101), f.PTE_PRESENT)
    builder.add_ptes(second, numbers(HEAP + (1 << 21), HEAP + (1 << 21) + PAGE), numbers(0x102, 0x103), f.PTE_PRESENT)
    folio = np.arange(0x100, 0x104)
    builder.set_frames(folio, mapcount=1, kind=k.ANON, flags=KPF_ANON, order=2, head_offset=folio - 0x100)
    machine = Kernel.adopt(builder.build())
    machine.check()
    low, high = machine.processes[1].maps()
    assert high.pgoff - low.pgoff == 2, "the index goes on through the folio"
    page = int(machine.from_snapshot(numbers(0x103))[0])
    assert [ref.address for ref in machine.walk(page)] == [HEAP + (1 << 21) + PAGE]
    machine.processes[1].munmap(HEAP, 2 * PAGE)
    machine.check()
    assert machine.who(page).mapcount == 1
    machine.processes[1].exit()
    machine.check()
    assert machine.who(page).kind == "free"


def test_a_page_of_a_large_folio_is_evicted_alone() -> None:
    for kind, flags in ((k.ANON, KPF_ANON), (k.FILE, 0)):
        builder = SnapshotBuilder("kernel")
        builder.add_process(1)
        file = builder.add_file("/lib/libc.so", size=16 * PAGE) if kind == k.FILE else -1
        vma = builder.add_vma(0, HEAP, HEAP + 4 * PAGE, VM_READ, file=file, pgoff=4 if kind == k.FILE else -1)
        folio = np.arange(0x100, 0x104)
        builder.add_ptes(vma, HEAP + PAGE * np.arange(4), folio, f.PTE_PRESENT)
        builder.set_frames(folio, mapcount=1, kind=kind, flags=flags, order=2, head_offset=folio - 0x100)
        machine = Kernel.adopt(builder.build())
        process = machine.processes[1]
        (page,) = machine.from_snapshot(numbers(0x102)).tolist()
        assert machine.reclaim([page]) == 1
        machine.check()
        assert machine.pfn(process, HEAP + 2 * PAGE) is None
        assert machine.pfn(process, HEAP + 3 * PAGE) is not None, "its neighbours stay where they are"
        process.read(HEAP, 4 * PAGE)
        machine.check()
        process.exit()
        machine.check()


def test_ksm_and_kernel_pages_are_left_out_or_marked_and_counted() -> None:
    builder = SnapshotBuilder("kernel")
    builder.add_process(1)
    vma = builder.add_vma(0, HEAP, HEAP + 3 * PAGE, VM_READ | VM_WRITE)
    builder.add_ptes(vma, numbers(HEAP, HEAP + PAGE), numbers(0x10, 0x10), f.PTE_PRESENT)
    builder.add_ptes(vma, numbers(HEAP + 2 * PAGE), numbers(0x20), f.PTE_PRESENT | f.PTE_SPECIAL)
    builder.set_frames(numbers(0x10), mapcount=2, kind=k.KSM, flags=KPF_KSM | KPF_ANON)
    builder.set_frames(numbers(0x20), kind=k.KERNEL)
    machine = Kernel.adopt(builder.build())
    machine.check()
    assert machine.adoption is not None
    assert machine.adoption.left_out == {"KSM pages": 2}
    assert machine.pfn(machine.processes[1], HEAP) is None
    assert machine.pfn(machine.processes[1], HEAP + 2 * PAGE) == machine.zero_pfn


@pytest.mark.parametrize("design", DESIGNS)
def test_mappers_outside_the_picture_are_counted(design: str) -> None:
    builder = SnapshotBuilder("kernel")
    builder.add_process(1)
    file = builder.add_file("/lib/libc.so", size=4 * PAGE)
    vma = builder.add_vma(0, HEAP, HEAP + 2 * PAGE, VM_READ, file=file, pgoff=0)
    builder.add_ptes(vma, numbers(HEAP, HEAP + PAGE), numbers(0x10, 0x11), f.PTE_PRESENT)
    builder.set_frames(numbers(0x10, 0x11), mapcount=numbers(1, 5), kind=k.FILE)
    machine = Kernel.adopt(builder.build(), design)
    machine.check()
    assert machine.adoption is not None and machine.adoption.unseen == 1
    assert machine.who(int(machine.from_snapshot(numbers(0x11))[0])).mapcount == 1


@pytest.mark.parametrize("design", DESIGNS)
def test_the_shipped_picture(design: str) -> None:
    snapshot = Snapshot.load(shipped())
    machine = Kernel.adopt(snapshot, design)
    checked = machine.check()
    assert checked["vmas"] == len(snapshot.vmas)
    special = snapshot.ptes.count[(snapshot.ptes.flags & f.PTE_SPECIAL) != 0].sum()
    assert machine.adoption is not None
    assert checked["ptes"] == snapshot.nr_ptes - special - sum(machine.adoption.left_out.values())
    pages = np.flatnonzero(machine.core.frames.mapcount)
    assert (machine.to_snapshot(pages) > 0).all()
    assert (machine.from_snapshot(machine.to_snapshot(pages)) == pages).all()
