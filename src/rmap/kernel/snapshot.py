"""The model's memory as a Snapshot: with everything that /proc does not tell, page offsets and anchors included."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmap.columns import I32, I64
from rmap.kernel.inodes import HEAP, ZERO_DEVICE
from rmap.kernel.machine import Machine
from rmap.mm.frames import (
    ANON,
    EXCLUSIVE,
    KERNEL_OWNED,
    LARGE,
    PG_MLOCKED,
    SWAPBACKED,
    SWAPCACHE,
    TAG_ANON,
    TAG_BITS,
    TAG_SHIFT,
    ZERO_PFN,
)
from rmap.mm.mm_types import Vma
from rmap.mm.pte import DIRTY, PRESENT, RW, SPECIAL, SWAP, SWP_EXCLUSIVE
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.uapi.kpageflags import KPF_ANON, KPF_MLOCKED, KPF_SWAPBACKED, KPF_SWAPCACHE, KPF_ZERO_PAGE
from rmap.units import PAGE_SHIFT, PAGE_SIZE


def snapshot_of(machine: Machine[Any]) -> Snapshot:
    """Describe a machine of the model as tables. Its PFNs are the model's own."""
    core = machine.core
    topology = core.rmap.topology()
    builder = SnapshotBuilder(
        "model",
        release=core.profile.release,
        topology="model" if topology is not None else "none",
        pte_write=True,
        anon_exclusive=True,
        vma_flags="smaps",
        swapped=core.swap.ever_used,
    )
    files = {
        mapping.id: builder.add_file(
            mapping.name, size=mapping.size, inode=mapping.id, kind=f.FILE_SHMEM if mapping.shmem else f.FILE_REGULAR
        )
        for mapping in core.mappings
    }
    zero_device = builder.add_file(ZERO_DEVICE, kind=f.FILE_DEVICE) if _maps_zero_device(machine) else -1
    anon_vmas = _AnonVmas(builder, topology)
    sharers: dict[int, list[int]] = {}
    for pid, process in sorted(machine.processes.items()):
        sharers.setdefault(process.mm.id, []).append(pid)
    for pids in sharers.values():
        process = machine.processes[pids[0]]
        parent = process.parent
        row = builder.add_process(
            pids[0],
            ppid=parent.pid if parent is not None and parent.alive else 0,
            start_time=pids[0],
            page_table_bytes=len(process.mm.rows) * PAGE_SIZE,
            sharers=pids[1:],
        )
        for vma in process.mm.vmas:
            has_zero = vma.file is not None and vma.file.zero_device
            file = files[vma.mapping.id] if vma.mapping is not None else zero_device if has_zero else -1
            _add_vma(machine, builder, row, vma, file, anon_vmas)
    _add_frames(machine, builder, files, anon_vmas)
    return builder.build()


def _maps_zero_device(machine: Machine[Any]) -> bool:
    return any(
        vma.file is not None and vma.file.zero_device for mm in machine.core.mms.values() for vma in mm.vmas
    )


class _AnonVmas:
    def __init__(self, builder: SnapshotBuilder, topology: dict[str, I64] | None) -> None:
        # The design's topology as rows of the picture: of each anon_vma, and of each VMA the active one and its chain.
        self.row: dict[int, int] = {}
        self.active: dict[tuple[int, int], int] = {}
        self.chain: dict[tuple[int, int], list[int]] = {}
        if topology is None:
            return
        lists = {name: column.tolist() for name, column in topology.items()}
        self.row = {id: row for row, id in enumerate(lists["id"])}
        names = ("root", "parent", "refcount", "num_children", "num_active_vmas")
        for root, parent, refcount, children, active in zip(*(lists[name] for name in names)):
            builder.add_anon_vma(
                root=self.row[root],
                parent=self.row[parent],
                refcount=refcount,
                num_children=children,
                num_active_vmas=active,
            )
        for mm, start, id in zip(lists["vma_mm"], lists["vma_start"], lists["vma_anon_vma"]):
            self.active[mm, start] = self.row[id]
        for mm, start, id in zip(lists["chain_mm"], lists["chain_start"], lists["chain_anon_vma"]):
            self.chain.setdefault((mm, start), []).append(self.row[id])

    def rows_of(self, ids: I64) -> I64:
        # The rows of anon_vma ids, -1 where the design has none.
        if not self.row:
            return np.full(len(ids), -1, np.int64)
        table = np.full(max(self.row) + 1, -1, np.int64)
        table[list(self.row)] = list(self.row.values())
        return table[ids]


def _add_vma(
    machine: Machine[Any], builder: SnapshotBuilder, process: int, vma: Vma, file: int, anon_vmas: _AnonVmas
) -> None:
    key = (vma.mm.id, vma.start)
    row = builder.add_vma(
        process,
        vma.start,
        vma.end,
        vma.flags,
        pgoff=vma.pgoff,
        file=file,
        anon_vma=anon_vmas.active.get(key, -1),
        label=_label(vma),
    )
    builder.add_chain(row, anon_vmas.chain.get(key, []))
    for piece in machine.core.spans(vma, vma.start, vma.end):
        offs = np.flatnonzero(piece.entries)
        if len(offs):
            entries = piece.entries[offs]
            pfn, flags = _describe_entries(machine, entries)
            builder.add_ptes(row, piece.addr + offs * PAGE_SIZE, pfn, flags)


def _label(vma: Vma) -> str:
    if vma.file is not None and vma.file.special is not None:
        return vma.file.name
    return HEAP if vma.start == vma.mm.start_brk and vma.mm.brk > vma.start else ""


def _describe_entries(machine: Machine[Any], entries: I64) -> tuple[I64, I32]:
    frames = machine.core.frames
    present = (entries & PRESENT) != 0
    special = present & ((entries & SPECIAL) != 0)
    number = entries >> PAGE_SHIFT
    pfn = np.where(present, number, number << f.SWAP_TYPE_BITS)
    tracked = np.where(present & ~special, number, 0)
    flags = np.where(present, f.PTE_PRESENT, f.PTE_SWAP)
    flags |= np.where(special, f.PTE_SPECIAL, 0)
    flags |= np.where((tracked > 0) & (frames.mapcount[tracked] == 1), f.PTE_EXCLUSIVE, 0)
    flags |= np.where((tracked > 0) & ((frames.flags[tracked] & ANON) == 0), f.PTE_FILE, 0)
    flags |= np.where(present & ((entries & RW) != 0), f.PTE_WRITE, 0)
    flags |= np.where(present & ((entries & DIRTY) != 0), f.PTE_DIRTY, 0)
    flags |= np.where(~present & ((entries & SWAP) != 0) & ((entries & SWP_EXCLUSIVE) != 0), f.PTE_EXCLUSIVE, 0)
    return pfn, flags.astype(np.int32)


def _add_frames(
    machine: Machine[Any], builder: SnapshotBuilder, files: dict[int, int], anon_vmas: _AnonVmas
) -> None:
    core, frames = machine.core, machine.core.frames
    # Folios are described whole, also those of which only a part is mapped.
    used = np.flatnonzero((frames.mapcount != 0) | (frames.extra != 0) | ((frames.flags & LARGE) != 0))
    builder.set_frames(np.array([ZERO_PFN], np.int64), kind=k.ZERO, flags=KPF_ZERO_PAGE)
    kernels = np.flatnonzero(frames.flags & KERNEL_OWNED)
    builder.set_frames(kernels[kernels != ZERO_PFN], kind=k.KERNEL)
    if not len(used):
        return
    linear = core.rmap.index_is == "linear"
    mapping, index = frames.anchor(used)
    own = frames.flags[used]
    anon = ((own & ANON) != 0) | ((mapping & TAG_BITS) == TAG_ANON)
    of_file = ~anon & (mapping != 0)
    handle = mapping >> TAG_SHIFT
    shmem = np.zeros(len(used), np.bool_)
    file = np.full(len(used), -1, np.int64)
    for id in np.unique(handle[of_file]).tolist():
        here = of_file & (handle == id)
        file[here] = files[id]
        shmem[here] = core.mappings[id - 1].shmem
    anchor = np.full(len(used), -1, np.int64)
    if linear:
        anchor[anon] = anon_vmas.rows_of(handle[anon])
    page_flags = np.zeros(len(used), np.int64)
    for bit, kpf in (
        (ANON, KPF_ANON),
        (SWAPBACKED, KPF_SWAPBACKED),
        (SWAPCACHE, KPF_SWAPCACHE),
        (PG_MLOCKED, KPF_MLOCKED),
        (EXCLUSIVE, f.KPF_ANON_EXCLUSIVE),
    ):
        page_flags |= np.where((own & bit) != 0, kpf, 0)
    offset = frames.head_offset[used].astype(np.int64)
    builder.set_frames(
        used,
        mapcount=frames.mapcount[used],
        flags=page_flags,
        kind=np.where(anon | ~of_file, k.ANON, np.where(shmem, k.SHMEM, k.FILE)),
        head_offset=offset,
        order=frames.order[used - offset],
        mapping=np.where(anon, f.MAPPING_ANON, np.where(of_file, f.MAPPING_FILE, f.MAPPING_UNKNOWN)),
        index=np.where(of_file | (anon & linear), index, -1),
        file=file,
        anon_vma=anchor,
    )
