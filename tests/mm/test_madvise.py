"""madvise: flags of areas, effects on pages, and what is refused when."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from rmap import Kernel
from rmap.errors import SyscallError
from rmap.kernel.process import Process
from rmap.mm.costs import MADVISE
from rmap.mm.frames import SWAPBACKED, SWAPCACHE
from rmap.mm.madvise import ADVICE, FLAG_ADVICE, NOT_MODELLED, madvise
from rmap.mm.madvise_pages import LARGEST_REQUEST_PAGES
from rmap.mm.mm_types import File, Vma
from rmap.mm.mmap import mmap
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SWAP
from rmap.uapi.vm_flags import (
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_IO,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
)
from rmap.units import PMD_SIZE
from tests.mm.areas import VM_R, VM_RW, World, at
from tests.support import PAGE


def advise(world: World, first: int, pages: int, advice: str) -> None:
    madvise(world.core, world.mm, at(first), pages * PAGE, advice)


# -- flags


@pytest.mark.parametrize(
    ("advice", "before", "after"),
    [
        ("normal", VM_RAND_READ | VM_SEQ_READ, 0),
        ("random", VM_SEQ_READ, VM_RAND_READ),
        ("sequential", VM_RAND_READ, VM_SEQ_READ),
        ("dontfork", 0, VM_DONTCOPY),
        ("dofork", VM_DONTCOPY, 0),
        ("wipeonfork", 0, VM_WIPEONFORK),
        ("keeponfork", VM_WIPEONFORK, 0),
        ("dontdump", 0, VM_DONTDUMP),
        ("dodump", VM_DONTDUMP, 0),
        ("hugepage", VM_NOHUGEPAGE, VM_HUGEPAGE),
        ("nohugepage", VM_HUGEPAGE, VM_NOHUGEPAGE),
    ],
)
def test_advice_about_areas(world: World, advice: str, before: int, after: int) -> None:
    world.draw("AAAA", A=VM_RW | before)
    advise(world, 1, 2, advice)
    assert [vma.flags ^ VM_RW for vma in world.mm.vmas] == [before, after, before]
    assert world.core.costs.calls[MADVISE] == 1
    world.check()


def test_a_part_that_is_changed_back_merges(world: World) -> None:
    world.draw("AAAA")
    advise(world, 1, 2, "dontfork")
    assert world.snapshot() == "ABBC"
    advise(world, 0, 4, "dofork")
    assert world.snapshot() == "AAAA"


def test_holes_are_told_when_everything_else_is_done(world: World) -> None:
    world.draw(".a.bb.")
    with pytest.raises(SyscallError) as caught:
        advise(world, 0, 6, "dontfork")
    assert caught.value.errno == errno.ENOMEM
    assert all(vma.flags & VM_DONTCOPY for vma in world.mm.vmas)
    for first, pages in ((2, 1), (5, 4), (0, 1)):
        with pytest.raises(SyscallError) as caught:
            advise(world, first, pages, "dontneed")
        assert caught.value.errno == errno.ENOMEM


def test_what_comes_before_a_refusal_stays_changed(world: World) -> None:
    world.draw("aa.bb.cc", b=VM_RW | VM_SHARED)
    with pytest.raises(SyscallError) as caught:
        advise(world, 0, 8, "wipeonfork")
    assert caught.value.errno == errno.EINVAL  # and not ENOMEM, though there was a hole
    assert [bool(vma.flags & VM_WIPEONFORK) for vma in world.mm.vmas] == [True, False, False]


@pytest.mark.parametrize("advice", ["dofork", "dodump"])
def test_special_mappings_keep_what_they_are(world: World, advice: str) -> None:
    world.draw("aa", a=VM_RW | VM_IO | VM_DONTCOPY | VM_DONTDUMP)
    with pytest.raises(SyscallError) as caught:
        advise(world, 0, 2, advice)
    assert caught.value.errno == errno.EINVAL


def test_too_many_areas_is_told_as_eagain() -> None:
    world = World(max_map_count=1)
    world.draw("aaaa")
    with pytest.raises(SyscallError) as caught:
        advise(world, 1, 2, "dontfork")
    assert caught.value.errno == errno.EAGAIN
    advise(world, 0, 4, "dontfork")


@pytest.mark.parametrize(
    ("addr", "length", "advice"),
    [
        (at(0) + 1, PAGE, "normal"),
        (at(0), -2 * PAGE, "normal"),
        (at(0), (1 << 64) - 1, "normal"),
        (at(0), PAGE, "NORMAL"),
        (at(0), 0, "nonsense"),
    ],
)
def test_refusals(world: World, addr: int, length: int, advice: str) -> None:
    world.draw("aa")
    with pytest.raises(SyscallError) as caught:
        madvise(world.core, world.mm, addr, length, advice)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("advice", sorted(ADVICE))
def test_no_length_is_no_error(world: World, advice: str) -> None:
    if advice in NOT_MODELLED:
        with pytest.raises(SyscallError) as caught:
            madvise(world.core, world.mm, at(0), 0, advice)
        assert caught.value.errno == errno.ENOSYS
    else:
        madvise(world.core, world.mm, at(0), 0, advice)


@pytest.mark.parametrize(
    ("advice", "flags", "error"),
    [
        *((advice, VM_LOCKED, errno.EINVAL) for advice in ("dontneed", "free", "cold", "pageout", "remove")),
        *((advice, VM_PFNMAP, errno.EINVAL) for advice in ("dontneed", "dontneed_locked", "free", "cold", "pageout")),
        ("dontneed_locked", VM_LOCKED, 0),
        ("remove", 0, errno.EINVAL),
        ("willneed", VM_LOCKED, 0),
        *((advice, VM_LOCKED, 0) for advice in FLAG_ADVICE),
    ],
)
def test_what_an_area_allows(world: World, advice: str, flags: int, error: int) -> None:
    world.draw("aa", a=VM_RW | flags)
    if not error:
        advise(world, 0, 2, advice)
        return
    with pytest.raises(SyscallError) as caught:
        advise(world, 0, 2, advice)
    assert caught.value.errno == error


def test_remove_is_for_shared_writable_files(world: World) -> None:
    file = File(world.core.new_mapping("data", 8 * PAGE, shmem=True), "data")
    mmap(world.core, world.mm, 4 * PAGE, addr=at(0), fixed=True, file=file)
    mmap(world.core, world.mm, 4 * PAGE, addr=at(4), fixed=True, file=file, shared=True, populate=True)
    with pytest.raises(SyscallError) as caught:
        advise(world, 0, 1, "remove")
    assert caught.value.errno == errno.EACCES
    assert file.mapping is not None
    assert file.mapping.nr_cached == 4
    advise(world, 5, 2, "remove")
    assert np.flatnonzero(file.mapping.pages).tolist() == [0, 3]
    assert world.core.costs.current is world.core.costs.by_operation[MADVISE]


def test_a_mapping_that_can_never_be_written_is_not_removed(world: World) -> None:
    mapping = world.core.new_mapping("data", 8 * PAGE, shmem=True)
    vma = Vma(world.mm, at(0), at(2), VM_R & ~VM_MAYWRITE | VM_SHARED | VM_MAYSHARE, 0, File(mapping, "data"), mapping)
    world.mm.insert(vma)
    world.core.link_file(vma)
    with pytest.raises(SyscallError) as caught:
        advise(world, 0, 2, "remove")
    assert caught.value.errno == errno.EACCES


# -- populate


@pytest.mark.parametrize(("advice", "faulted"), [("populate_read", False), ("populate_write", True)])
def test_populate(world: World, advice: str, faulted: bool) -> None:
    mmap(world.core, world.mm, 4 * PAGE, addr=at(0), fixed=True)
    advise(world, 1, 2, advice)
    assert world.mm.vmas[0].faulted is faulted
    assert np.count_nonzero(world.core.tables.ptes) == 2


@pytest.mark.parametrize(
    ("error", "pages", "advice"),
    [(errno.ENOMEM, 3, "populate_read"), (errno.EINVAL, 5, "populate_write"), (errno.EFAULT, 8, "populate_read")],
)
def test_populate_goes_up_to_the_first_refusal(world: World, error: int, pages: int, advice: str) -> None:
    mmap(world.core, world.mm, 2 * PAGE, addr=at(0), fixed=True)
    if error != errno.ENOMEM:
        mmap(world.core, world.mm, 2 * PAGE, addr=at(2), fixed=True, prot=1)
        file = File(world.core.new_mapping("data", PAGE, shmem=False), "data")
        mmap(world.core, world.mm, 4 * PAGE, addr=at(4), fixed=True, file=file, prot=1)
    with pytest.raises(SyscallError) as caught:
        advise(world, 0, pages, advice)
    assert caught.value.errno == error
    there = [bool(ptep_of(world.mm, at(p)) and world.core.tables.mv[ptep_of(world.mm, at(p))]) for p in range(6)]
    assert there == [True, True, *([error == errno.EFAULT] * 3), False]


# -- pages, under the real reverse map and with swap


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(nr_pages=1 << 13, nr_swap=1 << 10)


def written(kernel: Kernel, pages: int) -> tuple[Process, int]:
    process = kernel.spawn()
    start = process.mmap(pages * PAGE)
    process.write(start, pages * PAGE)
    return process, start


def entry(process: Process, kernel: Kernel, addr: int) -> int:
    ptep = ptep_of(process.mm, addr)
    return int(kernel.core.tables.ptes[ptep]) if ptep else 0


def flags(kernel: Kernel, process: Process, addr: int) -> int:
    pfn = kernel.pfn(process, addr)
    assert pfn is not None
    return int(kernel.core.frames.flags[pfn])


def test_dontneed_drops_pages_and_leaves_the_area_faulted(kernel: Kernel) -> None:
    process, start = written(kernel, 16)
    free = kernel.core.frames.free_top
    process.madvise(start + PAGE, 14 * PAGE, "dontneed")
    assert kernel.core.frames.free_top == free + 14
    assert entry(process, kernel, start + PAGE) == 0
    assert process.mm.vmas[0].faulted
    kernel.check()


def test_dontneed_frees_page_tables_that_it_empties_whole(kernel: Kernel) -> None:
    process = kernel.spawn()
    start = process.mmap(3 * PMD_SIZE)
    assert start % PMD_SIZE == 0
    process.write(start, 3 * PMD_SIZE)
    process.madvise(start + PAGE, 2 * PMD_SIZE - PAGE, "dontneed")
    assert kernel.core.tables.live == 2
    process.madvise(start, 3 * PMD_SIZE - PAGE, "dontneed")
    assert kernel.core.tables.live == 1
    kernel.check()


def test_free_gives_up_pages_until_they_are_written_again(kernel: Kernel) -> None:
    process, start = written(kernel, 4)
    process.madvise(start, 3 * PAGE, "free")
    assert [bool(flags(kernel, process, start + p * PAGE) & SWAPBACKED) for p in range(4)] == [False] * 3 + [True]
    assert entry(process, kernel, start) & (PRESENT | RW | ACCESSED | DIRTY) == PRESENT | RW
    process.write(start, PAGE)
    pfns = [kernel.pfn(process, start + p * PAGE) for p in range(4)]
    victims = [pfn for pfn in pfns if pfn is not None]
    kernel.reclaim(victims)
    assert [entry(process, kernel, start + p * PAGE) for p in (1, 2)] == [0, 0]
    assert flags(kernel, process, start) & SWAPBACKED  # found to be written: an ordinary page again
    kernel.reclaim(victims[:1])
    assert entry(process, kernel, start) & SWAP
    kernel.check()


def test_free_gives_up_shared_pages_too_unless_the_other_entry_is_dirty(kernel: Kernel) -> None:
    process, start = written(kernel, 4)
    child = process.fork()
    process.madvise(start, 4 * PAGE, "free")
    assert not any(flags(kernel, process, start + p * PAGE) & SWAPBACKED for p in range(4))
    pages = [kernel.pfn(process, start + p * PAGE) for p in range(2)]
    child.madvise(start, PAGE, "free")
    kernel.reclaim([page for page in pages if page is not None])
    kernel.check()
    assert entry(process, kernel, start) == entry(child, kernel, start) == 0, "both gave it up"
    assert kernel.pfn(child, start + PAGE) == pages[1], "the child's entry is dirty: an ordinary page once more"


def test_free_drops_swapped_pages(kernel: Kernel) -> None:
    process, start = written(kernel, 4)
    child = process.fork()
    pfn = kernel.pfn(process, start + PAGE)
    assert pfn is not None
    kernel.reclaim([pfn])
    process.madvise(start, 4 * PAGE, "free")
    assert entry(process, kernel, start + PAGE) == 0
    assert entry(child, kernel, start + PAGE) & SWAP
    child.madvise(start, 4 * PAGE, "free")
    assert kernel.core.swap.used == 0
    kernel.check()


def test_free_takes_pages_out_of_the_swap_cache(kernel: Kernel) -> None:
    process, start = written(kernel, 1)
    child = process.fork()
    pfn = kernel.pfn(process, start)
    assert pfn is not None
    kernel.reclaim([pfn])
    child.read(start, 1)
    assert flags(kernel, child, start) & SWAPCACHE
    child.madvise(start, PAGE, "free")  # the parent's entry still names the slot
    assert flags(kernel, child, start) & SWAPCACHE
    process.madvise(start, PAGE, "free")
    child.madvise(start, PAGE, "free")
    assert flags(kernel, child, start) & (SWAPCACHE | SWAPBACKED) == 0
    assert kernel.core.swap.used == 0
    kernel.check()


def test_cold_forgets_accesses(kernel: Kernel) -> None:
    process, start = written(kernel, 4)
    child = process.fork()
    child.write(start, 2 * PAGE)
    child.madvise(start, 4 * PAGE, "cold")
    accessed = [bool(entry(child, kernel, start + p * PAGE) & ACCESSED) for p in (0, 1)]
    assert accessed == [False, False]
    before = [entry(process, kernel, start + p * PAGE) for p in (2, 3)]
    process.madvise(start + 2 * PAGE, 2 * PAGE, "cold")  # mapped by two: left alone
    assert [entry(process, kernel, start + p * PAGE) for p in (2, 3)] == before


def test_pageout_evicts_what_nobody_else_maps(kernel: Kernel) -> None:
    """Rule 4.12."""
    process, start = written(kernel, 40)
    child = process.fork()
    child.write(start, 20 * PAGE)
    child.madvise(start, 40 * PAGE, "pageout")
    assert all(entry(child, kernel, start + p * PAGE) & SWAP for p in range(20))
    assert all(entry(child, kernel, start + p * PAGE) & PRESENT for p in range(20, 40))
    assert kernel.core.costs.current is kernel.core.costs.by_operation[MADVISE]
    kernel.check()


def test_pageout_of_nothing(kernel: Kernel) -> None:
    process = kernel.spawn()
    process.madvise(process.mmap(PAGE), PAGE, "pageout")
    kernel.core.reclaimer = None
    process.madvise(process.mmap(PAGE), PAGE, "pageout")


def test_willneed_reads_a_file_ahead(kernel: Kernel) -> None:
    file = kernel.open("data", 1000 * PAGE)
    process = kernel.spawn()
    start = process.mmap(1100 * PAGE, file=file, flags="shared")
    process.madvise(start + 10 * PAGE, 5 * PAGE, "willneed")
    mapping = file.file.mapping
    assert mapping is not None
    assert np.flatnonzero(mapping.pages).tolist() == list(range(10, 15))
    process.madvise(start, 1100 * PAGE, "willneed")
    assert mapping.nr_cached == LARGEST_REQUEST_PAGES
    process.madvise(start + 990 * PAGE, 110 * PAGE, "willneed")
    assert mapping.nr_cached == LARGEST_REQUEST_PAGES + 10
    assert not kernel.core.tables.live
    kernel.check()


def test_willneed_reads_swapped_pages_into_the_swap_cache(kernel: Kernel) -> None:
    process, start = written(kernel, 4)
    process.madvise(start, 4 * PAGE, "pageout")
    process.madvise(start, 3 * PAGE, "willneed")
    process.madvise(start, 3 * PAGE, "willneed")
    assert np.count_nonzero(kernel.core.swap.cached) == 3
    assert entry(process, kernel, start) & SWAP
    kernel.check()
    process.read(start, 4 * PAGE)
    kernel.check()
    process.exit()
    assert kernel.core.swap.used == 0


def test_willneed_reads_shared_memory_back(kernel: Kernel) -> None:
    process = kernel.spawn()
    start = process.mmap(4 * PAGE, flags="shared")
    process.write(start, 4 * PAGE)
    process.madvise(start, 4 * PAGE, "pageout")
    mapping = process.mm.vmas[0].mapping
    assert mapping is not None
    assert mapping.nr_cached == 0
    process.madvise(start, 2 * PAGE, "willneed")
    assert mapping.nr_cached == 2
    kernel.check()
