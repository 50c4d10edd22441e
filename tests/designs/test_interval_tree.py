"""The interval tree against brute force: matches, order, shape, and how many nodes a search enters."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest

from rmap.designs.parts.interval_tree import IntervalNode, IntervalTree
from rmap.errors import InvariantError
from rmap.mm.costs import COUNTERS, NODES_VISITED


class Node(IntervalNode):
    __slots__ = ("name",)

    def __init__(self, start: int, last: int, name: object = None) -> None:
        self.start = start
        self.last = last
        self.name = name

    def __repr__(self) -> str:
        return f"[{self.start}, {self.last}]"


def counters() -> list[int]:
    return [0] * len(COUNTERS)


def tree_of(nodes: Iterable[Node]) -> IntervalTree[Node]:
    tree: IntervalTree[Node] = IntervalTree()
    for node in nodes:
        tree.insert(node)
    return tree


def touching(nodes: list[Node], first: int, last: int) -> list[Node]:
    """What a search must find; ``nodes`` are in the tree's order."""
    return [node for node in nodes if node.start <= last and node.last >= first]


def insert_sorted(nodes: list[Node], node: Node) -> None:
    """Keep a plain list in the order the tree promises: behind all with the same or a smaller start."""
    at = next((i for i, other in enumerate(nodes) if other.start > node.start), len(nodes))
    nodes.insert(at, node)


@pytest.mark.parametrize("seed", range(12))
def test_random_changes_keep_order_shape_and_matches(seed: int) -> None:
    rng = random.Random(seed)
    tree: IntervalTree[Node] = IntervalTree()
    nodes: list[Node] = []
    for step in range(400):
        choice = rng.random()
        if choice < 0.5 or not nodes:
            start = rng.randrange(40)
            node = Node(start, start + rng.randrange(25), step)
            tree.insert(node)
            insert_sorted(nodes, node)
        elif choice < 0.65:
            sibling = rng.choice(nodes)
            node = Node(sibling.start, sibling.last, step)
            tree.insert_after(node, sibling)
            nodes.insert(nodes.index(sibling) + 1, node)
        else:
            node = nodes.pop(rng.randrange(len(nodes)))
            tree.remove(node)
        tree.validate()
        assert list(tree) == nodes
        assert len(tree) == len(nodes)
        first = rng.randrange(-3, 70)
        last = first + rng.choice((0, 0, 1, 10))
        assert list(tree.stab(first, last, counters())) == touching(nodes, first, last)


def test_equal_starts_keep_the_order_of_insertion() -> None:
    nodes = [Node(5, 5 + i % 3, i) for i in range(50)]
    tree = tree_of(nodes)
    assert [node.name for node in tree] == list(range(50))
    assert [node.name for node in tree.stab(5, 5, counters())] == list(range(50))
    # Taken out and put back, as around a resize, it is the last of its equals.
    tree.remove(nodes[7])
    tree.insert(nodes[7])
    assert [node.name for node in tree][-1] == 7


def test_insert_after_is_right_behind_the_sibling_even_among_equals() -> None:
    nodes = [Node(5, 9, i) for i in range(20)]
    tree = tree_of(nodes)
    tree.insert_after(Node(5, 9, "child"), nodes[3])
    assert [node.name for node in tree][:6] == [0, 1, 2, 3, "child", 4]
    tree.validate()


def test_the_height_stays_logarithmic() -> None:
    def height(node: Node | None) -> int:
        return 0 if node is None else 1 + max(height(node.left), height(node.right))

    nodes = [Node(i, i) for i in range(4096)]
    tree = tree_of(nodes)
    assert height(tree.root) <= 2 * 13
    for node in nodes[::2]:
        tree.remove(node)
    tree.validate()
    assert height(tree.root) <= 2 * 12


def test_a_search_enters_few_nodes_and_counts_them_one_by_one() -> None:
    tree = tree_of(Node(i * 10, i * 10 + 9) for i in range(1000))
    counts = counters()
    assert [node.start for node in tree.stab(5555, 5555, counts)] == [5550]
    assert 1 <= counts[NODES_VISITED] <= 20
    # Nothing is entered when the whole tree ends before the query.
    counts = counters()
    assert list(tree.stab(10_000, 10_000, counts)) == []
    assert counts[NODES_VISITED] == 0
    # Leaving early costs only what was entered.
    all_equal = tree_of(Node(0, 9) for _ in range(100))
    counts = counters()
    next(all_equal.stab(3, 3, counts))
    assert counts[NODES_VISITED] < 10
    list(all_equal.stab(3, 3, counts))
    assert counts[NODES_VISITED] > 100


@pytest.mark.parametrize("seed", range(40))
def test_many_searches_at_once_equal_the_sum_of_single_ones(seed: int) -> None:
    rng = random.Random(seed)
    tree: IntervalTree[Node] = IntervalTree()
    nodes = []
    for _ in range(rng.randrange(1, 60)):
        start = rng.randrange(100)
        nodes.append(Node(start, start + rng.randrange(30)))
        tree.insert(nodes[-1])
    for node in rng.sample(nodes, len(nodes) // 3):
        tree.remove(node)
    keys = np.array(sorted(rng.choices(range(-5, 140), k=30)), np.int64)
    lo, hi = 3, 27
    batch = counters()
    found: list[list[Node]] = [[] for _ in keys]
    for node, a, b in tree.stab_many(memoryview(keys), lo, hi, lambda a, b: b - a, batch):
        for i in range(a, b):
            found[i].append(node)
    single = counters()
    for i, key in enumerate(keys.tolist()):
        expected = list(tree.stab(key, key, single)) if lo <= i < hi else []
        assert found[i] == expected
    assert batch == single


def test_a_batch_counts_only_the_searches_that_still_ask() -> None:
    tree = tree_of(Node(0, 9) for _ in range(31))
    keys = np.arange(10, dtype=np.int64)
    wanted = 5  # each key is satisfied after so many matches
    left = np.full(10, wanted)
    batch = counters()
    for _, a, b in tree.stab_many(memoryview(keys), 0, 10, lambda a, b: int(np.count_nonzero(left[a:b])), batch):
        left[a:b] = np.maximum(left[a:b] - 1, 0)
    single = counters()
    for key in keys.tolist():
        search = tree.stab(key, key, single)
        for _ in range(wanted):
            next(search)
    assert batch == single


def test_validate_notices_an_interval_changed_inside_the_tree() -> None:
    nodes = [Node(i, i + 3) for i in range(20)]
    tree = tree_of(nodes)
    tree.validate()
    nodes[10].start = 0
    with pytest.raises(InvariantError, match="I12"):
        tree.validate()
    nodes[10].start = 10
    nodes[10].last = 200
    with pytest.raises(InvariantError, match="subtree_last"):
        tree.validate()
