"""The links of an anon_vma in a list (``anon_vma.head``, 2.6.34 to 3.6): each VMA is asked if it covers the page."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from rmap.designs.parts.anon_vma import AnonVmaChain
from rmap.errors import InvariantError
from rmap.mm.costs import NODES_VISITED


class LinkList:
    """Links in the order of their insertion, the last one at the tail."""

    __slots__ = ("_links",)

    def __init__(self) -> None:
        self._links: dict[AnonVmaChain, None] = {}

    @property
    def root(self) -> AnonVmaChain | None:
        """The first link, None if there is none."""
        return next(iter(self._links), None)

    def insert(self, node: AnonVmaChain) -> None:
        """Add a link at the tail."""
        self._links[node] = None

    def remove(self, node: AnonVmaChain) -> None:
        """Take a link out."""
        del self._links[node]

    def stab(self, first: int, last: int, counters: list[int]) -> Iterator[AnonVmaChain]:
        """The links whose VMAs touch these page indexes; every link looked at is counted."""
        for link in self._links:
            counters[NODES_VISITED] += 1
            if link.start <= last and link.last >= first:
                yield link

    def stab_many(
        self, keys: memoryview[int], lo: int, hi: int, asking: Callable[[int, int], int], counters: list[int]
    ) -> Iterator[tuple[AnonVmaChain, int, int]]:
        """Many searches at once: ``(link, a, b)``, the link covers keys ``a`` to ``b``."""
        for link in self._links:
            counters[NODES_VISITED] += asking(lo, hi)
            a, b = bisect_left(keys, link.start, lo, hi), bisect_right(keys, link.last, lo, hi)
            if a < b:
                yield link, a, b

    def validate(self) -> None:
        """Check that no link is empty.

        Raises:
            InvariantError: ``I12``.
        """
        for link in self._links:
            if link.start > link.last:
                raise InvariantError("I12", f"an empty interval [{link.start:#x}, {link.last:#x}]")

    def __iter__(self) -> Iterator[AnonVmaChain]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)
