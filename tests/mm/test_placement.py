"""Where mappings go: rule 3.13."""

from __future__ import annotations

import errno

import pytest

from rmap.errors import SyscallError
from rmap.mm.mm_types import MMAP_BASE, MMAP_MIN_ADDR, STACK_GUARD_GAP, TASK_SIZE, File, Mm, Vma
from rmap.mm.placement import LEGACY_BASE, get_unmapped_area, round_hint
from rmap.uapi.vm_flags import VM_GROWSDOWN
from tests.mm.areas import VM_RW, World
from tests.support import PAGE

HUGE = 2 << 20
TOP = MMAP_BASE


def put(mm: Mm, start: int, length: int, flags: int = VM_RW) -> None:
    mm.insert(Vma(mm, start, start + length, flags, start // PAGE))


@pytest.fixture
def mm() -> Mm:
    return World().mm


def test_the_highest_gap_that_is_large_enough(mm: Mm) -> None:
    assert get_unmapped_area(mm, PAGE) == TOP - PAGE
    put(mm, TOP - 2 * PAGE, PAGE)
    put(mm, TOP - 6 * PAGE, PAGE)
    assert get_unmapped_area(mm, PAGE) == TOP - PAGE
    assert get_unmapped_area(mm, 2 * PAGE) == TOP - 4 * PAGE
    assert get_unmapped_area(mm, 3 * PAGE) == TOP - 5 * PAGE
    assert get_unmapped_area(mm, 4 * PAGE) == TOP - 10 * PAGE


def test_an_area_across_the_top(mm: Mm) -> None:
    put(mm, TOP - PAGE, 2 * PAGE)
    assert get_unmapped_area(mm, PAGE) == TOP - 2 * PAGE


# -- stacks keep 1 MiB below them free


def test_below_a_stack_its_guard_is_free(mm: Mm) -> None:
    put(mm, TOP - 4 * PAGE, PAGE, VM_RW | VM_GROWSDOWN)
    assert get_unmapped_area(mm, 3 * PAGE) == TOP - 3 * PAGE
    assert get_unmapped_area(mm, 4 * PAGE) == TOP - 4 * PAGE - STACK_GUARD_GAP - 4 * PAGE


def test_a_gap_that_the_guard_makes_too_small_bounds_all_others(mm: Mm) -> None:
    """Between the stack and the next area are two pages: no gap for three, and then the guard counts for nothing."""
    stack = TOP - PAGE
    put(mm, stack, PAGE, VM_RW | VM_GROWSDOWN)
    put(mm, stack - 3 * PAGE, PAGE)
    assert get_unmapped_area(mm, 2 * PAGE) == stack - STACK_GUARD_GAP - 2 * PAGE
    assert get_unmapped_area(mm, 3 * PAGE) == stack - 6 * PAGE


def test_a_stack_at_the_top_of_memory_guards_what_is_below_the_base(mm: Mm) -> None:
    put(mm, TOP + PAGE, PAGE, VM_RW | VM_GROWSDOWN)
    assert get_unmapped_area(mm, PAGE) == TOP + PAGE - STACK_GUARD_GAP - PAGE


# -- alignment to huge pages


@pytest.mark.parametrize(("length", "aligned"), [(HUGE, True), (3 * HUGE, True), (HUGE + PAGE, False), (PAGE, False)])
def test_private_anonymous_memory_that_could_be_huge(mm: Mm, length: int, aligned: bool) -> None:
    found = get_unmapped_area(mm, length)
    assert found == ((TOP - length) // HUGE * HUGE if aligned else TOP - length)
    assert get_unmapped_area(mm, length, shared=True) == TOP - length


def test_where_the_rest_of_a_gap_is_too_small_for_alignment(mm: Mm) -> None:
    """The padded search goes on below; if it finds nothing at all, the plain one is asked."""
    put(mm, TOP - HUGE - PAGE, PAGE)
    below = (TOP - HUGE - PAGE - HUGE) // HUGE * HUGE
    assert get_unmapped_area(mm, HUGE) == below
    mm.clear()
    put(mm, MMAP_MIN_ADDR, TOP - HUGE - MMAP_MIN_ADDR)
    put(mm, TOP, TASK_SIZE - TOP)
    assert get_unmapped_area(mm, HUGE) == TOP - HUGE


def file(world: World, shmem: bool) -> File:
    return File(world.core.new_mapping("data", 16 * HUGE, shmem), "data")


@pytest.mark.parametrize("pgoff", [0, 1, 511, 512])
def test_files_on_a_disk_lie_at_their_offset_modulo_2_mib(pgoff: int) -> None:
    world = World()
    found = get_unmapped_area(world.mm, 2 * HUGE, file=file(world, shmem=False), pgoff=pgoff)
    assert found % HUGE == pgoff * PAGE % HUGE
    assert TOP - 3 * HUGE < found <= TOP - 2 * HUGE
    short = get_unmapped_area(world.mm, HUGE - PAGE, file=file(world, shmem=False), pgoff=pgoff)
    assert short == TOP - HUGE + PAGE
    plain = get_unmapped_area(world.mm, 2 * HUGE, file=file(world, shmem=True), pgoff=pgoff)
    assert plain == TOP - 2 * HUGE


def test_a_private_mapping_of_dev_zero_is_placed_like_a_file_on_a_disk() -> None:
    world = World()
    zero = File(None, "/dev/zero")
    assert get_unmapped_area(world.mm, 2 * HUGE, file=zero, pgoff=1) % HUGE == PAGE
    assert get_unmapped_area(world.mm, 2 * HUGE, file=zero, pgoff=1, shared=True) == TOP - 2 * HUGE


# -- hints


def test_a_hint_is_taken_if_it_is_free(mm: Mm) -> None:
    put(mm, 0x10000000, 4 * PAGE)
    assert get_unmapped_area(mm, PAGE, hint=0x20000000) == 0x20000000
    assert get_unmapped_area(mm, PAGE, hint=0x10000000 - PAGE) == 0x10000000 - PAGE
    assert get_unmapped_area(mm, PAGE, hint=0x10004000) == 0x10004000
    for taken in (0x10000000, 0x10003000, 0x10000000 - PAGE):
        assert get_unmapped_area(mm, 2 * PAGE, hint=taken) == TOP - 2 * PAGE


def test_a_hint_below_a_stack(mm: Mm) -> None:
    put(mm, 0x10000000, 4 * PAGE, VM_RW | VM_GROWSDOWN)
    assert get_unmapped_area(mm, PAGE, hint=0x10000000 - STACK_GUARD_GAP - PAGE) == 0x10000000 - STACK_GUARD_GAP - PAGE
    assert get_unmapped_area(mm, PAGE, hint=0x10000000 - STACK_GUARD_GAP) == TOP - PAGE


def test_a_refused_hint_is_not_aligned(mm: Mm) -> None:
    put(mm, 0x10000000, 4 * PAGE)
    assert get_unmapped_area(mm, HUGE, hint=0x10000000) == TOP - HUGE


@pytest.mark.parametrize(
    ("hint", "taken"),
    [(0, 0), (1, 0), (PAGE, MMAP_MIN_ADDR), (MMAP_MIN_ADDR + 7, MMAP_MIN_ADDR), (0x12345678, 0x12345000)],
)
def test_hints_are_rounded(hint: int, taken: int) -> None:
    assert round_hint(hint) == taken


# -- no room


def test_above_the_base_when_nothing_is_left_below(mm: Mm) -> None:
    put(mm, MMAP_MIN_ADDR, TOP - MMAP_MIN_ADDR)
    assert get_unmapped_area(mm, PAGE) == TOP
    put(mm, TOP, PAGE)
    put(mm, TOP + 3 * PAGE, PAGE, VM_RW | VM_GROWSDOWN)
    assert get_unmapped_area(mm, PAGE) == TOP + 4 * PAGE
    assert get_unmapped_area(mm, PAGE) > LEGACY_BASE


def test_fixed_addresses_are_not_looked_at(mm: Mm) -> None:
    put(mm, 0x10000000, PAGE)
    assert get_unmapped_area(mm, PAGE, hint=0x10000000, fixed=True) == 0x10000000
    assert get_unmapped_area(mm, PAGE, hint=TASK_SIZE - PAGE, fixed=True) == TASK_SIZE - PAGE


@pytest.mark.parametrize(
    ("error", "length", "address"),
    [
        (errno.ENOMEM, TASK_SIZE + PAGE, None),
        (errno.ENOMEM, TASK_SIZE, None),
        (errno.ENOMEM, 2 * PAGE, TASK_SIZE - PAGE),
        (errno.ENOMEM, PAGE, TASK_SIZE + 1),
        (errno.EINVAL, PAGE, 0x10000001),
    ],
)
def test_refusals(mm: Mm, error: int, length: int, address: int | None) -> None:
    with pytest.raises(SyscallError) as caught:
        get_unmapped_area(mm, length, hint=address or 0, fixed=address is not None)
    assert caught.value.errno == error
