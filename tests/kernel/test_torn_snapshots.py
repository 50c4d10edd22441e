"""Pictures of several moments at once: what contradicts itself is copied or left out, and counted."""

from __future__ import annotations

import numpy as np
import pytest

from rmap import Kernel
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.uapi.vm_flags import VM_MAYSHARE, VM_MIXEDMAP, VM_PFNMAP, VM_READ, VM_SHARED, VM_WRITE
from tests.support import PAGE

BASE = 0x10000000
RW = VM_READ | VM_WRITE
SHARED = RW | VM_SHARED | VM_MAYSHARE


class Draft:
    """A picture of one process, page by page."""

    def __init__(self) -> None:
        self.builder = SnapshotBuilder("kernel", swapped=True)
        self.process = self.builder.add_process(10)
        self.builder.set_frames(np.array([1]), kind=k.ZERO)

    def area(self, number: int, pages: int, flags: int = RW, *, file: int = -1, pgoff: int = -1) -> int:
        start = BASE + number * 100 * PAGE
        return self.builder.add_vma(self.process, start, start + pages * PAGE, flags, file=file, pgoff=pgoff)

    def entry(self, area: int, page: int, pfn: int, flags: int = f.PTE_PRESENT) -> None:
        start = self.builder.rows("vmas")[area]["start"]
        self.builder.add_ptes(area, np.array([start + page * PAGE]), np.array([pfn]), flags)

    def folio(self, pfn: int, kind: int, order: int = 0, mapcount: int = 1) -> None:
        n = 1 << order
        offset = np.arange(n) if order else 0
        self.builder.set_frames(np.arange(pfn, pfn + n), kind=kind, order=order, head_offset=offset, mapcount=mapcount)


@pytest.fixture(params=["anon_vma_chain", "pte_chain"])
def design(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def draft() -> Draft:
    return Draft()


def load(draft: Draft | Snapshot, design: str) -> Kernel:
    """The machine, and the machine of its picture, both whole."""
    small = {"nr_pages": 1 << 10, "nr_swap": 64}
    kernel = Kernel.adopt(draft.builder.build() if isinstance(draft, Draft) else draft, design, **small)
    kernel.check()
    Kernel.adopt(kernel.snapshot(), design, **small).check()
    return kernel


def account(kernel: Kernel) -> tuple[int, int, dict[str, int]]:
    adoption = kernel.adoption
    assert adoption is not None
    return adoption.ptes, adoption.copied, adoption.left_out


def test_markers_are_counted(draft: Draft, design: str) -> None:
    area = draft.area(0, 8)
    draft.entry(area, 0, -1, f.PTE_GUARD)
    draft.entry(area, 1, -1, f.PTE_GUARD)
    draft.entry(area, 2, -1, f.PTE_OTHER)
    counted = {"guard markers": 2, "entries neither present nor in swap": 1}
    assert account(load(draft, design)) == (0, 0, counted)


def test_private_pages_in_a_shared_area_are_left_out(draft: Draft, design: str) -> None:
    area = draft.area(0, 8, SHARED, file=draft.builder.add_file("memory", size=8 * PAGE, kind=f.FILE_SHMEM), pgoff=0)
    draft.folio(100, k.ANON)
    draft.folio(101, k.SHMEM)
    draft.entry(area, 0, 100)
    draft.entry(area, 1, 101)
    draft.entry(area, 2, 5 << 5, f.PTE_SWAP)
    counted = {"private pages in shared areas (a torn picture)": 2}
    assert account(load(draft, design)) == (1, 0, counted)


def test_an_anonymous_page_at_two_places_of_an_area_is_two_pages(draft: Draft, design: str) -> None:
    area = draft.area(0, 8)
    draft.folio(100, k.ANON, mapcount=1)
    draft.entry(area, 0, 100)
    draft.entry(area, 3, 100)
    assert account(load(draft, design)) == (2, 1, {})


def test_a_swap_slot_at_two_places_of_an_area_is_two_slots(draft: Draft, design: str) -> None:
    area = draft.area(0, 8)
    draft.entry(area, 0, 7 << 5, f.PTE_SWAP)
    draft.entry(area, 3, 7 << 5, f.PTE_SWAP)
    kernel = load(draft, design)
    assert account(kernel) == (0, 1, {}) and kernel.core.swap.used == 2
    process = kernel.processes[10]
    process.write(BASE, 8 * PAGE)
    kernel.check()
    assert not kernel.core.swap.used


def test_two_pages_at_one_place_of_a_file(draft: Draft, design: str) -> None:
    # The first is in the page cache; the other is a copy where it may be one, and left out where it may not.
    file = draft.builder.add_file("file", size=4 * PAGE)
    for number, flags in enumerate((RW, RW, SHARED)):
        area = draft.area(number, 4, flags, file=file, pgoff=0)
        draft.folio(100 + number, k.FILE)
        draft.entry(area, 1, 100 + number)
    counted = {"pages not of the shared area they were seen in (a torn picture)": 1}
    kernel = load(draft, design)
    assert account(kernel) == (2, 1, counted)
    assert kernel.core.frames.nr_pages - 1 - kernel.core.frames.free_top == 2, "what is left out is free"


def test_a_page_in_two_files(draft: Draft, design: str) -> None:
    draft.folio(100, k.FILE, mapcount=2)
    for number in range(2):
        file = draft.builder.add_file(f"file {number}", size=4 * PAGE)
        draft.entry(draft.area(number, 4, file=file, pgoff=0), number, 100)
    assert account(load(draft, design)) == (2, 1, {})


@pytest.mark.parametrize("kind", [k.ANON, k.FILE, k.SHMEM])
def test_a_folio_of_which_a_part_is_mapped(draft: Draft, design: str, kind: int) -> None:
    file = -1 if kind == k.ANON else draft.builder.add_file("file", size=6 * PAGE + 1, kind=int(kind == k.SHMEM))
    area = draft.area(0, 8, RW if kind == k.ANON else SHARED, file=file, pgoff=-1 if kind == k.ANON else 0)
    draft.folio(104, kind, order=3)
    draft.folio(112, kind, order=3)  # not mapped at all
    for page in (2, 3, 6):
        draft.entry(area, page, 104 + page)
    kernel = load(draft, design)
    assert account(kernel) == (3, 0, {})
    assert kernel.core.frames.nr_pages - 1 - kernel.core.frames.free_top == 8
    kernel.processes[10].munmap(BASE, 8 * PAGE)
    kernel.check()


def test_shared_memory_without_a_file_gets_one(draft: Draft, design: str) -> None:
    draft.area(0, 4, SHARED)
    draft.area(1, 4, SHARED, file=draft.builder.add_file("/dev/zero", kind=f.FILE_DEVICE), pgoff=2)
    kernel = load(draft, design)
    process = kernel.processes[10]
    child = process.fork()
    for number in range(2):
        at = BASE + number * 100 * PAGE
        process.write(at, 2 * PAGE)
        child.read(at, 2 * PAGE)
        assert kernel.pfn(process, at) == kernel.pfn(child, at) is not None
    kernel.check()


def test_of_a_sparse_file_of_many_terabytes_the_mapped_pages_are_loaded(draft: Draft, design: str) -> None:
    file = draft.builder.add_file("heap", size=1 << 44, kind=f.FILE_SHMEM)
    draft.folio(100, k.SHMEM)
    draft.entry(draft.area(0, 4, SHARED, file=file, pgoff=1 << 16), 1, 100)
    kernel = load(draft, design)
    assert account(kernel) == (1, 0, {})
    assert any("too large" in sentence for sentence in kernel.adoption.inferred)  # type: ignore[union-attr]
    assert kernel.files["heap"].nr_pages == (1 << 16) + 2


def test_an_offset_that_would_be_negative_is_a_contradiction(draft: Draft, design: str) -> None:
    file = draft.builder.add_file("file", size=40 * PAGE)
    known, unknown = draft.area(0, 20, file=file, pgoff=0), draft.area(1, 20)
    draft.folio(100, k.ANON, mapcount=2)
    draft.entry(known, 1, 100)
    draft.entry(unknown, 15, 100)
    kernel = load(draft, design)
    assert account(kernel) == (2, 1, {})
    assert any("contradictions" in sentence for sentence in kernel.adoption.inferred)  # type: ignore[union-attr]


def low_bits(kernel: Kernel) -> list[int]:
    entries = kernel.core.tables.ptes
    return (entries[np.flatnonzero(entries)] & 0xFFF).tolist()


def test_swap_entries_keep_their_exclusive_marker(design: str) -> None:
    kernel = Kernel(design, nr_pages=64)
    process = kernel.spawn()
    heap = process.mmap(2 * PAGE)
    process.write(heap, PAGE)
    process.fork().exit()  # the page is not exclusive any more, though nobody else maps it
    process.write(heap + PAGE, PAGE)
    kernel.reclaim(range(1, 64))
    raw = low_bits(kernel)
    copy = load(kernel.snapshot(), design)
    assert low_bits(copy) == raw
    assert len(set(raw)) == 2


@pytest.mark.parametrize("twins", [True, False])
@pytest.mark.parametrize("flags", [RW | VM_PFNMAP, SHARED | VM_PFNMAP, SHARED | VM_MIXEDMAP])
def test_frames_of_a_device_are_mapped_from_the_start_or_not_at_all(draft: Draft, flags: int, twins: bool) -> None:
    area = draft.area(0, 4, flags)
    draft.entry(area, 1, 1, f.PTE_PRESENT | f.PTE_SPECIAL)
    kernel = Kernel.adopt(draft.builder.build(), scalar_twins=twins)
    process = kernel.processes[10]
    process.read(BASE, PAGE)
    process.read(BASE, 4 * PAGE)
    if flags & VM_SHARED:
        process.write(BASE, PAGE)
    assert [kernel.pfn(process, BASE + page * PAGE) is None for page in range(4)] == [True, False, True, True]
    kernel.check()
