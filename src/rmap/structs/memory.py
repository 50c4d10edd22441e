"""The protocol by which everybody reads kernel structures: from the running kernel, a crash dump, or a test's own.

A source says what the structures hold, as columns, and nothing of what it means. Whoever implements
:class:`KernelMemory` gets the walk (:mod:`rmap.structs.walk`), the check (:mod:`rmap.structs.check`) and a snapshot
(:mod:`rmap.structs.snapshot`) without another source beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rmap.columns import I64
from rmap.structs.anon_vmas import Topology
from rmap.structs.page import EntryAt, RawPtes, StructPages, TreeNodes


class KernelMemory(Protocol):
    """Reads the structures of one kernel.

    A source that reads a kernel while it runs gives copies of a moment that nobody else stopped: an object may be freed
    while it is read, and two objects may be of two moments. Whoever draws conclusions reads again, or stops the
    processes first.
    """

    @property
    def release(self) -> str:
        """The kernel's release: some rules are of some releases (rule 0.3)."""

    @property
    def why_no_ptes(self) -> str | None:
        """What is missing for :meth:`ptes`, in words; None if nothing is."""

    def topology(self, pids: Iterable[int] | None = None) -> Topology:
        """Every VMA with its chain, in order.

        Args:
            pids: of these processes (thread groups); None means all.
        """

    def struct_pages(self, pfns: I64) -> StructPages:
        """The struct pages of some frames.

        Args:
            pfns: int64, in any order, repeated or not.
        """

    def ptes(self, mm: int, addresses: I64) -> RawPtes:
        """Page-table entries of one process, as the machine has them.

        Args:
            mm: address of its ``mm_struct``, as :meth:`topology` gives it. If it was freed meanwhile, what is read
                makes no sense.
            addresses: int64, bytes, in any order.

        Raises:
            NotPermitted: :attr:`why_no_ptes` says why.
        """

    def entry_at(self, pid: int, mm: int, address: int) -> EntryAt | None:
        """What the page tables of one process hold at one address; None where that cannot be read.

        Args:
            pid: of a process with this mm, -1 if none is known.
            mm: address of its ``mm_struct``.
            address: bytes.

        Raises:
            NotPermitted: this user may not read page tables at all.
        """

    def anon_vma_tree(self, address: int) -> TreeNodes:
        """The interval tree of an anon_vma.

        Args:
            address: of the ``struct anon_vma``. If it was freed meanwhile, what is read makes no sense.
        """

    def i_mmap_tree(self, address: int) -> TreeNodes:
        """The interval tree of a file: every VMA that maps it.

        Args:
            address: of the ``struct address_space``.
        """

    def comm(self, pid: int) -> str:
        """The command of a process, ``"(ended)"`` if there is none."""

    def ksm_references(self) -> int:
        """How many references KSM holds to anon_vmas: one per page in its stable tree (rule 2.9)."""
