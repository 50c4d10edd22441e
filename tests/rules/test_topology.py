"""Who hangs on which anon_vma: rules 2.1 to 2.9."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.words import (
    anchor,
    area,
    chain,
    counters,
    kernel_of,
    layout,
    living,
    mapped,
    present,
    read,
    write,
    written,
)
from tests.support.small import small_kernel


def line_of_five(machine: Any) -> Any:
    """Rule 2.5a: P, C, G, K, L forked in a line; C, G and K die; L forks M, which is returned."""
    line = [machine.spawn()]
    written(line[0], 0, 1)
    for _ in range(4):
        line.append(line[-1].fork())
    assert chain(line[4], 0) == "[A4] A3 A2 A1 A0" or not kernel_of(machine).core.profile.root_is_last
    for dead in line[1:4]:
        dead.exit()
    return line[4].fork()


def test_2_5a_the_candidate_nearest_the_root_is_taken_up_again(machine: Any) -> None:
    m = line_of_five(machine)
    assert chain(m, 0) == "A4 A3 A2 [A1] A0"
    assert living(machine) == ["A0", "A1", "A2", "A3", "A4"]


def test_2_5a_linux_7_0_takes_up_another() -> None:
    k = small_kernel(profile="7.0")
    m = line_of_five(k)
    assert "[A2]" in chain(m, 0)
    k.check()


def test_0_3_linux_7_0_reverses_the_chain_at_each_clone() -> None:
    k = small_kernel(profile="7.0")
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork()
    g = c.fork()
    assert (chain(c, 0), chain(g, 0)) == ("[A1] A0", "[A2] A0 A1")
    c.mprotect(area(c, 0).start, 4096, "r")
    assert (chain(c, 0), chain(c, 1)) == ("[A1] A0", "A0 [A1]")  # the upper half is the new VMA
    k.check()


def test_2_7_fork_write_and_exit_step_by_step(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 3)
    assert (chain(p, 0), counters(machine, "A0")) == ("[A0]", (1, 1, 1))

    c = p.fork()
    assert chain(c, 0) == "[A1] A0"
    assert counters(machine, "A0") == (2, 1, 2)
    assert counters(machine, "A1") == (0, 1, 1)

    g = c.fork()
    assert chain(g, 0) == "[A2] A1 A0"
    assert counters(machine, "A1") == (1, 1, 1)
    assert counters(machine, "A0") == (2, 1, 3)

    c.exit()  # A1 stays: G's VMA is in its tree
    assert counters(machine, "A1") == (1, 0, 1)

    h = g.fork()  # takes up A1 and makes nothing
    assert chain(h, 0) == "A2 [A1] A0"
    assert counters(machine, "A1") == (1, 1, 1)
    assert living(machine) == ["A0", "A1", "A2"]

    write(h, 1)
    assert anchor(machine, h, 1)[0] == "A1"
    g.exit()
    # A2 has no child and no VMA of its own now, and still H in its tree.
    assert counters(machine, "A2") == (0, 0, 1)


def test_2_7_a_line_of_fork_and_exit_does_not_grow(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    last, active = p.fork(), []
    last = _next_generation(last)
    for _ in range(5):
        last = _next_generation(last)
        active.append(area(last, 0).anon.name)
    assert living(machine) == ["A0", "A1", "A2"]
    assert active == ["A1", "A2", "A1", "A2", "A1"]


def _next_generation(last: Any) -> Any:
    child = last.fork()
    last.exit()
    return child


def test_2_5_an_ancestor_with_two_children_is_not_taken_up(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    c = p.fork()
    g, _sibling = c.fork(), c.fork()
    c.exit()
    assert counters(machine, "A1") == (2, 0, 1)
    h = g.fork()
    assert chain(h, 0) == "[A4] A2 A1 A0"


def test_2_6_the_childs_anon_vma_is_made_at_fork_and_its_parent_is_the_active_one(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    c = p.fork()
    g = c.fork()
    c.exit()
    h = g.fork()  # its active anon_vma is A1, older than A2
    i = h.fork()
    assert chain(i, 0) == "[A3] A2 A1 A0"
    assert area(i, 0).anon.parent is area(h, 0).anon


def test_2_1_and_2_20_an_unfaulted_vma_stays_unfaulted_and_families_do_not_meet(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 0, 1)
    c = p.fork()
    assert (chain(p, 0), chain(c, 0)) == ("none", "none")
    write(p, 0)
    write(c, 0)
    assert (chain(p, 0), chain(c, 0)) == ("[A0]", "[A1]")
    assert area(p, 0).anon.root is not area(c, 0).anon.root


def test_2_2_reading_does_not_prepare(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 0, 2)
    read(p, 0, 2)
    assert (chain(p, 0), present(machine, p, 0, 2)) == ("none", "00")
    write(p, 1)
    assert chain(p, 0) == "[A0]"


def test_2_2_a_private_file_mapping_is_prepared_by_its_first_copy(machine: Any) -> None:
    p = machine.spawn()
    file = machine.open("lib", 4 * 4096)
    mapped(p, 0, 2, file=file)
    read(p, 0, 2)
    assert chain(p, 0) == "none"
    write(p, 1)
    assert chain(p, 0) == "[A0]"


def test_2_2_shared_mappings_are_never_prepared(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2, "rw", "shared")
    written(p, 4, 6, "rw", "shared", file=machine.open("lib", 4 * 4096))
    assert living(machine) == []


def test_2_3_neighbours_that_differ_in_permissions_share_an_anon_vma(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1, "rw")
    written(p, 1, 2, "rwx")
    assert layout(p) == "0-1 rw-p, 1-2 rwxp"
    assert (chain(p, 0), chain(p, 1)) == ("[A0]", "[A0]")
    assert counters(machine, "A0") == (1, 2, 1)


def test_2_3_neighbours_that_differ_in_other_flags_do_not(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    mapped(p, 1, 2, "rwx")
    p.madvise(area(p, 1).start, 4096, "dontfork")
    write(p, 1)
    assert (chain(p, 0), chain(p, 1)) == ("[A0]", "[A1]")


def test_2_3_the_next_vma_is_asked_before_the_previous_one(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    written(p, 2, 3)
    written(p, 1, 2, "rwx")
    assert (chain(p, 0), chain(p, 1), chain(p, 2)) == ("[A0]", "[A1]", "[A1]")


def test_2_3_nothing_inherited_is_lent(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    c = p.fork()
    written(c, 1, 2)
    assert layout(c) == "0-1 rw-p, 1-2 rw-p"
    assert (chain(c, 0), chain(c, 1)) == ("[A1] A0", "[A2]")
    written(p, 1, 2, "rwx")  # the parent's chain is single still
    assert chain(p, 1) == "[A0]"


@pytest.mark.parametrize("page", [0, 1, 2])
def test_2_4_all_parts_of_a_split_have_the_same_chain(machine: Any, page: int) -> None:
    p = machine.spawn()
    written(p, 0, 3)
    c = p.fork()
    c.mprotect(area(c, 0).start + page * 4096, 4096, "r")
    parts = len(c.maps())
    assert parts == (3 if page == 1 else 2)
    assert {chain(c, part) for part in range(3)} == {"[A1] A0"}
    assert counters(machine, "A1") == (0, parts, 1)


def test_2_8_the_last_vma_of_a_family_takes_all_of_it_along(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    c = p.fork()
    g = c.fork()
    p.exit()
    assert living(machine) == ["A0", "A1", "A2"]  # the root lives as long as a VMA is in its tree
    c.exit()
    assert living(machine) == ["A0", "A1", "A2"]
    g.exit()
    assert living(machine) == []


def test_2_8_an_anon_vma_whose_tree_is_empty_is_freed_at_once(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    c = p.fork()
    c.exit()
    assert living(machine) == ["A0"]
    assert counters(machine, "A0") == (1, 1, 1)


def test_2_9_the_root_is_held_by_its_whole_family(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 1)
    family = [p]
    for _ in range(4):
        family.append(family[-1].fork())
    assert counters(machine, "A0") == (2, 1, 5)
    assert all(counters(machine, f"A{n}") == (1 if n < 4 else 0, 1, 1) for n in range(1, 5))
