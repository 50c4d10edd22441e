"""Where mmap and mremap put things when not told, without randomisation: rule 3.13."""

from __future__ import annotations

from typing import Any

from tests.rules.words import PAGE, at, mapped, pages, written

MMAP_BASE = 0x7FFFF7FFF000
MIB = 1 << 20


def test_top_down_one_below_the_other(machine: Any) -> None:
    p = machine.spawn()
    first = p.mmap(pages(3))
    second = p.mmap(pages(2), prot="r")
    assert first == MMAP_BASE - pages(3)
    assert second == first - pages(2)


def test_the_highest_hole_that_is_large_enough_is_taken(machine: Any) -> None:
    p = machine.spawn()
    first = p.mmap(pages(10))
    p.munmap(first + pages(6), pages(2))
    p.munmap(first + pages(1), pages(3))
    assert p.mmap(pages(2), prot="r") == first + pages(6)
    assert p.mmap(pages(3), prot="r") == first + pages(1)
    assert p.mmap(pages(1), prot="r") == first - pages(1)


def test_anonymous_lengths_of_whole_huge_pages_are_aligned(machine: Any) -> None:
    p = machine.spawn()
    assert p.mmap(pages(1)) == MMAP_BASE - PAGE
    assert p.mmap(2 * MIB) == 0x7FFFF7C00000
    assert p.mmap(4 * MIB) == 0x7FFFF7800000
    assert p.mmap(2 * MIB + PAGE) % (2 * MIB) != 0


def test_an_unaligned_hole_is_used_when_huge_alignment_does_not_matter(machine: Any) -> None:
    p = machine.spawn()
    p.mmap(pages(1), prot="r")
    big = p.mmap(2 * MIB)
    assert p.mmap(pages(1), prot="r") > big  # the hole that the alignment left


def test_files_and_shared_memory_stand_in_the_same_row(machine: Any) -> None:
    """Small ones; whether a large file is aligned to 2 MiB is up to its file system."""
    f = machine.open("lib", size=pages(8))
    p = machine.spawn()
    assert p.mmap(pages(3), file=f, prot="r") == MMAP_BASE - pages(3)
    assert p.mmap(pages(2), flags="shared") == MMAP_BASE - pages(5)
    assert p.mmap(pages(8), file=f, flags="shared") == MMAP_BASE - pages(13)


def test_a_move_without_an_address(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 13, prot="r")
    assert p.mremap(at(10), pages(2), pages(4)) == MMAP_BASE - pages(4)
    assert p.mremap(at(12), pages(1), pages(1), dontunmap=True) == MMAP_BASE - pages(5)


def test_an_area_that_grows_down_keeps_its_distance(machine: Any) -> None:
    """Below a VM_GROWSDOWN area a guard gap is left free."""
    p = machine.spawn()
    stack = p.mmap(pages(2), growsdown=True)
    p.mmap(pages(1), prot="r")
    assert stack == MMAP_BASE - pages(2)
