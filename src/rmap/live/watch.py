"""How the shared memory of a forked family becomes private: the family's page tables, read round after round.

Only private memory counts: anonymous pages, and private mappings of files that were written. An entry of pagemap says
whether its page is this address space's alone (bit 56). The next round says of the pages that it shared in one round:

=========  ==============================================================================
unshared   another frame is there, and it is its own: somebody wrote, and copied
left       the same frame, now its own: the others let go of it
gone       nothing is there any more: unmapped, discarded, swapped out
=========  ==============================================================================

The zero page is nobody's to share: a write to it is a first page, not a copy. Processes that share an mm (vfork,
CLONE_VM) have one set of page tables between them, which is read once.

Nothing is done page by page: entries come as runs contiguous in address and frame, and are compared as runs.
"""

from __future__ import annotations

import mmap
import os
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rmap.columns import I64, Bool, expand
from rmap.live.sources import procfs
from rmap.live.sources.pagemap import entry_of
from rmap.live.sources.pagemap_columns import Pagemap, ranges_to_read
from rmap.live.sources.same_mm import compare_mms, groups
from rmap.live.sources.syscalls import address_of
from rmap.uapi.pagemap import PM_FILE, PM_MMAP_EXCLUSIVE, PM_PFRAME_MASK
from rmap.uapi.vm_flags import VM_SHARED
from rmap.units import PAGE_SHIFT, PAGE_SIZE

_Process = tuple[int, int]
"""Pid and start time: a pid may be given away."""


@dataclass(frozen=True)
class Round:
    """One look at the family. Pages, but for ``seconds``.

    Attributes:
        at: seconds since the first round; seconds: what this one took to read.
        processes: how many there are; came, went: their pids since the round before.
        shared, private: anonymous pages in memory, entry by entry; of processes that share an mm, once.
        unshared, left, gone: what became of the shared pages of the round before.
        by_area: unshared pages by the name of their area.
        ended: processes that could not be read: they ended meanwhile, or refused.
    """

    at: float
    seconds: float
    processes: int
    came: list[int]
    went: list[int]
    shared: int
    private: int
    unshared: int = 0
    left: int = 0
    gone: int = 0
    by_area: dict[str, int] = field(default_factory=dict)
    ended: int = 0


class _Runs(NamedTuple):
    """Pages of one mm, ascending, contiguous in address and in frame within each run."""

    page: I64
    frame: I64
    pages: I64

    def where(self, wanted: Bool | I64) -> _Runs:
        """Some of them."""
        return _Runs(self.page[wanted], self.frame[wanted], self.pages[wanted])

    def end(self) -> I64:
        """Behind the last page of each."""
        return self.page + self.pages

    def rows_in(self, others: _Runs) -> I64:
        """Which of these runs overlap any of some others: int64 rows, one for each overlap."""
        first = np.searchsorted(self.end(), others.page, side="right")
        behind = np.searchsorted(self.page, others.end())
        any_there = behind > first
        return expand(first[any_there], (behind - first)[any_there])

    def without(self, others: _Runs) -> _Runs:
        """Those that are not among some others, the very same."""
        if not len(others.page):
            return self
        row = np.minimum(np.searchsorted(others.page, self.page), len(others.page) - 1)
        same = np.logical_and.reduce([mine == theirs[row] for mine, theirs in zip(self, others)])
        return self.where(~same)

    def frames_at(self, page: I64) -> I64:
        """The frame of each of these pages, -1 where no run has it."""
        if not len(self.page):
            return np.full(len(page), -1, np.int64)
        row = np.searchsorted(self.page, page, side="right") - 1
        within = page - self.page[row]
        return np.where((row >= 0) & (within < self.pages[row]), self.frame[row] + within, -1)


class _Memory(NamedTuple):
    """The anonymous pages of one mm, shared or its own, and the areas they lie in."""

    areas: list[procfs.MapsLine]
    shared: _Runs
    own: _Runs


class _Fate(NamedTuple):
    """What became of pages that were shared; unshared ones by area."""

    unshared: Counter[str]
    left: int
    gone: int


class Watch:
    """Looks at a family again and again.

    Args:
        pid: the first of the family; its descendants are found anew in each round.

    Raises:
        OSError: this process's own pagemap cannot be read.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._began = time.monotonic()
        self._zero_frame = _zero_frame()
        # Which mm each process used in the last round, and the shared pages of each mm.
        self._mm_of: dict[_Process, int] = {}
        self._shared: list[_Runs] = []

    def look(self) -> Round | None:
        """One round; None if nobody of the family is left.

        Raises:
            PermissionError: none of the family may be read.
        """
        began = time.monotonic()
        family = family_of(self.pid)
        before, unclaimed = self._mm_of, dict(enumerate(self._shared))
        mm_of: dict[_Process, int] = {}
        memories: list[_Memory] = []
        fates: list[_Fate] = []
        failed: list[OSError] = []
        for users in _by_mm(family):
            memory = self._first_readable(users, failed)
            if memory is None:
                continue
            mm_of |= dict.fromkeys(users, len(memories))
            memories.append(memory)
            # The oldest of those who shared an mm goes on with it: a younger one left it by an exec.
            old = unclaimed.pop(next((before[user] for user in users if user in before), -1), None)
            if old is not None:
                fates.append(_fate(old, memory))
        if family and sum(isinstance(error, PermissionError) for error in failed) == len(family):
            raise PermissionError(13, f"the memory of process {self.pid} and of its children may not be read")
        if not memories:
            return None
        self._mm_of, self._shared = mm_of, [memory.shared for memory in memories]
        by_area: Counter[str] = sum((fate.unshared for fate in fates), Counter())
        return Round(
            at=began - self._began,
            seconds=time.monotonic() - began,
            processes=len(mm_of),
            came=sorted(pid for pid, _ in mm_of.keys() - before.keys()) if before else [],
            went=sorted(pid for pid, _ in before.keys() - mm_of.keys()),
            shared=sum(int(memory.shared.pages.sum()) for memory in memories),
            private=sum(int(memory.own.pages.sum()) for memory in memories),
            unshared=by_area.total(),
            left=sum(fate.left for fate in fates),
            gone=sum(fate.gone for fate in fates),
            by_area=dict(by_area),
            ended=len(failed),
        )

    def _first_readable(self, users: list[_Process], failed: list[OSError]) -> _Memory | None:
        # By the first of an mm's users that is still there; those who are not are taken out of the list.
        while users:
            try:
                return self._read(users[0][0])
            except (FileNotFoundError, ProcessLookupError, PermissionError) as error:
                failed.append(error)
                users.pop(0)
        return None

    def _read(self, pid: int) -> _Memory | None:
        # None for a zombie.
        areas = [line for line in procfs.read_maps(pid) if not line.flags & VM_SHARED]
        if not areas:
            return None
        stat = procfs.read_stat(pid)
        with Pagemap(pid) as pagemap:
            address, entry, pages = pagemap.read_extents(
                ranges_to_read(pagemap, [(line.start, line.end) for line in areas], stat.rss)
            )
        frame = entry & np.int64(PM_PFRAME_MASK)
        # The huge zero page is marked as of a file, the small one is not.
        anonymous = (entry < 0) & ((entry & np.int64(PM_FILE)) == 0) & (frame != 0) & (frame != self._zero_frame)
        own = (entry & np.int64(PM_MMAP_EXCLUSIVE)) != 0
        runs = _Runs(address >> PAGE_SHIFT, frame, pages)
        return _Memory(areas, runs.where(anonymous & ~own), runs.where(anonymous & own))


def _zero_frame() -> int:
    # The frame of the zero page: of an anonymous page that has been read, and never written.
    with mmap.mmap(-1, PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        with suppress(OSError):  # a kernel without huge pages
            page.madvise(mmap.MADV_NOHUGEPAGE)
        assert page[0] == 0
        return entry_of(os.getpid(), address_of(page)) & PM_PFRAME_MASK


def _by_mm(family: list[_Process]) -> list[list[_Process]]:
    # The processes that use each mm, oldest first in both.
    start = dict(family)
    together = groups(sorted(start), compare_mms)
    users = [sorted(((pid, start[pid]) for pid in (one, *others)), key=_age) for one, others in together.items()]
    return sorted(users, key=lambda those: _age(those[0]))


def _age(process: _Process) -> _Process:
    pid, start = process
    return start, pid


def _fate(old: _Runs, memory: _Memory) -> _Fate:
    # Most runs are still what they were. The others are cut where a run of now or an area begins or ends: each piece
    # has one fate.
    old = old.without(memory.shared)
    starts = np.array([line.start >> PAGE_SHIFT for line in memory.areas], np.int64)
    touched = [runs.where(runs.rows_in(old)) for runs in (memory.shared, memory.own)]
    cuts = np.unique(np.concatenate([starts, *(edge for runs in (old, *touched) for edge in (runs.page, runs.end()))]))
    first, pages = cuts[:-1], np.diff(cuts)
    frame = old.frames_at(first)
    first, pages, frame = (column[frame >= 0] for column in (first, pages, frame))
    own, still = memory.own.frames_at(first), memory.shared.frames_at(first)
    unshared = (own >= 0) & (own != frame)
    pages_of = np.zeros(len(starts), np.int64)
    np.add.at(pages_of, np.searchsorted(starts, first[unshared], side="right") - 1, pages[unshared])
    by_area: Counter[str] = Counter()
    for row in np.flatnonzero(pages_of).tolist():
        by_area[name_of(memory.areas[row])] += int(pages_of[row])
    return _Fate(
        unshared=by_area,
        left=int(pages[own == frame].sum()),
        gone=int(pages[(own < 0) & (still < 0)].sum()),
    )


def name_of(area: procfs.MapsLine) -> str:
    """What an area is called: its file or label, or where it begins: children have it at the same place."""
    return area.path or f"anonymous {area.start:#x}"


def family_of(pid: int) -> list[tuple[int, int]]:
    """A process and its descendants as they are now: pid and start time (clock ticks since boot) of each."""
    parents: dict[int, list[procfs.Stat]] = defaultdict(list)
    top = None
    for other in procfs.pids():
        try:
            stat = procfs.read_stat(other)
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[stat.ppid].append(stat)
        top = stat if other == pid else top
    family, waiting = [], [top] if top is not None else []
    while waiting:
        one = waiting.pop()
        if one.pid != os.getpid():
            family.append((one.pid, one.start_time))
        waiting += parents[one.pid]
    return sorted(family)
