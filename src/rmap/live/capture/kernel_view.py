"""The kernel's own reverse map as tables of a picture: anon_vmas, chains, and what hangs on them.

/proc and the kernel's memory are read one after the other, while the machine runs. A VMA that is not the same in both
has no chain in the picture, and the anon_vmas it is linked to are marked as not whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rmap.columns import I64, Bool, rows_of
from rmap.live.capture.frames import Described, VmaColumns
from rmap.live.capture.settle import AGAIN, settle_rows
from rmap.snapshot import SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, concatenated, join_extents, single_pages
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KERNEL, KINDS
from rmap.snapshot.rules.anon_vmas import member_counts
from rmap.structs.anon_vmas import Topology
from rmap.structs.memory import KernelMemory
from rmap.structs.page import anchors
from rmap.structs.snapshot import complete_vmas
from rmap.uapi.kpageflags import KPF_LRU

_NOWHERE = -1


@dataclass
class KernelView:
    """What was read of the anon_vmas, and where it went in the picture.

    Attributes:
        memory: to read on from.
        address: int64, ascending: of the anon_vmas in the picture.
        row: int64: their rows.
        mm: address of each process's ``mm_struct``, by pid.
    """

    memory: KernelMemory
    address: I64
    row: I64
    mm: dict[int, int]

    def describe(self, frames: Described) -> Bool:
        """Write into frames what their struct pages say: page index, anon_vma, PG_anon_exclusive.

        Returns:
            bool, of each frame: its struct page contradicts what /proc said of it a moment ago.
        """
        state = frames.state
        pages = self.memory.struct_pages(state.pfn)
        tracked = ~among(frames.kind, KINDS.untracked)
        anon = among(frames.kind, KINDS.on_anon_vmas)
        tagged, _, anchor = anchors(pages.mapping)
        doubtful = tracked & (~pages.valid | (pages.mapcount != state.mapcount))
        doubtful |= anon & (~tagged | (pages.exclusive & (pages.mapcount != 1)))
        # A driver's page in a file's VMA has no mapping, and is on no list of reclaim: it is not in the page cache,
        # whatever its other flags look like.
        unhung = (frames.file >= 0) & pages.valid & (pages.mapping == 0)
        of_driver = unhung & (state.flags & KPF_LRU == 0)
        doubtful |= unhung & ~of_driver
        frames.kind[of_driver] = KERNEL
        frames.file[of_driver] = frames.index[of_driver] = _NOWHERE
        indexed = (anon & tagged) | ((frames.file >= 0) & pages.valid)
        frames.index[indexed] = pages.index[indexed]
        senseless = indexed & (frames.index < 0)  # freed, and something else by now
        doubtful |= senseless
        frames.file[senseless] = frames.index[senseless] = _NOWHERE
        state.flags[anon & pages.exclusive] |= f.KPF_ANON_EXCLUSIVE
        frames.anon_vma = np.where(anon & tagged, self._row_of(anchor), _NOWHERE)
        return doubtful

    def mark_ptes(self, extents: Extents, vmas: VmaColumns, frames: Described, doubtful: Bool) -> Extents:
        """Mark the entries that are writable, dirty, or of an exclusive page in swap: what the page tables say.

        Args:
            doubtful: bool, of each frame: written where an entry of pagemap does not map it any more.
        """
        state = frames.state
        done: list[Extents] = []
        pid = vmas.pid[extents.vma]
        for one in np.unique(pid).tolist():
            part = single_pages(extents.take(pid == one))
            raw = self.memory.ptes(self.mm.get(one, 0), part.address)
            present = (part.flags & f.PTE_PRESENT) != 0
            same = present & raw.maps(part.address, part.pfn)
            doubtful[np.searchsorted(state.pfn, part.pfn[present & ~same])] = True
            flags = part.flags | np.where(same & raw.write, f.PTE_WRITE, 0) | np.where(same & raw.dirty, f.PTE_DIRTY, 0)
            flags |= np.where(((flags & f.PTE_SWAP) != 0) & raw.swap_exclusive, f.PTE_EXCLUSIVE, 0)
            done.append(join_extents(replace(part, flags=flags)))
        return concatenated(done)

    def changed(self, frames: Described, rows: I64) -> Bool:
        """Which of these frames are not any more what their struct pages said: index, anon_vma, exclusive mark."""
        pages = self.memory.struct_pages(frames.state.pfn[rows])
        index, hung = frames.index[rows], frames.anon_vma[rows]
        now = self._row_of(anchors(pages.mapping)[2])
        exclusive = (frames.state.flags[rows] & f.KPF_ANON_EXCLUSIVE) != 0
        moved: Bool = (index >= 0) & (pages.index != index) | (hung >= 0) & (now != hung)
        return moved | (hung >= 0) & (pages.exclusive != exclusive)

    def settle_writable(self, extents: Extents, vmas: VmaColumns, frames: Described) -> None:
        """Look again at anonymous pages that are writable and not exclusive (I17): a fork may have come between.

        The mark of a page and the entries that map it are read one after the other. What is not so each time both are
        read again is marked ``raced``.
        """
        state = frames.state
        both = f.PTE_PRESENT | f.PTE_WRITE
        pages = single_pages(extents.take(extents.flags & both == both))
        at = np.searchsorted(state.pfn, pages.pfn)
        exclusive = (state.flags[at] & f.KPF_ANON_EXCLUSIVE) != 0
        rows = np.flatnonzero(among(frames.kind[at], KINDS.on_anon_vmas) & ~exclusive & ~state.raced[at])

        def changed(rows: I64) -> Bool:
            stays = self._still_writable(pages.take(rows), vmas)
            stays &= ~self.memory.struct_pages(pages.pfn[rows]).exclusive
            return ~(stays & self._still_writable(pages.take(rows), vmas))

        settle_rows(rows, changed, lambda gone: frames.mark_raced(at[gone]), readings=1 + AGAIN)

    def _still_writable(self, pages: Extents, vmas: VmaColumns) -> Bool:
        # Which of these pages their entries map writable, now.
        writable = np.zeros(len(pages.pfn), np.bool_)
        pid = vmas.pid[pages.vma]
        for one in np.unique(pid).tolist():
            own = np.flatnonzero(pid == one)
            raw = self.memory.ptes(self.mm.get(one, 0), pages.address[own])
            writable[own] = raw.write & raw.maps(pages.address[own], pages.pfn[own])
        return writable

    def _row_of(self, address: I64) -> I64:
        at = rows_of(self.address, address, ascending=True)
        return np.where(at >= 0, self.row[at] if len(self.row) else _NOWHERE, _NOWHERE)


def add_topology(memory: KernelMemory, builder: SnapshotBuilder) -> KernelView:
    """Read every VMA of the machine, and complete the VMAs of a picture: flags, pgoff, anon_vma, chain.

    Args:
        memory: the kernel's.
        builder: with all processes and VMAs added.
    """
    topology = _read_steady(memory)
    kernel_row = _matched(topology, builder)
    ids = complete_vmas(builder, topology, kernel_row)
    builder.about["pte_write"] = memory.why_no_ptes is None
    order, vmas = np.flatnonzero(ids >= 0), topology.vmas
    mm = dict(zip(vmas.pid.tolist(), vmas.mm.tolist()))
    return KernelView(memory, topology.anon_vmas.address[order], ids[order], mm)


def _read_steady(memory: KernelMemory) -> Topology:
    # Read until no process is in the midst of a fork or its exit. Counters that disagree with the VMAs read in the same
    # way each time are left as they are: that is a finding, not a race. Others are marked as torn. So are those whose
    # tree has VMAs of nobody: of a process on its way in or out, which does not show them.
    before: set[tuple[int, ...]] = set()
    for _ in range(1 + AGAIN):  # a millisecond each
        topology = memory.topology()
        table = topology.anon_vmas
        doubtful = np.flatnonzero(_unaccounted(topology))
        strange = np.array([_has_strangers(memory, topology, row) for row in doubtful.tolist()], np.bool_)
        table.torn[doubtful[strange]] = True
        doubtful = doubtful[~strange]
        columns = (table.address, table.root, table.parent, table.num_children, table.num_active_vmas)
        now = set(zip(*(column[doubtful].tolist() for column in columns)))
        if now <= before:
            break
        before = now
    else:
        table.torn[doubtful] = True
    return topology


def _has_strangers(memory: KernelMemory, topology: Topology, row: int) -> bool:
    tree = memory.anon_vma_tree(int(topology.anon_vmas.address[row]))
    return bool((~np.isin(tree.vma, topology.vmas.address)).any())


def _unaccounted(topology: Topology) -> Bool:
    # Which anon_vmas count other children or other active VMAs than were read.
    table, vmas = topology.anon_vmas, topology.vmas
    _, first = np.unique(vmas.address, return_index=True)  # a shared mm shows its VMAs once per process
    counted = member_counts(vmas.anon_vma[first], topology.links.anon_vma, table.parent)
    return (counted.active != table.num_active_vmas) | (counted.children != table.num_children)


def _matched(topology: Topology, builder: SnapshotBuilder) -> I64:
    # For each VMA of the picture: the row of the same VMA in the kernel's table, -1 if none is the same.
    pids = [process["pid"] for process in builder.rows("processes")]
    wanted = {(pids[row["process"]], row["start"], row["end"]): i for i, row in enumerate(builder.rows("vmas"))}
    rows = np.full(len(wanted), _NOWHERE, np.int64)
    vmas = topology.vmas
    whole = np.ones(len(vmas), np.bool_)
    whole[topology.truncated] = False
    for at, key in enumerate(zip(vmas.pid.tolist(), vmas.start.tolist(), vmas.end.tolist())):
        place = wanted.get(key)
        if place is not None and whole[at]:
            rows[place] = at
    return rows
