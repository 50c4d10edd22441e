"""What is to be evicted: pages of a file, or one page of a process; and what can be seen of it at any moment."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np

from rmap.columns import I64, expand
from rmap.errors import SourceError
from rmap.live import procfs
from rmap.live.file_pages import Area, addresses_in, areas_of, frames_of, mapped_pages, residency, spread
from rmap.live.lookup import file_identity
from rmap.live.page_state import KpageFile, read_page_state
from rmap.live.pagemap import PFN_MASK, Pagemap
from rmap.live.search import PRESENT
from rmap.snapshot import flags as f
from rmap.snapshot.who import Who
from rmap.units import PAGE_SHIFT, PAGE_SIZE, page_align

_NOT_OURS = {
    "zero": "the zero page stays: it is everybody's",
    "kernel": "the kernel's own pages stay",
    "device": "memory of a device stays",
    "hugetlb": "huge pages (hugetlb) are never pushed out",
    "ksm": "a page merged by KSM has several mappers: what would take it from one leaves it to the others",
}
_HELD = (
    (f.KPF_UNEVICTABLE | f.KPF_MLOCKED, "locked (mlock)"),
    (f.KPF_DIRTY, "dirty"),
    (f.KPF_WRITEBACK, "being written"),
)
_SWAPLESS = "there is no swap: anonymous and shared memory has nowhere to go"


@dataclass(frozen=True)
class Seen:
    """What is there at a moment: pages in memory, entries that map them, processes that do."""

    resident: int
    ptes: int
    processes: int


class FileTarget:
    """Pages of a file.

    Args:
        path: of it.
        fd: it, open for reading; not closed here.
        first, count: which pages; None for all from the first on.

    Attributes:
        name: in words. pages: how many.
    """

    def __init__(self, path: str, fd: int, first: int = 0, count: int | None = None) -> None:
        self.path = os.path.realpath(path)
        self.fd = fd
        found = os.fstat(fd)
        whole = page_align(found.st_size) >> PAGE_SHIFT
        if first and first >= whole:
            raise SourceError(f"{path} has no page {first:,}: it is {found.st_size:,} bytes long")
        self.first = first
        self.pages = whole - first if count is None else min(count, whole - first)
        self.name = path if count is None else f"{path}, page {first:,}"
        self._identity = file_identity(self.path, found) if found.st_size else (found.st_dev, found.st_ino)
        self._shmem = found.st_dev in procfs.shmem_devices()

    def _areas(self) -> list[Area]:
        return areas_of(self._identity, [pid for pid in procfs.pids() if pid != os.getpid()])[0]

    def _numbers(self) -> I64:
        return spread(self.first, self.pages)

    def _mapped(self) -> dict[int, I64]:
        by_pid: dict[int, list[I64]] = {}
        for area in self._areas():
            pages = mapped_pages(area)
            pages = pages[(pages >= self.first) & (pages < self.first + self.pages)]
            if len(pages):
                by_pid.setdefault(area.pid, []).append(pages)
        return {pid: np.concatenate(parts) for pid, parts in by_pid.items()}

    def look(self) -> Seen:
        """What is in memory and mapped now."""
        mapped = self._mapped()
        resident = int(residency(self.fd, self.first, self.pages).sum())
        return Seen(resident, sum(map(len, mapped.values())), len(mapped))

    def refusals(self) -> list[str]:
        """Why nothing is to be tried, in words; empty if something is."""
        return [_SWAPLESS] if self._shmem and not procfs.nr_swap_areas() else []

    def unmapped(self) -> I64:
        """Pages in memory that nobody maps; int64, ascending."""
        there = self._numbers()[residency(self.fd, self.first, self.pages)]
        mapped = list(self._mapped().values())
        return np.setdiff1d(there, np.concatenate(mapped)) if mapped else there

    def with_folios(self, pages: I64) -> I64:
        """Some pages in memory, and all others of their folios: the kernel drops whole folios, or nothing of them."""
        frames = frames_of(self.fd, pages)
        pages, frames = pages[frames >= 0], frames[frames >= 0]
        distinct = np.unique(frames)
        state = read_page_state(distinct, np.ones(len(distinct), np.int64))
        at = np.searchsorted(state.pfn, frames)
        first = pages - state.head_offset[at]
        size = np.left_shift(1, state.order[at].astype(np.int64))
        return np.unique(expand(first, size)) if len(pages) else pages

    def single_mappers(self) -> dict[int, list[tuple[int, int]]]:
        """Where the pages lie that exactly one entry maps: ``(address, length)`` in bytes, by process."""
        areas = self._areas()
        pages = [mapped_pages(area) for area in areas]
        every = np.concatenate(pages) if pages else np.zeros(0, np.int64)
        distinct, count = np.unique(every, return_counts=True)
        single = distinct[(count == 1) & (distinct >= self.first) & (distinct < self.first + self.pages)]
        places: dict[int, list[tuple[int, int]]] = {}
        for area, mine in zip(areas, pages):
            ranges = addresses_in(area, np.intersect1d(single, mine))
            if ranges:
                places.setdefault(area.pid, []).extend(ranges)
        return places

    def charged(self) -> dict[int, int]:
        """Pages in memory by the cgroup (its inode) that they are charged to."""
        frames = frames_of(self.fd, self._numbers()[residency(self.fd, self.first, self.pages)])
        return _charges(np.unique(frames[frames >= 0]))

    def cgroups(self) -> set[str]:
        """The cgroups of those who map it."""
        return _cgroups_of(set(self._mapped()))

    def around(self) -> int:
        """Pages of the file in memory that are not meant."""
        return int(residency(self.fd).sum() - residency(self.fd, self.first, self.pages).sum())

    def reasons(self, seen: Seen) -> list[str]:
        """Why pages stayed."""
        singles = sum(length for ranges in self.single_mappers().values() for _, length in ranges) // PAGE_SIZE
        reasons = []
        if seen.ptes > singles:
            reasons.append("several entries map the same page: no call of the kernel takes it from all of them")
        frames = frames_of(self.fd, self._numbers()[residency(self.fd, self.first, self.pages)])
        frames = np.unique(frames[frames >= 0])
        state = read_page_state(frames, np.ones(len(frames), np.int64))
        flags = state.flags[np.isin(state.pfn, frames)]
        for bits, why in _HELD:
            n = int(((flags & bits) != 0).sum())
            if n:
                reasons.append(f"{n:,} pages are {why}")
        return reasons or ["the kernel kept them: in use, or referenced again"]


class PageTarget:
    """One page of a process, or a frame: whatever :func:`rmap.live.lookup.look_up` found of it."""

    pages = 1

    def __init__(self, who: Who, name: str) -> None:
        self._who = who
        self.name = name

    def look(self) -> Seen:
        """Whether entries still map it."""
        there = [one for one in self._who.mappings if self._maps(one.pid, one.address)]
        return Seen(int(bool(there)), len(there), len({one.pid for one in there}))

    def _maps(self, pid: int, address: int) -> bool:
        try:
            with Pagemap(pid) as pagemap:
                entry = pagemap.entry(address) & (1 << 64) - 1
        except OSError:
            return False
        return bool(entry & PRESENT) and entry & PFN_MASK == self._who.pfn

    def refusals(self) -> list[str]:
        """Why nothing is to be tried, in words; empty if something is."""
        who = self._who
        if who.kind in _NOT_OURS:
            return [_NOT_OURS[who.kind]]
        if who.kind in ("anon", "shmem") and not procfs.nr_swap_areas():
            return [_SWAPLESS]
        assert who.pfn is not None
        flags = int(read_page_state(np.array([who.pfn]), np.array([1])).flags[0])
        if flags & (f.KPF_MLOCKED | f.KPF_UNEVICTABLE):
            return ["the page is locked (mlock)"]
        return []

    def unmapped(self) -> I64:
        """None: what is asked for by its mapper is mapped."""
        return np.zeros(0, np.int64)

    def single_mappers(self) -> dict[int, list[tuple[int, int]]]:
        """Where it lies, if one entry maps it."""
        if self._who.mapcount != 1 or len(self._who.mappings) != 1:
            return {}
        (one,) = self._who.mappings
        return {one.pid: [(one.address, PAGE_SIZE)]} if self._maps(one.pid, one.address) else {}

    def charged(self) -> dict[int, int]:
        """The cgroup (its inode) that it is charged to."""
        assert self._who.pfn is not None
        return _charges(np.array([self._who.pfn]))

    def cgroups(self) -> set[str]:
        """The cgroups of those who map it."""
        return _cgroups_of({one.pid for one in self._who.mappings})

    def around(self) -> int:
        """Other pages of its folio that somebody maps."""
        if not self._who.order or self._who.head is None:
            return 0
        frames = np.arange(self._who.head, self._who.head + (1 << self._who.order))
        file = KpageFile("kpagecount")
        try:
            counts = file.read(frames[:1], np.array([len(frames)]), 0)
        finally:
            file.close()
        return int((counts[frames != self._who.pfn] > 0).sum())

    def reasons(self, seen: Seen) -> list[str]:
        """Why it stayed."""
        if seen.ptes > 1:
            return ["several entries map it: no call of the kernel takes it from all of them"]
        return ["the kernel kept it: in use, dirty, or referenced again"]


def _charges(pfns: I64) -> dict[int, int]:
    if not len(pfns):
        return {}
    file = KpageFile("kpagecgroup")
    try:
        inodes = file.read(pfns, np.ones(len(pfns), np.int64), 0)
    finally:
        file.close()
    return dict(Counter(inodes.tolist()))


def _cgroups_of(pids: set[int]) -> set[str]:
    paths = set()
    for pid in pids:
        try:
            paths.add(procfs.read_cgroup(pid))
        except OSError:
            continue
    return paths


