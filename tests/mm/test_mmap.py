"""mmap, munmap, and stacks that grow."""

from __future__ import annotations

import errno

import pytest

from rmap.errors import SyscallError
from rmap.mm.costs import MMAP, MUNMAP
from rmap.mm.fault import touch
from rmap.mm.fork import exit_mmap, fork
from rmap.mm.mm_types import MMAP_MIN_ADDR, STACK_GUARD_GAP, TASK_SIZE, File, Vma
from rmap.mm.mmap import mmap, munmap
from rmap.mm.stack import STACK_LIMIT, expand_stack
from rmap.uapi.vm_flags import (
    VM_ACCESS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from rmap.units import PMD_SIZE
from tests.mm.areas import BASE_PAGE, VM_R, VM_RW, World, at
from tests.support import PAGE


def mapped(world: World, first: int, pages: int, **how: object) -> Vma:
    """Map pages at a fixed place; the area that covers them."""
    address = mmap(world.core, world.mm, pages * PAGE, addr=at(first), fixed=True, **how)  # type: ignore[arg-type]
    assert address == at(first)
    vma = world.mm.find(address)
    assert vma is not None
    return vma


def opened(world: World, pages: int = 8, writable: bool = True, shmem: bool = False) -> File:
    return File(world.core.new_mapping("data", pages * PAGE, shmem), "data", writable)


# -- what a new area is


@pytest.mark.parametrize("prot", [0, VM_READ, VM_READ | VM_WRITE, VM_ACCESS])
def test_private_anonymous_memory(world: World, prot: int) -> None:
    """Rule 2.10: its index is its address. Memory is set aside for what can be written."""
    vma = mapped(world, 3, 2, prot=prot)
    assert vma.flags == VM_R & ~VM_READ | prot | (VM_ACCOUNT if prot & VM_WRITE else 0)
    assert (vma.start, vma.end, vma.pgoff) == (at(3), at(5), BASE_PAGE + 3)
    assert vma.file is vma.mapping is None
    assert not vma.faulted
    assert world.core.costs.calls[MMAP] == 1


def test_noreserve_sets_nothing_aside_and_does_not_merge(world: World) -> None:
    mapped(world, 0, 2)
    vma = mapped(world, 2, 2, noreserve=True)
    assert vma.flags & (VM_NORESERVE | VM_ACCOUNT) == VM_NORESERVE
    assert world.snapshot() == "aabb"


def test_shared_anonymous_memory_has_a_file_of_its_own(world: World) -> None:
    first, second = mapped(world, 0, 2, shared=True), mapped(world, 2, 2, shared=True)
    assert world.snapshot() == "aabb"
    assert first.file is not second.file
    assert (first.pgoff, second.pgoff) == (0, 0)
    assert first.mapping is not None
    assert (first.mapping.size, first.mapping.shmem) == (2 * PAGE, True)
    assert list(first.mapping.i_mmap) == [first]
    assert first.flags & (VM_SHARED | VM_MAYSHARE | VM_ACCOUNT) == VM_SHARED | VM_MAYSHARE


@pytest.mark.parametrize("shared", [False, True])
def test_a_file(world: World, shared: bool) -> None:
    file = opened(world)
    vma = mapped(world, 0, 2, file=file, offset=3 * PAGE, shared=shared)
    assert (vma.pgoff, vma.file, vma.mapping) == (3, file, file.mapping)
    assert bool(vma.flags & VM_ACCOUNT) is not shared
    assert mapped(world, 2, 2, file=file, offset=5 * PAGE, shared=shared) is vma
    assert mapped(world, 4, 2, file=file, offset=5 * PAGE, shared=shared) is not vma
    assert world.snapshot() == "aaaabb"
    world.check()


def test_a_file_open_for_reading_is_mapped_shared_in_name_only(world: World) -> None:
    file = opened(world, writable=False)
    vma = mapped(world, 0, 2, file=file, shared=True, prot=VM_READ)
    assert vma.flags & (VM_SHARED | VM_MAYSHARE | VM_MAYWRITE) == VM_MAYSHARE
    assert vma.prot() == "r--s"
    with pytest.raises(SyscallError) as caught:
        mapped(world, 2, 2, file=file, shared=True)
    assert caught.value.errno == errno.EACCES
    mapped(world, 2, 2, file=file)


def test_dev_zero_private_is_anonymous_with_a_file(world: World) -> None:
    """Rules 1.8, 2.10: it keeps the file and the offset; shared it has a file of its own."""
    zero = File(None, "/dev/zero")
    vma = mapped(world, 0, 2, file=zero, offset=7 * PAGE)
    assert (vma.file, vma.mapping, vma.pgoff) == (zero, None, 7)
    assert mapped(world, 2, 1, file=zero, offset=9 * PAGE) is vma
    shared = mapped(world, 4, 2, file=zero, offset=7 * PAGE, shared=True)
    assert shared.file is not zero
    assert shared.pgoff == 7
    assert shared.mapping is not None
    assert shared.mapping.shmem


def test_growsdown_is_for_private_anonymous_memory(world: World) -> None:
    assert mapped(world, 0, 1, growsdown=True).flags & VM_GROWSDOWN
    for how in ({"shared": True}, {"file": opened(world)}):
        with pytest.raises(SyscallError) as caught:
            mapped(world, 2, 1, growsdown=True, **how)
        assert caught.value.errno == errno.EINVAL


# -- populate and locked


def test_populate_writes_what_is_private_and_writable_and_reads_the_rest(world: World) -> None:
    assert mapped(world, 0, 2, populate=True).faulted
    assert not mapped(world, 4, 2, prot=VM_READ, populate=True).faulted
    assert world.core.tables.ptes[world.core.tables.ptes != 0].size == 4
    mapped(world, 8, 2, prot=0, populate=True)  # nobody can touch it, and nobody hears of that
    assert world.core.tables.ptes[world.core.tables.ptes != 0].size == 4


def test_locked_memory_is_counted_and_populated(world: World) -> None:
    vma = mapped(world, 0, 4, locked=True)
    assert vma.flags & VM_LOCKED
    assert vma.faulted
    assert world.mm.locked_vm == 4
    munmap(world.core, world.mm, at(1), 2 * PAGE)
    assert world.mm.locked_vm == 2
    mapped(world, 0, 1)
    assert world.mm.locked_vm == 1


# -- over what is there


def test_a_fixed_mapping_replaces_what_is_there(world: World) -> None:
    world.draw("aaaabb")
    assert mapped(world, 1, 4, prot=VM_READ).pages == 4
    assert world.snapshot() == "abbbbc"


def test_neighbours_are_those_around_the_whole_range(world: World) -> None:
    """What is replaced goes first, so a mapping merges over the place of what it replaced."""
    world.draw("aammbb", read_only="m")
    assert mapped(world, 2, 2).pages == 6
    assert world.snapshot() == "aaaaaa"


def test_replacing_the_middle_of_a_faulted_area_with_its_like(world: World) -> None:
    world.draw("AAAA")
    mapped(world, 1, 2)
    assert world.snapshot() == "AAAA"
    assert len(world.mm.vmas) == 1
    world.check()


def test_noreplace(world: World) -> None:
    world.draw("aa..")
    for first, pages, free in ((1, 2, False), (0, 1, False), (2, 2, True)):
        if free:
            assert mmap(world.core, world.mm, pages * PAGE, addr=at(first), noreplace=True) == at(first)
            continue
        with pytest.raises(SyscallError) as caught:
            mmap(world.core, world.mm, pages * PAGE, addr=at(first), noreplace=True)
        assert caught.value.errno == errno.EEXIST
    assert world.snapshot() == "aaaa"


@pytest.mark.parametrize(
    ("error", "length", "how"),
    [
        (errno.EINVAL, 0, {}),
        (errno.EINVAL, -PAGE, {}),
        (errno.EINVAL, PAGE, {"offset": 1}),
        (errno.EINVAL, PAGE, {"addr": at(1) + 1, "fixed": True}),
        (errno.ENOMEM, TASK_SIZE + 1, {}),
        (errno.ENOMEM, PAGE, {"addr": TASK_SIZE, "fixed": True}),
        (errno.ENOMEM, (1 << 64) - 1, {}),
    ],
)
def test_refusals(world: World, error: int, length: int, how: dict[str, int]) -> None:
    with pytest.raises(SyscallError) as caught:
        mmap(world.core, world.mm, length, **how)  # type: ignore[arg-type]
    assert (caught.value.errno, caught.value.call) == (error, "mmap")
    assert not world.mm.vmas


def test_the_largest_file(world: World) -> None:
    with pytest.raises(SyscallError) as caught:
        mapped(world, 0, 1, file=opened(world), offset=(1 << 63) - PAGE)
    assert caught.value.errno == errno.EOVERFLOW


def test_one_area_more_than_the_limit_can_be_mapped() -> None:
    """The kernel asks whether there are more areas than allowed before it makes one, even if it would merge."""
    world = World(max_map_count=2)
    world.draw("a.b.")
    mapped(world, 3, 1, prot=0)
    with pytest.raises(SyscallError) as caught:
        mapped(world, 1, 1)
    assert caught.value.errno == errno.ENOMEM
    assert world.snapshot() == "a.bc"


# -- munmap


@pytest.mark.parametrize(
    ("before", "first", "pages", "after"),
    [
        ("AAAA", 0, 4, ""),
        ("AAAA", 0, 1, ".AAA"),
        ("AAAA", 3, 1, "AAA"),
        ("AAAA", 1, 2, "A..B"),
        ("AAbbCC", 1, 4, "A....B"),
        ("AA..bb", 1, 4, "A....b"),
        ("aa", 5, 3, "aa"),
    ],
)
def test_munmap(world: World, before: str, first: int, pages: int, after: str) -> None:
    world.draw(before)
    munmap(world.core, world.mm, at(first), pages * PAGE - 5)
    assert world.snapshot() == after
    assert world.core.costs.calls[MUNMAP] == 1
    world.check()


def test_page_indexes_survive_a_hole(world: World) -> None:
    """Rule 2.12."""
    world.draw("AAAA")
    munmap(world.core, world.mm, at(1), PAGE)
    assert [vma.pgoff for vma in world.mm.vmas] == [BASE_PAGE, BASE_PAGE + 2]
    assert world.mm.vmas[0].chain == world.mm.vmas[1].chain


def test_a_hole_cut_into_an_area_leaves_two_new_ones(world: World) -> None:
    """The old object is the part in the middle, which dies."""
    world.draw("AAAA")
    old = world.mm.vmas[0]
    munmap(world.core, world.mm, at(1), 2 * PAGE)
    assert old not in world.mm.vmas
    assert world.diary.lines == [
        "clone(split) 0-1 0-4", "update 0-4", "to 1-4",
        "clone(split) 3-4 1-4", "update 1-4", "to 1-3",
        "unlink 1-3 -",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("addr", "length"),
    [
        *((at(0) + 1, PAGE), (at(0), 0), (at(0), -1), (-PAGE, PAGE)),
        *((TASK_SIZE + PAGE, PAGE), (TASK_SIZE, PAGE), (PAGE, TASK_SIZE)),
    ],
)
def test_munmap_refuses(world: World, addr: int, length: int) -> None:
    world.draw("aa")
    with pytest.raises(SyscallError) as caught:
        munmap(world.core, world.mm, addr, length)
    assert caught.value.errno == errno.EINVAL
    assert world.snapshot() == "aa"


def test_at_the_limit_a_hole_is_refused_but_not_an_end() -> None:
    world = World(max_map_count=2)
    world.draw("AAAAbb")
    with pytest.raises(SyscallError) as caught:
        munmap(world.core, world.mm, at(1), PAGE)
    assert caught.value.errno == errno.ENOMEM
    assert world.snapshot() == "AAAAbb"
    munmap(world.core, world.mm, at(3), 2 * PAGE)
    assert world.snapshot() == "AAA..b"


def test_page_tables_go_when_no_area_needs_them(world: World) -> None:
    per_table = PMD_SIZE // PAGE
    mapped(world, 0, 2 * per_table, populate=True)
    assert world.core.tables.live == 2
    munmap(world.core, world.mm, at(0), (per_table + 1) * PAGE)
    assert world.core.tables.live == 1
    munmap(world.core, world.mm, at(per_table + 1), (per_table - 1) * PAGE)
    assert world.core.tables.live == 0


def test_shared_anonymous_memory_lives_as_long_as_a_mapping(world: World) -> None:
    free = world.core.frames.free_top
    mapped(world, 0, 4, shared=True, populate=True)
    child = fork(world.core, world.mm)
    munmap(world.core, world.mm, at(0), 4 * PAGE)
    assert world.core.frames.free_top == free - 4
    exit_mmap(world.core, child)
    assert world.core.frames.free_top == free


def test_a_file_keeps_its_pages_without_a_mapping(world: World) -> None:
    file = opened(world, shmem=True)
    mapped(world, 0, 4, shared=True, file=file, populate=True)
    munmap(world.core, world.mm, at(0), 4 * PAGE)
    assert file.mapping is not None
    assert file.mapping.nr_cached == 4


# -- stacks (rule 2.17)


def stack(world: World, first: int = 4096) -> Vma:
    return mapped(world, first, 1, growsdown=True)


def test_a_stack_grows_to_the_page_that_is_touched(world: World) -> None:
    vma = stack(world)
    touch(world.core, world.mm, at(4090) + 8, 1, True)
    assert (vma.start, vma.end, vma.pgoff) == (at(4090), at(4097), BASE_PAGE + 4090)
    assert world.diary.lines == ["update 4096-4097", "to 4090-4097"]
    world.check()


def test_a_stack_is_prepared_before_it_grows(world: World) -> None:
    """Even for a read, and even if it is refused then."""
    vma = stack(world)
    with pytest.raises(SyscallError) as caught:
        expand_stack(world.core, vma, vma.end - STACK_LIMIT - PAGE)
    assert caught.value.errno == errno.EFAULT
    assert vma.faulted
    expand_stack(world.core, vma, vma.end - STACK_LIMIT)
    assert vma.end - vma.start == STACK_LIMIT


def test_a_stack_keeps_its_distance(world: World) -> None:
    vma = stack(world)
    below = mapped(world, 3000, 1)
    with pytest.raises(SyscallError):
        expand_stack(world.core, vma, below.end + STACK_GUARD_GAP - PAGE)
    assert not vma.faulted
    expand_stack(world.core, vma, below.end + STACK_GUARD_GAP)
    assert vma.start == below.end + STACK_GUARD_GAP


@pytest.mark.parametrize("how", [{"prot": 0}, {"growsdown": True}])
def test_a_stack_may_come_near_to_what_cannot_be_touched_or_is_a_stack(world: World, how: dict[str, object]) -> None:
    vma = stack(world)
    below = mapped(world, 4000, 1, **how)
    expand_stack(world.core, vma, below.end)
    assert vma.start == below.end


def test_what_is_no_stack_does_not_grow(world: World) -> None:
    vma = mapped(world, 4, 1)
    with pytest.raises(SyscallError):
        expand_stack(world.core, vma, at(3))
    low = Vma(world.mm, MMAP_MIN_ADDR, MMAP_MIN_ADDR + PAGE, VM_RW | VM_GROWSDOWN, MMAP_MIN_ADDR // PAGE)
    world.mm.insert(low)
    with pytest.raises(SyscallError):
        expand_stack(world.core, low, MMAP_MIN_ADDR - PAGE)


def test_a_stack_without_page_indexes_left(world: World) -> None:
    vma = stack(world)
    vma.pgoff = 3
    with pytest.raises(SyscallError):
        expand_stack(world.core, vma, at(4092))
    expand_stack(world.core, vma, at(4093))
    assert vma.pgoff == 0


def test_a_locked_stack_is_counted(world: World) -> None:
    vma = mapped(world, 4096, 1, growsdown=True, locked=True)
    expand_stack(world.core, vma, at(4090))
    assert world.mm.locked_vm == 7
