"""The records of the iterator over VMAs, as columns: VMAs, their chains, the anon_vmas these name.

Objects are told apart by address *and* lifetime (rule 1.9): the kernel reuses an anon_vma's address as soon as it is
free. Within one reading, records that agree in address, root and parent are one object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmap.columns import I64, Bool, rows_of

# As in memory.bpf.c.
_WORDS = 6
_VMA, _LINK = 1, 4
_MORE_LINKS = -1 << 63


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


def parse(raw: bytes) -> Topology:
    """Make tables of the iterator's records."""
    words = np.frombuffer(raw, np.int64).reshape(-1, _WORDS)
    kind = words[:, 0]
    heads = np.flatnonzero(kind == _VMA)
    links = np.flatnonzero(kind == _LINK)
    first, second, third = words[heads], words[heads + 1], words[heads + 2]
    vma_of_link = np.searchsorted(heads, links) - 1
    records = words[links]
    more = records[:, 5] < 0
    anon_vmas, of_link = _anon_vmas(records)
    vmas = KernelVmas(
        pid=first[:, 1],
        address=first[:, 2],
        start=first[:, 3],
        end=first[:, 4],
        flags=first[:, 5],
        pgoff=second[:, 1],
        mm=second[:, 2],
        anon_vma=_active(second[:, 3], vma_of_link, of_link, anon_vmas.address),
        file=second[:, 4],
        mapping=second[:, 5],
        dev=_device(third[:, 2]),
        inode=third[:, 1],
        i_mmap_writable=third[:, 3],
    )
    return Topology(vmas, KernelLinks(vma_of_link, of_link), anon_vmas, np.unique(vma_of_link[more]))


# The kernel keeps 20 bits of minor number, user space spreads them.
def _device(kernel: I64) -> I64:
    major, minor = kernel >> 20, kernel & 0xFFFFF
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


# One row per (address, root, parent), and the row of each record.
def _anon_vmas(records: I64) -> tuple[KernelAnonVmas, I64]:
    identity = records[:, 1:4]
    order = np.lexsort((identity[:, 2], identity[:, 1], identity[:, 0]))
    ordered = identity[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    row = np.empty(len(order), np.int64)
    row[order] = np.cumsum(begins) - 1
    first = order[begins]
    chosen = records[first]
    torn = np.zeros(len(first), np.bool_)
    torn[row[(records[:, 4:] & ~_MORE_LINKS != chosen[row][:, 4:] & ~_MORE_LINKS).any(axis=1)]] = True
    address = chosen[:, 1]
    table = KernelAnonVmas(
        address=address,
        root=rows_of(address, chosen[:, 2], ascending=True),
        parent=rows_of(address, chosen[:, 3], ascending=True),
        refcount=chosen[:, 4] & 0xFFFFFFFF,
        num_children=chosen[:, 4] >> 32,
        num_active_vmas=chosen[:, 5] & ~_MORE_LINKS,
        torn=torn,
    )
    return table, row


# The active anon_vma of each VMA: the one of its own links that has the address its pointer says.
def _active(pointer: I64, vma_of_link: I64, of_link: I64, address: I64) -> I64:
    active = np.where(pointer == 0, -1, rows_of(address, pointer, ascending=True))
    named = address[of_link] == pointer[vma_of_link]
    active[vma_of_link[named]] = of_link[named]
    return active
