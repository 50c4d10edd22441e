"""Putting the model right after a checkpoint: its VMAs and entries become those of the picture.

Wrong entries go first, then what the picture has comes: pages of files, the zero page, new anonymous pages,
and entries that share one with another process.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np

from rmap.columns import I64, Bool
from rmap.kernel import Process
from rmap.kernel.entries import ANON, FILE, NONE, OTHER, SHMEM, SWAPPED, drop, map_new_anon, share_anon, write_entries
from rmap.kernel.structure import count_locked, make_vma, take_over_topology
from rmap.lab.replay.pairs import Entry, Side, key_of, page_of, pid_of
from rmap.lab.replay.state import ReplayState
from rmap.mm.frames import ANON as ANON_PAGE
from rmap.mm.frames import EXCLUSIVE, SWAPCACHE
from rmap.mm.merge import set_range, split_vma, unlink_vma
from rmap.mm.mm_types import File, Mm, Vma
from rmap.mm.mmap import do_munmap
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import PRESENT, RW, TRACKED_MASK
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.uapi.vm_flags import VM_SHARED
from rmap.units import PAGE_SHIFT


# -- areas ------------------------------------------------------------------------------------------------------------
def put_areas_right(state: ReplayState, theirs: Snapshot) -> int:
    """Give every process the areas of the picture where it has others; returns how many were made or cut.

    Where only the borders between areas differ, the model's stay: a design may merge what another does not.
    """
    changed = 0
    bounds = np.searchsorted(theirs.vmas.process, np.arange(len(theirs.processes) + 1)).tolist()
    for process, pid in enumerate(theirs.processes.pid.tolist()):
        own = state.kernel.processes.get(pid)
        if own is not None:
            changed += _areas_of(state, theirs, own.mm, range(bounds[process], bounds[process + 1]))
    return changed


def _areas_of(state: ReplayState, theirs: Snapshot, mm: Mm, rows: range) -> int:
    vmas = theirs.vmas
    edges = {int(x) for row in rows for x in (vmas.start[row], vmas.end[row])}
    edges |= {x for vma in mm.vmas for x in (vma.start, vma.end)}
    ordered = sorted(edges)
    row_at = {int(vmas.start[row]): row for row in rows}
    current, changed = -1, 0
    for low, high in pairwise(ordered):
        current = row_at.get(low, current)
        row = current if current >= 0 and low < int(vmas.end[current]) else -1
        own = mm.find(low)
        if _same_area(state, theirs, row, low, own):
            continue
        changed += 1
        if own is not None:
            do_munmap(state.core, mm, low, high, "munmap")
        if row >= 0:
            _make_area(state, theirs, mm, row, low, high)
    return changed


def _same_area(state: ReplayState, theirs: Snapshot, row: int, at: int, own: Vma | None) -> bool:
    if row < 0 or own is None:
        return row < 0 and own is None
    vmas = theirs.vmas
    pgoff = int(vmas.pgoff[row])
    if pgoff >= 0 and pgoff + ((at - int(vmas.start[row])) >> PAGE_SHIFT) != own.linear_page_index(at):
        return False
    if int(vmas.flags[row]) & f.VM_ALL != own.flags & f.VM_ALL and theirs.about["vma_flags"] != "maps":
        return False
    has_file = int(vmas.file[row]) >= 0
    if not has_file or own.mapping is None:
        return not has_file or own.file is not None
    inode = state.inodes.by_mapping.get(own.mapping.id)
    file = int(vmas.file[row])
    return inode is None or inode == (int(theirs.files.dev[file]), int(theirs.files.inode[file]))


def _make_area(state: ReplayState, theirs: Snapshot, mm: Mm, row: int, low: int, high: int) -> None:
    files: dict[int, File] = {}
    file_row = int(theirs.vmas.file[row])
    if file_row >= 0:
        wanted = (int(theirs.files.dev[file_row]), int(theirs.files.inode[file_row]))
        for other in mm.vmas:
            if other.mapping is not None and state.inodes.by_mapping.get(other.mapping.id) == wanted:
                assert other.file is not None
                files[file_row] = other.file
    vma = make_vma(state.core, mm, theirs, row, state.inodes, files)
    vma.pgoff += (low - vma.start) >> PAGE_SHIFT
    vma.start, vma.end = low, high
    count_locked(vma)
    mm.insert(vma)
    state.core.link_file(vma)


def cut_like(state: ReplayState, theirs: Snapshot) -> int:
    """Cut areas of the model where the kernel's end; returns how many cuts."""
    cuts = 0
    for process, start in zip(theirs.vmas.process.tolist(), theirs.vmas.start.tolist()):
        ours = state.kernel.processes.get(int(theirs.processes.pid[process]))
        own = ours.mm.find(start) if ours is not None else None
        if own is not None and own.start < start:
            split_vma(state.core, own, start, new_below=False)
            cuts += 1
    return cuts


def structure_is_known(state: ReplayState, theirs: Snapshot) -> bool:
    """Whether the picture's own anon_vmas can be given to the model.

    Not if the picture does not know them, the design has none, there are other processes, or pages that nobody maps
    wait in the swap cache with an anon_vma of their own.
    """
    core = state.core
    if theirs.about["topology"] == "none" or core.rmap.topology() is None or (core.frames.flags & SWAPCACHE).any():
        return False
    return _mms(state, theirs) is not None


def _mms(state: ReplayState, theirs: Snapshot) -> list[Mm] | None:
    # The mm of each process of the picture; None if the model has other ones.
    processes = [state.kernel.processes.get(pid) for pid in theirs.processes.pid.tolist()]
    mms = [process.mm for process in processes if process is not None]
    return mms if {mm.id for mm in mms} == set(state.core.mms) and len(mms) == len(processes) else None


def put_structure_right(state: ReplayState, entries: Entry) -> bool:
    """Give the model the picture's own areas and anon_vmas, areas and entries being equal already.

    False: they do not correspond, and nothing was changed.
    """
    core, theirs = state.core, entries.theirs.snapshot
    parts = _parts_of_areas(state, theirs)
    kept = (entries.kind == OTHER) & (entries.my_kind == ANON)
    rows = np.flatnonzero(np.isin(entries.kind, (ANON, SWAPPED)) | kept)
    pfns = np.array([_pfn_at(state, entries, row) for row in rows.tolist()], np.int64)
    rows, pfns = rows[pfns > 0], pfns[pfns > 0]
    anon_vma, index = _anchors(entries, rows)
    if parts is None or (anon_vma < 0).any() or (core.frames.flags & SWAPCACHE).any():
        return False
    for first, *others in parts:
        for vma in (first, *others):
            if vma.faulted:
                core.rmap.vma_unlink(vma, None)
                vma.faulted = False
        for other in others:
            unlink_vma(core, other)
        if others:
            set_range(core, first, first.start, others[-1].end, first.pgoff)
    distinct, where = np.unique(pfns, return_index=True)
    take_over_topology(core, theirs, [part[0] for part in parts], distinct, anon_vma[where], index[where])
    return True


def _anchors(entries: Entry, rows: I64) -> tuple[I64, I64]:
    # What each page hangs on, and where. Unknown if the kernel has merged the page, or swapped it out and the model has
    # not: then the root of its family will do, where everybody looks.
    theirs, vmas = entries.theirs.snapshot, entries.theirs.snapshot.vmas
    anon_vma, index, vma = (entries.of(name, rows).copy() for name in ("anon_vma", "index", "vma"))
    unknown = (anon_vma < 0) | (index < 0)
    active = vmas.anon_vma[vma[unknown]]
    anon_vma[unknown] = np.where(active >= 0, theirs.anon_vmas.root[active], -1)
    addrs = page_of(entries.key[rows[unknown]]) << PAGE_SHIFT
    index[unknown] = vmas.pgoff[vma[unknown]] + ((addrs - vmas.start[vma[unknown]]) >> PAGE_SHIFT)
    return anon_vma, index


def _parts_of_areas(state: ReplayState, theirs: Snapshot) -> list[list[Vma]] | None:
    # For each VMA of the picture, in order, the model's that it is made of; None if some do not correspond.
    mms, vmas = _mms(state, theirs), theirs.vmas
    if mms is None:
        return None
    all_parts = []
    for process, start, end in zip(vmas.process.tolist(), vmas.start.tolist(), vmas.end.tolist()):
        parts = mms[process].overlapping(start, end)
        if not parts or parts[0].start != start or parts[-1].end != end or not mms[process].covers(start, end):
            return None
        all_parts.append(parts)
    return all_parts if sum(map(len, all_parts)) == sum(len(mm.vmas) for mm in mms) else None


def _pfn_at(state: ReplayState, entries: Entry, row: int) -> int:
    at = _place(state, entries, row)
    entry = state.core.tables.mv[ptep_of(at[0].mm, at[1])] if at is not None else 0
    return entry >> PAGE_SHIFT if entry & TRACKED_MASK == PRESENT else 0


# -- entries ----------------------------------------------------------------------------------------------------------
def put_entries_right(state: ReplayState, entries: Entry, differing: I64, *, anywhere: bool) -> int:
    """Make the model's entries those of the picture.

    Args:
        differing: rows of ``entries``, ascending.
        anywhere: pages are shared wherever the picture shares them: nothing hangs on anon_vmas, or these follow.
            Else only downwards, where the anon_vma of the one is also the other's; others get copies.

    Returns:
        how many could not be: there is no such area, or the model has no such entries.
    """
    left = 0
    moved = _to_be_shared_anew(entries, differing)
    gone = differing[moved & (entries.my_kind[differing] != NONE)]
    for vma, addrs, _ in _by_area(state, entries, gone):
        drop(state.core, vma, addrs)
    anon = np.isin(entries.kind[differing], (ANON, SWAPPED))
    plain = differing[~anon & (entries.kind[differing] != NONE)]
    for vma, addrs, rows in _by_area(state, entries, plain):
        for kind in np.unique(entries.kind[rows]).tolist():
            here = addrs[entries.kind[rows] == kind]
            if not write_entries(state.core, vma, here, kind):
                left += len(here)
    left += _put_anonymous_right(state, entries, differing[anon & moved], anywhere)
    return left


def _to_be_shared_anew(entries: Entry, differing: I64) -> Bool:
    # All that differ, but for one anonymous entry of each page of the kernel's, which keeps the model's page: the first
    # whose page no other keeps.
    moved = np.ones(len(differing), np.bool_)
    kept: set[int] = set()
    owners: set[int] = set()
    both = np.flatnonzero((entries.kind[differing] == ANON) & (entries.my_kind[differing] == ANON))
    frames = entries.of("frame", differing[both]).tolist()
    own = entries.my("frame", differing[both]).tolist()
    for i, frame, my_frame in zip(both.tolist(), frames, own):
        if frame not in owners and my_frame not in kept:
            owners.add(frame)
            kept.add(my_frame)
            moved[i] = False
    return moved


def _by_area(state: ReplayState, entries: Entry, rows: I64) -> list[tuple[Vma, I64, I64]]:
    # The rows area by area: (area of the model, addresses, rows). Rows where it has none are left out.
    by_area: list[tuple[Vma, I64, I64]] = []
    keys = entries.key[rows]
    pids, addrs = pid_of(keys), page_of(keys) << PAGE_SHIFT
    at = 0
    while at < len(rows):
        process = state.kernel.processes.get(int(pids[at]))
        vma = process.mm.find(int(addrs[at])) if process is not None else None
        if vma is None:
            at += 1
            continue
        stop = int(np.searchsorted(keys, key_of(int(pids[at]), vma.end)))
        by_area.append((vma, addrs[at:stop], rows[at:stop]))
        at = stop
    return by_area


def _put_anonymous_right(state: ReplayState, entries: Entry, rows: I64, anywhere: bool) -> int:
    # The kernel's pages one by one. A page is mapped already, or the entry nearest to its anon_vma gets it first.
    left = 0
    theirs = entries.theirs.entries
    private = np.isin(theirs.kind, (ANON, SWAPPED))
    names, mappers = np.unique(_page_names(theirs.frame, theirs.kind)[private], return_counts=True)
    page = _page_names(entries.of("frame", rows), entries.kind[rows])
    alone = mappers[np.searchsorted(names, page)] == 1
    for vma, addrs, _ in _by_area(state, entries, rows[alone]):
        if not write_entries(state.core, vma, addrs, ANON):
            left += len(addrs)
    by_page: dict[int, list[int]] = defaultdict(list)
    for name, row in zip(page[~alone].tolist(), rows[~alone].tolist()):
        by_page[name].append(row)
    return left + sum(_share_page(state, entries, members, anywhere) for members in by_page.values())


def _page_names(frame: I64, kind: I64) -> I64:
    # One number for frames and slots, which may have the same.
    return frame << 1 | (kind == SWAPPED)


def _sharers(entries: Entry, row: int) -> list[int]:
    # The kernel's other entries of the same anonymous page: rows of entries.
    theirs = entries.theirs.entries
    own = int(entries.row[row])
    same = np.flatnonzero((theirs.frame == theirs.frame[own]) & (theirs.kind == theirs.kind[own]))
    return [int(np.searchsorted(entries.key, entries.theirs.key[at])) for at in same.tolist() if at != own]


def _share_page(state: ReplayState, entries: Entry, members: list[int], anywhere: bool) -> int:
    left = 0
    waiting = set(members)
    source: tuple[Vma, int] | None = None
    for row in _sharers(entries, members[0]):
        if row not in waiting:
            source = _place(state, entries, row)
            break
    places = [place for place in (_place(state, entries, row) for row in members) if place is not None]
    left += len(members) - len(places)
    for vma, addr in sorted(places, key=lambda place: len(_ancestors(place[0].mm))):
        where = np.array([addr], np.int64)
        if vma.flags & VM_SHARED:
            left += 1
        elif source is None or not (anywhere or _may_share(source[0], vma)):
            map_new_anon(state.core, vma, where)
            source = source or (vma, addr)
        else:
            share_anon(state.core, vma, addr, *source)
    return left


def permissions_differ(entries: Entry) -> I64:
    """Entries that map the same on both sides, but are not as writable, or their page not as exclusive.

    An access that no event shows may have made them so, and so may writeback, which write-protects pages of files.
    Empty where the picture does not know.
    """
    about = entries.theirs.snapshot.about
    if not (about["anon_exclusive"] and about["pte_write"]):
        return np.empty(0, np.int64)
    tracked = np.isin(entries.kind, (FILE, SHMEM)) | (entries.shared_alike & (entries.kind == ANON))
    both = np.flatnonzero(tracked & (entries.kind == entries.my_kind))
    unlike = entries.of("writable", both) != entries.my("writable", both)
    unlike |= entries.of("exclusive", both) != entries.my("exclusive", both)
    return both[unlike]


def put_permissions_right(state: ReplayState, entries: Entry, rows: I64) -> None:
    """Make entries as writable, and anonymous pages as exclusive, as the picture says; the pages are equal already."""
    about, core = entries.theirs.snapshot.about, state.core
    if not (about["anon_exclusive"] and about["pte_write"]):
        return
    exclusive, writable = entries.of("exclusive", rows).tolist(), entries.of("writable", rows).tolist()
    for row, is_exclusive, may_write in zip(rows.tolist(), exclusive, writable):
        at = _place(state, entries, row)
        ptep = ptep_of(at[0].mm, at[1]) if at is not None else 0
        entry = core.tables.mv[ptep]
        if not ptep or entry & TRACKED_MASK != PRESENT:
            continue
        pfn = entry >> PAGE_SHIFT
        flags = core.frames.mv_flags[pfn]
        if flags & ANON_PAGE:
            is_exclusive = is_exclusive and core.frames.mv_mapcount[pfn] == 1
            core.frames.mv_flags[pfn] = flags & ~EXCLUSIVE | (EXCLUSIVE if is_exclusive else 0)
            may_write = may_write and is_exclusive
        core.tables.mv[ptep] = entry & ~RW | (RW if may_write else 0)


def _place(state: ReplayState, entries: Entry, row: int) -> tuple[Vma, int] | None:
    key = int(entries.key[row])
    process: Process | None = state.kernel.processes.get(pid_of(key))
    addr = page_of(key) << PAGE_SHIFT
    vma = process.mm.find(addr) if process is not None else None
    return None if vma is None else (vma, addr)


def _ancestors(mm: Mm) -> list[int]:
    line = []
    above: Mm | None = mm
    while above is not None:
        line.append(above.id)
        above = above.parent
    return line


def _may_share(source: Vma, vma: Vma) -> bool:
    # A page is shared downwards only: its anon_vma is one of the descendant's, too.
    return source.mm.id in _ancestors(vma.mm)


def evict_swapped(state: ReplayState, entries: Entry) -> int:
    """Pages that the kernel has swapped out everywhere go to swap in the model too; returns how many were asked to."""
    rows = np.flatnonzero(entries.kind == SWAPPED)
    pfns = set()
    for row in rows.tolist():
        at = _place(state, entries, row)
        if at is not None:
            entry = state.core.tables.mv[ptep_of(at[0].mm, at[1])]
            if entry & PRESENT:
                pfns.add(entry >> PAGE_SHIFT)
    if pfns:
        state.kernel.reclaim(sorted(pfns))
    return len(pfns)


def sides(state: ReplayState, theirs: Snapshot) -> tuple[Side, Side]:
    """The picture, and one of the model now."""
    return Side(theirs), Side(state.kernel.snapshot())
