"""mremap: which page index a moved area keeps, what it merges with, and what MREMAP_DONTUNMAP leaves behind.

An anonymous area's index is hidden from /proc, but it decides what merges: an area that kept its old index does not
merge with a fresh neighbour at its new place, one that was re-based does.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rmap import Kernel, SyscallError
from tests.rules.words import (
    PAGE,
    anchor,
    area,
    at,
    chain,
    counters,
    layout,
    living,
    looked_at,
    mapcount,
    mapped,
    model_of,
    pages,
    present,
    read,
    shared,
    write,
    written,
)

HERE = at(0) // PAGE
"""The page index of page 0 of an anonymous mapping that never moved."""

# -- rule 2.13: the index after a move


def test_a_moved_faulted_area_keeps_its_index(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 20, 22)
    written(p, 10, 12)
    frame = machine.pfn(p, at(11))
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert layout(p) == "20-22 rw-p, 22-24 rw-p"
    assert present(machine, p, 20, 24) == "..xx"
    assert machine.pfn(p, at(23)) == frame
    assert (area(p, 22).pgoff, anchor(machine, p, 23), chain(p, 22)) == (HERE + 10, ("A0", HERE + 11), "[A0]")


def test_a_moved_unfaulted_area_is_based_anew(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 20, 22)
    mapped(p, 10, 12)
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert layout(p) == "20-24 rw-p"


def test_a_read_only_touched_area_is_based_anew(machine: Any) -> None:
    """Rule 2.2: a read fault maps the zero page and prepares nothing."""
    p = machine.spawn()
    mapped(p, 20, 22)
    mapped(p, 10, 12)
    p.read(at(10), pages(2))
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert (layout(p), area(p, 20).pgoff) == ("20-24 rw-p", HERE + 20)
    assert present(machine, p, 20, 24) == "..00"


def test_ever_prepared_counts_not_having_pages(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 20, 22)
    written(p, 10, 12)
    p.madvise(at(10), pages(2), "dontneed")
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert layout(p) == "20-22 rw-p, 22-24 rw-p"
    assert area(p, 22).pgoff == HERE + 10


def test_a_move_leaves_the_pages_alone(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 13)
    c = p.fork()
    frames = [machine.pfn(p, at(page)) for page in (10, 11, 12)]
    p.mremap(at(10), pages(3), pages(3), at(30))
    assert [machine.pfn(p, at(page)) for page in (30, 31, 32)] == frames
    assert all(shared(machine, (p, page + 20), (c, page)) for page in (10, 11, 12))
    assert present(machine, p, 10, 13) == "..."


def test_a_tail_moved_away_and_back_is_one_area_again(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 14)
    p.mremap(at(12), pages(2), pages(2), at(30))
    assert layout(p) == "10-12 rw-p, 30-32 rw-p"
    p.mremap(at(30), pages(2), pages(2), at(12))
    assert layout(p) == "10-14 rw-p"
    assert present(machine, p, 10, 14) == "xxxx"


def test_a_private_mapping_of_dev_zero_is_based_anew_too(machine: Any) -> None:
    """It keeps the file's offset as its index (rule 2.10), until it moves unfaulted, for it is anonymous (rule 1.8)."""
    zero = machine.open("/dev/zero", size=0)
    p = machine.spawn()
    mapped(p, 10, 12, file=zero, offset=pages(7))
    mapped(p, 14, 16, file=zero, offset=pages(7))
    p.write(at(14), 1)
    assert anchor(machine, p, 14) == ("A0", 7)
    p.mremap(at(10), pages(2), pages(2), at(20))
    p.mremap(at(14), pages(2), pages(2), at(24))
    assert layout(p) == f"20-22 rw-p /dev/zero+{HERE + 20}, 24-26 rw-p /dev/zero+7"
    assert present(machine, p, 24, 26) == "x."
    assert anchor(machine, p, 24) == ("A0", 7)


def test_2_13_a_part_keeps_the_page_offset_of_the_part(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 4)
    p.mremap(at(2), PAGE, PAGE, at(10))
    assert layout(p) == "0-2 rw-p, 3-4 rw-p, 10-11 rw-p"
    assert [vma.pgoff - HERE for vma in model_of(p).mm.vmas] == [0, 3, 2]
    assert counters(machine, "A0") == (1, 3, 1)


def test_2_13_a_moved_page_is_found_in_the_whole_family(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10))
    pfn = k.pfn(p, at(1))
    assert pfn
    assert k.walk(pfn) == [(p.pid, at(1)), (c.pid, at(11))]


def test_whole_page_tables_move_with_what_they_map(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    big = 1024 * PAGE
    written(p, 0, 1024)
    c = p.fork()
    far = at(0) + (64 << 21)
    c.mremap(at(0), big, big, far)
    pfn = k.pfn(p, at(700))
    assert pfn
    assert k.walk(pfn) == [(p.pid, at(700)), (c.pid, far + 700 * PAGE)]
    k.check()
    c.munmap(far, big)
    assert mapcount(k, p, 700) == 1


def test_moving_does_not_break_what_is_shared(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.mremap(at(0), 2 * PAGE, 2 * PAGE, at(1 + 10))
    write(c, 11)
    assert anchor(machine, c, 11) == ("A1", HERE)
    assert anchor(machine, c, 12) == ("A0", HERE + 1)
    assert living(machine) == ["A0", "A1"]


# -- rule 2.14: MREMAP_DONTUNMAP


def test_dontunmap_of_a_whole_area_leaves_it_unfaulted(machine: Any) -> None:
    """The old area is empty and has no index of its own any more: moved, it is based anew and merges."""
    p = machine.spawn()
    mapped(p, 32, 34)
    written(p, 10, 12)
    assert p.mremap(at(10), pages(2), pages(2), at(20), dontunmap=True) == at(20)
    assert layout(p) == "10-12 rw-p, 20-22 rw-p, 32-34 rw-p"
    assert present(machine, p, 10, 12) == ".."
    assert present(machine, p, 20, 22) == "xx"
    p.mremap(at(10), pages(2), pages(2), at(30))
    assert layout(p) == "20-22 rw-p, 30-34 rw-p"


def test_dontunmap_of_a_part_keeps_the_old_area_faulted(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 34, 36)
    written(p, 10, 14)
    p.mremap(at(10), pages(2), pages(2), at(20), dontunmap=True)
    assert layout(p) == "10-14 rw-p, 20-22 rw-p, 34-36 rw-p"
    assert present(machine, p, 10, 14) == "..xx"
    assert (chain(p, 10), chain(p, 20)) == ("[A0]", "[A0]")
    p.mremap(at(10), pages(4), pages(4), at(30))
    assert layout(p) == "20-22 rw-p, 30-34 rw-p, 34-36 rw-p"


def test_after_dontunmap_two_pages_of_one_process_have_the_same_index(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 14)
    p.mremap(at(10), pages(2), pages(2), at(20), dontunmap=True)
    p.write(at(10), pages(2))
    c = p.fork()
    for page in (10, 11, 20, 21):
        assert shared(machine, (p, page), (c, page))
    c.write(at(10), pages(1))
    assert shared(machine, (p, 20), (c, 20))
    assert shared(machine, (p, 10))
    assert shared(machine, (c, 10))


def test_moving_a_page_away_and_growing_it_gives_the_same_index_twice(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    p.mremap(at(10), pages(1), pages(1), at(20))
    assert p.mremap(at(20), pages(1), pages(2)) == at(20)
    p.write(at(21), pages(1))
    assert layout(p) == "11-12 rw-p, 20-22 rw-p"
    assert anchor(machine, p, 11) == anchor(machine, p, 21) == ("A0", HERE + 11)
    c = p.fork()
    for page in (11, 20, 21):
        assert shared(machine, (p, page), (c, page))


def test_dontunmap_unlocks_the_old_area(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    p.mlock(at(10), pages(2))
    p.mremap(at(10), pages(2), pages(2), at(20), dontunmap=True)
    assert layout(p) == "10-12 rw-p, 20-22 rw-p lo"


def test_2_14_dontunmap_of_a_whole_area_leaves_it_unfaulted_and_unlocked(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    p.mlock(at(0), 2 * PAGE)
    p.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10), dontunmap=True)
    assert layout(p) == "0-2 rw-p, 10-12 rw-p lo"
    assert (chain(p, 0), chain(p, 10)) == ("none", "[A0]")
    assert machine.pfn(p, at(0)) is None
    locked = 0x2000
    assert (area(p, 0).flags & locked, area(p, 10).flags & locked) == (0, locked)
    write(p, 0)
    assert anchor(machine, p, 0) == ("A1", HERE)


def test_2_14_two_pages_of_one_mm_with_one_anon_vma_and_one_index(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    p.mremap(at(1), PAGE, PAGE, at(10), dontunmap=True)
    write(p, 1)
    assert anchor(machine, p, 1) == anchor(machine, p, 10) == ("A0", HERE + 1)
    assert machine.pfn(p, at(1)) != machine.pfn(p, at(10))
    # Only the frame number tells them apart: one of the two walks looks at the other's entry first.
    assert sorted([looked_at(machine, p, 1), looked_at(machine, p, 10)]) == [(1, 0), (2, 1)]


# -- rules 2.15 and 2.16: other shapes


def test_an_old_length_of_zero_duplicates_a_shared_mapping(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12, flags="shared")
    assert p.mremap(at(10), 0, pages(2), at(20)) == at(20)
    assert layout(p) == "10-12 rw-s shared memory+0, 20-22 rw-s shared memory+0"
    p.read(at(20), pages(2))
    assert shared(machine, (p, 10), (p, 20))
    assert shared(machine, (p, 11), (p, 21))


def test_shrinking_unmaps_the_tail(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 14)
    assert p.mremap(at(10), pages(4), pages(1)) == at(10)
    assert layout(p) == "10-11 rw-p"
    assert present(machine, p, 10, 14) == "x..."


def test_a_move_may_grow_or_shrink(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    p.mremap(at(10), pages(2), pages(3), at(20))
    assert layout(p) == "20-23 rw-p"
    assert present(machine, p, 20, 23) == "xx."
    p.mremap(at(20), pages(3), pages(1), at(30))
    assert layout(p) == "30-31 rw-p"


def test_a_move_replaces_what_was_there(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 19, 23)
    frame = machine.pfn(p, at(10))
    p.mremap(at(10), pages(2), pages(2), at(20))
    assert layout(p) == "19-20 rw-p, 20-22 rw-p, 22-23 rw-p"
    assert machine.pfn(p, at(20)) == frame


def test_2_15_old_length_zero_duplicates_a_shared_mapping(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2, "rw", "shared")
    p.mremap(at(0), 0, 2 * PAGE, at(10))
    read(p, 10, 12)
    assert (area(p, 0).pgoff, area(p, 10).pgoff) == (0, 0)
    assert k.pfn(p, at(1)) == k.pfn(p, at(11))
    assert mapcount(k, p, 1) == 2


def test_2_15_old_length_zero_of_private_memory_is_refused(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 2)
    with pytest.raises(SyscallError) as refusal:
        p.mremap(at(0), 0, 2 * PAGE)
    assert refusal.value.errno == errno.EINVAL
    assert layout(p) == "0-2 rw-p"


def test_2_15_a_move_of_equal_length_may_span_areas_and_keeps_their_gaps(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    written(p, 1, 2, "rwx")
    mapped(p, 3, 4)
    p.mremap(at(0), 4 * PAGE, 4 * PAGE, at(10))
    assert layout(p) == "10-11 rw-p, 11-12 rwxp, 13-14 rw-p"
    assert (area(p, 10).pgoff, area(p, 11).pgoff, area(p, 13).pgoff) == (HERE, HERE + 1, HERE + 13)
    assert (anchor(machine, p, 10), anchor(machine, p, 11)) == (("A0", HERE), ("A0", HERE + 1))


# -- rule 3.6: merging at the target of a move


def test_a_faulted_area_moved_beside_an_unfaulted_one_merges(machine: Any) -> None:
    """And the result is faulted: moved on, it keeps its index, so it does not merge at yet another place."""
    p = machine.spawn()
    written(p, 12, 14)
    p.mremap(at(12), pages(2), pages(2), at(30))
    mapped(p, 10, 12)
    p.mremap(at(30), pages(2), pages(2), at(12))
    assert layout(p) == "10-14 rw-p"
    mapped(p, 44, 46)
    p.mremap(at(10), pages(4), pages(4), at(40))
    assert layout(p) == "40-44 rw-p, 44-46 rw-p"


def test_the_same_in_a_forked_child_does_not_merge(machine: Any) -> None:
    p = machine.spawn()
    written(p, 12, 14)
    c = p.fork()
    c.mremap(at(12), pages(2), pages(2), at(30))
    mapped(c, 10, 12)
    c.mremap(at(30), pages(2), pages(2), at(12))
    assert layout(c) == "10-12 rw-p, 12-14 rw-p"
    assert shared(machine, (p, 12), (c, 12))


def test_3_6_moved_back_beside_an_unfaulted_area_it_merges(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 0, 2)
    p.mremap(at(1), PAGE, PAGE, at(10))
    p.munmap(at(10), PAGE)
    written(p, 1, 2, "rwx")
    p.mremap(at(1), PAGE, PAGE, at(20))
    p.mprotect(at(20), PAGE, "rw")
    assert (chain(p, 0), chain(p, 20)) == ("none", "[A0]")
    c = p.fork()
    p.mremap(at(20), PAGE, PAGE, at(1))
    assert (layout(p), chain(p, 0)) == ("0-2 rw-p", "[A0]")
    # The same in the forked child does not merge.
    c.mremap(at(20), PAGE, PAGE, at(1))
    assert layout(c) == "0-1 rw-p, 1-2 rw-p"
    assert (chain(c, 0), chain(c, 1)) == ("none", "[A1] A0")


# -- rule 3.7: growing in place


def test_growth_in_place_works_for_an_inherited_area(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    c = p.fork()
    assert c.mremap(at(10), pages(2), pages(4)) == at(10)
    assert layout(c) == "10-14 rw-p"
    assert shared(machine, (p, 11), (c, 11))


def test_growth_swallows_a_next_area_that_fits(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 14)
    p.munmap(at(12), pages(1))
    assert layout(p) == "10-12 rw-p, 13-14 rw-p"
    assert p.mremap(at(10), pages(2), pages(3)) == at(10)
    assert layout(p) == "10-14 rw-p"


def test_growth_swallows_an_unfaulted_next_area(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 13, 15)
    assert p.mremap(at(10), pages(2), pages(3)) == at(10)
    assert layout(p) == "10-15 rw-p"


def test_growth_refuses_a_next_area_of_another_family(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 13, 15)
    assert p.mremap(at(10), pages(2), pages(3)) == at(10)
    assert layout(p) == "10-13 rw-p, 13-15 rw-p"


def test_3_7_growth_in_place_does_not_mind_many_links(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    c = p.fork()
    mapped(c, 2, 3)
    c.mremap(at(0), PAGE, 2 * PAGE)
    assert (layout(c), chain(c, 0)) == ("0-3 rw-p", "[A1] A0")  # and has swallowed its unfaulted successor
    write(c, 2)
    assert anchor(machine, c, 2) == ("A1", at(2) >> 12)


def test_3_7_growth_refuses_a_successor_with_another_anon_vma(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    c = p.fork()
    written(c, 2, 3)
    c.mremap(at(0), PAGE, 2 * PAGE)
    assert layout(c) == "0-2 rw-p, 2-3 rw-p"
    assert (chain(c, 0), chain(c, 2)) == ("[A1] A0", "[A2]")


def test_growth_without_room_moves(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 13, prot="r")
    where = p.mremap(at(10), pages(2), pages(3))
    assert where != at(10)
    assert layout(p).startswith("12-13 r--p")
