"""Memory of groups of processes: a frame that five workers share is there once.

=========  ==================================================================================
each once  distinct frames that the group maps
only here  frames whose every mapper is in the group: what a sum of PSS hides
sum PSS    each entry counts for one part of its page: as many parts as the page has mappers
sum RSS    each entry counts for a page
swap       distinct slots that the group names
=========  ==================================================================================

``only here <= sum PSS <= each once <= sum RSS``, for every group. Which frames count is as in
:mod:`rmap.snapshot.questions.usage`; mappings of the picture taker itself are left out of the kernel's count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import F64, I32, I64, Bool
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, single_pages
from rmap.snapshot.index.sums import by_row
from rmap.snapshot.questions.usage import counted_frames
from rmap.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

WAYS = ("tree", "cgroup", "exe", "user")
"""How processes may be grouped."""


@dataclass(frozen=True)
class Group:
    """One group. All sizes in bytes.

    Attributes:
        name: the cgroup's path, the program's, the user's number, or the tree's first process.
        pids: of its processes, ascending.
        page_tables: their page tables together; -1 unknown.
    """

    name: str
    pids: list[int]
    sum_rss: int
    each_once: int
    only_here: int
    sum_pss: int
    swap: int
    page_tables: int


def groups(snapshot: Snapshot, by: str, chosen: Bool | None = None) -> list[Group]:
    """Group all processes, and count.

    Args:
        by: one of ``WAYS``. A tree is a process whose parent is not in the picture, or is init (pid 1), with all its
            descendants.
        chosen: only groups with one of these processes.
    """
    labels = names(snapshot, by)
    distinct = sorted(set(labels))
    number = {name: n for n, name in enumerate(distinct)}
    of_process = np.array([number[label] for label in labels], np.int32)
    answer = count(snapshot, of_process, distinct)
    if chosen is None:
        return answer
    wanted = set(snapshot.processes.pid[chosen].tolist())
    return [group for group in answer if wanted.intersection(group.pids)]


def names(snapshot: Snapshot, by: str) -> list[str]:
    """The name of each process's group."""
    processes = snapshot.processes
    if by == "cgroup":
        return [cgroup or "(unknown)" for cgroup in processes.cgroup]
    if by == "exe":
        return [exe or f"[{comm}]" for exe, comm in zip(processes.exe, processes.comm)]
    if by == "user":
        return [str(uid) if uid >= 0 else "(unknown)" for uid in processes.uid.tolist()]
    top = _tops(snapshot)
    return [f"{processes.pid[row]} {processes.comm[row]}" for row in top]


def _tops(snapshot: Snapshot) -> list[int]:
    # The first process of each one's tree. What init started is a tree of its own: else all would be one.
    parents = snapshot.parents().tolist()
    pids = snapshot.processes.pid.tolist()
    tops = []
    for row in range(len(pids)):
        at = row
        while parents[at] >= 0 and pids[parents[at]] != 1:
            at = parents[at]
        tops.append(at)
    return tops


def count(snapshot: Snapshot, of_process: I32, names: Sequence[str]) -> list[Group]:
    """Count the memory of disjoint groups.

    Args:
        of_process: int32: the group of each process, -1 none.
        names: of the groups, in order.
    """
    n = len(names)
    inside = of_process >= 0
    frames = _frames_of(snapshot, of_process, n)
    swap = _slots_of(snapshot, of_process, n)
    tables = snapshot.processes.page_table_bytes
    answer = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(inside & (of_process == number))
        page_tables = tables[rows]
        answer.append(
            Group(
                name,
                snapshot.processes.pid[rows].tolist(),
                sum_rss=int(frames.sum_rss[number]) << PAGE_SHIFT,
                each_once=int(frames.each_once[number]) << PAGE_SHIFT,
                only_here=int(frames.only_here[number]) << PAGE_SHIFT,
                sum_pss=round(float(frames.sum_pss[number]) * PAGE_SIZE),
                swap=int(swap[number]) << PAGE_SHIFT,
                page_tables=int(page_tables.sum()) if len(rows) and (page_tables >= 0).all() else -1,
            )
        )
    return answer


@dataclass(frozen=True)
class _Frames:
    """By group; pages."""

    sum_rss: I64
    each_once: I64
    only_here: I64
    sum_pss: F64


def _frames_of(snapshot: Snapshot, of_process: I32, n: int) -> _Frames:
    # Class by class: a group has the same entries in all frames of a class.
    sets = snapshot.mapper_sets
    counted = counted_frames(snapshot)
    mappers = mappers_of_frames(snapshot)
    of_frame = sets.of_frame[counted]
    frames = np.bincount(of_frame, minlength=sets.nr_classes)
    whole = np.bincount(of_frame[mappers[counted] == sets.found[counted]], minlength=sets.nr_classes)
    parts = np.bincount(of_frame, 1 / mappers[counted], minlength=sets.nr_classes)
    # One row for each class and group in it.
    group = of_process[sets.members]
    ours = group >= 0
    pairs = sets.of_member[ours].astype(np.int64) * max(n, 1) + group[ours]
    distinct, place = np.unique(pairs, return_inverse=True)
    entries = by_row(place.reshape(-1), sets.entries[ours], len(distinct))
    of_class, of_group = distinct // max(n, 1), distinct % max(n, 1)
    total = by_row(sets.of_member, sets.entries, sets.nr_classes)
    alone = entries == total[of_class]

    # What a group has alone is exactly one page; thirds of a page, added up, would not be.
    certain = np.where(alone, whole[of_class], 0)
    shares = entries * (parts[of_class] - np.where(alone, whole[of_class] / np.maximum(total[of_class], 1), 0))
    return _Frames(
        sum_rss=by_row(of_group, entries * frames[of_class], n),
        each_once=by_row(of_group, frames[of_class], n),
        only_here=by_row(of_group, certain, n),
        sum_pss=np.bincount(of_group, certain + np.maximum(shares, 0.0), minlength=n).astype(np.float64),
    )


def mappers_of_frames(snapshot: Snapshot) -> I64:
    """How many mappers each frame has, by dense number, at least 1: the kernel's count without the picture taker.

    Where a page changed meanwhile, or the kernel counts on average, what was found may be more: then that counts.
    """
    mapcount = snapshot.per_frame("mapcount").astype(np.int64) - snapshot.per_frame("own")
    return np.maximum(np.maximum(mapcount, snapshot.mapper_sets.found), 1)


def _slots_of(snapshot: Snapshot, of_process: I32, n: int) -> I64:
    # Distinct slots that each group names.
    group, slot = slots(snapshot, of_process)
    return np.bincount(np.unique(np.stack((group, slot)), axis=1)[0], minlength=n) if n else np.zeros(0, np.int64)


def slots(snapshot: Snapshot, of_process: I32) -> tuple[I64, I64]:
    """Every entry that names a slot of swap: its process's group, and the slot. Processes of group -1 are left out."""
    ptes = snapshot.ptes
    rows = np.flatnonzero((ptes.flags & f.PTE_SWAP) != 0)
    rows = rows[of_process[snapshot.vmas.process[ptes.vma[rows]]] >= 0]
    pages = single_pages(Extents.of(ptes, rows))
    return of_process[snapshot.vmas.process[pages.vma]].astype(np.int64), pages.pfn
