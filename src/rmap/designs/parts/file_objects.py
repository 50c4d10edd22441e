"""Pages of files, found through the file: the half that object-based designs share (``mm/rmap.c`` since 2.6.7).

Which VMAs may map a page, the file's index says: a prio_tree (2.6.7 to 3.6) or an interval tree (since 3.7). Nonlinear
areas are in neither: they have a list of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol, cast

from rmap.columns import I64
from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.designs.parts.nonlinear_areas import NonlinearAreas
from rmap.designs.parts.prio_tree import PrioTree
from rmap.mm.costs import LOCKS_I_MMAP, Costs
from rmap.mm.frames import ANON, TAG_BITS, TAG_FILE, TAG_SHIFT
from rmap.mm.interface import Candidate1, Candidates, DesignCore, Linear, Query
from rmap.mm.mm_types import Vma
from rmap.uapi.vm_flags import VM_NONLINEAR
from rmap.units import PAGE_SHIFT


class VmaTree(Protocol):
    """Linear VMAs by page index."""

    def insert(self, vma: Vma) -> None: ...

    def insert_after(self, vma: Vma, sibling: Vma) -> None: ...

    def remove(self, vma: Vma) -> None: ...

    def stab(self, first: int, last: int, counters: list[int]) -> Iterator[Vma]: ...

    def stab_many(
        self, keys: memoryview[int], lo: int, hi: int, asking: Callable[[int, int], int], counters: list[int]
    ) -> Iterator[tuple[Vma, int, int]]: ...

    def validate(self) -> None: ...

    def __iter__(self) -> Iterator[Vma]: ...

    def __len__(self) -> int: ...


class VmaIntervalTree(IntervalIndex):
    """An interval tree of VMAs that is asked as a :class:`VmaTree` is."""

    __slots__ = ()

    def stab(self, first: int, last: int, counters: list[int] | None = None) -> Iterator[Vma]:
        """The VMAs that touch ``[first, last]``, counted to ``counters``, or to the operation under way."""
        for node in self.tree.stab(first, last, self._costs.current if counters is None else counters):
            yield node.vma

    def stab_many(
        self, keys: memoryview[int], lo: int, hi: int, asking: Callable[[int, int], int], counters: list[int]
    ) -> Iterator[tuple[Vma, int, int]]:
        """Many searches at once."""
        for node, first, end in self.tree.stab_many(keys, lo, hi, asking, counters):
            yield node.vma, first, end


class ObjectIndex:
    """One file's VMAs by page index, the nonlinear ones beside.

    Args:
        costs: searches count to the operation under way.
        by_intervals: keep them in an interval tree (since 3.7), not in a prio_tree.

    Attributes:
        tree: the linear ones.
        nonlinear: the others.
    """

    __slots__ = ("_costs", "nonlinear", "tree")

    def __init__(self, costs: Costs, by_intervals: bool = False) -> None:
        self._costs = costs
        self.tree: VmaTree = VmaIntervalTree(costs) if by_intervals else PrioTree()
        self.nonlinear = NonlinearAreas()

    def insert(self, vma: Vma) -> None:
        """Add a VMA under its present range."""
        if vma.flags & VM_NONLINEAR:
            self.nonlinear.vmas[vma] = 0
            vma.shared = self.nonlinear
        else:
            self.tree.insert(vma)

    def insert_after(self, vma: Vma, sibling: Vma) -> None:
        """Add a forked VMA, which has its parent's range."""
        if vma.flags & VM_NONLINEAR:
            self.insert(vma)
        else:
            self.tree.insert_after(vma, sibling)

    def remove(self, vma: Vma) -> None:
        """Take a VMA out."""
        if vma.shared is self.nonlinear:
            del self.nonlinear.vmas[vma]
            vma.shared = None
        else:
            self.tree.remove(vma)

    def stab(self, first: int, last: int) -> Iterator[Vma]:
        """The VMAs that touch page indexes ``first`` to ``last``, and every nonlinear one."""
        yield from self.tree.stab(first, last, self._costs.current)
        yield from self.nonlinear.vmas

    def candidates(self, core: DesignCore, query: Query, keys: memoryview[int], lo: int, hi: int) -> Candidates:
        """Where the pages at positions ``lo`` to ``hi`` of a query sorted by index may be mapped."""
        counters = core.costs.current
        counters[LOCKS_I_MMAP] += query.asking(lo, hi)
        for vma, first, end in self.tree.stab_many(keys, lo, hi, query.asking, counters):
            yield Linear(vma, first, end)
            if query.all_found(lo, hi):
                return
        yield from self.nonlinear.candidates(core, query, lo, hi)

    def candidates1(self, core: DesignCore, index: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        counters = core.costs.current
        counters[LOCKS_I_MMAP] += 1
        for vma in self.tree.stab(index, index, counters):
            yield vma, vma.start + ((index - vma.pgoff) << PAGE_SHIFT)
        yield from self.nonlinear.candidates1(core)

    def __iter__(self) -> Iterator[Vma]:
        yield from self.tree
        yield from self.nonlinear.vmas

    def __len__(self) -> int:
        return len(self.tree) + len(self.nonlinear.vmas)

    def validate(self) -> None:
        """Check the tree.

        Raises:
            InvariantError: ``prio-tree`` or ``I22``.
        """
        self.tree.validate()


class FileObjects:
    """The indexes of all files, for a design that finds the pages of files through them.

    Args:
        core: of the design.
        by_intervals: see :class:`ObjectIndex`.
    """

    def __init__(self, core: DesignCore, by_intervals: bool = False) -> None:
        self._core = core
        self._by_intervals = by_intervals
        self._indexes: list[ObjectIndex] = []

    def new_index(self) -> ObjectIndex:
        """The index of a new file."""
        index = ObjectIndex(self._core.costs, self._by_intervals)
        self._indexes.append(index)
        return index

    def index_of(self, anchor: int) -> ObjectIndex | None:
        """The index of the file that pages with this ``mapping`` belong to; None if it is no file."""
        if anchor & TAG_BITS != TAG_FILE or not anchor:
            return None
        return cast("ObjectIndex", self._core.mapping_index(anchor >> TAG_SHIFT))

    def candidates(self, query: Query, anchor: int, keys: memoryview[int], lo: int, hi: int) -> Candidates:
        """Where the pages at positions ``lo`` to ``hi`` of a sorted query may be mapped, if they are a file's."""
        index = self.index_of(anchor)
        if index is not None:
            yield from index.candidates(self._core, query, keys, lo, hi)

    def candidates1(self, anchor: int, at: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        index = self.index_of(anchor)
        if index is not None:
            yield from index.candidates1(self._core, at)

    def collateral(self, query: Query) -> Generator[I64, int, None]:
        """Clusters of nonlinear areas for each page of their files that is still mapped (``try_to_unmap_file``)."""
        frames = self._core.frames
        mapped = query.pfns[query.left > 0]
        for pfn in mapped[(frames.flags[mapped] & ANON) == 0].tolist():
            index = self.index_of(frames.anchor1(pfn)[0])
            if index is not None and frames.mapcount[pfn]:
                yield from index.nonlinear.clusters(self._core, int(frames.mapcount[pfn]))

    def metadata_bytes(self, bits: int) -> int:
        """Bytes of ``shared`` in the VMAs of files: a node of a prio_tree or an interval tree has four words."""
        return 4 * bits // 8 * sum(map(len, self._indexes))

    def validate(self) -> None:
        """Check every index."""
        for index in self._indexes:
            index.validate()
