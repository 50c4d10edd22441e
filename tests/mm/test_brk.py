"""brk: what the heap merges with, and what the call answers."""

from __future__ import annotations

from rmap.mm.brk import HEAP_FLAGS, brk
from rmap.mm.fault import touch
from rmap.mm.fork import fork
from rmap.mm.mm_types import STACK_GUARD_GAP, START_BRK, Mm, Vma
from rmap.uapi.vm_flags import VM_GROWSDOWN
from tests.mm.areas import VM_RW, World
from tests.support import PAGE


def heap(mm: Mm) -> list[tuple[int, int, bool]]:
    """The areas from the start of the heap on: first and last page, and whether they are faulted."""
    return [
        ((v.start - START_BRK) // PAGE, (v.end - START_BRK) // PAGE, v.faulted) for v in mm.vmas if v.start >= START_BRK
    ]


def area(mm: Mm, first: int, pages: int, flags: int = VM_RW) -> Vma:
    start = START_BRK + first * PAGE
    vma = Vma(mm, start, start + pages * PAGE, flags, start // PAGE)
    mm.insert(vma)
    return vma


def move(world: World, pages: int, mm: Mm | None = None) -> bool:
    """Ask for a heap of so many pages; whether that was granted."""
    wanted = START_BRK + pages * PAGE
    return brk(world.core, mm or world.mm, wanted) == wanted


def test_the_heap_grows_and_shrinks_as_one_area(world: World) -> None:
    assert brk(world.core, world.mm, 0) == START_BRK
    assert move(world, 2)
    assert move(world, 5)
    assert heap(world.mm) == [(0, 5, False)]
    assert world.mm.vmas[0].flags == HEAP_FLAGS
    assert move(world, 1)
    assert heap(world.mm) == [(0, 1, False)]
    assert move(world, 0)
    assert heap(world.mm) == []


def test_within_a_page_only_the_number_moves(world: World) -> None:
    assert brk(world.core, world.mm, START_BRK + 1) == START_BRK + 1
    assert brk(world.core, world.mm, START_BRK + PAGE) == START_BRK + PAGE
    assert heap(world.mm) == [(0, 1, False)]
    assert brk(world.core, world.mm, START_BRK - 1) == START_BRK + PAGE


def test_3_9_a_heap_that_came_through_fork_gets_a_second_area(world: World) -> None:
    move(world, 2)
    touch(world.core, world.mm, START_BRK, 2 * PAGE, True)
    child = fork(world.core, world.mm)
    assert move(world, 4, child)
    assert heap(child) == [(0, 2, True), (2, 4, False)]
    assert move(world, 6, child)
    assert heap(child) == [(0, 2, True), (2, 6, False)]
    assert move(world, 4)
    assert heap(world.mm) == [(0, 4, True)]


def test_a_page_stays_free_above_the_heap(world: World) -> None:
    area(world.mm, 10, 1)
    assert not move(world, 10)
    assert move(world, 9)
    assert not move(world, 11)
    assert heap(world.mm) == [(0, 9, False), (10, 11, False)]


def test_the_guard_of_a_stack_stays_free_too(world: World) -> None:
    gap = STACK_GUARD_GAP // PAGE
    area(world.mm, gap + 10, 1, VM_RW | VM_GROWSDOWN)
    assert not move(world, 10)
    assert move(world, 9)


def test_what_ends_where_the_heap_begins_is_not_the_heap(world: World) -> None:
    area(world.mm, -2, 2)
    assert move(world, 1)
    assert [vma.pages for vma in world.mm.vmas] == [2, 1]


def test_a_heap_with_other_flags_is_not_continued(world: World) -> None:
    move(world, 2)
    world.mm.vmas[0].flags &= ~2
    assert move(world, 3)
    assert heap(world.mm) == [(0, 2, False), (2, 3, False)]


def test_shrinking_takes_away_whatever_is_there(world: World) -> None:
    move(world, 6)
    world.mm.remove(world.mm.vmas[0])
    assert not move(world, 2)  # nothing is there at all
    area(world.mm, 3, 1)
    assert move(world, 2)
    assert heap(world.mm) == []


def test_too_many_areas() -> None:
    world = World(max_map_count=1)
    assert move(world, 1)
    area(world.mm, 10, 1)
    assert not move(world, 3)
    assert world.mm.brk == START_BRK + PAGE


def test_a_hole_that_would_be_one_area_too_many_is_refused() -> None:
    """The area of the heap may reach beyond the break: then shrinking cuts a hole into it."""
    world = World(max_map_count=1)
    move(world, 4)
    world.mm.vmas[0].end += 2 * PAGE
    assert not move(world, 2)
    assert heap(world.mm) == [(0, 6, False)]


def test_the_end_of_the_address_space(world: World) -> None:
    assert brk(world.core, world.mm, 1 << 47) == START_BRK
    assert brk(world.core, world.mm, 1 << 60) == START_BRK
