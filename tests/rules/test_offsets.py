"""The founding question, rule 7: is a page at the same offset in every VMA that maps it? And where pgoff comes from."""

from __future__ import annotations

import pytest

from rmap import Kernel, Process
from rmap.mm.mm_types import vma_address
from tests.model.words import PAGE, area, at, layout, mapcount, mapped, read, write, written

HERE = at(0) >> 12


def offsets(k: Kernel, *places: tuple[Process, int]) -> list[int]:
    """The offsets of one page, in pages from the start of its VMA, at each of these places.

    That the page is one, is mapped nowhere else, and has one index that is linear everywhere (I14) is checked here.
    """
    found = []
    (pfn,) = {k.pfn(process, at(page)) for process, page in places}
    assert pfn
    assert k.walk(pfn) == sorted((process.pid, at(page)) for process, page in places)
    _, index = k.core.frames.anchor1(pfn)
    for process, page in places:
        vma = area(process, page)
        assert vma_address(vma, index) == at(page)
        found.append((at(page) - vma.start) // PAGE)
        assert found[-1] == index - vma.pgoff
    return found


def test_right_after_a_fork_offsets_agree(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 4)
    c = p.fork()
    assert offsets(k, (p, 3), (c, 3)) == [3, 3]


def test_7a_the_child_unmaps_the_first_page(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.munmap(at(0), PAGE)
    assert offsets(k, (p, 1), (c, 1)) == [1, 0]
    assert area(c, 1).pgoff == area(p, 0).pgoff + 1


@pytest.mark.parametrize("how", ["mprotect", "madvise", "mlock"])
def test_7b_one_side_splits(k: Kernel, how: str) -> None:
    p = k.spawn()
    written(p, 0, 4)
    c = p.fork()
    if how == "mprotect":
        c.mprotect(at(0), 2 * PAGE, "r")
    elif how == "madvise":
        c.madvise(at(0), 2 * PAGE, "dontfork")
    else:
        c.mlock(at(0), 2 * PAGE, onfault=True)
    assert len(c.maps()) == 2
    assert offsets(k, (p, 3), (c, 3)) == [3, 1]


def test_7c_a_vma_grows_downwards_by_merging(k: Kernel) -> None:
    p = k.spawn()
    written(p, 2, 4)
    c = p.fork()
    mapped(p, 0, 2)
    assert layout(p) == "0-4 rw-p"
    assert offsets(k, (p, 3), (c, 3)) == [3, 1]
    assert area(p, 0).pgoff == HERE


def test_7c_a_stack_grows_downwards(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 20, 24, growsdown=True)
    write(p, 21, 24)
    c = p.fork()
    write(p, 17)
    assert layout(p) == "17-24 rw-p"
    assert offsets(k, (p, 22), (c, 22)) == [5, 2]
    assert area(p, 17).pgoff == HERE + 17  # rule 2.17: start and pgoff together


def test_rule_2_17_a_stack_is_prepared_before_it_grows(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 20, 24, growsdown=True)
    read(p, 18)
    assert layout(p) == "18-24 rw-p"
    assert area(p, 18).anon is not None
    assert k.pfn(p, at(18)) == k.zero_pfn


def test_7d_the_tail_is_moved(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 4)
    c = p.fork()
    c.mremap(at(2), 2 * PAGE, 2 * PAGE, at(10))
    assert offsets(k, (p, 3), (c, 11)) == [3, 1]


def test_7d_moving_all_of_it_changes_the_address_and_no_offset(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 4)
    c = p.fork()
    c.mremap(at(0), 4 * PAGE, 4 * PAGE, at(10))
    assert offsets(k, (p, 3), (c, 13)) == [3, 3]


def test_7e_one_file_at_different_offsets(k: Kernel) -> None:
    p, q = k.spawn(), k.spawn()
    lib = k.open("lib", 8 * PAGE)
    lib.read_in()
    mapped(p, 0, 2, "r", file=lib, offset=5 * PAGE)
    mapped(q, 10, 14, "r", file=lib, offset=3 * PAGE)
    read(p, 0)
    read(q, 12)
    assert offsets(k, (p, 0), (q, 12)) == [0, 2]


def test_shared_anonymous_memory_mapped_whole_agrees(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 3, "rw", "shared")
    c = p.fork()
    read(c, 2)
    assert offsets(k, (p, 2), (c, 2)) == [2, 2]


def test_rule_2_10_page_offsets_at_birth(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 1)
    mapped(p, 2, 3, "rw", "shared")
    mapped(p, 4, 5, file=k.open("lib", 8 * PAGE), offset=5 * PAGE)
    mapped(p, 6, 7, file=k.open("/dev/zero"), offset=7 * PAGE)
    heap = p.brk(p.mm.start_brk + PAGE)
    assert [area(p, page).pgoff for page in (0, 2, 4, 6)] == [HERE, 0, 5, 7]
    vma = p.vma(heap - 1)
    assert vma is not None
    assert vma.pgoff == vma.start >> 12


def test_rule_2_12_a_hole_changes_offsets_and_no_index(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 4)
    before = [k.core.frames.anchor1(k.pfn(p, at(page)) or 0) for page in (0, 3)]
    p.munmap(at(1), 2 * PAGE)
    assert layout(p) == "0-1 rw-p, 3-4 rw-p"
    assert [vma.pgoff - HERE for vma in p.mm.vmas] == [0, 3]
    assert [k.core.frames.anchor1(k.pfn(p, at(page)) or 0) for page in (0, 3)] == before
    assert mapcount(k, p, 3) == 1
