"""``i_mmap``: the VMAs of a file by page index, in an interval tree (``mm/interval_tree.c``, since 3.7; rule 1.12).

Every VMA of the file is in it, shared and private, under the page range ``[pgoff, last]`` of the whole VMA (rule 1.11).
"""

from __future__ import annotations

from collections.abc import Iterator

from rmap.designs.parts.interval_tree import IntervalNode, IntervalTree
from rmap.errors import InvariantError
from rmap.mm.costs import Costs
from rmap.mm.mm_types import Vma


class FileNode(IntervalNode):
    """A VMA's place in its file's tree (``vm_area_struct.shared``)."""

    __slots__ = ("vma",)

    def __init__(self, vma: Vma) -> None:
        self.vma = vma
        self.start = vma.pgoff
        self.last = vma.last


class IntervalIndex:
    """The interval tree of one file's VMAs; ``vma.shared`` is the node.

    Args:
        costs: searches count the nodes they enter to the operation under way.

    Attributes:
        tree: the nodes; a walk of many pages searches it directly.
    """

    __slots__ = ("_costs", "tree")

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.tree: IntervalTree[FileNode] = IntervalTree()

    def insert(self, vma: Vma) -> None:
        """Add a VMA under its present ``[pgoff, last]``."""
        vma.shared = FileNode(vma)
        self.tree.insert(vma.shared)

    def insert_after(self, vma: Vma, sibling: Vma) -> None:
        """Add a forked VMA right behind its parent's, whose interval it has (rule 1.11)."""
        vma.shared = FileNode(vma)
        self.tree.insert_after(vma.shared, sibling.shared)

    def remove(self, vma: Vma) -> None:
        """Take a VMA out."""
        self.tree.remove(vma.shared)
        vma.shared = None

    def stab(self, first: int, last: int) -> Iterator[Vma]:
        """The VMAs that touch page indexes ``first`` to ``last``: ascending ``pgoff``, then insertion."""
        for node in self.tree.stab(first, last, self._costs.current):
            yield node.vma

    def __iter__(self) -> Iterator[Vma]:
        return (node.vma for node in self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def validate(self) -> None:
        """Check the tree, and that every VMA is in it once, under its present interval.

        Raises:
            InvariantError: ``I12`` (order, interval) or ``I22`` (membership).
        """
        self.tree.validate()
        for node in self.tree:
            vma = node.vma
            if vma.shared is not node:
                raise InvariantError("I22", f"{vma} is in i_mmap twice, or was taken out by half")
            if (node.start, node.last) != (vma.pgoff, vma.last):
                raise InvariantError("I12", f"{vma} is in i_mmap as [{node.start:#x}, {node.last:#x}]")
