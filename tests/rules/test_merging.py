"""What merges with what: rules 3.1 to 3.5 and 3.8. The layout, and who hangs on which anon_vma afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from rmap import Kernel
from tests.rules.words import (
    PAGE,
    anchor,
    at,
    chain,
    counters,
    layout,
    mapped,
    pages,
    present,
    shared,
    write,
    written,
)


def divided(p: Any, first: int, middle: int, end: int) -> None:
    """Two unfaulted areas side by side, the second with execute permission, so that they do not merge."""
    mapped(p, first, middle)
    mapped(p, middle, end, "rwx")


# -- rules 3.1 and 3.2: what must be equal


def test_3_1_two_opens_of_one_file_do_not_merge(any_k: Kernel) -> None:
    p = any_k.spawn()
    one, two = any_k.open("lib", 8 * PAGE), any_k.open("lib")
    mapped(p, 0, 1, file=one)
    mapped(p, 1, 2, file=one, offset=PAGE)
    mapped(p, 2, 3, file=two, offset=2 * PAGE)
    assert layout(p) == "0-2 rw-p lib+0, 2-3 rw-p lib+2"


def test_3_1_flags_must_be_equal(any_k: Kernel) -> None:
    p = any_k.spawn()
    mapped(p, 0, 1)
    mapped(p, 1, 2, "rwx")
    mapped(p, 2, 3, noreserve=True)
    mapped(p, 3, 4, "rw", "shared")
    assert layout(p) == "0-1 rw-p, 1-2 rwxp, 2-3 rw-p, 3-4 rw-s shared memory+0"


def test_3_1_an_area_that_could_once_be_written_differs_from_one_that_never_could(machine: Any) -> None:
    """Both are read-only now, but only one has memory set aside for it (VM_ACCOUNT), which maps does not show."""
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    p.mprotect(at(10), pages(2), "r")
    assert layout(p) == "10-12 r--p, 12-14 r--p"


def test_3_1_an_unfaulted_area_gives_that_memory_back(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    p.mprotect(at(10), pages(2), "r")
    assert layout(p) == "10-14 r--p"


def test_3_2_page_offsets_must_continue(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 1)
    written(p, 10, 11)
    p.mremap(at(10), PAGE, PAGE, at(1))
    assert layout(p) == "0-1 rw-p, 1-2 rw-p"
    lib = any_k.open("lib", 8 * PAGE)
    mapped(p, 4, 5, file=lib)
    mapped(p, 5, 6, file=lib, offset=3 * PAGE)
    assert layout(p).endswith("4-5 rw-p lib+0, 5-6 rw-p lib+3")


def test_two_windows_of_one_open_merge_if_their_offsets_follow(machine: Any) -> None:
    f = machine.open("data", size=pages(8))
    p = machine.spawn()
    mapped(p, 10, 12, file=f, offset=0, flags="shared")
    mapped(p, 12, 14, file=f, offset=pages(2), flags="shared")
    assert layout(p) == "10-14 rw-s data+0"
    mapped(p, 14, 16, file=f, offset=pages(5), flags="shared")
    assert layout(p) == "10-14 rw-s data+0, 14-16 rw-s data+5"


def test_private_windows_follow_the_anon_vma_rule_too(machine: Any) -> None:
    f = machine.open("data", size=pages(8))
    p = machine.spawn()
    written(p, 10, 12, file=f, offset=0)
    written(p, 14, 16, file=f, offset=pages(4))
    mapped(p, 12, 14, file=f, offset=pages(2))
    assert layout(p) == "10-14 rw-p data+0, 14-16 rw-p data+4"


# -- rule 3.3: unfaulted beside faulted


def test_3_3a_a_faulted_range_joins_an_unfaulted_neighbour(machine: Any) -> None:
    p = machine.spawn()
    divided(p, 0, 1, 2)
    write(p, 1)
    p.mprotect(at(1), PAGE, "rw")
    assert layout(p) == "0-2 rw-p"
    assert (chain(p, 0), anchor(machine, p, 1)[0]) == ("[A0]", "A0")
    assert counters(machine, "A0") == (1, 1, 1)


def test_3_3a_a_faulted_area_changed_to_fit_an_unfaulted_neighbour_merges(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="rwx")
    p.mprotect(at(10), pages(2), "rwx")
    assert layout(p) == "10-14 rwxp"


def test_3_3a_but_not_if_it_came_through_fork(machine: Any) -> None:
    p = machine.spawn()
    divided(p, 0, 1, 2)
    write(p, 1)
    c = p.fork()
    c.mprotect(at(1), PAGE, "rw")
    assert layout(c) == "0-1 rw-p, 1-2 rw-p"
    assert (chain(c, 0), chain(c, 1)) == ("none", "[A1] A0")
    p.mprotect(at(1), PAGE, "rw")  # the parent's chain is single still
    assert layout(p) == "0-2 rw-p"


def test_3_3a_not_if_it_came_through_fork(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="rwx")
    c = p.fork()
    c.mprotect(at(10), pages(2), "rwx")
    assert layout(c) == "10-12 rwxp, 12-14 rwxp"
    p.mprotect(at(10), pages(2), "rwx")  # the parent has a single link, and merges freely after fork
    assert layout(p) == "10-14 rwxp"
    assert shared(machine, (p, 10), (c, 10))


def test_3_3b_an_unfaulted_area_changed_to_fit_a_faulted_neighbour_merges(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    p.mprotect(at(12), pages(2), "rw")
    assert (layout(p), chain(p, 13)) == ("10-14 rw-p", "[A0]")


def test_3_3b_not_if_the_neighbour_came_through_fork(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    c = p.fork()
    c.mprotect(at(12), pages(2), "rw")
    assert layout(c) == "10-12 rw-p, 12-14 rw-p"
    assert (chain(c, 10), chain(c, 12)) == ("[A1] A0", "none")
    p.mprotect(at(12), pages(2), "rw")
    assert layout(p) == "10-14 rw-p"


def test_3_3c_two_faulted_areas_of_one_family_merge(machine: Any) -> None:
    """Neighbours that differ in permissions only share an anon_vma (rule 2.3), so they merge once these are equal."""
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 12, 14, prot="rwx")
    assert layout(p) == "10-12 rw-p, 12-14 rwxp"
    p.mprotect(at(12), pages(2), "rw")
    assert layout(p) == "10-14 rw-p"


def test_3_3c_equal_anon_vmas_merge_however_long_the_chain(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    c = p.fork().fork()
    c.mprotect(at(1), PAGE, "r")
    assert layout(c) == "0-1 rw-p, 1-2 r--p"
    c.mprotect(at(1), PAGE, "rw")
    assert (layout(c), chain(c, 0)) == ("0-2 rw-p", "[A2] A1 A0")
    assert counters(machine, "A2") == (0, 1, 1)


def test_3_3c_two_faulted_areas_of_two_families_do_not(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14)
    assert layout(p) == "10-14 rw-p"
    p.munmap(at(12), pages(2))
    written(p, 13, 15)  # not adjacent when first written: a family of its own
    mapped(p, 12, 13)
    assert layout(p) == "10-13 rw-p, 13-15 rw-p"


def test_3_3c_different_anon_vmas_do_not(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    mapped(p, 1, 2)
    assert layout(p) == "0-2 rw-p"
    p.munmap(at(1), PAGE)
    written(p, 2, 3)
    mapped(p, 1, 2, "rwx")
    p.madvise(at(1), PAGE, "dontfork")
    write(p, 1)
    assert [chain(p, page) for page in range(3)] == ["[A0]", "[A2]", "[A1]"]
    p.madvise(at(1), PAGE, "dofork")
    p.mprotect(at(1), PAGE, "rw")
    assert layout(p) == "0-1 rw-p, 1-2 rw-p, 2-3 rw-p"


def test_3_3c_a_child_does_not_lend_its_inherited_family(machine: Any) -> None:
    """Rule 2.3: an area that came through fork is never a donor, so the new one starts a family."""
    p = machine.spawn()
    written(p, 10, 12)
    c = p.fork()
    written(c, 12, 14, prot="rwx")
    c.mprotect(at(12), pages(2), "rw")
    assert layout(c) == "10-12 rw-p, 12-14 rw-p"


def test_3_3_pte_chains_merge_all_that_is_alike() -> None:
    k = Kernel("pte_chain", nr_pages=256, nr_tables=16)
    p = k.spawn()
    divided(p, 0, 1, 2)
    write(p, 0)
    c = p.fork()
    c.mprotect(at(1), PAGE, "rw")
    assert layout(c) == "0-2 rw-p"
    k.check()


# -- rules 3.4 and 3.5: three at once


def test_3_4_between_two_families_the_left_wins(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 14, 16)
    mapped(p, 12, 14)
    assert layout(p) == "10-14 rw-p, 14-16 rw-p"
    assert (chain(p, 12), chain(p, 14)) == ("[A0]", "[A1]")
    write(p, 13)
    assert anchor(machine, p, 13)[0] == "A0"


@pytest.mark.parametrize("faulted", ["neither", "left", "right"])
def test_3_4_a_gap_joins_both_sides_if_at_most_one_is_faulted(machine: Any, faulted: str) -> None:
    p = machine.spawn()
    (written if faulted == "left" else mapped)(p, 10, 12)
    (written if faulted == "right" else mapped)(p, 14, 16)
    mapped(p, 12, 14)
    assert layout(p) == "10-16 rw-p"
    assert chain(p, 10) == ("none" if faulted == "neither" else "[A0]")
    assert present(machine, p, 10, 16) == {"neither": "......", "left": "xx....", "right": "....xx"}[faulted]


def test_3_5_an_unfaulted_survivor_takes_the_family_over(machine: Any) -> None:
    """The left, unfaulted area survives the merge; moved on, it keeps the index of the pages it took in."""
    p = machine.spawn()
    mapped(p, 10, 12)
    written(p, 14, 16)
    frame = machine.pfn(p, at(15))
    mapped(p, 12, 14)
    assert layout(p) == "10-16 rw-p"
    assert counters(machine, "A0") == (1, 1, 1)
    assert (machine.pfn(p, at(15)), anchor(machine, p, 15)) == (frame, ("A0", at(15) // PAGE))
    c = p.fork()
    mapped(p, 36, 38)
    p.mremap(at(10), pages(6), pages(6), at(30))
    assert layout(p) == "30-36 rw-p, 36-38 rw-p"
    assert shared(machine, (p, 34), (c, 14))


# -- rule 3.8: mmap in a child


def test_3_8_a_child_maps_beside_an_inherited_area_and_gets_its_own(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    c = p.fork()
    mapped(c, 12, 14)
    mapped(p, 12, 14)
    assert layout(c) == "10-12 rw-p, 12-14 rw-p"
    assert layout(p) == "10-14 rw-p"
    c.write(at(12), pages(2))
    assert layout(c) == "10-12 rw-p, 12-14 rw-p"
    assert (chain(c, 10), chain(c, 12)) == ("[A1] A0", "[A2]")
    assert shared(machine, (c, 12))


def test_3_8_beside_an_inherited_unfaulted_area_it_merges(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 12)
    c = p.fork()
    mapped(c, 12, 14)
    assert layout(c) == "10-14 rw-p"
