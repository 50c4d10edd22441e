"""The augmented red-black interval tree of ``include/linux/interval_tree_generic.h`` (since 3.7).

Nodes are intervals ``[start, last]`` of page indexes. They are ordered by ``start``; an equal start goes to the
right, so that equal keys keep the order of their insertion (rule 1.11). Each node also knows the largest ``last``
below it, which is how a search leaves out whole subtrees.

Trees are written by hand here because the tree is the subject: it has the kernel's shape, it keeps duplicates
in the kernel's order, and it counts the nodes a search enters. Left out: the kernel remembers the leftmost node, and
spares a search that could match nothing at all.

Complexity: insert and remove O(log n); a search O(log n + m) for m matches, in this order: ascending start, then
insertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

from rmap.errors import InvariantError
from rmap.mm.costs import NODES_VISITED


class IntervalNode:
    """A place in an interval tree; what is to be found derives from it.

    Attributes:
        start, last: the interval, in pages, both ends included. Set them before the insertion, and never
            while the node is in a tree.
        subtree_last: the largest ``last`` of this node and all below it.
        left, right, parent, red: the tree's.
    """

    __slots__ = ("last", "left", "parent", "red", "right", "start", "subtree_last")

    start: int
    last: int
    subtree_last: int
    left: Self | None
    right: Self | None
    parent: Self | None
    red: bool


N = TypeVar("N", bound=IntervalNode)


class IntervalTree(Generic[N]):
    """Intervals that can be asked which of them touch a range.

    Attributes:
        root: the topmost node.
        size: how many nodes.

    Invariants: in-order starts ascend; ``subtree_last`` is right everywhere; red nodes have black children; every
    path down has equally many black nodes.
    """

    __slots__ = ("root", "size")

    def __init__(self) -> None:
        self.root: N | None = None
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[N]:
        """All nodes, in order."""
        above: list[N] = []
        node = self.root
        while above or node is not None:
            while node is not None:
                above.append(node)
                node = node.left
            node = above.pop()
            yield node
            node = node.right

    # -- searching ------------------------------------------------------------------------------------------------
    def stab(self, first: int, last: int, counters: list[int]) -> Iterator[N]:
        """The nodes whose intervals touch ``[first, last]``, in order (``interval_tree_iter_first``, ``_next``).

        Args:
            counters: every node entered adds one to ``counters[NODES_VISITED]``, as the search proceeds: a caller
                who stops early has paid for what was entered up to there.
        """
        node = self.root
        if node is None or node.subtree_last < first:
            return
        counters[NODES_VISITED] += 1
        while True:
            left = node.left
            while left is not None and left.subtree_last >= first:
                node = left
                counters[NODES_VISITED] += 1
                left = node.left
            while True:
                if node.start > last:
                    return
                if node.last >= first:
                    yield node
                right = node.right
                if right is not None and right.subtree_last >= first:
                    node = right
                    counters[NODES_VISITED] += 1
                    break
                parent = node.parent
                while parent is not None and parent.right is node:
                    node = parent
                    parent = node.parent
                if parent is None:
                    return
                node = parent

    def stab_many(
        self, keys: memoryview[int], lo: int, hi: int, asking: Callable[[int, int], int], counters: list[int]
    ) -> Iterator[tuple[N, int, int]]:
        """Many searches for one page index each, at once.

        With the keys sorted, those that enter a node are neighbours: they go left iff ``left.subtree_last``
        reaches them, and right iff the node does not start behind them and ``right.subtree_last`` reaches
        them. So one bisection per node and side does what a search per key would, with the same matches in the
        same order for each key, and the same count of visits.

        Args:
            keys: page indexes, ascending; repeated ones are allowed.
            lo, hi: which of them search.
            asking: how many keys of a range are not satisfied yet; each adds one to ``counters[NODES_VISITED]``
                for every node entered.

        Yields:
            ``(node, a, b)``: the node matches keys ``a`` to ``b``.
        """
        root = self.root
        if root is None:
            return
        stack: list[tuple[N, int, int, bool]] = [(root, lo, _behind(keys, root.subtree_last, lo, hi), False)]
        while stack:
            node, lo, hi, left_is_done = stack.pop()
            if lo >= hi:
                continue
            if not left_is_done:
                counters[NODES_VISITED] += asking(lo, hi)
                stack.append((node, lo, hi, True))
                if node.left is not None:
                    stack.append((node.left, lo, _behind(keys, node.left.subtree_last, lo, hi), False))
                continue
            lo = _behind(keys, node.start - 1, lo, hi)
            end = _behind(keys, node.last, lo, hi)
            if lo < end:
                yield node, lo, end
            if node.right is not None:
                stack.append((node.right, lo, _behind(keys, node.right.subtree_last, lo, hi), False))

    # -- changing -------------------------------------------------------------------------------------------------
    def insert(self, node: N) -> None:
        """Add a node under its ``start`` and ``last``, behind those with the same start."""
        start, last = node.start, node.last
        node.subtree_last = last
        node.left = node.right = None
        self.size += 1
        parent: N | None = None
        here = self.root
        while here is not None:
            parent = here
            if here.subtree_last < last:
                here.subtree_last = last
            here = here.left if start < here.start else here.right
        node.parent = parent
        if parent is None:
            node.red = False
            self.root = node
            return
        node.red = True
        if start < parent.start:
            parent.left = node
        else:
            parent.right = node
        if parent.red:
            self._after_insert(node)

    def insert_after(self, node: N, sibling: N) -> None:
        """Add a node with its sibling's interval right behind the sibling (``vma_interval_tree_insert_after``)."""
        last = node.last
        node.subtree_last = last
        node.left = node.right = None
        self.size += 1
        parent = sibling
        if parent.right is None:
            parent.right = node
        else:
            parent = parent.right
            while True:
                if parent.subtree_last < last:
                    parent.subtree_last = last
                if parent.left is None:
                    break
                parent = parent.left
            parent.left = node
        node.parent = parent
        node.red = True
        if parent.red:
            self._after_insert(node)

    def remove(self, node: N) -> None:
        """Take a node out."""
        self.size -= 1
        successor: N | None = None
        if node.left is None or node.right is None:
            child = node.left if node.right is None else node.right
            parent = node.parent
            self._replace(node, child)
            black_is_missing = not node.red
        else:
            # The successor takes the node's place and colour; the hole is where the successor was.
            successor = node.right
            while successor.left is not None:
                successor = successor.left
            child = successor.right
            black_is_missing = not successor.red
            if successor is node.right:
                parent = successor
            else:
                parent = successor.parent
                self._replace(successor, child)
                successor.right = node.right
                node.right.parent = successor
            self._replace(node, successor)
            successor.left = node.left
            node.left.parent = successor
            successor.red = node.red
            successor.subtree_last = -1  # neither the way up from the hole nor the one from here may stop at it
        _update_upward(parent)
        if successor is not None:
            _update_upward(successor)
        if child is not None:
            child.red = False
        elif black_is_missing:
            self._after_remove(parent)

    # -- keeping it balanced --------------------------------------------------------------------------------------
    def _replace(self, node: N, other: N | None) -> None:
        parent = node.parent
        if parent is None:
            self.root = other
        elif parent.left is node:
            parent.left = other
        else:
            parent.right = other
        if other is not None:
            other.parent = parent

    def _rotate(self, node: N, to_left: bool) -> N:
        # One child takes the node's place, the node becomes that child's child; returns the child.
        if to_left:
            child = node.right
            assert child is not None
            inner = node.right = child.left
            child.left = node
        else:
            child = node.left
            assert child is not None
            inner = node.left = child.right
            child.right = node
        if inner is not None:
            inner.parent = node
        self._replace(node, child)
        node.parent = child
        child.subtree_last = node.subtree_last
        node.subtree_last = _largest_last(node)
        return child

    def _after_insert(self, node: N) -> None:
        # The node and its parent are both red.
        parent = node.parent
        while parent is not None and parent.red:
            grandparent = parent.parent
            assert grandparent is not None
            on_left = grandparent.left is parent
            uncle = grandparent.right if on_left else grandparent.left
            if uncle is not None and uncle.red:
                parent.red = uncle.red = False
                grandparent.red = True
                node = grandparent
                parent = node.parent
                continue
            if node is (parent.right if on_left else parent.left):
                parent = self._rotate(parent, on_left)
            parent.red = False
            grandparent.red = True
            self._rotate(grandparent, not on_left)
            return
        if parent is None:
            node.red = False

    def _after_remove(self, parent: N | None) -> None:
        # Below one child of the parent a black node is missing; that child is black, or there is none.
        node: N | None = None
        while parent is not None:
            on_left = parent.left is node
            sibling = parent.right if on_left else parent.left
            assert sibling is not None
            if sibling.red:
                sibling.red = False
                parent.red = True
                self._rotate(parent, on_left)
                sibling = parent.right if on_left else parent.left
                assert sibling is not None
            near, far = (sibling.left, sibling.right) if on_left else (sibling.right, sibling.left)
            if far is None or not far.red:
                if near is None or not near.red:
                    sibling.red = True
                    if parent.red:
                        parent.red = False
                        return
                    node, parent = parent, parent.parent
                    continue
                self._rotate(sibling, not on_left)
                far, sibling = sibling, near
            sibling.red = parent.red
            parent.red = False
            far.red = False
            self._rotate(parent, on_left)
            return

    # -- checking -------------------------------------------------------------------------------------------------
    def validate(self) -> None:
        """Check every invariant of the tree.

        Raises:
            InvariantError: ``I12``, when the order or the augmentation is broken, as by a node whose
                interval was changed inside the tree.
        """
        if self.root is not None and (self.root.red or self.root.parent is not None):
            raise InvariantError("I12", "the root of an interval tree is red or has a parent")
        before: N | None = None
        count = 0
        for node in self:
            count += 1
            if before is not None and before.start > node.start:
                raise InvariantError("I12", f"interval tree out of order: {before.start:#x} before {node.start:#x}")
            _check_node(node)
            before = node
        if count != self.size:
            raise InvariantError("I12", f"an interval tree of {self.size} nodes has {count}")
        _black_height(self.root)


def _behind(keys: memoryview[int], value: int, lo: int, hi: int) -> int:
    # bisect_right over keys[lo:hi], with the two common answers first.
    if lo >= hi or keys[hi - 1] <= value:
        return hi
    if keys[lo] > value:
        return lo
    while lo < hi:
        middle = (lo + hi) >> 1
        if keys[middle] > value:
            hi = middle
        else:
            lo = middle + 1
    return lo


def _largest_last(node: IntervalNode) -> int:
    largest = node.last
    left, right = node.left, node.right
    if left is not None and left.subtree_last > largest:
        largest = left.subtree_last
    if right is not None and right.subtree_last > largest:
        largest = right.subtree_last
    return largest


def _update_upward(node: IntervalNode | None) -> None:
    # A node below was taken away: correct subtree_last up to where nothing changes.
    while node is not None:
        largest = _largest_last(node)
        if largest == node.subtree_last:
            return
        node.subtree_last = largest
        node = node.parent


def _check_node(node: IntervalNode) -> None:
    if node.start > node.last:
        raise InvariantError("I12", f"an empty interval [{node.start:#x}, {node.last:#x}]")
    if node.subtree_last != _largest_last(node):
        raise InvariantError("I12", f"subtree_last of [{node.start:#x}, {node.last:#x}] is {node.subtree_last:#x}")
    for child in (node.left, node.right):
        if child is not None and (child.parent is not node or (node.red and child.red)):
            raise InvariantError("I12", f"two red nodes, or a wrong parent, below [{node.start:#x}, {node.last:#x}]")


def _black_height(node: IntervalNode | None) -> int:
    if node is None:
        return 1
    left = _black_height(node.left)
    if left != _black_height(node.right):
        raise InvariantError("I12", f"unequal black heights below [{node.start:#x}, {node.last:#x}]")
    return left + (not node.red)
