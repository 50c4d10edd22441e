"""The radix priority search tree against brute force: what it finds, in an order of its own, and what it enters."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.designs.parts.prio_tree import PrioTree
from rmap.mm.costs import COUNTERS, NODES_VISITED
from rmap.mm.mm_types import Mm, Vma
from tests.support import PAGE

MM = Mm(1)
INTERVAL = st.tuples(st.integers(0, 300), st.integers(1, 40))
LARGE = st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 20))


def vma(first: int, pages: int) -> Vma:
    return Vma(MM, 0, pages * PAGE, 0, first)


def stabbed(tree: PrioTree, first: int, last: int) -> tuple[list[Vma], int]:
    counters = [0] * len(COUNTERS)
    return list(tree.stab(first, last, counters)), counters[NODES_VISITED]


@given(st.lists(INTERVAL | LARGE, max_size=60), st.lists(st.integers(0, 400), max_size=12), st.data())
@settings(deadline=None, max_examples=200)
def test_it_finds_what_brute_force_finds(
    intervals: list[tuple[int, int]], keys: list[int], data: st.DataObject
) -> None:
    tree = PrioTree()
    living: list[Vma] = []
    for first, pages in intervals:
        new = vma(first, pages)
        twins = [old for old in living if (old.pgoff, old.last) == (new.pgoff, new.last)]
        if twins and data.draw(st.booleans()):
            tree.insert_after(new, twins[0])
        else:
            tree.insert(new)
        living.append(new)
        if len(living) > 3 and data.draw(st.integers(0, 3)) == 0:
            gone = living.pop(data.draw(st.integers(0, len(living) - 1)))
            tree.remove(gone)
            assert gone.shared is None
        tree.validate()
    assert len(tree) == len(living) == len(list(tree))
    for key in [*keys, *(old.pgoff for old in living)]:
        found, visited = stabbed(tree, key, key)
        assert set(found) == {old for old in living if old.pgoff <= key <= old.last}
        assert len(found) == len(set(found)) <= visited or not found


@given(st.lists(INTERVAL, min_size=1, max_size=40), st.lists(st.integers(0, 360), min_size=1, max_size=20))
@settings(deadline=None)
def test_many_searches_at_once_are_the_single_ones(intervals: list[tuple[int, int]], keys: list[int]) -> None:
    tree = PrioTree()
    for first, pages in intervals:
        tree.insert(vma(first, pages))
    column = np.array(sorted(keys), np.int64)
    counters = [0] * len(COUNTERS)
    found: dict[int, list[Vma]] = {at: [] for at in range(len(column))}
    for one, lo, hi in tree.stab_many(memoryview(column), 0, len(column), lambda lo, hi: hi - lo, counters):
        for at in range(lo, hi):
            found[at].append(one)
    visited = 0
    for at, key in enumerate(column.tolist()):
        alone, cost = stabbed(tree, key, key)
        assert found[at] == alone
        visited += cost
    assert counters[NODES_VISITED] == visited


def test_same_ranges_hang_on_one_node_in_the_kernels_order() -> None:
    tree = PrioTree()
    first, second, third = vma(5, 3), vma(5, 3), vma(5, 3)
    tree.insert(first)
    tree.insert(second)
    tree.insert(third)
    child_of_second, child_of_first = vma(5, 3), vma(5, 3)
    tree.insert_after(child_of_second, second)
    tree.insert_after(child_of_first, first)
    assert stabbed(tree, 6, 6)[0] == [first, second, child_of_second, third, child_of_first]
    tree.remove(first)
    assert stabbed(tree, 6, 6)[0] == [second, child_of_second, third, child_of_first]
    assert len(list(tree.nodes())) == 1


def test_disjoint_windows_are_left_out() -> None:
    tree = PrioTree()
    for window in range(1000):
        tree.insert(vma(2 * window, 1))
    found, visited = stabbed(tree, 1000, 1000)
    assert len(found) == 1 and visited <= 25
