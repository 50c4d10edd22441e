"""Interval trees as node lists: sound ones, each way to be broken; the descent against brute force."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rmap.snapshot.rules.findings import Violation
from rmap.structs.anon_vmas import KernelAnonVmas, KernelLinks, KernelVmas, Topology
from rmap.structs.page import TreeNodes
from rmap.structs.trees import Trees, inspect_trees, join
from rmap.structs.walk import descend, meets, vma_address
from tests.support import PAGE

MM = 0x500
SHARED_MAYWRITE = 0x28


def column(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


def tree(intervals: list[tuple[int, int]], base: int = 0x1000, flags: int = 0, writable: int = 0) -> TreeNodes:
    """A balanced tree of intervals (first, last), sorted; node i is ``base + i``, its VMA ``10 * base + i``."""
    rows: list[dict[str, int]] = []

    def build(low: int, high: int) -> tuple[int, int]:
        """The node over some of them, and the last index below it."""
        if low >= high:
            return 0, -1
        middle = (low + high) // 2
        first, last = intervals[middle]
        row: dict[str, int] = {"node": base + middle, "vma": 10 * base + middle, "pgoff": first, "flags": flags}
        rows.append(row)
        row["left"], left_end = build(low, middle)
        row["right"], right_end = build(middle + 1, high)
        start = (base + middle) << 24
        row.update(
            start=start,
            end=start + (last - first + 1) * PAGE,
            mm=MM,
            mm_users=1,
            subtree_last=max(last, left_end, right_end),
        )
        return row["node"], row["subtree_last"]

    build(0, len(intervals))
    names = ("node", "left", "right", "subtree_last", "vma", "start", "end", "pgoff", "mm", "flags", "mm_users")
    columns = {name: column(*(row[name] for row in rows)) for name in names}
    return TreeNodes(**columns, truncated=False, i_mmap_writable=writable)


ANON = [(10, 19), (10, 12), (15, 30), (40, 49), (41, 41), (60, 70)]
FILE = [(0, 3), (2, 9), (5, 5)]


def world() -> tuple[Trees, Trees, Topology]:
    """One anon_vma with six VMAs, one file with three; sound."""
    anon = join([tree(ANON)], column(0xA0), of_anon_vmas=True)
    file = join([tree(FILE, 0x2000, SHARED_MAYWRITE, 3)], column(0xF0), of_anon_vmas=False)
    n, m = len(anon.node), len(file.node)

    def both(name: str) -> Any:
        return np.concatenate((getattr(anon, name), getattr(file, name)))

    zeros = np.zeros(n + m, np.int64)
    mapping = np.where(np.arange(n + m) < n, 0, 0xF0)
    active = np.where(np.arange(n + m) < n, 0, -1)
    vmas = KernelVmas(
        pid=zeros + 7, address=both("vma"), start=both("start"), end=both("end"), flags=both("flags"),
        pgoff=both("pgoff"), mm=zeros + MM, anon_vma=active, file=mapping, mapping=mapping, dev=zeros, inode=zeros,
        i_mmap_writable=zeros + 3,
    )  # fmt: skip
    table = KernelAnonVmas(*(column(value) for value in (0xA0, 0, 0, 1, 1, 6)), torn=np.zeros(1, np.bool_))
    links = KernelLinks(np.arange(n), np.zeros(n, np.int64))
    return anon, file, Topology(vmas, links, table, column())


def violations(anon: Trees, file: Trees, topology: Topology) -> list[Violation]:
    return [violation for found in inspect_trees(anon, file, topology) for violation in found.violations]


def changed(trees: Trees, name: str, row: int, value: int) -> Trees:
    values = getattr(trees, name).copy()
    values[row] = value
    return replace(trees, **{name: values})


def test_sound_trees_are_counted() -> None:
    found = list(inspect_trees(*world()))
    assert [(one.checked.invariant, one.checked.checked, one.checked.unit) for one in found] == [
        ("I12", 9, "nodes"),
        ("I12", 6, "links"),
        ("I22", 3, "file VMAs"),
    ]
    assert violations(*world()) == []


# Row 0 is the root, node 3 (40-49); row 1 is node 1 (10-12), its left child.
BROKEN_ORDER = {
    "the node is on the wrong side of one above it": ("pgoff", 1, 50),
    "subtree_last is not the last index below the node": ("subtree_last", 0, 69),
    "a child of the node is not in the tree": ("left", 0, 0x9999),
    "no link leads to the node": ("left", 0, 0),
}


@pytest.mark.parametrize("text", BROKEN_ORDER)
def test_i12_broken_order_is_caught(text: str) -> None:
    anon, file, topology = world()
    found = violations(changed(anon, *BROKEN_ORDER[text]), file, topology)
    assert {violation.invariant for violation in found} == {"I12"}
    assert text in {violation.message for violation in found}
    assert "anon_vma 00000000000000a0" in found[0].objects[0]


def test_i12_a_vma_that_was_resized_without_its_tree() -> None:
    """Rule 1.11: a VMA is taken out and put in again; here its end moved, and nobody told the tree."""
    anon, file, topology = world()
    found = violations(changed(anon, "end", 5, int(anon.end[5]) + 5 * PAGE), file, topology)
    assert {violation.message for violation in found} == {"subtree_last is not the last index below the node"}


def test_i12_and_i22_members() -> None:
    anon, file, topology = world()
    for number, mine, others in (("I12", anon, file), ("I22", file, anon)):
        stranger = changed(mine, "vma", 1, 0x77777)
        double = changed(mine, "vma", 1, int(mine.vma[0]))
        for broken, wanted in (
            (stranger, {"the VMA is not in the tree", "the tree has a VMA that does not belong there"}),
            (double, {"the VMA is not in the tree", "the VMA is in the tree twice"}),
        ):
            both = (broken, others) if mine is anon else (others, broken)
            found = violations(*both, topology)
            assert {violation.invariant for violation in found} == {number}
            assert {violation.message for violation in found} == wanted


def test_a_vma_of_no_process_is_no_violation() -> None:
    anon, file, topology = world()
    anon = changed(changed(anon, "vma", 1, 0x77777), "mm", 1, 0x999)
    fewer = replace(topology, links=KernelLinks(*(np.delete(c, 1) for c in vars(topology.links).values())))
    found = list(inspect_trees(anon, file, fewer))
    assert found[1].checked.note == "1 more belong to no process"
    assert found[1].violations == []


def test_i22_writers_are_counted() -> None:
    anon, file, topology = world()
    for says, wrong in ((2, True), (3, False), (-1, True)):
        found = violations(anon, replace(file, i_mmap_writable=column(says)), topology)
        assert [v.invariant for v in found] == ["I22"] * wrong
    nobody = replace(file, flags=file.flags * 0, i_mmap_writable=column(-1))
    assert violations(anon, nobody, topology) == []


def test_the_descent_finds_what_brute_force_finds_and_looks_at_less() -> None:
    rng = random.Random(5)
    for size in (0, 1, 2, 7, 40, 300):
        intervals = sorted((first := rng.randrange(500), first + rng.randrange(30)) for _ in range(size))
        made = tree(intervals)
        for _ in range(50):
            start = rng.randrange(-5, 540)
            last = start + rng.randrange(3)
            rows, looked = descend(made, start, last)
            found = [(int(made.pgoff[row]), int(made.node[row])) for row in rows]
            wanted = [(f, 0x1000 + i) for i, (f, e) in enumerate(intervals) if f <= last and start <= e]
            assert found == wanted, "every one, in order, once"
            assert len(rows) <= looked <= size
        if size == 300:
            assert descend(made, 600, 600)[1] == 1, "beyond the last, the root alone is looked at"


def test_where_a_page_lies_in_a_vma() -> None:
    assert vma_address(0x10000, 0x14000, 5, 6) == 0x11000
    assert vma_address(0x10000, 0x14000, 5, 4) is None
    assert vma_address(0x10000, 0x14000, 5, 9) is None


def test_many_walks_at_once_are_as_many_single_walks() -> None:
    """Of every page and every VMA of every tree: met exactly where the descent from that page comes by."""
    single = {0: tree(ANON), 1: tree(ANON[:3], 0x4000)}
    trees = join(list(single.values()), column(0xA0, 0xB0), of_anon_vmas=True)
    met = 0
    for of_page in (-1, 0, 1):
        for index in (9, 10, 15, 41, 1000):
            wanted = set()
            if of_page >= 0:
                one = single[of_page]
                for row in descend(one, index, index)[0]:
                    where = vma_address(int(one.start[row]), int(one.end[row]), int(one.pgoff[row]), index)
                    wanted.add((int(one.vma[row]), where))
            for row, vma in enumerate(trees.vma.tolist()):
                right = int(trees.start[row]) + (index - int(trees.pgoff[row])) * PAGE
                address = column(right - PAGE, right, right + PAGE)
                answer = meets(trees, column(of_page).repeat(3), column(0, vma), column(1, 1, 1),
                               column(index).repeat(3), address)  # fmt: skip
                assert answer.tolist() == [False, (vma, right) in wanted, False]
                met += int(answer.sum())
            unknown = meets(trees, column(of_page), column(0), column(0), column(index), column(0x1000))
            assert not unknown.any()
    assert met == 10
