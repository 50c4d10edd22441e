"""What merges with what: rules 3.3 to 3.5, 3.8, 3.10 to 3.12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.rules.words import at, layout, mapped, pages, present, shared, written

Call = Callable[[Any, int, int], None]

# -- rule 3.3: unfaulted beside faulted


def test_3_3a_a_faulted_area_changed_to_fit_an_unfaulted_neighbour_merges(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="rwx")
    p.mprotect(at(10), pages(2), "rwx")
    assert layout(machine, p) == "10-14 rwxp"


def test_3_3a_not_if_it_came_through_fork(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="rwx")
    c = p.fork()
    c.mprotect(at(10), pages(2), "rwx")
    assert layout(machine, c) == "10-12 rwxp, 12-14 rwxp"
    p.mprotect(at(10), pages(2), "rwx")  # the parent has a single link, and merges freely after fork
    assert layout(machine, p) == "10-14 rwxp"
    assert shared(machine, (p, 10), (c, 10))


def test_3_3b_an_unfaulted_area_changed_to_fit_a_faulted_neighbour_merges(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    p.mprotect(at(12), pages(2), "rw")
    assert layout(machine, p) == "10-14 rw-p"


def test_3_3b_not_if_the_neighbour_came_through_fork(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    c = p.fork()
    c.mprotect(at(12), pages(2), "rw")
    assert layout(machine, c) == "10-12 rw-p, 12-14 rw-p"
    p.mprotect(at(12), pages(2), "rw")
    assert layout(machine, p) == "10-14 rw-p"


def test_3_3c_two_faulted_areas_of_one_family_merge(machine: Any) -> None:
    """Neighbours that differ in permissions only share an anon_vma (rule 2.3), so they merge once these are equal."""
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 12, 14, prot="rwx")
    assert layout(machine, p) == "10-12 rw-p, 12-14 rwxp"
    p.mprotect(at(12), pages(2), "rw")
    assert layout(machine, p) == "10-14 rw-p"


def test_3_3c_two_faulted_areas_of_two_families_do_not(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14)
    assert layout(machine, p) == "10-14 rw-p"
    p.munmap(at(12), pages(2))
    written(p, 13, 15)  # not adjacent when first written: a family of its own
    mapped(p, 12, 13)
    assert layout(machine, p) == "10-13 rw-p, 13-15 rw-p"


def test_3_3c_a_child_does_not_lend_its_inherited_family(machine: Any) -> None:
    """Rule 2.3: an area that came through fork is never a donor, so the new one starts a family."""
    p = machine.spawn()
    written(p, 10, 12)
    c = p.fork()
    written(c, 12, 14, prot="rwx")
    c.mprotect(at(12), pages(2), "rw")
    assert layout(machine, c) == "10-12 rw-p, 12-14 rw-p"


# -- rules 3.4 and 3.5: three at once


def test_3_4_between_two_families_the_left_wins(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    written(p, 14, 16)
    mapped(p, 12, 14)
    assert layout(machine, p) == "10-14 rw-p, 14-16 rw-p"


@pytest.mark.parametrize("faulted", ["neither", "left", "right"])
def test_3_4_a_gap_joins_both_sides_if_at_most_one_is_faulted(machine: Any, faulted: str) -> None:
    p = machine.spawn()
    (written if faulted == "left" else mapped)(p, 10, 12)
    (written if faulted == "right" else mapped)(p, 14, 16)
    mapped(p, 12, 14)
    assert layout(machine, p) == "10-16 rw-p"
    assert present(machine, p, 10, 16) == {"neither": "......", "left": "xx....", "right": "....xx"}[faulted]


def test_3_5_an_unfaulted_survivor_takes_the_family_over(machine: Any) -> None:
    """The left, unfaulted area survives the merge; moved on, it keeps the index of the pages it took in."""
    p = machine.spawn()
    mapped(p, 10, 12)
    written(p, 14, 16)
    mapped(p, 12, 14)
    assert layout(machine, p) == "10-16 rw-p"
    c = p.fork()
    mapped(p, 36, 38)
    p.mremap(at(10), pages(6), pages(6), at(30))
    assert layout(machine, p) == "30-36 rw-p, 36-38 rw-p"
    assert shared(machine, (p, 34), (c, 14))


# -- rule 3.8: mmap in a child


def test_3_8_a_child_maps_beside_an_inherited_area_and_gets_its_own(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 12)
    c = p.fork()
    mapped(c, 12, 14)
    mapped(p, 12, 14)
    assert layout(machine, c) == "10-12 rw-p, 12-14 rw-p"
    assert layout(machine, p) == "10-14 rw-p"
    c.write(at(12), pages(2))
    assert layout(machine, c) == "10-12 rw-p, 12-14 rw-p"
    assert shared(machine, (c, 12))


def test_3_8_beside_an_inherited_unfaulted_area_it_merges(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 12)
    c = p.fork()
    mapped(c, 12, 14)
    assert layout(machine, c) == "10-14 rw-p"


# -- rules 3.10 and 3.12: changing a part, and changing it back

CHANGES: dict[str, tuple[Call, str, Call]] = {
    "mprotect": (
        lambda p, a, n: p.mprotect(a, n, "r"),
        "r--p",
        lambda p, a, n: p.mprotect(a, n, "rw"),
    ),
    "dontfork": (
        lambda p, a, n: p.madvise(a, n, "dontfork"),
        "rw-p dc",
        lambda p, a, n: p.madvise(a, n, "dofork"),
    ),
    "wipeonfork": (
        lambda p, a, n: p.madvise(a, n, "wipeonfork"),
        "rw-p wf",
        lambda p, a, n: p.madvise(a, n, "keeponfork"),
    ),
    "mlock": (
        lambda p, a, n: p.mlock(a, n),
        "rw-p lo",
        lambda p, a, n: p.munlock(a, n),
    ),
}


@pytest.mark.parametrize("who", ["parent", "child"])
@pytest.mark.parametrize("change", CHANGES)
def test_3_10_a_split_pair_merges_again(machine: Any, change: str, who: str) -> None:
    apply, meanwhile, undo = CHANGES[change]
    p = machine.spawn()
    written(p, 10, 16)
    if who == "child":
        p = p.fork()
    apply(p, at(12), pages(2))
    assert layout(machine, p) == f"10-12 rw-p, 12-14 {meanwhile}, 14-16 rw-p"
    undo(p, at(12), pages(2))
    assert layout(machine, p) == "10-16 rw-p"


@pytest.mark.parametrize("who", ["parent", "child"])
def test_3_10_a_neighbour_extends_into_the_middle(machine: Any, who: str) -> None:
    p = machine.spawn()
    written(p, 10, 16)
    if who == "child":
        p = p.fork()
    p.mprotect(at(12), pages(4), "r")
    p.mprotect(at(12), pages(2), "rw")
    assert layout(machine, p) == "10-14 rw-p, 14-16 r--p"
    p.mprotect(at(13), pages(1), "r")
    assert layout(machine, p) == "10-13 rw-p, 13-16 r--p"
    p.mprotect(at(10), pages(3), "r")
    assert layout(machine, p) == "10-16 r--p"
    assert present(machine, p, 10, 16) == "xxxxxx"


def test_3_10_an_unfaulted_neighbour_extends_into_a_faulted_area(machine: Any) -> None:
    """Part of the faulted area changes hands: the neighbour becomes faulted with it, and keeps that index."""
    p = machine.spawn()
    mapped(p, 10, 12, prot="rwx")
    written(p, 12, 16)
    p.mprotect(at(12), pages(2), "rwx")
    assert layout(machine, p) == "10-14 rwxp, 14-16 rw-p"
    mapped(p, 34, 36, prot="rwx")
    p.mremap(at(10), pages(4), pages(4), at(30))
    assert layout(machine, p) == "14-16 rw-p, 30-34 rwxp, 34-36 rwxp"
    assert present(machine, p, 30, 34) == "..xx"


def test_3_12_mlock_splits_populates_and_munlock_merges(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 14)
    p.mlock(at(11), pages(2))
    assert layout(machine, p) == "10-11 rw-p, 11-13 rw-p lo, 13-14 rw-p"
    assert present(machine, p, 10, 14) == ".xx."
    p.munlock(at(10), pages(4))
    assert layout(machine, p) == "10-14 rw-p"


def test_3_12_fork_unlocks(machine: Any) -> None:
    """Rule 2.20, and what follows: in the child the three pieces stay apart until something changes them."""
    p = machine.spawn()
    written(p, 10, 14)
    p.mlock(at(11), pages(2))
    c = p.fork()
    assert layout(machine, p) == "10-11 rw-p, 11-13 rw-p lo, 13-14 rw-p"
    assert layout(machine, c) == "10-11 rw-p, 11-13 rw-p, 13-14 rw-p"
    assert shared(machine, (p, 12), (c, 12))


# -- rule 3.11: families that can never be one again


def test_3_11_pieces_faulted_while_they_differed_never_merge(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 14)
    p.madvise(at(12), pages(2), "dontfork")
    p.write(at(10), pages(4))
    p.madvise(at(12), pages(2), "dofork")
    assert layout(machine, p) == "10-12 rw-p, 12-14 rw-p"


def test_3_11_pieces_that_differed_but_were_not_faulted_merge(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 14)
    p.madvise(at(12), pages(2), "dontfork")
    p.write(at(10), pages(2))
    p.madvise(at(12), pages(2), "dofork")
    assert layout(machine, p) == "10-14 rw-p"


def test_3_11_an_unfaulted_gap_joins_the_left_family(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 16)
    p.madvise(at(12), pages(2), "dontfork")
    p.write(at(10), pages(2))
    p.write(at(14), pages(2))
    p.madvise(at(12), pages(2), "dofork")
    assert layout(machine, p) == "10-14 rw-p, 14-16 rw-p"


# -- rule 2.20: what a child gets


def test_a_child_has_no_dontfork_area_and_an_empty_wipeonfork_one(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 16)
    p.madvise(at(10), pages(2), "dontfork")
    p.madvise(at(14), pages(2), "wipeonfork")
    c = p.fork()
    assert layout(machine, c) == "12-14 rw-p, 14-16 rw-p wf"
    assert present(machine, c, 10, 16) == "..xx.."


# -- rule 3.1: what must be equal


def test_3_1_an_area_that_could_once_be_written_differs_from_one_that_never_could(machine: Any) -> None:
    """Both are read-only now, but only one has memory set aside for it (VM_ACCOUNT), which maps does not show."""
    p = machine.spawn()
    written(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    p.mprotect(at(10), pages(2), "r")
    assert layout(machine, p) == "10-12 r--p, 12-14 r--p"


def test_3_1_an_unfaulted_area_gives_that_memory_back(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 12)
    mapped(p, 12, 14, prot="r")
    p.mprotect(at(10), pages(2), "r")
    assert layout(machine, p) == "10-14 r--p"


# -- rules 3.1 and 3.2: files


def test_two_windows_of_one_open_merge_if_their_offsets_follow(machine: Any) -> None:
    f = machine.open("data", size=pages(8))
    p = machine.spawn()
    mapped(p, 10, 12, file=f, offset=0, flags="shared")
    mapped(p, 12, 14, file=f, offset=pages(2), flags="shared")
    assert layout(machine, p) == "10-14 rw-s data+0"
    mapped(p, 14, 16, file=f, offset=pages(5), flags="shared")
    assert layout(machine, p) == "10-14 rw-s data+0, 14-16 rw-s data+5"


def test_private_windows_follow_the_anon_vma_rule_too(machine: Any) -> None:
    f = machine.open("data", size=pages(8))
    p = machine.spawn()
    written(p, 10, 12, file=f, offset=0)
    written(p, 14, 16, file=f, offset=pages(4))
    mapped(p, 12, 14, file=f, offset=pages(2))
    assert layout(machine, p) == "10-14 rw-p data+0, 14-16 rw-p data+4"
