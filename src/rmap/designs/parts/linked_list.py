"""A list of VMAs as the kernel has it (``struct list_head``): in and out anywhere in one step, read from the head."""

from __future__ import annotations

from collections.abc import Iterator

from rmap.mm.mm_types import Vma


class ListNode:
    """A VMA's place in a list."""

    __slots__ = ("next", "prev", "vma")

    prev: ListNode
    next: ListNode

    def __init__(self, vma: Vma | None) -> None:
        self.vma = vma


class LinkedList:
    """VMAs in a ring around an anchor.

    Attributes:
        size: how many.
    """

    __slots__ = ("_anchor", "size")

    def __init__(self) -> None:
        self._anchor = ListNode(None)
        self._anchor.prev = self._anchor.next = self._anchor
        self.size = 0

    def insert_before(self, vma: Vma, node: ListNode) -> ListNode:
        """Put a VMA right before a node; returns its own."""
        new = ListNode(vma)
        new.prev, new.next = node.prev, node
        node.prev.next = new
        node.prev = new
        self.size += 1
        return new

    def add(self, vma: Vma) -> ListNode:
        """Put a VMA at the head (``list_add``)."""
        return self.insert_before(vma, self._anchor.next)

    def add_tail(self, vma: Vma) -> ListNode:
        """Put a VMA at the tail (``list_add_tail``)."""
        return self.insert_before(vma, self._anchor)

    def remove(self, node: ListNode) -> None:
        """Take a VMA out (``list_del``)."""
        node.prev.next = node.next
        node.next.prev = node.prev
        self.size -= 1

    def nodes(self) -> Iterator[ListNode]:
        """Every node, from the head."""
        node = self._anchor.next
        while node is not self._anchor:
            yield node
            node = node.next

    def __iter__(self) -> Iterator[Vma]:
        anchor = self._anchor
        node = anchor.next
        while node is not anchor:
            assert node.vma is not None
            yield node.vma
            node = node.next

    def __len__(self) -> int:
        return self.size
