"""mremap: which page index a moved area keeps, what it merges with, and what MREMAP_DONTUNMAP leaves behind.

An anonymous area's index is hidden from /proc, but it decides what merges: an area that kept its old index does not
merge with a fresh neighbour at its new place, one that was re-based does.
"""

from __future__ import annotations

from typing import Any

from tests.rules.words import at, layout, mapped, pages, present, shared, written

# -- rule 2.13: the index after a move


def test_a_moved_faulted_area_keeps_its_index(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 20, 22)
    written(p, 10, 12)
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert layout(machine, p) == "20-22 rw-p, 22-24 rw-p"
    assert present(machine, p, 20, 24) == "..xx"


def test_a_moved_unfaulted_area_is_based_anew(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 20, 22)
    mapped(p, 10, 12)
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert layout(machine, p) == "20-24 rw-p"


def test_a_read_only_touched_area_is_based_anew(machine: Any) -> None:
    """Rule 2.2: a read fault maps the zero page and prepares nothing."""
    p = machine.spawn()
    mapped(p, 20, 22)
    mapped(p, 10, 12)
    p.read(at(10), pages(2))
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert layout(machine, p) == "20-24 rw-p"
    assert present(machine, p, 20, 24) == "..00"


def test_ever_prepared_counts_not_having_pages(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 20, 22)
    written(p, 10, 12)
    p.madvise(at(10), pages(2), "dontneed")
    p.mremap(at(10), pages(2), pages(2), at(22))
    assert layout(machine, p) == "20-22 rw-p, 22-24 rw-p"


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
    assert layout(machine, p) == "10-12 rw-p, 30-32 rw-p"
    p.mremap(at(30), pages(2), pages(2), at(12))
    assert layout(machine, p) == "10-14 rw-p"
    assert present(machine, p, 10, 14) == "xxxx"


def test_a_private_mapping_of_dev_zero_is_based_anew_too(machine: Any) -> None:
    """It keeps the file's offset as its index (rule 2.10), until it moves unfaulted."""
    zero = machine.open("/dev/zero", size=0)
    p = machine.spawn()
    mapped(p, 10, 12, file=zero, offset=pages(7))
    mapped(p, 14, 16, file=zero, offset=pages(7))
    p.write(at(14), 1)
    p.mremap(at(10), pages(2), pages(2), at(20))
    p.mremap(at(14), pages(2), pages(2), at(24))
    base = at(0) // 4096
    assert layout(machine, p) == f"20-22 rw-p /dev/zero+{base + 20}, 24-26 rw-p /dev/zero+7"
    assert present(machine, p, 24, 26) == "x."


# -- rule 2.14: MREMAP_DONTUNMAP


def test_dontunmap_of_a_whole_area_leaves_it_unfaulted(machine: Any) -> None:
    """The old area is empty and has no index of its own any more: moved, it is based anew and merges."""
    p = machine.spawn()
    mapped(p, 32, 34)
    written(p, 10, 12)
    assert p.mremap(at(10), pages(2), pages(2), at(20), dontunmap=True) == at(20)
    assert layout(machine, p) == "10-12 rw-p, 20-22 rw-p, 32-34 rw-p"
    assert present(machine, p, 10, 12) == ".."
    assert present(machine, p, 20, 22) == "xx"
    p.mremap(at(10), pages(2), pages(2), at(30))
    assert layout(machine, p) == "20-22 rw-p, 30-34 rw-p"


def test_dontunmap_of_a_part_keeps_the_old_area_faulted(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 34, 36)
    written(p, 10, 14)
    p.mremap(at(10), pages(2), pages(2), at(20), dontunmap=True)
    assert layout(machine, p) == "10-14 rw-p, 20-22 rw-p, 34-36 rw-p"
    assert present(machine, p, 10, 14) == "..xx"
    p.mremap(at(10), pages(4), pages(4), at(30))
    assert layout(machine, p) == "20-22 rw-p, 30-34 rw-p, 34-36 rw-p"


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
    assert layout(machine, p) == "11-12 rw-p, 20-22 rw-p"
    c = p.fork()
    for page in (11, 20, 21):
        assert shared(machine, (p, page), (c, page))


def test_dontunmap_unlocks_the_old_area(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    p.mlock(at(10), pages(2))
    p.mremap(at(10), pages(2), pages(2), at(20), dontunmap=True)
    assert layout(machine, p) == "10-12 rw-p, 20-22 rw-p lo"


# -- rules 2.15 and 2.16: other shapes


def test_an_old_length_of_zero_duplicates_a_shared_mapping(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12, flags="shared")
    assert p.mremap(at(10), 0, pages(2), at(20)) == at(20)
    assert layout(machine, p) == "10-12 rw-s shared memory+0, 20-22 rw-s shared memory+0"
    p.read(at(20), pages(2))
    assert shared(machine, (p, 10), (p, 20))
    assert shared(machine, (p, 11), (p, 21))


def test_shrinking_unmaps_the_tail(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 14)
    assert p.mremap(at(10), pages(4), pages(1)) == at(10)
    assert layout(machine, p) == "10-11 rw-p"
    assert present(machine, p, 10, 14) == "x..."


def test_a_move_may_grow_or_shrink(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    p.mremap(at(10), pages(2), pages(3), at(20))
    assert layout(machine, p) == "20-23 rw-p"
    assert present(machine, p, 20, 23) == "xx."
    p.mremap(at(20), pages(3), pages(1), at(30))
    assert layout(machine, p) == "30-31 rw-p"


def test_a_move_replaces_what_was_there(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 19, 23)
    frame = machine.pfn(p, at(10))
    p.mremap(at(10), pages(2), pages(2), at(20))
    assert layout(machine, p) == "19-20 rw-p, 20-22 rw-p, 22-23 rw-p"
    assert machine.pfn(p, at(20)) == frame


# -- rule 3.6: merging at the target of a move


def test_a_faulted_area_moved_beside_an_unfaulted_one_merges(machine: Any) -> None:
    """And the result is faulted: moved on, it keeps its index, so it does not merge at yet another place."""
    p = machine.spawn()
    written(p, 12, 14)
    p.mremap(at(12), pages(2), pages(2), at(30))
    mapped(p, 10, 12)
    p.mremap(at(30), pages(2), pages(2), at(12))
    assert layout(machine, p) == "10-14 rw-p"
    mapped(p, 44, 46)
    p.mremap(at(10), pages(4), pages(4), at(40))
    assert layout(machine, p) == "40-44 rw-p, 44-46 rw-p"


def test_the_same_in_a_forked_child_does_not_merge(machine: Any) -> None:
    p = machine.spawn()
    written(p, 12, 14)
    c = p.fork()
    c.mremap(at(12), pages(2), pages(2), at(30))
    mapped(c, 10, 12)
    c.mremap(at(30), pages(2), pages(2), at(12))
    assert layout(machine, c) == "10-12 rw-p, 12-14 rw-p"
    assert shared(machine, (p, 12), (c, 12))


# -- rule 3.7: growing in place


def test_growth_in_place_works_for_an_inherited_area(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    c = p.fork()
    assert c.mremap(at(10), pages(2), pages(4)) == at(10)
    assert layout(machine, c) == "10-14 rw-p"
    assert shared(machine, (p, 11), (c, 11))


def test_growth_swallows_a_next_area_that_fits(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 14)
    p.munmap(at(12), pages(1))
    assert layout(machine, p) == "10-12 rw-p, 13-14 rw-p"
    assert p.mremap(at(10), pages(2), pages(3)) == at(10)
    assert layout(machine, p) == "10-14 rw-p"


def test_growth_swallows_an_unfaulted_next_area(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 13, 15)
    assert p.mremap(at(10), pages(2), pages(3)) == at(10)
    assert layout(machine, p) == "10-15 rw-p"


def test_growth_refuses_a_next_area_of_another_family(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 13, 15)
    assert p.mremap(at(10), pages(2), pages(3)) == at(10)
    assert layout(machine, p) == "10-13 rw-p, 13-15 rw-p"


def test_growth_without_room_moves(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 13, prot="r")
    where = p.mremap(at(10), pages(2), pages(3))
    assert where != at(10)
    assert layout(machine, p).startswith("12-13 r--p")
