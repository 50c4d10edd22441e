"""Which pages of a file are in memory.

By mincore(2) on a mapping of our own that is never touched: it says so page by page, and sees through overlayfs to the
file below, which cachestat(2) does not. Of tmpfs and memfds by cachestat: there mincore counts pages that have left the
file for swap and lie in the swap cache still (``mincore_swap``).

Two traps (Linux 6.18, ``can_do_mincore`` in ``mm/mincore.c``, ``can_do_cachestat`` in ``mm/filemap.c``): of a file that
the asking user neither owns nor may write, mincore claims that every page is in memory; and cachestat refuses. Such a
file is unknown, never full.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from rmap.columns import I64, Bool, expand, runs
from rmap.live.sources import procfs
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.syscalls import CacheStat, cachestat, madvise, map_file, resident, unmap
from rmap.uapi.mman import MADV_POPULATE_READ, MADV_RANDOM
from rmap.uapi.pagemap import PM_PFRAME_MASK
from rmap.units import PAGE_SHIFT, PAGE_SIZE

_WINDOW = 1 << 18  # pages mapped at a time: 1 GiB
_CAP_FOWNER = 1 << 3


@dataclass(frozen=True)
class Residency:
    """What of a file is in memory.

    Attributes:
        pages: of the file.
        first, count: int64: runs of pages in memory, ascending; empty where ``why_unknown`` is given.
        stat: what cachestat tells of the whole file, None if nothing.
        why_unknown: why it is not known, in words; ``""`` if it is.
    """

    pages: int
    first: I64
    count: I64
    stat: CacheStat | None
    why_unknown: str = ""

    @property
    def resident(self) -> int | None:
        """Pages in memory, None if unknown."""
        return None if self.why_unknown else int(self.count.sum())


def residency(fd: int) -> Residency:
    """What of an open file is in memory, all of it.

    Raises:
        OSError: it can neither be mapped nor asked for.
    """
    pages = -(-os.fstat(fd).st_size // PAGE_SIZE)
    nothing = np.empty(0, np.int64)
    if not may_ask(fd):
        stat = cachestat(fd)  # before Linux 6.13 it answered everybody
        if stat is None:
            why = "the kernel tells only the owner of a file, or who may write it, what of it is in memory"
            return Residency(pages, nothing, nothing, None, why)
        first, count = _by_cachestat(fd, 0, pages)
        return Residency(pages, first, count, stat)
    first, count = runs(resident_pages(fd, 0, pages))
    stat = cachestat(fd)
    # An overlay's own inode has no cache: cachestat asks it, and says nothing is there.
    blind = stat is not None and not stat.cache and len(first) > 0
    return Residency(pages, first, count, None if blind else stat)


def may_ask(fd: int) -> bool:
    """Whether mincore tells this user the truth about a file."""
    if os.fstat(fd).st_uid == os.geteuid() or os.access(procfs.own_descriptor(fd), os.W_OK, effective_ids=True):
        return True
    return bool(procfs.capabilities() & _CAP_FOWNER)


def resident_pages(fd: int, first: int, count: int) -> I64:
    """Which of some pages of an open file are in memory: their numbers, int64, ascending.

    Raises:
        OSError: it cannot be mapped.
    """
    if in_swap_cache_too(fd):
        return expand(*_by_cachestat(fd, first, count))
    return mincore_pages(fd, first, count)


def in_swap_cache_too(fd: int) -> bool:
    """Whether mincore counts pages in the swap cache as those of this file, and cachestat is there to tell better."""
    return os.fstat(fd).st_dev in procfs.shmem_devices() and cachestat(fd) is not None


def mincore_pages(fd: int, first: int, count: int) -> I64:
    """The same, as mincore alone tells it.

    Raises:
        OSError: it cannot be mapped.
    """
    parts = [np.empty(0, np.int64)]
    for begin, pages in _windows(first, count):
        stat = cachestat(fd, begin << PAGE_SHIFT, pages << PAGE_SHIFT) if pages > PAGE_SIZE else None
        if stat is not None and not stat.cache and not _overlaid(fd):
            continue  # a hole of a huge file: nothing to look at page by page
        with mapped(fd, begin, pages) as address:
            parts.append(np.flatnonzero(resident(address, pages << PAGE_SHIFT)) + begin)
    return np.concatenate(parts)


def frames_of(fd: int, pages: I64) -> I64:
    """The frames of some pages of an open file that are in memory; -1 for one that is not any more.

    For this they are mapped by this process for a moment: as random access, so that nothing is read ahead and nothing
    counts as used.

    Args:
        pages: int64, ascending; of one file.

    Raises:
        OSError: it cannot be mapped.
    """
    frames: I64 = np.full(len(pages), -1, np.int64)
    if not len(pages):
        return frames
    with Pagemap(os.getpid()) as pagemap:
        for begin, length in _windows(int(pages[0]), int(pages[-1] - pages[0]) + 1):
            low, high = np.searchsorted(pages, (begin, begin + length))
            if low == high:
                continue
            with mapped(fd, begin, length) as address:
                madvise(address, length << PAGE_SHIFT, MADV_RANDOM)
                there = resident(address, length << PAGE_SHIFT)
                frames[low:high] = _frames(pagemap, address, pages[low:high] - begin, there)
    return frames


def _frames(pagemap: Pagemap, address: int, pages: I64, there: Bool) -> I64:
    for first, count in zip(*(column.tolist() for column in runs(pages[there[pages]]))):
        try:
            madvise(address + (first << PAGE_SHIFT), count << PAGE_SHIFT, MADV_POPULATE_READ)
        except OSError:  # a page went meanwhile, and cannot be read again
            continue
    at, entry = pagemap.read([(address, address + (len(there) << PAGE_SHIFT))])
    present = entry < 0
    frames: I64 = np.full(len(there), -1, np.int64)
    frames[(at[present] - address) >> PAGE_SHIFT] = entry[present] & PM_PFRAME_MASK
    return frames[pages]


@contextmanager
def mapped(fd: int, first: int, pages: int) -> Iterator[int]:
    """A file's pages mapped into this process, to be asked about; yields the address."""
    address = map_file(fd, pages << PAGE_SHIFT, first << PAGE_SHIFT)
    try:
        yield address
    finally:
        unmap(address, pages << PAGE_SHIFT)


def _windows(first: int, count: int) -> Iterator[tuple[int, int]]:
    for begin in range(first, first + count, _WINDOW):
        yield begin, min(_WINDOW, first + count - begin)


def _overlaid(fd: int) -> bool:
    return procfs.file_systems().get(os.fstat(fd).st_dev, "overlay") == "overlay"


def _by_cachestat(fd: int, first: int, count: int) -> tuple[I64, I64]:
    # Halves each stretch; a stretch that is all there, or all missing, is not looked into.
    whole: list[I64] = [np.empty(0, np.int64)]
    todo = [(first, count)] if count else []
    while todo:
        begin, pages = todo.pop()
        stat = cachestat(fd, begin << PAGE_SHIFT, pages << PAGE_SHIFT)
        if stat is None or not stat.cache:
            continue
        if stat.cache >= pages:
            whole.append(expand(np.array([begin]), np.array([pages])))
            continue
        half = pages // 2
        todo += [(begin + half, pages - half), (begin, half)]
    return runs(np.sort(np.concatenate(whole)))
