"""Kernel structures as columns, whoever reads them: struct pages, page-table entries, nodes of interval trees.

``struct page`` and ``struct folio`` (include/linux/mm_types.h), entries of x86-64 page tables
(arch/x86/include/asm/pgtable_types.h), ``interval_tree`` nodes (mm/interval_tree.c); Linux 6.18.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from rmap.columns import I64, Bool
from rmap.units import PAGE_SHIFT

TAG_MASK = 3
"""The bits of ``folio->mapping`` that say what it points to (rule 1.1)."""
ANON_TAG, KSM_TAG = 1, 3

_FRAME = 0x000FFFFFFFFFF000
_PRESENT, _PROTNONE = 1, 1 << 8


@dataclass(frozen=True)
class StructPages:
    """``struct page`` of some frames, in the order asked; int64 columns unless stated.

    Attributes:
        pfn: as asked.
        valid: bool: there is such a struct page. The other columns of an invalid row are 0.
        flags: of the folio's head.
        mapping: of the head: a tagged pointer (rule 1.1); trustworthy only while the page is mapped.
        index: of this page: its head's, and its place in the folio (rule 1.3).
        mapcount: how many entries map this page (rule 1.4; of a large folio: by entries and as a whole).
        refcount: of the folio.
        head: PFN of the folio's head.
        order: of the folio.
        large_mapcount, entire_mapcount, nr_pages_mapped: counters of a large folio (rule 1.5), as stored.
        exclusive: bool: PG_anon_exclusive, where this page keeps it (rule 1.7).
    """

    pfn: I64
    valid: Bool
    flags: I64
    mapping: I64
    index: I64
    mapcount: I64
    refcount: I64
    head: I64
    order: I64
    large_mapcount: I64
    entire_mapcount: I64
    nr_pages_mapped: I64
    exclusive: Bool


def anchors(mapping: I64) -> tuple[Bool, Bool, I64]:
    """Which tagged pointers (rule 1.1) lead to an anon_vma, which to an address_space; and the pointers without tag."""
    tag, pointer = mapping & TAG_MASK, mapping & ~TAG_MASK
    return tag == ANON_TAG, (tag == 0) & (pointer != 0), pointer


class EntryAt(NamedTuple):
    """What the page tables of one process hold at one address.

    Attributes:
        pfn: the frame that is mapped there, -1 for none.
        swapped: there is an entry, and it maps no page: it names a slot of swap, or is a marker.
    """

    pfn: int
    swapped: bool


@dataclass(frozen=True)
class RawPtes:
    """Page-table entries as the machine has them, in the order asked (x86-64).

    Attributes:
        entry: int64: the entry that decides about the address: of the lowest level reached.
        shift: int64: what that entry covers, as a power of two in bytes: 12 for a page, 21 for a PMD, and so on.
    """

    entry: I64
    shift: I64

    @property
    def present(self) -> Bool:
        """Whether the entry maps a page, or a huge page; also where nobody may use it now (PROT_NONE, NUMA hints)."""
        return (self.entry & (_PRESENT | _PROTNONE) != 0) & ((self.shift == 12) | (self.entry & 1 << 7 != 0))

    @property
    def write(self) -> Bool:
        """Whether it allows writing."""
        return self.present & (self.entry & 1 << 1 != 0)

    @property
    def dirty(self) -> Bool:
        """Whether the page was written through it. Where writing is not allowed, the bit is kept elsewhere (58)."""
        return self.present & (self.entry & (1 << 6 | 1 << 58) != 0)

    @property
    def pfn(self) -> I64:
        """The frame of the entry; of a huge page, its first."""
        # Against L1TF, an entry that the processor must not follow has the bits of its frame inverted.
        entry = np.where(self.entry & _PRESENT != 0, self.entry, ~self.entry)
        first = np.int64(-1) << self.shift  # a huge page has other bits below its frame
        return np.where(self.present, (entry & _FRAME & first) >> PAGE_SHIFT, 0)

    def pfn_at(self, addresses: I64) -> I64:
        """The frame at these addresses (int64, bytes, as asked), be it within a huge page; -1 where none is mapped."""
        inside = addresses >> PAGE_SHIFT & (np.int64(1) << self.shift - PAGE_SHIFT) - 1
        return np.where(self.present, self.pfn + inside, -1)

    def maps(self, addresses: I64, pfns: I64) -> Bool:
        """Which entries map these frames at these addresses (int64, bytes, as asked), be it within a huge page."""
        return self.present & (self.pfn_at(addresses) == pfns)

    def entries_at(self, addresses: I64) -> list[EntryAt]:
        """The same, one by one (addresses: int64, bytes, as asked)."""
        return [EntryAt(*each) for each in zip(self.pfn_at(addresses).tolist(), self.swapped.tolist())]

    @property
    def swapped(self) -> Bool:
        """Whether there is an entry that maps nothing: it names a slot of swap, or is a marker."""
        return ~self.present & (self.entry != 0)

    @property
    def swap_entry(self) -> I64:
        """``type | offset << 5`` of a swap entry; makes no sense for others. Types from 23 on are markers."""
        bits = self.entry.view(np.uint64)
        offset = (~bits << np.uint64(5) >> np.uint64(14)).astype(np.int64)  # inverted, against L1TF
        return (bits >> np.uint64(59)).astype(np.int64) | offset << 5

    @property
    def swap_exclusive(self) -> Bool:
        """The exclusive marker of a swap entry (rule 4.12); makes no sense for others."""
        return ~self.present & (self.shift == 12) & (self.entry & 1 << 3 != 0)


@dataclass(frozen=True)
class Nodes:
    """Nodes of interval trees (rule 1.11); int64 columns.

    Attributes:
        node, left, right: addresses of ``rb_node``, 0 for none.
        subtree_last: as the node keeps it: the last page index of any interval below it.
        vma, start, end, pgoff, mm, flags: of the VMA behind the node.
        mm_users: of the VMA's mm: 0 from when its last user left it.
    """

    node: I64
    left: I64
    right: I64
    subtree_last: I64
    vma: I64
    start: I64
    end: I64
    pgoff: I64
    mm: I64
    flags: I64
    mm_users: I64

    def __len__(self) -> int:
        return len(self.node)

    @property
    def last(self) -> I64:
        """The last page index of each node's own interval."""
        return self.pgoff + ((self.end - self.start) >> PAGE_SHIFT) - 1


NODE_COLUMNS = tuple(column.name for column in fields(Nodes))
"""The columns of nodes."""


@dataclass(frozen=True)
class TreeNodes(Nodes):
    """The nodes of one interval tree, a parent before its children.

    Attributes:
        truncated: there are more nodes than are read of one tree.
        i_mmap_writable: of a file's tree; 0 for an anon_vma's.
    """

    truncated: bool
    i_mmap_writable: int
