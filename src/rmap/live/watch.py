"""How the shared memory of a forked family becomes private: the family's page tables, read round after round.

Only private memory counts: anonymous pages, and private mappings of files that were written. An entry of pagemap says
whether its page is this process's alone (bit 56). Of the pages that a process shared in one round, the next says:

=========  ==============================================================================
unshared   another frame is there, and it is the process's own: it wrote, and copied
left       the same frame, now its own: the others let go of it
gone       nothing is there any more: unmapped, discarded, swapped out
=========  ==============================================================================

Shared pages of a process are kept as runs contiguous in address and frame: of a forked gigabyte a few thousand.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rmap.columns import I64, Bool, expand
from rmap.live import procfs
from rmap.live.pagemap import PFN_MASK, Pagemap, ranges_to_read
from rmap.snapshot.flags import VM_SHARED
from rmap.units import PAGE_SHIFT

_EXCLUSIVE, _FILE = np.int64(1 << 56), np.int64(1 << 61)


class _Runs(NamedTuple):
    """Pages of one process, contiguous in address and in frame: first page, first frame, how many."""

    page: I64
    frame: I64
    pages: I64


@dataclass(frozen=True)
class Round:
    """One look at the family. Pages, but for ``seconds``.

    Attributes:
        at: seconds since the first round; seconds: what this one took to read.
        processes: how many there are; came, went: their pids since the round before.
        shared, private: anonymous pages in memory, entry by entry.
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


class Watch:
    """Looks at a family again and again.

    Args:
        pid: the first of the family; its descendants are found anew in each round.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._began = time.monotonic()
        self._shared: dict[tuple[int, int], _Runs] = {}

    def look(self) -> Round | None:
        """One round; None if nobody of the family is left.

        Raises:
            PermissionError: none of the family may be read.
        """
        began = time.monotonic()
        before = self._shared
        counts: dict[str, int] = defaultdict(int)
        by_area: dict[str, int] = defaultdict(int)
        now: dict[tuple[int, int], _Runs] = {}
        ended = refused = 0
        family = family_of(self.pid)
        for pid, start in family:
            try:
                self._look_at(pid, start, before.get((pid, start)), now, counts, by_area)
            except (FileNotFoundError, ProcessLookupError):
                ended += 1
            except PermissionError:
                ended += 1
                refused += 1
        if refused and refused == len(family):
            raise PermissionError(13, f"the memory of process {self.pid} and of its children may not be read")
        if not now:
            return None
        self._shared = now
        return Round(
            at=began - self._began,
            seconds=time.monotonic() - began,
            processes=len(now),
            came=sorted(pid for pid, _ in now.keys() - before.keys()) if before else [],
            went=sorted(pid for pid, _ in before.keys() - now.keys()),
            shared=counts["shared"],
            private=counts["private"],
            unshared=counts["unshared"],
            left=counts["left"],
            gone=counts["gone"],
            by_area=dict(by_area),
            ended=ended,
        )

    def _look_at(
        self,
        pid: int,
        start: int,
        old: _Runs | None,
        now: dict[tuple[int, int], _Runs],
        counts: dict[str, int],
        by_area: dict[str, int],
    ) -> None:
        areas = [line for line in procfs.read_maps(pid) if not line.flags & VM_SHARED]
        if not areas:
            return
        stat = procfs.read_stat(pid)
        with Pagemap(pid) as pagemap:
            address, entry = pagemap.read(
                ranges_to_read(pagemap, [(line.start, line.end) for line in areas], stat.rss)
            )
        anonymous = (entry < 0) & ((entry & _FILE) == 0) & ((entry & np.int64(PFN_MASK)) != 0)
        page, frame = address[anonymous] >> PAGE_SHIFT, entry[anonymous] & np.int64(PFN_MASK)
        own = (entry[anonymous] & _EXCLUSIVE) != 0
        counts["shared"] += int((~own).sum())
        counts["private"] += int(own.sum())
        if old is not None:
            for area, pages in _compared(old, page, frame, own, counts, areas):
                by_area[area] += pages
        now[pid, start] = _runs(page[~own], frame[~own])


# What became of the pages that were shared before; the areas of those that are unshared.
def _compared(
    old: _Runs, page: I64, frame: I64, own: Bool, counts: dict[str, int], areas: list[procfs.MapsLine]
) -> list[tuple[str, int]]:
    old_page, old_frame = expand(old.page, old.pages), expand(old.frame, old.pages)
    at = np.searchsorted(page, old_page)
    inside = at < len(page)
    there = np.zeros(len(old_page), np.bool_)
    there[inside] = page[at[inside]] == old_page[inside]
    counts["gone"] += int((~there).sum())
    rows = at[there]
    same = frame[rows] == old_frame[there]
    counts["left"] += int((own[rows] & same).sum())
    unshared = old_page[there][own[rows] & ~same]
    counts["unshared"] += len(unshared)
    if not len(unshared):
        return []
    starts = np.array([line.start >> PAGE_SHIFT for line in areas], np.int64)
    index, number = np.unique(np.searchsorted(starts, unshared, side="right") - 1, return_counts=True)
    return [(name_of(areas[row]), pages) for row, pages in zip(index.tolist(), number.tolist())]


def name_of(area: procfs.MapsLine) -> str:
    """What an area is called: its file or label, or where it begins: children have it at the same place."""
    return area.path or f"anonymous {area.start:#x}"


def _runs(page: I64, frame: I64) -> _Runs:
    if not len(page):
        return _Runs(page, frame, page)
    breaks = (np.diff(page) != 1) | (np.diff(frame) != 1)
    first = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    return _Runs(page[first], frame[first], np.diff(np.append(first, len(page))))


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
    found, waiting = [], [top] if top is not None else []
    while waiting:
        one = waiting.pop()
        if one.pid != os.getpid():
            found.append((one.pid, one.start_time))
        waiting += parents[one.pid]
    return sorted(found)
