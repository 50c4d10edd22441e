"""``struct anon_vma`` and ``struct anon_vma_chain`` (``include/linux/rmap.h``, 6.18; rules 1.9 and 1.10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from rmap.designs.parts.interval_tree import IntervalNode
from rmap.mm.frames import TAG_ANON, TAG_SHIFT
from rmap.mm.mm_types import Vma


class LinkIndex(Protocol):
    """What an anon_vma keeps its links in: an interval tree, or a list."""

    root: Any
    """None if it is empty."""

    def insert(self, node: AnonVmaChain) -> None:
        """Add a link."""

    def remove(self, node: AnonVmaChain) -> None:
        """Take a link out."""

    def stab(self, first: int, last: int, counters: list[int]) -> Iterator[AnonVmaChain]:
        """The links whose VMAs touch these page indexes, in order."""

    def stab_many(
        self, keys: memoryview[int], lo: int, hi: int, asking: Callable[[int, int], int], counters: list[int]
    ) -> Iterator[tuple[AnonVmaChain, int, int]]:
        """Many searches at once, as :meth:`rmap.designs.parts.interval_tree.IntervalTree.stab_many`."""

    def validate(self) -> None:
        """Check the index."""

    def __iter__(self) -> Iterator[AnonVmaChain]: ...

    def __len__(self) -> int: ...


class AnonVma:
    """What anonymous pages hang on: the VMAs that may map them are in its tree (rule 1.9).

    Attributes:
        id: never used twice, so that a page cannot hang on a successor at the same address.
        handle: what ``mapping`` of its pages holds: ``id << 2 | TAG_ANON`` (rule 1.1).
        root: the oldest of the fork family; only its lock is ever taken.
        parent: the active anon_vma of the VMA that was forked; a root's is itself.
        refcount: 1, and for a root one more for each other living member of the family (rule 2.9).
        num_children: anon_vmas whose parent this is; a root counts itself.
        num_active_vmas: VMAs whose new pages hang here.
        tree: the links, by the page indexes of their VMAs; a plain list before 3.7.
        place: where it lies in its slabs.
    """

    __slots__ = ("handle", "id", "num_active_vmas", "num_children", "parent", "place", "refcount", "root", "tree")

    def __init__(self, id: int, parent: AnonVma | None, tree: LinkIndex, place: int) -> None:
        self.id = id
        self.place = place
        self.handle = id << TAG_SHIFT | TAG_ANON
        self.refcount = 1
        self.num_active_vmas = 0
        self.tree = tree
        if parent is None:
            self.root = self.parent = self
            self.num_children = 1
        else:  # rule 2.9: every member of a family holds its root
            self.root = parent.root
            self.parent = parent
            self.num_children = 0
            self.root.refcount += 1
            parent.num_children += 1

    @property
    def name(self) -> str:
        """``A0``, ``A1``, ...: its name in stories and errors."""
        return f"A{self.id}"

    def __repr__(self) -> str:
        return (
            f"{self.name}(root={self.root.name} parent={self.parent.name} refcount={self.refcount}"
            f" num_children={self.num_children} num_active_vmas={self.num_active_vmas})"
        )


class AnonVmaChain(IntervalNode):
    """One link between a VMA and an anon_vma: in the VMA's chain, and in the anon_vma's tree (rule 1.10).

    Its interval is that of its VMA at the time of the insertion (rule 1.11). ``place`` is where it lies in its slabs.
    """

    __slots__ = ("anon_vma", "place", "vma")

    def __init__(self, vma: Vma, anon_vma: AnonVma, start: int, last: int, place: int) -> None:
        self.place = place
        self.vma = vma
        self.anon_vma = anon_vma
        self.start = start
        self.last = last

    def __repr__(self) -> str:
        return f"AnonVmaChain({self.vma} in {self.anon_vma.name})"
