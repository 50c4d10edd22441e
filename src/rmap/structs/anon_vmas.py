"""VMAs, their chains, and the anon_vmas these name, as columns (``mm/rmap.c``, ``include/linux/rmap.h``; Linux 6.18).

Objects are told apart by address *and* lifetime (rule 1.9): the kernel reuses an anon_vma's address as soon as it is
free. Within one reading, records that agree in address, root and parent are one object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rmap.columns import I64, Bool, rows_of


@dataclass(frozen=True)
class KernelVmas:
    """VMAs, in the order of processes and addresses; int64 columns.

    Attributes:
        pid: the process (thread group).
        address: of its ``vm_area_struct``.
        start, end, flags, pgoff: as its fields; addresses in bytes, pgoff in pages.
        mm: address of the ``mm_struct``; equal for processes that share one.
        anon_vma: row in ``anon_vmas``, -1 for none.
        file: address of the ``struct file``, 0 for none.
        mapping: address of the ``address_space``, 0 for none.
        dev, inode: of the inode behind the mapping, 0 for none.
        i_mmap_writable: of the mapping.
    """

    pid: I64
    address: I64
    start: I64
    end: I64
    flags: I64
    pgoff: I64
    mm: I64
    anon_vma: I64
    file: I64
    mapping: I64
    dev: I64
    inode: I64
    i_mmap_writable: I64

    def __len__(self) -> int:
        return len(self.pid)


@dataclass(frozen=True)
class KernelLinks:
    """Links of VMAs to anon_vmas, in the order of VMAs and of their chains; int64 columns of row numbers."""

    vma: I64
    anon_vma: I64

    def __len__(self) -> int:
        return len(self.vma)


@dataclass(frozen=True)
class KernelAnonVmas:
    """anon_vmas, by address; int64 columns.

    Attributes:
        address: of the ``struct anon_vma``.
        root, parent: rows of this table, -1 for one that no VMA read is linked to.
        refcount, num_children, num_active_vmas: as its fields.
        torn: bool: its records in this reading differ, so it changed meanwhile.
    """

    address: I64
    root: I64
    parent: I64
    refcount: I64
    num_children: I64
    num_active_vmas: I64
    torn: Bool

    def __len__(self) -> int:
        return len(self.address)


@dataclass(frozen=True)
class Topology:
    """One reading.

    Attributes:
        vmas, links, anon_vmas: the tables.
        truncated: rows of VMAs with more links than are read of one VMA (600).
    """

    vmas: KernelVmas
    links: KernelLinks
    anon_vmas: KernelAnonVmas
    truncated: I64


@dataclass(frozen=True)
class LinkRecords:
    """What the kernel says of each ``anon_vma_chain`` of some VMAs and of the anon_vma behind it; int64 columns.

    Attributes:
        vma: row of the VMA; ascending, and in the order of its chain.
        anon_vma, root, parent: addresses.
        refcount, num_children, num_active_vmas: of the anon_vma.
    """

    vma: I64
    anon_vma: I64
    root: I64
    parent: I64
    refcount: I64
    num_children: I64
    num_active_vmas: I64


def join_links(vmas: KernelVmas, records: LinkRecords, truncated: I64) -> Topology:
    """Make tables of VMAs and their links: every anon_vma once, rows in the place of addresses.

    Args:
        vmas: with the address of the active anon_vma, 0 for none, where its row will be.
        records: the links of these VMAs.
        truncated: rows of VMAs of which not all links are there.
    """
    anon_vmas, of_link = _anon_vmas(records)
    active = _active(vmas.anon_vma, records.vma, of_link, anon_vmas.address)
    return Topology(replace(vmas, anon_vma=active), KernelLinks(records.vma, of_link), anon_vmas, truncated)


def _anon_vmas(records: LinkRecords) -> tuple[KernelAnonVmas, I64]:
    # One row per (address, root, parent), and the row of each record.
    identity = np.column_stack((records.anon_vma, records.root, records.parent))
    order = np.lexsort((identity[:, 2], identity[:, 1], identity[:, 0]))
    ordered = identity[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    row = np.empty(len(order), np.int64)
    row[order] = np.cumsum(begins) - 1
    first = order[begins]
    torn = np.zeros(len(first), np.bool_)
    for column in (records.refcount, records.num_children, records.num_active_vmas):
        torn[row[column != column[first][row]]] = True
    address = records.anon_vma[first]
    table = KernelAnonVmas(
        address=address,
        root=rows_of(address, records.root[first], ascending=True),
        parent=rows_of(address, records.parent[first], ascending=True),
        refcount=records.refcount[first],
        num_children=records.num_children[first],
        num_active_vmas=records.num_active_vmas[first],
        torn=torn,
    )
    return table, row


def _active(pointer: I64, vma_of_link: I64, of_link: I64, address: I64) -> I64:
    # The active anon_vma of each VMA: the one of its own links that has the address its pointer says.
    active = np.where(pointer == 0, -1, rows_of(address, pointer, ascending=True))
    named = address[of_link] == pointer[vma_of_link]
    active[vma_of_link[named]] = of_link[named]
    return active
