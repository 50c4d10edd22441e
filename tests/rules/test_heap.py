"""brk: rule 3.9 and what the call answers. A refused brk is no error: it answers with the break as it is."""

from __future__ import annotations

from typing import Any

from tests.rules.words import chain_at, pages

HEAP = 0x555555559000
"""Where the heap of a process without randomisation begins."""


def heap(machine: Any, process: Any) -> str:
    """The areas of the heap, in pages from its beginning."""
    areas = [area for area in machine.areas_of(process) if HEAP <= area.start < HEAP + pages(1 << 20)]
    return ", ".join(f"{(a.start - HEAP) // 4096}-{(a.end - HEAP) // 4096} {a.perms}" for a in areas)


def test_the_heap_starts_empty_and_grows_as_one_area(machine: Any) -> None:
    p = machine.spawn()
    assert p.brk(0) == HEAP
    assert heap(machine, p) == ""
    assert p.brk(HEAP + pages(2)) == HEAP + pages(2)
    p.write(HEAP, pages(2))
    assert p.brk(HEAP + pages(5)) == HEAP + pages(5)
    assert heap(machine, p) == "0-5 rw-p"


def test_the_break_need_not_be_aligned(machine: Any) -> None:
    p = machine.spawn()
    assert p.brk(HEAP + 1) == HEAP + 1
    assert heap(machine, p) == "0-1 rw-p"
    assert p.brk(HEAP + 4096) == HEAP + 4096
    assert heap(machine, p) == "0-1 rw-p"
    assert p.brk(HEAP + 4097) == HEAP + 4097
    assert heap(machine, p) == "0-2 rw-p"


def test_shrinking_gives_pages_back(machine: Any) -> None:
    p = machine.spawn()
    p.brk(HEAP + pages(4))
    p.write(HEAP, pages(4))
    assert p.brk(HEAP + pages(1)) == HEAP + pages(1)
    assert heap(machine, p) == "0-1 rw-p"
    assert machine.pfn(p, HEAP + pages(1)) is None
    assert p.brk(HEAP) == HEAP
    assert heap(machine, p) == ""


def test_3_9_after_fork_the_childs_growth_is_a_second_area(machine: Any) -> None:
    p = machine.spawn()
    p.brk(HEAP + pages(2))
    p.write(HEAP, pages(2))
    c = p.fork()
    assert c.brk(HEAP + pages(4)) == HEAP + pages(4)
    assert p.brk(HEAP + pages(4)) == HEAP + pages(4)
    assert heap(machine, c) == "0-2 rw-p, 2-4 rw-p"
    assert heap(machine, p) == "0-4 rw-p"
    c.write(HEAP, pages(4))
    assert (chain_at(c, HEAP), chain_at(c, HEAP + pages(2))) == ("[A1] A0", "[A2]")
    assert c.brk(HEAP + pages(1)) == HEAP + pages(1)
    assert heap(machine, c) == "0-1 rw-p"


def test_an_unfaulted_heap_grows_as_one_after_fork(machine: Any) -> None:
    p = machine.spawn()
    p.brk(HEAP + pages(2))
    c = p.fork()
    c.brk(HEAP + pages(4))
    assert heap(machine, c) == "0-4 rw-p"


def test_a_refused_brk_answers_with_the_old_break(machine: Any) -> None:
    p = machine.spawn()
    p.brk(HEAP + pages(2))
    assert p.brk(HEAP - pages(1)) == HEAP + pages(2)  # below the start
    p.mmap(pages(1), addr=HEAP + pages(1000), noreplace=True)
    assert p.brk(HEAP + pages(1001)) == HEAP + pages(2)  # into another area
    assert p.brk(HEAP + pages(1000)) == HEAP + pages(2)  # right up to it: a gap is kept
    assert heap(machine, p) == "0-2 rw-p, 1000-1001 rw-p"


def test_a_gap_of_a_page_is_kept_above_the_heap(machine: Any) -> None:
    """The break may come as near as one page to the next area; growth into the last page is refused."""
    p = machine.spawn()
    p.mmap(pages(1), addr=HEAP + pages(10), noreplace=True)
    assert p.brk(HEAP + pages(9)) == HEAP + pages(9)
    assert p.brk(HEAP + pages(10)) == HEAP + pages(9)
    assert heap(machine, p) == "0-9 rw-p, 10-11 rw-p"
