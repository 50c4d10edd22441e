"""The radix priority search tree of a file's VMAs (``lib/prio_tree.c``, ``mm/prio_tree.c``; 2.6.7 to 3.6).

A VMA is a point: its first page index (``radix``) and its last (``heap``). The tree is a heap by ``heap``, so that all
below a node end before it does; and a radix tree by ``radix``: at each level one bit of it says left or right. Where
the bits are used up, the bits of ``heap - radix`` go on (overflow). So a search for a page leaves out what ends
before it and what begins behind it, and the tree needs no balancing.

VMAs with the same range hang on one node, in a list: the first is the node, the second the head of the list, and new
ones go to its end; a forked VMA goes behind its parent's, or to the end if that is the node (``vma_prio_tree_add``).

Source: 41980beada (Rajesh Venkatasubramanian, 2004). Left out: nothing that decides where a node is or which nodes a
search enters; a node here is an object beside the VMA, there it lay in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rmap.errors import InvariantError
from rmap.mm.costs import NODES_VISITED
from rmap.mm.mm_types import Vma

TOP_BIT = 1 << 63


class PrioNode:
    """One range of page indexes, and the VMAs that have it.

    Attributes:
        radix, heap: the first and the last page index.
        vmas: the node's VMA, the head of the list, the others.
        left, right, parent: the tree's.
    """

    __slots__ = ("heap", "left", "parent", "radix", "right", "vmas")

    def __init__(self, vma: Vma) -> None:
        self.radix = vma.pgoff
        self.heap = vma.last
        self.vmas = [vma]
        self.left: PrioNode | None = None
        self.right: PrioNode | None = None
        self.parent: PrioNode | None = None


class PrioTree:
    """The tree of one file. ``vma.shared`` is the node that a VMA hangs on.

    Attributes:
        root: the topmost node: no VMA ends behind it.
        index_bits: page indexes of the tree are below ``1 << index_bits``; it grows when one is not.
        size: how many VMAs.

    Invariants: a heap by ``heap`` (ties: the smaller ``radix`` above); each node lies where its bits lead; no two nodes
    have one range.
    """

    __slots__ = ("index_bits", "root", "size")

    def __init__(self) -> None:
        self.root: PrioNode | None = None
        self.index_bits = 1
        self.size = 0

    # -- changing -------------------------------------------------------------------------------------------------
    def insert(self, vma: Vma) -> None:
        """Add a VMA under its present range (``vma_prio_tree_insert``)."""
        self.size += 1
        node = PrioNode(vma)
        there = self._insert(node)
        if there is not node:
            there.vmas.append(vma)
        vma.shared = there

    def insert_after(self, vma: Vma, sibling: Vma) -> None:
        """Add a forked VMA, which has its parent's range (``vma_prio_tree_add``)."""
        self.size += 1
        node: PrioNode = sibling.shared
        at = node.vmas.index(sibling)
        if at:
            node.vmas.insert(at + 1, vma)
        else:
            node.vmas.append(vma)
        vma.shared = node

    def remove(self, vma: Vma) -> None:
        """Take a VMA out (``vma_prio_tree_remove``); the next of its list takes its place, if there is one."""
        self.size -= 1
        node: PrioNode = vma.shared
        vma.shared = None
        node.vmas.remove(vma)
        if not node.vmas:
            self._remove(node)

    def _insert(self, node: PrioNode) -> PrioNode:
        # raw_prio_tree_insert: a node that ends later takes the place of the one it meets, which then sinks on.
        if self.root is None or node.heap >> self.index_bits:
            self._expand(node)
            return node
        inserted, here = node, self.root
        mask, by_size = 1 << (self.index_bits - 1), False
        while True:
            if here.radix == node.radix and here.heap == node.heap:
                return here
            if here.heap < node.heap or (here.heap == node.heap and here.radix > node.radix):
                self._replace(here, node)
                here, node = node, here
            index = node.heap - node.radix if by_size else node.radix
            below = here.right if index & mask else here.left
            if below is None:
                if index & mask:
                    here.right = node
                else:
                    here.left = node
                node.left = node.right = None
                node.parent = here
                return inserted
            here = below
            mask >>= 1
            if not mask:
                mask, by_size = TOP_BIT, True

    def _expand(self, node: PrioNode) -> None:
        # prio_tree_expand: for each bit that is added a node is needed above the old tree, all of it on the left: the
        # new one, then those that end last.
        spine = [node]
        if self.root is not None:
            self.index_bits += 1
        while node.heap >> self.index_bits:
            self.index_bits += 1
            if self.root is not None:
                spine.append(self.root)
                self._remove(self.root)
        below = self.root
        for member in reversed(spine):
            member.left, member.right, member.parent = below, None, None
            if below is not None:
                below.parent = member
            below = member
        self.root = node

    def _remove(self, node: PrioNode) -> None:
        # raw_prio_tree_remove: the way down along those that end last, to a leaf; then each takes its parent's place.
        leaf = node
        while leaf.left is not None or leaf.right is not None:
            if leaf.left is None or (leaf.right is not None and leaf.right.heap > leaf.left.heap):
                assert leaf.right is not None
                leaf = leaf.right
            else:
                leaf = leaf.left
        parent = leaf.parent
        if parent is None:
            self.root, self.index_bits = None, 1
            return
        if parent.right is leaf:
            parent.right = None
        else:
            parent.left = None
        while leaf is not node:
            above = leaf.parent
            assert above is not None
            self._replace(above, leaf)
            leaf = above

    def _replace(self, old: PrioNode, new: PrioNode) -> None:
        # The new node takes the old one's place.
        parent = old.parent
        new.parent = parent
        if parent is None:
            self.root = new
        elif parent.left is old:
            parent.left = new
        else:
            parent.right = new
        new.left, new.right = old.left, old.right
        for child in (new.left, new.right):
            if child is not None:
                child.parent = new

    # -- searching ------------------------------------------------------------------------------------------------
    def stab(self, first: int, last: int, counters: list[int]) -> Iterator[Vma]:
        """The VMAs that touch ``[first, last]``, in the tree's order (``vma_prio_tree_next``).

        Args:
            counters: each node entered, and each further VMA of a list, adds one to ``counters[NODES_VISITED]``.
        """
        if self.root is None or self.root.heap < first:
            return
        stack = [(self.root, 1 << (self.index_bits - 1), 0)]
        while stack:
            node, mask, value = stack.pop()
            counters[NODES_VISITED] += 1
            if node.radix <= last:
                yield node.vmas[0]
                for vma in node.vmas[1:]:
                    counters[NODES_VISITED] += 1
                    yield vma
            lowest = value | mask  # of what lies on the right; 0 of mask: by size, which bounds no beginning
            if node.right is not None and node.right.heap >= first and lowest <= last:
                stack.append((node.right, mask >> 1, lowest))
            if node.left is not None and node.left.heap >= first:
                stack.append((node.left, mask >> 1, value))

    def stab_many(
        self, keys: memoryview[int], lo: int, hi: int, asking: Callable[[int, int], int], counters: list[int]
    ) -> Iterator[tuple[Vma, int, int]]:
        """Many searches for one page index each, at once: those that enter a node are neighbours.

        Args, yields: as :meth:`rmap.designs.parts.interval_tree.IntervalTree.stab_many`, with VMAs.
        """
        if self.root is None:
            return
        stack = [(self.root, 1 << (self.index_bits - 1), 0, lo, _behind(keys, self.root.heap, lo, hi))]
        while stack:
            node, mask, value, lo, hi = stack.pop()
            if lo >= hi:
                continue
            counters[NODES_VISITED] += asking(lo, hi)
            first = _behind(keys, node.radix - 1, lo, hi)
            if first < hi:
                yield node.vmas[0], first, hi
                for vma in node.vmas[1:]:
                    counters[NODES_VISITED] += asking(first, hi)
                    yield vma, first, hi
            lowest = value | mask
            if node.right is not None:
                begin, end = _behind(keys, lowest - 1, lo, hi), _behind(keys, node.right.heap, lo, hi)
                stack.append((node.right, mask >> 1, lowest, begin, end))
            if node.left is not None:
                stack.append((node.left, mask >> 1, value, lo, _behind(keys, node.left.heap, lo, hi)))

    def __iter__(self) -> Iterator[Vma]:
        """Every VMA, in the tree's order."""
        for node in self.nodes():
            yield from node.vmas

    def nodes(self) -> Iterator[PrioNode]:
        """Every node, a parent before its children, left before right."""
        stack = [self.root] if self.root is not None else []
        while stack:
            node = stack.pop()
            yield node
            stack += [child for child in (node.right, node.left) if child is not None]

    def __len__(self) -> int:
        return self.size

    # -- checking -------------------------------------------------------------------------------------------------
    def validate(self) -> None:
        """Check the heap, the place of every node and the range of every VMA.

        Raises:
            InvariantError: ``prio-tree``, or ``I22`` when a VMA does not know its node.
        """
        count = 0
        stack = [(self.root, 1 << (self.index_bits - 1), 0, False)] if self.root is not None else []
        while stack:
            node, mask, value, by_size = stack.pop()
            count += len(node.vmas)
            for vma in node.vmas:
                if vma.shared is not node or (vma.pgoff, vma.last) != (node.radix, node.heap):
                    raise InvariantError("I22", f"{vma} is in the prio_tree as [{node.radix:#x}, {node.heap:#x}]")
            for child, bit in ((node.left, 0), (node.right, mask)):
                if child is None:
                    continue
                index = child.heap - child.radix if by_size else child.radix
                if child.parent is not node or (child.heap, -child.radix) >= (node.heap, -node.radix):
                    raise InvariantError("prio-tree", f"[{child.radix:#x}, {child.heap:#x}] is above its place")
                if index & mask != bit or (not by_size and index & ~(2 * mask - 1) != value):
                    raise InvariantError("prio-tree", f"[{child.radix:#x}, {child.heap:#x}] is on the wrong side")
                if mask == 1 and not by_size:
                    stack.append((child, TOP_BIT, 0, True))
                else:
                    stack.append((child, mask >> 1, value | bit, by_size))
        if count != self.size:
            raise InvariantError("prio-tree", f"a prio_tree of {self.size} VMAs has {count}")


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
