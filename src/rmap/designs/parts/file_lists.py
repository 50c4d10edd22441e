"""The VMAs of a file in lists (``i_mmap`` and ``i_mmap_shared`` of 2.5 and 2.6.0), and the walk of such a list.

A list has no order that helps a search: every VMA is asked whether it covers the page. Private and shared mappings have
a list each; the private ones are asked first. A new VMA goes to the tail of its list. A forked one goes right
before its parent's, although the comment there said behind (``dup_mmap``; mended in 2004).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from rmap.errors import InvariantError
from rmap.mm.costs import NODES_VISITED, Costs
from rmap.mm.interface import Candidate1, Candidates, Linear, Query
from rmap.mm.vma import VM_NONLINEAR, VM_SHARED, Vma
from rmap.units import PAGE_SHIFT


class FileLists:
    """One file's VMAs. ``vma.shared`` is true while a VMA is in.

    Args:
        costs: searches count the VMAs they ask to the operation under way.

    Attributes:
        private, shared: the lists.
    """

    __slots__ = ("_costs", "private", "shared")

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.private: list[Vma] = []
        self.shared: list[Vma] = []

    def _list_of(self, vma: Vma) -> list[Vma]:
        return self.shared if vma.flags & VM_SHARED else self.private

    def insert(self, vma: Vma) -> None:
        """Add a VMA at the tail."""
        vma.shared = True
        self._list_of(vma).append(vma)

    def insert_after(self, vma: Vma, sibling: Vma) -> None:
        """Add a forked VMA at its parent's place; the parent's is then behind it."""
        vma.shared = True
        members = self._list_of(vma)
        members.insert(members.index(sibling), vma)

    def remove(self, vma: Vma) -> None:
        """Take a VMA out."""
        vma.shared = None
        self._list_of(vma).remove(vma)

    def stab(self, first: int, last: int) -> Iterator[Vma]:
        """The VMAs that touch page indexes ``first`` to ``last``, and every nonlinear one: it may map any page."""
        counters = self._costs.current
        for vma in self:
            counters[NODES_VISITED] += 1
            if vma.flags & VM_NONLINEAR or (vma.pgoff <= last and vma.last >= first):
                yield vma

    def __iter__(self) -> Iterator[Vma]:
        yield from self.private
        yield from self.shared

    def __len__(self) -> int:
        return len(self.private) + len(self.shared)

    def validate(self) -> None:
        """Check that every VMA is in its list, once.

        Raises:
            InvariantError: ``I22``.
        """
        members = list(self)
        if len({id(vma) for vma in members}) != len(members):
            raise InvariantError("I22", "a VMA is in i_mmap twice")
        for vma in members:
            if vma.shared is None or vma not in self._list_of(vma):
                raise InvariantError("I22", f"{vma} is in the wrong list of its file, or was taken out by half")


def linear_candidates(
    vmas: Iterable[Vma], query: Query, keys: memoryview[int], lo: int, hi: int, counters: list[int]
) -> Candidates:
    """Ask each VMA of a list for positions ``lo`` to ``hi`` of a query that is sorted by index.

    VMAs of an mm without page tables are passed over, as those of an mm without resident pages were (``mm->rss``).

    Args:
        keys: the page indexes of the query, ascending between ``lo`` and ``hi``.
    """
    for vma in vmas:
        counters[NODES_VISITED] += query.asking(lo, hi)
        if vma.flags & VM_NONLINEAR or not vma.mm.rows:
            continue
        first, end = bisect_left(keys, vma.pgoff, lo, hi), bisect_right(keys, vma.last, lo, hi)
        if first < end:
            yield Linear(vma, first, end)
            if query.all_found(lo, hi):
                return


def linear_candidates1(vmas: Iterable[Vma], index: int, counters: list[int]) -> Iterator[Candidate1]:
    """The scalar twin: ``(VMA, address)``."""
    for vma in vmas:
        counters[NODES_VISITED] += 1
        if not vma.flags & VM_NONLINEAR and vma.mm.rows and vma.pgoff <= index <= vma.last:
            yield vma, vma.start + ((index - vma.pgoff) << PAGE_SHIFT)
