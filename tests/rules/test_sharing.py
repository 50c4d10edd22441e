"""Who shares which page, and at which offset of its VMA: rules 2.5a, 2.7, 4.x and part 7."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.words import at, layout, mapped, pages, present, shared, written


def test_of_a_line_of_forks_the_survivors_share_what_the_dead_wrote(machine: Any) -> None:
    """Rule 2.5a: P, C, G, K, L in a line, each writing a page; C, G and K die; L forks M."""
    line = [machine.spawn()]
    written(line[0], 0, 6)
    for generation in range(1, 5):
        line.append(line[-1].fork())
        line[-1].write(at(generation), pages(1))
    p, c, g, k, last = line
    for dead in (c, g, k):
        dead.exit()
    m = last.fork()
    m.write(at(5), pages(1))

    assert shared(machine, (p, 0), (last, 0), (m, 0))
    for page in (1, 2, 3, 4):  # what C, G, K and L wrote
        assert shared(machine, (last, page), (m, page))
        assert shared(machine, (p, page))
    assert shared(machine, (p, 5), (last, 5))
    assert shared(machine, (m, 5))


def test_a_grandchild_outlives_its_parent_and_forks_on(machine: Any) -> None:
    """Rule 2.7: C exits between P and G; G forks H."""
    p = machine.spawn()
    written(p, 0, 3)
    c = p.fork()
    c.write(at(1), pages(1))
    g = c.fork()
    c.exit()
    h = g.fork()
    h.write(at(2), pages(1))

    assert shared(machine, (p, 0), (g, 0), (h, 0))
    assert shared(machine, (g, 1), (h, 1))  # C's copy
    assert shared(machine, (p, 2), (g, 2))
    assert shared(machine, (h, 2))
    assert layout(machine, p) == layout(machine, g) == layout(machine, h) == "0-3 rw-p"


def test_a_daemon_chain_hands_its_pages_down(machine: Any) -> None:
    """Rule 2.7: fork, then the parent exits, five generations on; every page is still shared with the first."""
    first = machine.spawn()
    written(first, 0, 7)
    last = first.fork()
    for generation in range(5):
        child = last.fork()
        last.exit()
        last = child
        last.write(at(generation), pages(1))
    assert all(shared(machine, (first, page)) and shared(machine, (last, page)) for page in range(5))
    assert shared(machine, (first, 5), (last, 5))
    assert shared(machine, (first, 6), (last, 6))


def test_the_last_owner_of_a_page_writes_in_place(machine: Any) -> None:
    """Rules 4.7 and 4.8: nothing happens when the sibling goes; the next write takes the page over, no copy."""
    p = machine.spawn()
    written(p, 0, 1)
    frame = machine.pfn(p, at(0))
    c = p.fork()
    p.exit()
    assert machine.pfn(c, at(0)) == frame
    c.write(at(0), pages(1))
    assert machine.pfn(c, at(0)) == frame
    assert machine.mapcount(frame) == 1


def test_a_write_to_a_shared_page_copies_it(machine: Any) -> None:
    """Rule 4.7, from the side of the parent: the child keeps the old page."""
    p = machine.spawn()
    written(p, 0, 2)
    frame = machine.pfn(p, at(0))
    c = p.fork()
    p.write(at(0), pages(1))
    assert machine.pfn(c, at(0)) == frame
    assert shared(machine, (c, 0))
    assert shared(machine, (p, 0))
    assert shared(machine, (p, 1), (c, 1))


def test_the_zero_page_is_mapped_and_not_counted(machine: Any) -> None:
    """Rules 1.4, 4.1 and part 7: a read fault of anonymous memory maps the zero page."""
    p = machine.spawn()
    mapped(p, 0, 3)
    p.read(at(0), pages(2))
    assert present(machine, p, 0, 3) == "00."
    assert machine.mapcount(machine.pfn(p, at(0))) == 0
    c = p.fork()
    c.write(at(0), pages(1))
    assert present(machine, c, 0, 1) == "x"
    assert shared(machine, (c, 0))


# -- part 7: is a page at the same offset from vm_start in every VMA that maps it? No.


def test_just_after_fork_the_offsets_agree(machine: Any) -> None:
    p = machine.spawn()
    written(p, 4, 6)
    c = p.fork()
    assert layout(machine, p) == layout(machine, c) == "4-6 rw-p"
    assert shared(machine, (p, 4), (c, 4))
    assert shared(machine, (p, 5), (c, 5))


def test_7a_a_partial_unmap_changes_the_offset_on_one_side(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.munmap(at(0), pages(1))
    assert shared(machine, (p, 1), (c, 1))
    assert layout(machine, p) == "0-2 rw-p"
    assert layout(machine, c) == "1-2 rw-p"


@pytest.mark.parametrize(
    ("split", "left", "right"),
    [
        (lambda p: p.mprotect(at(0), pages(1), "r"), "0-1 r--p", "1-3 rw-p"),
        (lambda p: p.madvise(at(0), pages(1), "dontfork"), "0-1 rw-p dc", "1-3 rw-p"),
        (lambda p: p.madvise(at(0), pages(1), "wipeonfork"), "0-1 rw-p wf", "1-3 rw-p"),
        (lambda p: p.mlock(at(0), pages(1)), "0-1 rw-p lo", "1-3 rw-p"),
    ],
    ids=["mprotect", "dontfork", "wipeonfork", "mlock"],
)
def test_7b_a_split_changes_the_offset_on_one_side(machine: Any, split: Any, left: str, right: str) -> None:
    p = machine.spawn()
    written(p, 0, 3)
    c = p.fork()
    split(c)
    assert layout(machine, p) == "0-3 rw-p"
    assert layout(machine, c) == f"{left}, {right}"
    assert shared(machine, (p, 2), (c, 2))


def test_7c_a_merge_downward_moves_the_start_of_the_parent(machine: Any) -> None:
    p = machine.spawn()
    written(p, 2, 4)
    c = p.fork()
    mapped(p, 0, 2)
    assert layout(machine, p) == "0-4 rw-p"
    assert layout(machine, c) == "2-4 rw-p"
    assert shared(machine, (p, 2), (c, 2))
    p.write(at(1), pages(1))
    assert shared(machine, (p, 1))


def test_7c_stack_growth_moves_the_start_likewise(machine: Any) -> None:
    """Rules 2.17 and 7c: the VMA reaches down to the page touched, and only that page comes."""
    p = machine.spawn()
    written(p, 1000, 1002, growsdown=True)
    c = p.fork()
    p.write(at(997), pages(1))
    assert layout(machine, p) == "997-1002 rw-p gd"
    assert layout(machine, c) == "1000-1002 rw-p gd"
    assert present(machine, p, 997, 1002) == "x..xx"
    assert shared(machine, (p, 1001), (c, 1001))


def test_7d_a_moved_tail_is_at_offset_zero(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 4)
    c = p.fork()
    assert c.mremap(at(2), pages(2), pages(2), at(21)) == at(21)
    assert layout(machine, c) == "0-2 rw-p, 21-23 rw-p"
    assert shared(machine, (p, 2), (c, 21))
    assert shared(machine, (p, 3), (c, 22))


def test_7d_a_whole_vma_moved_keeps_its_offsets(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    c = p.fork()
    assert c.mremap(at(0), pages(2), pages(2), at(21)) == at(21)
    assert layout(machine, c) == "21-23 rw-p"
    assert shared(machine, (p, 0), (c, 21))
    assert shared(machine, (p, 1), (c, 22))


def test_7e_one_file_at_two_offsets(machine: Any) -> None:
    """File page 5 lies at offset 0 of one VMA and two pages into another."""
    f = machine.open("lib", size=pages(8))
    p, q = machine.spawn(), machine.spawn()
    mapped(p, 0, 3, file=f, offset=pages(5), flags="shared")
    mapped(q, 0, 5, file=f, offset=pages(3), flags="shared")
    p.read(at(0), pages(3))
    q.read(at(0), pages(5))
    assert layout(machine, p) == "0-3 rw-s lib+5"
    assert layout(machine, q) == "0-5 rw-s lib+3"
    for page in range(3):
        assert shared(machine, (p, page), (q, page + 2))


def test_shared_anonymous_memory_mapped_whole_agrees(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2, flags="shared")
    c = p.fork()
    assert present(machine, c, 0, 2) == ".."  # rule 4.4: the child finds them through the file
    c.write(at(0), pages(2))
    assert layout(machine, p) == layout(machine, c) == "0-2 rw-s shared memory+0"
    assert shared(machine, (p, 0), (c, 0))
    assert shared(machine, (p, 1), (c, 1))
