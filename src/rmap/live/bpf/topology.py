"""The records of the iterator over VMAs (``memory.bpf.c``): VMAs, and the links of their chains."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.structs.anon_vmas import KernelVmas, LinkRecords, Topology, join_links

# As in memory.bpf.c.
_WORDS = 6
_VMA, _LINK = 1, 4
_MORE_LINKS = -1 << 63


def parse(raw: bytes) -> Topology:
    """Make tables of the iterator's records."""
    words = np.frombuffer(raw, np.int64).reshape(-1, _WORDS)
    kind = words[:, 0]
    heads = np.flatnonzero(kind == _VMA)
    links = np.flatnonzero(kind == _LINK)
    first, second, third = words[heads], words[heads + 1], words[heads + 2]
    vma_of_link = np.searchsorted(heads, links) - 1
    _, anon_vma, root, parent, counts, active = words[links].T.copy()
    records = LinkRecords(
        vma=vma_of_link,
        anon_vma=anon_vma,
        root=root,
        parent=parent,
        refcount=counts & 0xFFFFFFFF,
        num_children=counts >> 32,
        num_active_vmas=active & ~_MORE_LINKS,
    )
    vmas = KernelVmas(
        pid=first[:, 1],
        address=first[:, 2],
        start=first[:, 3],
        end=first[:, 4],
        flags=first[:, 5],
        pgoff=second[:, 1],
        mm=second[:, 2],
        anon_vma=second[:, 3],
        file=second[:, 4],
        mapping=second[:, 5],
        dev=_device(third[:, 2]),
        inode=third[:, 1],
        i_mmap_writable=third[:, 3],
    )
    return join_links(vmas, records, truncated=np.unique(vma_of_link[active < 0]))


def _device(kernel: I64) -> I64:
    # The kernel keeps 20 bits of minor number, user space spreads them.
    major, minor = kernel >> 20, kernel & 0xFFFFF
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32
