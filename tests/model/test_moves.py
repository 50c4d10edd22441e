"""What mremap does to page indexes and chains: rules 2.13 to 2.15."""

from __future__ import annotations

import errno

import pytest

from rmap import Kernel, SyscallError
from tests.model.words import (
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
    read,
    write,
    written,
)

HERE = at(0) >> 12
"""The page index of page 0 of an anonymous mapping that never moved."""


def test_rule_2_13_an_unfaulted_mapping_is_based_anew(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 2)
    read(p, 0, 2)  # the zero page is no fault that counts
    p.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10))
    assert layout(p) == "10-12 rw-p"
    assert area(p, 10).pgoff == HERE + 10


def test_rule_2_13_a_faulted_mapping_keeps_its_page_offset(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    pfn = k.pfn(p, at(1))
    p.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10))
    assert area(p, 10).pgoff == HERE
    assert k.pfn(p, at(11)) == pfn
    assert anchor(k, p, 11) == ("A0", HERE + 1)
    assert chain(p, 10) == "[A0]"


def test_rule_2_13_what_counts_is_preparation_not_pages(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    p.madvise(at(0), 2 * PAGE, "dontneed")
    p.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10))
    assert area(p, 10).pgoff == HERE


def test_rule_2_13_a_part_keeps_the_page_offset_of_the_part(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 4)
    p.mremap(at(2), PAGE, PAGE, at(10))
    assert layout(p) == "0-2 rw-p, 3-4 rw-p, 10-11 rw-p"
    assert [vma.pgoff - HERE for vma in p.mm.vmas] == [0, 3, 2]
    assert counters(k, "A0") == (1, 3, 1)


def test_rule_2_13_dev_zero_is_anonymous_and_is_based_anew_too(k: Kernel) -> None:
    p = k.spawn()
    zero = k.open("/dev/zero")
    mapped(p, 0, 2, file=zero, offset=7 * PAGE)
    mapped(p, 4, 6, file=zero, offset=7 * PAGE)
    assert (area(p, 0).pgoff, area(p, 4).pgoff) == (7, 7)
    write(p, 4)
    assert anchor(k, p, 4) == ("A0", 7)
    p.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10))
    p.mremap(at(4), 2 * PAGE, 2 * PAGE, at(14))
    assert (area(p, 10).pgoff, area(p, 14).pgoff) == (HERE + 10, 7)
    assert anchor(k, p, 14) == ("A0", 7)


def test_rule_2_13_a_moved_page_is_found_in_the_whole_family(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10))
    pfn = k.pfn(p, at(1))
    assert pfn
    assert k.walk(pfn) == [(p.pid, at(1)), (c.pid, at(11))]


def test_rule_2_14_dontunmap_of_a_whole_area_leaves_it_unfaulted_and_unlocked(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    p.mlock(at(0), 2 * PAGE)
    p.mremap(at(0), 2 * PAGE, 2 * PAGE, at(10), dontunmap=True)
    assert layout(p) == "0-2 rw-p, 10-12 rw-p"
    assert (chain(p, 0), chain(p, 10)) == ("none", "[A0]")
    assert k.pfn(p, at(0)) is None
    locked = 0x2000
    assert (area(p, 0).flags & locked, area(p, 10).flags & locked) == (0, locked)
    write(p, 0)
    assert anchor(k, p, 0) == ("A1", HERE)


def test_rule_2_14_dontunmap_of_a_part_keeps_the_anon_vma(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    p.mremap(at(1), PAGE, PAGE, at(10), dontunmap=True)
    assert layout(p) == "0-2 rw-p, 10-11 rw-p"
    assert (chain(p, 0), chain(p, 10)) == ("[A0]", "[A0]")


def test_rule_2_14_two_pages_of_one_mm_with_one_anon_vma_and_one_index(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    p.mremap(at(1), PAGE, PAGE, at(10), dontunmap=True)
    write(p, 1)
    assert anchor(k, p, 1) == anchor(k, p, 10) == ("A0", HERE + 1)
    assert k.pfn(p, at(1)) != k.pfn(p, at(10))
    # Only the frame number tells them apart: one of the two walks looks at the other's entry first.
    assert sorted([looked_at(k, p, 1), looked_at(k, p, 10)]) == [(1, 0), (2, 1)]
    k.check()


def test_rule_2_14_the_same_by_growing_what_was_moved(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    p.mremap(at(0), PAGE, PAGE, at(10))
    p.mremap(at(10), PAGE, 2 * PAGE)
    write(p, 11)
    assert layout(p) == "1-2 rw-p, 10-12 rw-p"
    assert anchor(k, p, 1) == anchor(k, p, 11) == ("A0", HERE + 1)
    assert k.pfn(p, at(1)) != k.pfn(p, at(11))


def test_rule_2_15_old_length_zero_duplicates_a_shared_mapping(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2, "rw", "shared")
    p.mremap(at(0), 0, 2 * PAGE, at(10))
    read(p, 10, 12)
    assert (area(p, 0).pgoff, area(p, 10).pgoff) == (0, 0)
    assert k.pfn(p, at(1)) == k.pfn(p, at(11))
    assert mapcount(k, p, 1) == 2


def test_rule_2_15_old_length_zero_of_private_memory_is_refused(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 2)
    with pytest.raises(SyscallError) as refusal:
        p.mremap(at(0), 0, 2 * PAGE)
    assert refusal.value.errno == errno.EINVAL
    assert layout(p) == "0-2 rw-p"


def test_rule_2_15_a_move_of_equal_length_may_span_areas_and_keeps_their_gaps(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    written(p, 1, 2, "rwx")
    mapped(p, 3, 4)
    p.mremap(at(0), 4 * PAGE, 4 * PAGE, at(10))
    assert layout(p) == "10-11 rw-p, 11-12 rwxp, 13-14 rw-p"
    assert (area(p, 10).pgoff, area(p, 11).pgoff, area(p, 13).pgoff) == (HERE, HERE + 1, HERE + 13)
    assert (anchor(k, p, 10), anchor(k, p, 11)) == (("A0", HERE), ("A0", HERE + 1))


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


def test_moving_does_not_break_what_is_shared(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.mremap(at(0), 2 * PAGE, 2 * PAGE, at(1 + 10))
    write(c, 11)
    assert anchor(k, c, 11) == ("A1", HERE)
    assert anchor(k, c, 12) == ("A0", HERE + 1)
    assert living(k) == ["A0", "A1"]
