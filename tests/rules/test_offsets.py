"""The founding question, rule 7: is a page at the same offset in every VMA that maps it? And where pgoff comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rmap.mm.mm_types import vma_address
from tests.rules.words import (
    PAGE,
    area,
    at,
    kernel_of,
    layout,
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


def offsets(machine: Any, *places: tuple[Any, int]) -> list[int]:
    """The offsets of one page, in pages from the start of its VMA, at each of these places.

    That the page is one, is mapped nowhere else, and has one index (rule 1.3) that is linear everywhere (I14) is
    checked here.
    """
    found = []
    assert shared(machine, *places)
    pfn = machine.pfn(places[0][0], at(places[0][1]))
    kernel = kernel_of(machine)
    assert kernel.walk(pfn) == sorted((model_of(process).pid, at(page)) for process, page in places)
    _, index = kernel.core.frames.anchor1(pfn)
    for process, page in places:
        vma = area(process, page)
        assert vma_address(vma, index) == at(page)
        found.append((at(page) - vma.start) // PAGE)
        assert found[-1] == index - vma.pgoff
    return found


def test_right_after_a_fork_offsets_agree(machine: Any) -> None:
    p = machine.spawn()
    written(p, 4, 8)
    c = p.fork()
    assert layout(p) == layout(c) == "4-8 rw-p"
    assert offsets(machine, (p, 4), (c, 4)) == [0, 0]
    assert offsets(machine, (p, 7), (c, 7)) == [3, 3]


# -- 7a to 7e: no


def test_7a_a_partial_unmap_changes_the_offset_on_one_side(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.munmap(at(0), pages(1))
    assert offsets(machine, (p, 1), (c, 1)) == [1, 0]
    assert area(c, 1).pgoff == area(p, 0).pgoff + 1
    assert (layout(p), layout(c)) == ("0-2 rw-p", "1-2 rw-p")


@pytest.mark.parametrize(
    ("split", "left"),
    [
        (lambda p: p.mprotect(at(0), pages(1), "r"), "0-1 r--p"),
        (lambda p: p.madvise(at(0), pages(1), "dontfork"), "0-1 rw-p dc"),
        (lambda p: p.madvise(at(0), pages(1), "wipeonfork"), "0-1 rw-p wf"),
        (lambda p: p.mlock(at(0), pages(1)), "0-1 rw-p lo"),
        (lambda p: p.mlock(at(0), pages(1), onfault=True), "0-1 rw-p lf lo"),
    ],
    ids=["mprotect", "dontfork", "wipeonfork", "mlock", "mlock on fault"],
)
def test_7b_a_split_changes_the_offset_on_one_side(machine: Any, split: Callable[[Any], None], left: str) -> None:
    """Rule 2.11: the upper half begins later, and its page offset grows with it."""
    p = machine.spawn()
    written(p, 0, 3)
    c = p.fork()
    split(c)
    assert (layout(p), layout(c)) == ("0-3 rw-p", f"{left}, 1-3 rw-p")
    assert offsets(machine, (p, 2), (c, 2)) == [2, 1]


def test_7c_a_merge_downward_moves_the_start_of_the_parent(machine: Any) -> None:
    p = machine.spawn()
    written(p, 2, 4)
    c = p.fork()
    mapped(p, 0, 2)
    assert (layout(p), layout(c)) == ("0-4 rw-p", "2-4 rw-p")
    assert offsets(machine, (p, 3), (c, 3)) == [3, 1]
    assert area(p, 0).pgoff == HERE
    p.write(at(1), pages(1))
    assert shared(machine, (p, 1))


def test_7c_stack_growth_moves_the_start_likewise(machine: Any) -> None:
    """Rules 2.17 and 7c: the VMA reaches down to the page touched, and only that page comes."""
    p = machine.spawn()
    written(p, 1000, 1002, growsdown=True)
    c = p.fork()
    p.write(at(997), pages(1))
    assert (layout(p), layout(c)) == ("997-1002 rw-p gd", "1000-1002 rw-p gd")
    assert present(machine, p, 997, 1002) == "x..xx"
    assert offsets(machine, (p, 1001), (c, 1001)) == [4, 1]
    assert area(p, 997).pgoff == HERE + 997  # rule 2.17: start and pgoff together


def test_2_17_a_stack_is_prepared_before_it_grows(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 1020, 1024, growsdown=True)
    read(p, 1018)
    assert layout(p) == "1018-1024 rw-p gd"
    assert area(p, 1018).anon is not None
    assert present(machine, p, 1018, 1019) == "0"


def test_7d_a_moved_tail_is_at_offset_zero(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 4)
    c = p.fork()
    assert c.mremap(at(2), pages(2), pages(2), at(21)) == at(21)
    assert layout(c) == "0-2 rw-p, 21-23 rw-p"
    assert offsets(machine, (p, 2), (c, 21)) == [2, 0]
    assert offsets(machine, (p, 3), (c, 22)) == [3, 1]


def test_7d_a_whole_vma_moved_keeps_its_offsets(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 4)
    c = p.fork()
    assert c.mremap(at(0), pages(4), pages(4), at(21)) == at(21)
    assert layout(c) == "21-25 rw-p"
    assert offsets(machine, (p, 0), (c, 21)) == [0, 0]
    assert offsets(machine, (p, 3), (c, 24)) == [3, 3]


def test_7e_one_file_at_two_offsets(machine: Any) -> None:
    """File page 5 lies at offset 0 of one VMA and two pages into another."""
    f = machine.open("lib", size=pages(8))
    p, q = machine.spawn(), machine.spawn()
    mapped(p, 0, 3, file=f, offset=pages(5), flags="shared")
    mapped(q, 0, 5, file=f, offset=pages(3), flags="shared")
    read(p, 0, 3)
    read(q, 0, 5)
    assert (layout(p), layout(q)) == ("0-3 rw-s lib+5", "0-5 rw-s lib+3")
    for page in range(3):
        assert offsets(machine, (p, page), (q, page + 2)) == [page, page + 2]


def test_7e_a_private_mapping_likewise(machine: Any) -> None:
    f = machine.open("lib", size=pages(8))
    p, q = machine.spawn(), machine.spawn()
    mapped(p, 0, 2, "r", file=f, offset=pages(5))
    mapped(q, 10, 14, "r", file=f, offset=pages(3))
    read(p, 0)
    read(q, 12)
    assert offsets(machine, (p, 0), (q, 12)) == [0, 2]


def test_shared_anonymous_memory_mapped_whole_agrees(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 3, flags="shared")
    c = p.fork()
    assert present(machine, c, 0, 3) == "..."  # rule 4.4: the child finds them through the file
    write(c, 0)
    read(c, 1, 3)
    assert layout(p) == layout(c) == "0-3 rw-s shared memory+0"
    for page in range(3):
        assert offsets(machine, (p, page), (c, page)) == [page, page]


# -- where page offsets come from


def test_2_10_page_offsets_at_birth(machine: Any) -> None:
    """Of a private mapping of /dev/zero, which is anonymous (rule 1.8), it is the offset given."""
    p = machine.spawn()
    mapped(p, 0, 1)
    mapped(p, 2, 3, flags="shared")
    mapped(p, 4, 5, file=machine.open("lib", size=pages(8)), offset=pages(5))
    mapped(p, 6, 7, file=machine.open("/dev/zero", size=0), offset=pages(7))
    heap = p.brk(p.brk(0) + PAGE)
    assert [area(p, page).pgoff for page in (0, 2, 4, 6)] == [HERE, 0, 5, 7]
    vma = model_of(p).vma(heap - 1)
    assert vma is not None
    assert vma.pgoff == vma.start // PAGE


def test_2_12_a_hole_changes_offsets_and_no_index(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 4)
    frames = kernel_of(machine).core.frames
    before = [frames.anchor1(machine.pfn(p, at(page))) for page in (0, 3)]
    p.munmap(at(1), pages(2))
    assert layout(p) == "0-1 rw-p, 3-4 rw-p"
    assert [area(p, page).pgoff - HERE for page in (0, 3)] == [0, 3]
    assert [frames.anchor1(machine.pfn(p, at(page))) for page in (0, 3)] == before
    assert mapcount(machine, p, 3) == 1
