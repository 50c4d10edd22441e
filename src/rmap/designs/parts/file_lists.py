"""The VMAs of a file in lists (``i_mmap`` and ``i_mmap_shared`` of 2.5 and 2.6.0), and the walk of such a list.

A list has no order that helps a search: every VMA is asked whether it covers the page. Private and shared mappings have
a list each; the private ones are asked first. A new VMA goes to the tail of its list. A forked one goes right
before its parent's, although the comment there said behind (``dup_mmap``; mended in 2004).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from rmap.designs.parts.linked_list import LinkedList
from rmap.errors import InvariantError
from rmap.mm.costs import NODES_VISITED, Costs
from rmap.mm.interface import Candidates, Linear, Query
from rmap.mm.mm_types import Vma
from rmap.uapi.vm_flags import VM_NONLINEAR, VM_SHARED
from rmap.units import PAGE_SHIFT


class FileLists:
    """One file's VMAs. ``vma.shared`` is the VMA's place in its list.

    Args:
        costs: searches count the VMAs they ask to the operation under way.

    Attributes:
        private, shared: the lists.
    """

    __slots__ = ("_costs", "private", "shared")

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.private = LinkedList()
        self.shared = LinkedList()

    def _list_of(self, vma: Vma) -> LinkedList:
        return self.shared if vma.flags & VM_SHARED else self.private

    def insert(self, vma: Vma) -> None:
        """Add a VMA at the tail."""
        vma.shared = self._list_of(vma).add_tail(vma)

    def insert_after(self, vma: Vma, sibling: Vma) -> None:
        """Add a forked VMA at its parent's place; the parent's is then behind it."""
        vma.shared = self._list_of(vma).insert_before(vma, sibling.shared)

    def remove(self, vma: Vma) -> None:
        """Take a VMA out."""
        self._list_of(vma).remove(vma.shared)
        vma.shared = None

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
        for members in (self.private, self.shared):
            nodes = list(members.nodes())
            if len(nodes) != members.size:
                raise InvariantError("I22", f"a list of {members.size} VMAs of a file has {len(nodes)}")
            for node in nodes:
                vma = node.vma
                if vma is None or vma.shared is not node or self._list_of(vma) is not members:
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


def linear_candidates1(vmas: Iterable[Vma], index: int, counters: list[int]) -> Iterator[tuple[Vma, int]]:
    """The scalar twin: ``(VMA, address)``."""
    for vma in vmas:
        counters[NODES_VISITED] += 1
        if not vma.flags & VM_NONLINEAR and vma.mm.rows and vma.pgoff <= index <= vma.last:
            yield vma, vma.start + ((index - vma.pgoff) << PAGE_SHIFT)
