"""A snapshot made of kernel structures: what they say, and nothing that only /proc could add.

:func:`complete_vmas` writes VMAs' own fields, chains and anon_vmas into a snapshot that somebody else began;
:func:`snapshot_of` makes a whole one of structures alone. So every question that is asked of a snapshot can be asked of
a source that has no /proc beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rmap.columns import I64, Bool, expand, rows_of
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.structs.anon_vmas import Topology
from rmap.structs.memory import KernelMemory
from rmap.structs.page import KSM_TAG, TAG_MASK, RawPtes, StructPages, anchors
from rmap.uapi.kpageflags import KPF_ANON, KPF_KSM, KPF_NOPAGE
from rmap.uapi.pagemap import FIRST_SPECIAL_TYPE
from rmap.units import PAGE_SHIFT

_NOWHERE = -1
_LEVEL_SHIFTS = (39, 30, 21, PAGE_SHIFT)
"""What an entry of each level of x86-64 page tables covers, below the fifth."""


def complete_vmas(builder: SnapshotBuilder, topology: Topology, kernel_row: I64) -> I64:
    """Complete the VMAs of a snapshot: flags, pgoff, anon_vma, chain; and add the anon_vmas they name.

    Args:
        builder: with all processes and VMAs added.
        topology: of the same kernel.
        kernel_row: int64, for each VMA added the row of the same VMA in ``topology``, -1 for none: such a VMA gets no
            chain, and the anon_vmas it is linked to are marked as not whole.

    Returns:
        int64: for each anon_vma of ``topology`` its id in the snapshot, -1 for those that no VMA of it is linked to.
    """
    vmas, links = topology.vmas, topology.links
    matched = np.zeros(len(vmas), np.bool_)
    matched[kernel_row[kernel_row >= 0]] = True
    ids = _add_anon_vmas(topology, matched, builder)
    columns = (kernel_row, vmas.flags[kernel_row] & f.VM_ALL, vmas.pgoff[kernel_row], vmas.anon_vma[kernel_row])
    first = np.searchsorted(links.vma, np.arange(len(vmas) + 1)).tolist()
    linked = ids[links.anon_vma].tolist()
    rows = zip(builder.rows("vmas"), *(column.tolist() for column in columns))
    for number, (row, at, flags, pgoff, active) in enumerate(rows):
        if at < 0:
            continue
        row["flags"], row["pgoff"] = flags, pgoff
        row["anon_vma"] = int(ids[active]) if active >= 0 else _NOWHERE
        builder.add_chain(number, linked[first[at] : first[at + 1]])
    builder.about.update(topology="kernel", vma_flags="smaps", anon_exclusive=True)
    return ids


def _add_anon_vmas(topology: Topology, matched: Bool, builder: SnapshotBuilder) -> I64:
    # Adds those that a VMA of the snapshot is linked to. Returns the id of each row of the kernel's table, -1 for
    # the others.
    table, links = topology.anon_vmas, topology.links
    wanted = np.zeros(len(table), np.bool_)
    wanted[links.anon_vma[matched[links.vma]]] = True
    whole = ~table.torn
    # A process that shares another's mm shows its VMAs once more, under another pid: the same VMAs.
    seen = np.isin(topology.vmas.address, topology.vmas.address[matched])
    whole[links.anon_vma[~seen[links.vma]]] = False
    for above in (table.root, table.parent):
        included = (above >= 0) & wanted[above]
        whole[wanted & ~included] = False
    ids = np.where(wanted, np.cumsum(wanted) - 1, _NOWHERE)
    own = np.flatnonzero(wanted)
    columns = (
        table.root,
        table.parent,
        table.refcount,
        table.num_children,
        table.num_active_vmas,
        table.address,
        whole,
    )
    for root, parent, refcount, children, active, address, is_whole in zip(*(c[own].tolist() for c in columns)):
        builder.add_anon_vma(
            root=int(ids[root]) if root >= 0 else _NOWHERE,
            parent=int(ids[parent]) if parent >= 0 else _NOWHERE,
            refcount=refcount,
            num_children=children,
            num_active_vmas=active,
            address=address,
            whole=is_whole,
        )
    return ids


def snapshot_of(memory: KernelMemory) -> Snapshot:
    """A snapshot of every process, made of kernel structures alone.

    What only /proc tells stays unknown: users, groups, sizes and paths of files (they are named by device and inode),
    who holds a file open. Shared memory and hugetlb are told as pages of files, the zero page as one of the kernel's.
    Nothing is read twice: of a kernel that runs, what changed meanwhile may contradict the rest.

    Raises:
        NotPermitted: page tables cannot be read: ``why_no_ptes`` says why.
        SnapshotError: what was read is contradictory (requirements D4 to D12).
    """
    topology = memory.topology()
    builder = SnapshotBuilder("kernel", release=memory.release, pte_write=True)
    mapping, kernel_row = _add_vmas(memory, topology, builder)
    ids = complete_vmas(builder, topology, kernel_row)
    entries = _entries(memory, topology, kernel_row)
    pages = _whole_folios(memory, np.unique(entries.mapped))
    columns = _frame_columns(pages, topology, ids, mapping)
    builder.set_frames(pages.pfn, **columns)
    _add_entries(builder, entries.pages(), pages, columns["kind"])
    return builder.build()


def _add_vmas(memory: KernelMemory, topology: Topology, builder: SnapshotBuilder) -> tuple[I64, I64]:
    # Adds processes, files, VMAs. Returns the address of each file's mapping, and the row of each VMA added.
    vmas = topology.vmas
    users: dict[int, list[int]] = {}
    for mm, pid in np.unique(np.stack((vmas.mm, vmas.pid)), axis=1).T.tolist():
        users.setdefault(mm, []).append(pid)
    process = {
        mm: builder.add_process(lowest, comm=memory.comm(lowest), sharers=others)
        for mm, (lowest, *others) in users.items()
    }
    mapping, first = np.unique(vmas.mapping, return_index=True)
    mapping, first = mapping[mapping != 0], first[mapping != 0]
    for dev, inode in zip(vmas.dev[first].tolist(), vmas.inode[first].tolist()):
        builder.add_file(f"inode {inode} of device {dev:#x}", dev=dev, inode=inode)
    of_lowest = vmas.pid == np.array([users[mm][0] for mm in vmas.mm.tolist()], np.int64)
    rows = np.flatnonzero(of_lowest)
    columns = (vmas.mm, vmas.start, vmas.end, rows_of(mapping, vmas.mapping, ascending=True))
    for mm, start, end, file in zip(*(column[rows].tolist() for column in columns)):
        builder.add_vma(process[mm], start, end, 0, file=file)
    return mapping, rows


@dataclass(frozen=True)
class _Entries:
    # What page tables hold: one row per entry and VMA. VMA, first address, number of pages, and the entry itself.

    vma: I64
    address: I64
    count: I64
    raw: RawPtes

    @property
    def mapped(self) -> I64:
        """Every frame that they map, as often as it is mapped."""
        present = self.raw.present
        return expand(self.raw.pfn_at(self.address)[present], self.count[present])

    def take(self, rows: I64 | Bool) -> _Entries:
        """Only these rows."""
        raw = RawPtes(self.raw.entry[rows], self.raw.shift[rows])
        return _Entries(self.vma[rows], self.address[rows], self.count[rows], raw)

    def pages(self) -> _Entries:
        """One row per page."""
        spread = self.take(np.repeat(np.arange(len(self.vma)), self.count))
        address = expand(self.address >> PAGE_SHIFT, self.count) << PAGE_SHIFT
        return replace(spread, address=address, count=np.ones(len(address), np.int64))


def _joined(parts: list[_Entries]) -> _Entries:
    nothing = np.empty(0, np.int64)
    columns = zip(*((one.vma, one.address, one.count, one.raw.entry, one.raw.shift) for one in parts))
    vma, address, count, entry, shift = map(np.concatenate, columns) if parts else [nothing] * 5
    return _Entries(vma, address, count, RawPtes(entry, shift))


def _entries(memory: KernelMemory, topology: Topology, kernel_row: I64) -> _Entries:
    # Of every VMA of the snapshot.
    parts: list[_Entries] = []
    vmas = topology.vmas
    for mm in np.unique(vmas.mm[kernel_row]).tolist():
        own = np.flatnonzero(vmas.mm[kernel_row] == mm)
        parts += _held(memory, mm, own, vmas.start[kernel_row[own]], vmas.end[kernel_row[own]])
    return _joined(parts)


def _held(memory: KernelMemory, mm: int, vma: I64, start: I64, end: I64) -> Iterator[_Entries]:
    # Everything that page tables hold in some ranges, level by level: where a table is missing, nothing below it is
    # asked about.
    for level in _LEVEL_SHIFTS:
        first = start >> level
        count = ((end - 1) >> level) - first + 1
        of_range = np.repeat(np.arange(len(start)), count)
        block = expand(first, count) << level
        vma, start = vma[of_range], np.maximum(block, start[of_range])
        end = np.minimum(block + (1 << level), end[of_range])
        raw = memory.ptes(mm, start)
        decided = raw.shift >= level
        yield _Entries(vma, start, (end - start) >> PAGE_SHIFT, raw).take(decided & (raw.entry != 0))
        vma, start, end = vma[~decided], start[~decided], end[~decided]


def _add_entries(builder: SnapshotBuilder, entries: _Entries, pages: StructPages, kind: I64) -> None:
    raw = entries.raw
    present, slot = raw.present, raw.swap_entry
    pfn = raw.pfn_at(entries.address)
    swap = ~present & (raw.shift == PAGE_SHIFT) & (slot & (f.SWAP_STEP - 1) < FIRST_SPECIAL_TYPE)
    flags = np.select([present, swap], [np.int64(f.PTE_PRESENT), np.int64(f.PTE_SWAP)], np.int64(f.PTE_OTHER))
    flags |= np.where(raw.write, f.PTE_WRITE, 0) | np.where(raw.dirty, f.PTE_DIRTY, 0)
    flags |= np.where(swap & raw.swap_exclusive, f.PTE_EXCLUSIVE, 0)
    untracked = among(kind, KINDS.untracked)
    of_page = np.where((pages.mapcount == 1) & ~untracked, f.PTE_EXCLUSIVE, 0)
    of_page |= np.where(among(kind, KINDS.cached), f.PTE_FILE, 0) | np.where(untracked, f.PTE_SPECIAL, 0)
    flags[present] |= of_page[np.searchsorted(pages.pfn, pfn[present])]
    builder.add_ptes(entries.vma, entries.address, np.select([present, swap], [pfn, slot], _NOWHERE), flags)


def _whole_folios(memory: KernelMemory, pfns: I64) -> StructPages:
    # The struct pages of some frames, and of all others of their folios; ascending.
    pages = memory.struct_pages(pfns)
    every = np.unique(expand(pages.head, np.int64(1) << pages.order))
    return pages if np.array_equal(every, pfns) else memory.struct_pages(every)


def _frame_columns(pages: StructPages, topology: Topology, ids: I64, mapping: I64) -> dict[str, I64]:
    anonymous, of_file, pointer = anchors(pages.mapping)
    ksm = pages.mapping & TAG_MASK == KSM_TAG
    file = np.where(of_file, rows_of(mapping, pointer, ascending=True), _NOWHERE)
    kind = np.select([~pages.valid, ksm, anonymous, file >= 0], [k.DEVICE, k.KSM, k.ANON, k.FILE], k.KERNEL)
    flags = np.select([~pages.valid, ksm, anonymous], [KPF_NOPAGE, KPF_ANON | KPF_KSM, KPF_ANON], 0)
    row = rows_of(topology.anon_vmas.address, pointer)
    anon_vma = np.where(anonymous & (row >= 0), ids[row] if len(ids) else _NOWHERE, _NOWHERE)
    tags = [f.MAPPING_KSM, f.MAPPING_ANON, f.MAPPING_FILE]
    return {
        "mapcount": pages.mapcount,
        "flags": flags | np.where(anonymous & pages.exclusive, f.KPF_ANON_EXCLUSIVE, 0),
        "kind": kind,
        "head_offset": pages.pfn - pages.head,
        "order": pages.order,
        "mapping": np.select([ksm, anonymous, file >= 0], tags, f.MAPPING_UNKNOWN),
        "index": np.where(anonymous | (file >= 0), pages.index, _NOWHERE),
        "file": file,
        "anon_vma": anon_vma,
    }
