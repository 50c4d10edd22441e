"""mremap: growing, shrinking, moving; what is refused, and what of it has happened by then."""

from __future__ import annotations

import errno

import pytest

from rmap import Kernel
from rmap.errors import SyscallError
from rmap.mm.costs import MREMAP
from rmap.mm.fault import touch
from rmap.mm.mm_types import TASK_SIZE
from rmap.mm.mmap import mmap
from rmap.mm.mremap import mremap
from rmap.mm.page_tables import ptep_of
from rmap.uapi.vm_flags import VM_DONTEXPAND, VM_LOCKED, VM_PFNMAP
from tests.mm.areas import BASE_PAGE, VM_R, VM_RW, World, at
from tests.support import PAGE


def remap(world: World, first: int, old: int, new: int, to: int | None = None, **how: bool) -> int:
    """``mremap`` in pages; where the range is then, in pages."""
    target = None if to is None else at(to)
    found = mremap(world.core, world.mm, at(first), old * PAGE, new * PAGE, new_addr=target, **how)
    world.check()
    return found // PAGE - BASE_PAGE


def pgoffs(world: World) -> list[int]:
    return [vma.pgoff - BASE_PAGE for vma in world.mm.vmas]


# -- in place


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        ("AAAA", 4, 4, "AAAA"),
        ("AAAA", 4, 1, "A"),
        ("AA", 2, 4, "AAAA"),
        ("aa.b", 2, 3, "aaaa"),
        ("AA.B", 2, 3, "AAAB"),
        ("AA..b", 4, 1, "A...b"),  # a shrink may reach over a hole
        ("AAbb", 4, 1, "A"),  # ... and over other areas
        ("AA", 9, 9, "AA"),  # the same length asks nothing
    ],
)
def test_in_place(world: World, before: str, old: int, new: int, after: str) -> None:
    world.draw(before)
    assert remap(world, 0, old, new) == 0
    assert world.snapshot() == after
    assert world.core.costs.calls[MREMAP] == 1


def test_a_part_that_ends_with_the_area_grows_in_place(world: World) -> None:
    world.draw("AAAA")
    assert remap(world, 2, 2, 4) == 2
    assert world.snapshot() == "AAAAAA"


@pytest.mark.parametrize(("before", "first", "old"), [("AAb", 0, 2), ("AAA", 0, 2)])
def test_where_there_is_no_room_it_moves(world: World, before: str, first: int, old: int) -> None:
    world.draw(before)
    with pytest.raises(SyscallError) as caught:
        remap(world, first, old, old + 1, maymove=False)
    assert caught.value.errno == errno.ENOMEM
    found = remap(world, first, old, old + 1)
    assert found > 1000
    moved = world.mm.find(at(found))
    assert moved is not None
    assert (moved.pages, moved.pgoff, moved.faulted) == (3, BASE_PAGE, True)
    assert world.mm.find(at(0)) is None


def test_no_growth_beyond_the_address_space() -> None:
    world = World()
    mmap(world.core, world.mm, PAGE, addr=TASK_SIZE - PAGE, fixed=True)
    with pytest.raises(SyscallError) as caught:
        mremap(world.core, world.mm, TASK_SIZE - PAGE, PAGE, 2 * PAGE, maymove=False)
    assert caught.value.errno == errno.ENOMEM


# -- moves


@pytest.mark.parametrize(
    ("before", "first", "old", "new", "to", "after", "indexes"),
    [
        ("AA", 0, 2, 2, 4, "....AA", [0]),
        ("aa", 0, 2, 2, 4, "....aa", [4]),
        ("AAAA", 1, 2, 2, 6, "A..B..CC", [0, 3, 1]),
        ("AA", 0, 2, 3, 4, "....AAA", [0]),
        ("AAAA", 0, 4, 1, 4, "....A", [0]),
        ("AAAA.bbb", 0, 3, 3, 5, "...A.BBB", [3, 0]),
        ("AAAA.bbb", 1, 1, 1, 6, "A.BB.cDe", [0, 2, 5, 1, 7]),
        ("AA.cc", 0, 2, 2, 5, "...aaBB", [3, 0]),
        ("aa.cc", 0, 2, 2, 5, "...aaaa", [3]),
        ("aa", 0, 2, 2, 2, "..aa", [2]),
        ("aaaa", 1, 2, 2, 4, "a..bbb", [0, 3]),
    ],
)
def test_moves(
    world: World, before: str, first: int, old: int, new: int, to: int, after: str, indexes: list[int]
) -> None:
    world.draw(before)
    assert remap(world, first, old, new, to) == to
    assert world.snapshot() == after
    assert pgoffs(world) == indexes


def test_away_and_back(world: World) -> None:
    world.draw("AAAA")
    remap(world, 2, 2, 2, 10)
    remap(world, 10, 2, 2, 2)
    assert world.snapshot() == "AAAA"


def test_the_order_of_a_move(world: World) -> None:
    world.draw("AA")
    remap(world, 0, 2, 2, 4)
    assert world.diary.lines == ["clone(mremap) 4-6 0-2", "unlink 0-2 -"]


def test_entries_move_along(world: World) -> None:
    mmap(world.core, world.mm, 4 * PAGE, addr=at(0), fixed=True)
    touch(world.core, world.mm, at(1), 2 * PAGE, True)
    before = [world.core.tables.mv[ptep_of(world.mm, at(page))] for page in range(4)]
    remap(world, 0, 4, 4, 2000)
    assert [world.core.tables.mv[ptep_of(world.mm, at(page))] for page in range(2000, 2004)] == before
    assert ptep_of(world.mm, at(0)) == 0
    assert world.core.tables.live == 1


# -- several areas at once (since 6.17)


@pytest.mark.parametrize(
    ("before", "first", "pages", "to", "after"),
    [
        ("AAbb", 0, 4, 10, "..........AAbb"),
        ("AA.bb", 0, 5, 10, "..........AA.bb"),
        ("AA.bb....", 1, 8, 20, "A...................B.cc"),
        ("AAbbCC", 1, 4, 10, "A....B....CddE"),
    ],
)
def test_several_areas_keep_their_distances(
    world: World, before: str, first: int, pages: int, to: int, after: str
) -> None:
    world.draw(before, read_only="b")
    assert remap(world, first, pages, pages, to) == to
    assert world.snapshot() == after


def test_what_lies_in_a_gap_of_the_target_stays(world: World) -> None:
    world.draw("AA.BB.....ccccc", read_only="Bc")
    remap(world, 0, 5, 5, 10)
    assert world.snapshot() == "..........AAbCC"


def test_a_range_must_begin_with_an_area(world: World) -> None:
    world.draw(".AA")
    with pytest.raises(SyscallError) as caught:
        remap(world, 0, 3, 3, 10)
    assert caught.value.errno == errno.EFAULT
    assert world.snapshot() == ".AA"


def test_pieces_before_the_one_refused_stay_moved(world: World) -> None:
    world.draw("AAbb", b=VM_RW | VM_DONTEXPAND)
    with pytest.raises(SyscallError) as caught:
        remap(world, 0, 4, 4, 10, dontunmap=True)
    assert caught.value.errno == errno.EINVAL
    assert world.snapshot() == "aabb......CC"


# -- MREMAP_DONTUNMAP (rule 2.14)


def test_dontunmap_of_a_whole_area_leaves_it_unfaulted(world: World) -> None:
    world.draw("AA")
    remap(world, 0, 2, 2, 4, dontunmap=True)
    assert world.snapshot() == "aa..BB"
    assert world.diary.lines == ["clone(mremap) 4-6 0-2", "unlink 0-2 -"]


def test_dontunmap_of_a_part_leaves_it_faulted(world: World) -> None:
    world.draw("AAA")
    remap(world, 0, 2, 2, 4, dontunmap=True)
    assert world.snapshot() == "AAA.BB"
    assert pgoffs(world) == [0, 0]


def test_dontunmap_without_a_place(world: World) -> None:
    world.draw("AA")
    found = remap(world, 0, 2, 2, dontunmap=True)
    assert found > 1000
    assert len(world.mm.vmas) == 2


def test_dontunmap_unlocks_what_stays(world: World) -> None:
    world.draw("AAA", A=VM_RW | VM_LOCKED)
    world.mm.locked_vm = 3
    remap(world, 0, 2, 2, 4, dontunmap=True)
    assert [bool(vma.flags & VM_LOCKED) for vma in world.mm.vmas] == [False, True]
    assert world.mm.locked_vm == 2


def test_dontunmap_onto_itself(world: World) -> None:
    """An unfaulted area merges with its copy, and loses its lock as a whole."""
    world.draw("aa", a=VM_RW | VM_LOCKED)
    world.mm.locked_vm = 2
    remap(world, 0, 2, 2, 2, dontunmap=True)
    assert world.snapshot() == "aaaa"
    assert world.mm.locked_vm == 0


# -- locked memory


def test_locked_memory_stays_counted(world: World) -> None:
    mmap(world.core, world.mm, 4 * PAGE, addr=at(0), fixed=True, locked=True)
    remap(world, 0, 4, 4, 10)
    assert world.mm.locked_vm == 4
    remap(world, 10, 4, 2)
    assert world.mm.locked_vm == 2
    remap(world, 10, 2, 5)
    assert world.mm.locked_vm == 5
    assert all(world.core.tables.mv[ptep_of(world.mm, at(page))] for page in range(10, 15))
    remap(world, 11, 2, 3, 20)
    assert world.mm.locked_vm == 6
    assert all(world.core.tables.mv[ptep_of(world.mm, at(page))] for page in range(20, 23))


# -- duplicates (rule 2.15)


def test_an_old_length_of_zero_duplicates_shared_memory(world: World) -> None:
    mmap(world.core, world.mm, 4 * PAGE, addr=at(0), fixed=True, shared=True)
    assert remap(world, 1, 0, 2, 10) == 10
    first, second = world.mm.vmas
    assert (first.pages, second.pages, second.pgoff, second.mapping) == (4, 2, 1, first.mapping)
    assert remap(world, 0, 0, 1) > 1000
    assert len(world.mm.vmas) == 3


# -- refusals


@pytest.mark.parametrize(
    ("error", "addr", "old", "new", "how"),
    [
        (errno.EINVAL, at(0) + 1, PAGE, PAGE, {}),
        (errno.EINVAL, at(0), -PAGE, PAGE, {}),
        (errno.EINVAL, at(0), PAGE, 0, {}),
        (errno.EINVAL, at(0), PAGE, TASK_SIZE + 1, {}),
        (errno.EINVAL, at(0), PAGE, PAGE, {"new_addr": at(9) + 1}),
        (errno.EINVAL, at(0), PAGE, PAGE, {"new_addr": TASK_SIZE}),
        (errno.EINVAL, at(0), PAGE, PAGE, {"new_addr": at(9), "maymove": False}),
        (errno.EINVAL, at(0), 2 * PAGE, PAGE, {"dontunmap": True}),
        (errno.EINVAL, at(0), 2 * PAGE, 2 * PAGE, {"new_addr": at(1)}),
        (errno.EINVAL, at(1), PAGE, 2 * PAGE, {"new_addr": at(0)}),
        (errno.EINVAL, at(0), 0, PAGE, {"new_addr": at(9)}),
        (errno.EFAULT, at(8), PAGE, PAGE, {}),
        (errno.EFAULT, at(0), 3 * PAGE, 4 * PAGE, {}),
        (errno.EFAULT, at(0), 3 * PAGE, 4 * PAGE, {"new_addr": at(9)}),
        (errno.ENOMEM, at(0), 2 * PAGE, TASK_SIZE, {}),
    ],
)
def test_refusals(world: World, error: int, addr: int, old: int, new: int, how: dict[str, int]) -> None:
    world.draw("AA.b")
    with pytest.raises(SyscallError) as caught:
        mremap(world.core, world.mm, addr, old, new, **how)  # type: ignore[arg-type]
    assert (caught.value.errno, caught.value.call) == (error, "mremap")
    assert world.snapshot() == "AA.b"


@pytest.mark.parametrize("special", [VM_DONTEXPAND, VM_PFNMAP])
def test_special_mappings_do_not_grow(world: World, special: int) -> None:
    world.draw("aa", a=VM_R | special)
    for how in ({}, {"new_addr": at(9)}):
        with pytest.raises(SyscallError) as caught:
            mremap(world.core, world.mm, at(0), 2 * PAGE, 3 * PAGE, **how)  # type: ignore[arg-type]
        assert caught.value.errno == errno.EFAULT


def test_a_move_wants_areas_to_spare() -> None:
    """It might split areas; so that it need not fail halfway, it does not begin within five of the limit."""
    world = World(max_map_count=9)
    world.draw("aa.b.c.dd")
    with pytest.raises(SyscallError) as caught:
        remap(world, 0, 2, 2, 7)
    assert caught.value.errno == errno.ENOMEM
    assert world.snapshot() == "aa.b.c.dd"
    world.core.max_map_count = 10
    remap(world, 0, 2, 2, 7)
    assert world.snapshot() == "...a.b.cc"


def test_a_child_that_moves_its_pages_still_shares_them() -> None:
    """With the real reverse map: walks find a moved page at its new place."""
    kernel = Kernel(nr_pages=1 << 12)
    parent = kernel.spawn()
    start = parent.mmap(8 * PAGE)
    parent.write(start, 8 * PAGE)
    child = parent.fork()
    target = child.mmap(8 * PAGE, prot="")
    assert child.mremap(start + 2 * PAGE, 3 * PAGE, 3 * PAGE, target + PAGE) == target + PAGE
    pfn = kernel.pfn(parent, start + 3 * PAGE)
    assert pfn is not None
    assert {(ref.pid, ref.address) for ref in kernel.walk(pfn)} == {
        (parent.pid, start + 3 * PAGE),
        (child.pid, target + 2 * PAGE),
    }
    kernel.check()
