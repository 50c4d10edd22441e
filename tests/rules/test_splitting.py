"""A part of an area is changed, and changed back: rules 3.10 to 3.12; what of it fork leaves out: rule 2.20."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rmap import Kernel
from tests.rules.words import (
    PAGE,
    area,
    at,
    chain,
    layout,
    living,
    mapped,
    model_of,
    pages,
    present,
    shared,
    written,
)

Call = Callable[[Any, int, int], None]

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
    assert layout(p) == f"10-12 rw-p, 12-14 {meanwhile}, 14-16 rw-p"
    undo(p, at(12), pages(2))
    assert layout(p) == "10-16 rw-p"


def test_3_10_the_middle_splits_and_merges_back(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 3)
    p.mprotect(at(1), PAGE, "r")
    assert layout(p) == "0-1 rw-p, 1-2 r--p, 2-3 rw-p"
    k.check()
    p.mprotect(at(1), PAGE, "rw")
    assert layout(p) == "0-3 rw-p"


@pytest.mark.parametrize("who", ["parent", "child"])
def test_3_10_a_neighbour_extends_into_the_middle(machine: Any, who: str) -> None:
    p = machine.spawn()
    written(p, 10, 16)
    if who == "child":
        p = p.fork()
    p.mprotect(at(12), pages(4), "r")
    p.mprotect(at(12), pages(2), "rw")
    assert layout(p) == "10-14 rw-p, 14-16 r--p"
    p.mprotect(at(13), pages(1), "r")
    assert layout(p) == "10-13 rw-p, 13-16 r--p"
    p.mprotect(at(10), pages(3), "r")
    assert layout(p) == "10-16 r--p"
    assert present(machine, p, 10, 16) == "xxxxxx"


def test_3_10_an_unfaulted_neighbour_extends_into_a_faulted_area(machine: Any) -> None:
    """Part of the faulted area changes hands: the neighbour becomes faulted with it, and keeps that index."""
    p = machine.spawn()
    mapped(p, 10, 12, prot="rwx")
    written(p, 12, 16)
    p.mprotect(at(12), pages(2), "rwx")
    assert layout(p) == "10-14 rwxp, 14-16 rw-p"
    mapped(p, 34, 36, prot="rwx")
    p.mremap(at(10), pages(4), pages(4), at(30))
    assert layout(p) == "14-16 rw-p, 30-34 rwxp, 34-36 rwxp"
    assert present(machine, p, 30, 34) == "..xx"


def test_3_10_a_part_joins_the_neighbour_it_has_become_like(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 4)
    p.mprotect(at(0), 2 * PAGE, "r")
    assert layout(p) == "0-2 r--p, 2-4 rw-p"
    p.mprotect(at(2), PAGE, "r")  # the left one grows
    assert layout(p) == "0-3 r--p, 3-4 rw-p"
    any_k.check()
    p.mprotect(at(1), 2 * PAGE, "rw")  # the right one grows
    assert layout(p) == "0-1 r--p, 1-4 rw-p"
    any_k.check()
    p.mprotect(at(1), 3 * PAGE, "r")  # the left one takes all
    assert layout(p) == "0-4 r--p"
    any_k.check()


def test_3_10_an_area_between_two_like_it_joins_both(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 6)
    p.mprotect(at(2), 2 * PAGE, "r")
    p.madvise(at(2), 2 * PAGE, "dontfork")
    p.mprotect(at(2), 2 * PAGE, "rw")
    assert len(p.maps()) == 3
    p.madvise(at(2), 2 * PAGE, "dofork")
    assert layout(p) == "0-6 rw-p"


def test_3_10_one_call_over_several_areas(any_k: Kernel) -> None:
    p = any_k.spawn()
    for page in range(0, 6, 2):
        written(p, page, page + 1)
        written(p, page + 1, page + 2, "r" if page == 2 else "rwx") if page != 2 else mapped(p, 3, 4, "r")
    p.mprotect(at(1), 4 * PAGE, "rw")
    any_k.check()
    # Beside each other, with equal flags; what is left apart has different anon_vmas.
    assert {row.prot for row in p.maps()} == {"rw-p", "rwxp"}


def test_3_12_locking_splits_and_unlocking_merges(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 3)
    p.mlock(at(1), PAGE)
    assert len(p.maps()) == 3
    p.mlock(at(1), PAGE, onfault=True)  # another flag, the same places
    assert len(p.maps()) == 3
    p.munlock(at(0), 3 * PAGE)
    assert layout(p) == "0-3 rw-p"


def test_3_12_mlock_splits_populates_and_munlock_merges(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 14)
    p.mlock(at(11), pages(2))
    assert layout(p) == "10-11 rw-p, 11-13 rw-p lo, 13-14 rw-p"
    assert present(machine, p, 10, 14) == ".xx."
    p.munlock(at(10), pages(4))
    assert layout(p) == "10-14 rw-p"


def test_3_12_fork_unlocks(machine: Any) -> None:
    """Rule 2.20, and what follows: in the child the three pieces stay apart until something changes them."""
    p = machine.spawn()
    written(p, 10, 14)
    p.mlock(at(11), pages(2))
    c = p.fork()
    assert layout(p) == "10-11 rw-p, 11-13 rw-p lo, 13-14 rw-p"
    assert layout(c) == "10-11 rw-p, 11-13 rw-p, 13-14 rw-p"
    assert shared(machine, (p, 12), (c, 12))


# -- rule 3.11: families that can never be one again


def test_3_11_pieces_faulted_while_they_differed_never_merge(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 14)
    p.madvise(at(12), pages(2), "dontfork")
    p.write(at(10), pages(4))
    assert (chain(p, 10), chain(p, 12)) == ("[A0]", "[A1]")
    p.madvise(at(12), pages(2), "dofork")
    assert layout(p) == "10-12 rw-p, 12-14 rw-p"
    assert area(p, 10).flags == area(p, 12).flags


def test_3_11_pieces_that_differed_but_were_not_faulted_merge(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 14)
    p.madvise(at(12), pages(2), "dontfork")
    p.write(at(10), pages(2))
    p.madvise(at(12), pages(2), "dofork")
    assert layout(p) == "10-14 rw-p"


def test_3_11_an_unfaulted_gap_joins_the_left_family(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 10, 16)
    p.madvise(at(12), pages(2), "dontfork")
    p.write(at(10), pages(2))
    p.write(at(14), pages(2))
    p.madvise(at(12), pages(2), "dofork")
    assert layout(p) == "10-14 rw-p, 14-16 rw-p"


# -- rule 2.20: what a child gets


def test_a_child_has_no_dontfork_area_and_an_empty_wipeonfork_one(machine: Any) -> None:
    p = machine.spawn()
    written(p, 10, 16)
    p.madvise(at(10), pages(2), "dontfork")
    p.madvise(at(14), pages(2), "wipeonfork")
    c = p.fork()
    assert layout(c) == "12-14 rw-p, 14-16 rw-p wf"
    assert present(machine, c, 10, 16) == "..xx.."


def test_2_20_what_fork_leaves_out(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    written(p, 2, 3)
    written(p, 4, 5)
    p.madvise(at(2), PAGE, "dontfork")
    p.madvise(at(4), PAGE, "wipeonfork")
    p.mlock(at(0), PAGE)
    c = p.fork()
    assert layout(c) == "0-1 rw-p, 4-5 rw-p wf"
    assert (chain(c, 0), chain(c, 4)) == ("[A3] A0", "none")
    assert area(c, 4).pgoff == at(4) >> 12
    assert machine.pfn(c, at(4)) is None
    assert (area(p, 0).flags & 0x2000, area(c, 0).flags & 0x2000, model_of(c).mm.locked_vm) == (0x2000, 0, 0)
    assert living(machine) == ["A0", "A1", "A2", "A3"]
