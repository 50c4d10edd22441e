"""Small pictures for the tests, and a way to break one column of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.uapi.kpageflags import KPF_ANON, KPF_SWAPBACKED
from rmap.uapi.vm_flags import VM_EXEC, VM_MAYEXEC, VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_WRITE
from tests.support import PAGE

HEAP = 0x7F00_0000_0000
LIBC = 0x7F10_0000_0000
RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
RX = VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
EXCLUSIVE = KPF_ANON | KPF_SWAPBACKED | f.KPF_ANON_EXCLUSIVE
SHARED = KPF_ANON | KPF_SWAPBACKED


def column(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """An int64 column."""
    return np.array(values, np.int64)


def parent_and_child(first_pid: int = 100, first_pfn: int = 0x1000, **about: Any) -> SnapshotBuilder:
    """A parent with a heap of four pages, and a child that unmapped the first and rewrote the last. Both run libc.

    Frames: heap pages 0 to 3 of the parent are ``first_pfn + 0..3``, the child's copy of page 3 is ``+ 8``; libc has a
    folio of four pages at ``+ 0x10``, of which each maps two. Page 2 of the parent's heap is in swap.
    The topology is the kernel's: A0 of the parent, A1 of the child below it.
    """
    facts = {"topology": "model", "anon_exclusive": True, "pte_write": True, "release": "6.18", **about}
    builder = SnapshotBuilder("model", **facts)
    parent = builder.add_process(first_pid, comm="server", start_time=5)
    child = builder.add_process(first_pid + 1, ppid=first_pid, comm="worker", start_time=6, sharers=[first_pid + 2])
    libc = builder.add_file("/lib/libc.so.6", dev=1, inode=7, size=4 * PAGE)
    root = builder.add_anon_vma(refcount=2, num_children=2, num_active_vmas=1)
    below = builder.add_anon_vma(root=root, parent=root, num_active_vmas=1)
    heap = builder.add_vma(parent, HEAP, HEAP + 4 * PAGE, RW, pgoff=HEAP >> 12, anon_vma=root, label="[heap]")
    rest = builder.add_vma(child, HEAP + PAGE, HEAP + 4 * PAGE, RW, pgoff=(HEAP >> 12) + 1, anon_vma=below)
    builder.add_chain(heap, [root])
    builder.add_chain(rest, [below, root])
    code = [builder.add_vma(p, LIBC, LIBC + 2 * PAGE, RX, pgoff=1, file=libc) for p in (child, parent)]
    pfn = first_pfn
    present, writable = f.PTE_PRESENT, f.PTE_PRESENT | f.PTE_WRITE
    builder.add_ptes(heap, column(HEAP, HEAP + 3 * PAGE), column(pfn, pfn + 3), writable)
    builder.add_ptes(heap, column(HEAP + PAGE), column(pfn + 1), present)
    builder.add_ptes(heap, column(HEAP + 2 * PAGE), column(2 | 50 << 5), f.PTE_SWAP)
    builder.add_ptes(rest, column(HEAP + PAGE), column(pfn + 1), present)
    builder.add_ptes(rest, column(HEAP + 3 * PAGE), column(pfn + 8), writable)
    for vma in code:
        builder.add_ptes(vma, column(LIBC, LIBC + PAGE), column(pfn + 0x11, pfn + 0x12), present | f.PTE_FILE)
    index = HEAP >> 12
    anon: dict[str, Any] = {"kind": k.ANON, "mapping": f.MAPPING_ANON}
    builder.set_frames(
        column(pfn, pfn + 3), mapcount=1, flags=EXCLUSIVE, index=column(index, index + 3), anon_vma=root, **anon
    )
    builder.set_frames(column(pfn + 1), mapcount=2, flags=SHARED, index=index + 1, anon_vma=root, **anon)
    builder.set_frames(column(pfn + 8), mapcount=1, flags=EXCLUSIVE, index=index + 3, anon_vma=below, **anon)
    builder.set_frames(
        column(*range(pfn + 0x10, pfn + 0x14)),
        mapcount=column(0, 2, 2, 0),
        kind=k.FILE,
        order=2,
        head_offset=column(0, 1, 2, 3),
        index=column(0, 1, 2, 3),
        file=libc,
        mapping=f.MAPPING_FILE,
    )
    return builder


def changed(snapshot: Snapshot, table: str, name: str, row: int | slice, value: Any) -> dict[str, Any]:
    """The tables of a picture, with one value (or several) of one column changed."""
    old = snapshot.tables[table]
    values = list(getattr(old, name)) if isinstance(getattr(old, name), list) else getattr(old, name).copy()
    values[row] = value
    return {**snapshot.tables, table: replace(old, **{name: values})}  # type: ignore[type-var]
