"""What is to go: pages of a file, or one page that belongs to no file; and what can be seen of it at any moment."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from rmap.columns import I64, Bool, expand, runs
from rmap.errors import UsageError
from rmap.live.evict.plan import EvictionFound, PlannedPages
from rmap.live.files.mappers import Mappers, OpenedFile, mappers_of, open_file
from rmap.live.lookup.look_up import NoPage, look_up
from rmap.live.sources import procfs
from rmap.live.sources.kpage_columns import PageState, kinds, read_page_state
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.residency import frames_of, in_swap_cache_too, mincore_pages, resident_pages
from rmap.snapshot.keys import Key
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.questions.answer import Mapping, Who
from rmap.snapshot.questions.file_ranges import distinct
from rmap.uapi.kpageflags import KPF_ANON, KPF_MLOCKED, KPF_SWAPCACHE, KPF_UNEVICTABLE
from rmap.uapi.pagemap import PM_PFRAME_MASK, PM_PRESENT
from rmap.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_LOCKED = KPF_MLOCKED | KPF_UNEVICTABLE

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Nothing:
    """Why a KEY names nothing that could go: one sentence."""

    reason: str


class Target(ABC):
    """Something that is to go.

    Attributes:
        what: in words.
        pages: how many pages it has.
    """

    what: str
    pages: int

    @abstractmethod
    def look(self) -> tuple[EvictionFound, PlannedPages]:
        """What of it is in memory, and mapped; and each of these pages, closely."""

    @abstractmethod
    def remaining(self) -> I64:
        """Which pages of it are in memory now (by number, as ``PlannedPages.page``); quick."""

    @abstractmethod
    def found(self) -> EvictionFound:
        """What of it is in memory and mapped now."""

    @abstractmethod
    def places(self, pages: I64) -> dict[int, Ranges]:
        """Where some of its pages are mapped: ``(address, length)`` in bytes, by process."""

    @abstractmethod
    def of_process(self, pid: int, pages: I64) -> I64:
        """Which of some pages a process maps."""

    @abstractmethod
    def frames(self, pages: I64) -> I64:
        """The frames of some of its pages now; -1 of one that is not in memory."""

    @abstractmethod
    def swap_cached(self) -> int:
        """How many of its pages have left every address space and lie in the swap cache."""

    @abstractmethod
    def neighbours(self) -> int:
        """How many pages that were not asked for, but share a folio with those of the last ``look``, are in memory."""


class FileTarget(Target):
    """Pages of a file.

    Args:
        file: open.
        first, count: which pages.
    """

    def __init__(self, file: OpenedFile, first: int, count: int, what: str) -> None:
        self.file, self.first, self.pages, self.what = file, first, count, what
        self._mappers = Mappers()
        self._around = (first, first)

    def look(self) -> tuple[EvictionFound, PlannedPages]:
        """See :class:`Target`."""
        page = self.remaining()
        pfn = frames_of(self.file.fd, page)
        page, pfn = page[pfn >= 0], pfn[pfn >= 0]
        self._mappers = mappers_of(self.file, self.first, self.pages)
        state = _state(pfn)
        row = np.searchsorted(state.pfn, pfn)
        offset = state.head_offset[row].astype(np.int64)
        size = np.int64(1) << state.order[row].astype(np.int64)
        if len(page):
            self._around = int((page - offset).min()), int((page - offset + size).max())
        most, outside = _folios(state, pfn)
        every = np.concatenate([one.page for one in self._mappers.found] or [page[:0]])
        by_each = np.concatenate([distinct(one.page) for one in self._mappers.found] or [page[:0]])
        return self._found(page), PlannedPages(
            page, pfn, kinds(state.flags[row]), (state.flags[row] & _LOCKED) != 0, state.mapcount[row],
            seen=_count(every, page), seen_by=_count(by_each, page), order=state.order[row],
            folio_most=most[row], folio_outside=outside[row], cgroup=state.cgroup[row],
        )  # fmt: skip

    def remaining(self) -> I64:
        """See :class:`Target`."""
        return resident_pages(self.file.fd, self.first, self.pages)

    def found(self) -> EvictionFound:
        """See :class:`Target`."""
        self._mappers = mappers_of(self.file, self.first, self.pages)
        return self._found(self.remaining())

    def _found(self, page: I64) -> EvictionFound:
        return EvictionFound(len(page), self._mappers.ptes, sum(len(one.page) > 0 for one in self._mappers.found))

    def places(self, pages: I64) -> dict[int, Ranges]:
        """See :class:`Target`."""
        answer = {}
        for one in self._mappers.found:
            first, count = runs(np.sort(one.address[np.isin(one.page, pages)]) >> PAGE_SHIFT)
            if len(first):
                answer[one.pid] = list(zip((first << PAGE_SHIFT).tolist(), (count << PAGE_SHIFT).tolist()))
        return answer

    def of_process(self, pid: int, pages: I64) -> I64:
        """See :class:`Target`."""
        return np.intersect1d(pages, np.concatenate([one.page for one in self._mappers.found if one.pid == pid]))

    def frames(self, pages: I64) -> I64:
        """See :class:`Target`."""
        return frames_of(self.file.fd, pages)

    def swap_cached(self) -> int:
        """See :class:`Target`."""
        fd = self.file.fd
        if not in_swap_cache_too(fd):
            return 0
        return max(0, len(mincore_pages(fd, self.first, self.pages)) - len(self.remaining()))

    def neighbours(self) -> int:
        """See :class:`Target`."""
        low, high = self._around
        end = self.first + self.pages
        sides = ((low, self.first - low), (end, high - end))
        return sum(len(resident_pages(self.file.fd, first, count)) for first, count in sides if count > 0)

    def whole_folios(self, page: I64, pfn: I64) -> tuple[I64, I64]:
        """Runs of pages that hold some pages and the rest of their folios: ``(first, count)``, ascending."""
        state = _state(pfn)
        row = np.searchsorted(state.pfn, pfn)
        size = np.int64(1) << state.order[row].astype(np.int64)
        return runs(np.unique(expand(page - state.head_offset[row], size)))


class AnonTarget(Target):
    """One page that belongs to no file, or to one that is not known: known by the entries that map it."""

    pages = 1

    def __init__(self, who: Who, what: str) -> None:
        self.what = what
        self._who = who
        self._near: Ranges = []

    def look(self) -> tuple[EvictionFound, PlannedPages]:
        """See :class:`Target`."""
        who, one = self._who, np.zeros(1, np.int64)
        assert who.pfn is not None
        pfn = np.array([who.pfn])
        state = _state(pfn)
        row = np.searchsorted(state.pfn, pfn)
        most, outside = _folios(state, pfn)
        seen = one + len(who.mappings)
        self._near = [(mapping.pid, address) for mapping in who.mappings for address in self._neighbours_of(mapping)]
        return self.found(), PlannedPages(
            one, pfn, kinds(state.flags[row]), (state.flags[row] & _LOCKED) != 0, state.mapcount[row],
            seen=seen, seen_by=one + len({mapping.pid for mapping in who.mappings}), order=state.order[row],
            folio_most=most[row], folio_outside=outside[row], cgroup=state.cgroup[row],
        )  # fmt: skip

    def _neighbours_of(self, mapping: Mapping) -> list[int]:
        # Where the other pages of its folio are, if they are mapped as they lie in it.
        who = self._who
        if not who.order or who.head is None or who.pfn is None:
            return []
        begin = (mapping.address & PAGE_MASK) - (who.pfn - who.head << PAGE_SHIFT)
        near = range(begin, begin + (PAGE_SIZE << who.order), PAGE_SIZE)
        return [at for at in near if at != mapping.address & PAGE_MASK and mapping.vma_start <= at < mapping.vma_end]

    def _now(self) -> Ranges:
        return [(one.pid, frame) for one in self._who.mappings if (frame := _frame_at(one.pid, one.address)) >= 0]

    def remaining(self) -> I64:
        """See :class:`Target`."""
        return np.zeros(self.found().resident, np.int64)

    def found(self) -> EvictionFound:
        """See :class:`Target`."""
        now = self._now()
        return EvictionFound(1 if now or self._hidden() else 0, len(now), len({pid for pid, _ in now}))

    def _hidden(self) -> bool:
        # Whether entries that cannot be seen map it still: then all that is known is that the kernel counts them.
        who = self._who
        if who.pfn is None or (who.mapcount or 0) <= who.found:
            return False
        return bool(_state(np.array([who.pfn])).mapcount.max() > 0)

    def places(self, pages: I64) -> dict[int, Ranges]:
        """See :class:`Target`."""
        return {one.pid: [(one.address & PAGE_MASK, PAGE_SIZE)] for one in self._who.mappings if len(pages)}

    def of_process(self, pid: int, pages: I64) -> I64:
        """See :class:`Target`."""
        return pages

    def frames(self, pages: I64) -> I64:
        """See :class:`Target`."""
        now = self._now()
        return np.full(len(pages), now[0][1] if now else -1, np.int64)

    def swap_cached(self) -> int:
        """See :class:`Target`."""
        pfn = np.array([self._who.pfn])
        state = _state(pfn)
        flags = int(state.flags[np.searchsorted(state.pfn, pfn)][0])
        return int(flags & (KPF_ANON | KPF_SWAPCACHE) == KPF_ANON | KPF_SWAPCACHE)

    def neighbours(self) -> int:
        """See :class:`Target`."""
        who = self._who
        assert who.head is not None
        there = {_frame_at(pid, address) for pid, address in self._near}
        return len(there & set(range(who.head, who.head + (1 << who.order))))


def _frame_at(pid: int, address: int) -> int:
    # The frame that a process has at an address now, -1 if none.
    try:
        with Pagemap(pid) as pagemap:
            entry = pagemap.entry(address) & (1 << 64) - 1
    except OSError:
        return -1
    return entry & PM_PFRAME_MASK if entry & PM_PRESENT else -1


def _state(pfn: I64) -> PageState:
    return read_page_state(*runs(np.unique(pfn)))


def _count(values: I64, of: I64) -> I64:
    ordered = np.sort(values, kind="stable")
    return np.searchsorted(ordered, of, side="right") - np.searchsorted(ordered, of, side="left")


def _folios(state: PageState, pfn: I64) -> tuple[I64, Bool]:
    # For each frame: the highest mapcount in its folio; and whether a frame of the folio outside these is mapped.
    head, folio = np.unique(state.pfn - state.head_offset, return_inverse=True)
    most = np.zeros(len(head), np.int64)
    np.maximum.at(most, folio, state.mapcount)
    outside = np.zeros(len(head), np.bool_)
    outside[folio[(state.mapcount > 0) & ~np.isin(state.pfn, pfn)]] = True
    return most[folio], outside[folio]


@contextmanager
def target_of(key: Key, text: str) -> Iterator[Target | Nothing]:
    """What a KEY names; a file of it is open meanwhile.

    Args:
        text: the KEY as it was typed.

    Raises:
        UsageError: it names a process, or a slot of swap.
        NotPermitted, OSError: it cannot be read.
    """
    if key.kind == "process":
        raise UsageError(f"{key.pid} is a process, with many pages: name one as {key.pid}:0xADDRESS")
    if key.kind == "swap":
        raise UsageError(f"{text} is a slot of swap: what is there is not in memory")
    if key.kind == "file":
        file = open_file(key.path)
        try:
            yield _of_file(file, key, key.path)
        finally:
            file.close()
        return
    who = look_up(key)
    if isinstance(who, NoPage):
        yield Nothing(who.reason)
        return
    if who.pfn is None:
        yield Nothing(f"{text} is in swap already (slot {':'.join(map(str, who.swap or ()))}), not in memory")
        return
    path, page = _way_to_file(who)
    if path is None:
        yield AnonTarget(who, _in_words(who)) if who.mappings or who.mapcount else _unmapped(who)
        return
    file = open_file(path)
    try:
        yield FileTarget(file, page, 1, f"{_in_words(who)}: page {page:,} of {who.file}")
    finally:
        file.close()


def _of_file(file: OpenedFile, key: Key, path: str) -> Target | Nothing:
    if key.whole:
        return FileTarget(file, 0, file.pages, path)
    page = key.offset >> PAGE_SHIFT
    if page >= file.pages:
        return Nothing(f"{path} has no page {page:,}: it is {file.size:,} bytes long")
    return FileTarget(file, page, 1, f"{path}, page {page:,}")


def _way_to_file(who: Who) -> tuple[str | None, int]:
    # The page of a file can be asked for in the file itself, which a mapper of it leads to.
    if not _is_cached(who):
        return None, 0
    for one in who.mappings:
        if one.offset is not None and one.file is not None:
            link = procfs.map_file(one.pid, one.vma_start, one.vma_end)
            if os.path.exists(link):
                return link, one.offset >> PAGE_SHIFT
    return None, 0


def _in_words(who: Who) -> str:
    return f"pfn {who.pfn:#x}" if who.pfn is not None else "a page"


def _unmapped(who: Who) -> Nothing:
    frame = f"frame {who.pfn:#x}"
    if _is_cached(who):  # which a free frame looks like, too
        return Nothing(f"{frame} is mapped by nobody: if it is a page of a file, name that, as PATH@OFFSET")
    kind = KINDS.named(who.kind)
    return Nothing(f"{frame} {kind.unmapped if kind is not None else 'is in no address space'}: nobody maps it")


def _is_cached(who: Who) -> bool:
    kind = KINDS.named(who.kind)
    return kind is not None and kind.number in KINDS.cached


def free_swap() -> bool:
    """Whether there is swap space that is not in use."""
    return procfs.nr_swap_areas() > 0 and procfs.meminfo("SwapFree") > 0
