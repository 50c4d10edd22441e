"""One file as the running machine has it: which of its pages are in memory, who maps them, who holds it open.

Residency is asked of the page cache (mincore on a mapping of our own that is never touched, cachestat); mappings are
read from the page tables of the areas of this file alone. A file is known by device and inode as /proc/PID/maps has
them, which are not those of stat on every file system.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rmap.columns import I64, U64, Bool, expand
from rmap.errors import NotPermitted, SourceError
from rmap.live import procfs
from rmap.live.lookup import file_identity
from rmap.live.pagemap import Pagemap
from rmap.live.search import FILE
from rmap.live.syscalls import CacheStat, cachestat, map_file, resident, unmap
from rmap.units import PAGE_SHIFT, PAGE_SIZE, page_align


@dataclass(frozen=True)
class Area:
    """One VMA of a file: whose, and what it covers."""

    pid: int
    line: procfs.MapsLine


@dataclass(frozen=True)
class Range:
    """Neighbouring pages of which the same is true.

    Attributes:
        first, pages: where in the file, in pages.
        resident: whether they are in memory.
        pids: who maps them, ascending.
    """

    first: int
    pages: int
    resident: bool
    pids: list[int]


@dataclass
class FilePages:
    """A file, now.

    Attributes:
        size: bytes.
        resident: bool, by page.
        mappers: int64, by page: entries that map it.
        cache: what cachestat says, None if it says nothing.
        areas: every VMA of the file.
        mapped: for each process, the pages it maps (int64, ascending; a page twice, if it maps it twice).
        open_by: processes that hold it open, ascending.
        hidden: processes that could not be asked.
    """

    path: str
    size: int
    resident: Bool
    mappers: I64
    cache: CacheStat | None
    areas: list[Area]
    mapped: dict[int, I64]
    open_by: list[int] = field(default_factory=list)
    hidden: int = 0

    def ranges(self) -> list[Range]:
        """The file cut where residency or the set of mappers changes; what is not in memory, too."""
        n = len(self.resident)
        if not n:
            return []
        sums: U64 = np.zeros(n, np.uint64)
        rng = np.random.default_rng(1)
        for pid in sorted(self.mapped):
            sums[np.unique(self.mapped[pid])] += np.uint64(rng.integers(1, 1 << 63))
        changes = (sums[1:] != sums[:-1]) | (self.resident[1:] != self.resident[:-1])
        begins = np.concatenate(([0], np.flatnonzero(changes) + 1))
        counts = np.diff(np.append(begins, n))
        return [
            Range(first, pages, bool(self.resident[first]), self._who(first))
            for first, pages in zip(begins.tolist(), counts.tolist())
        ]

    def _who(self, page: int) -> list[int]:
        def maps(pages: I64) -> bool:
            at = int(np.searchsorted(pages, page))
            return at < len(pages) and int(pages[at]) == page

        return sorted(pid for pid, pages in self.mapped.items() if maps(pages))


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A regular file, open for reading: its descriptor.

    Raises:
        SourceError: there is no such file, or it is no regular one.
        NotPermitted: this user may not read it, or not know what of it is in memory.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        raise NotPermitted(f"{path} may not be read by this user", needed="the right to read it, or root") from None
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{path} is not a regular file: the page cache has no pages of it")
        if found.st_uid != os.geteuid() and os.geteuid() and not os.access(path, os.W_OK):
            raise NotPermitted(
                f"the kernel does not tell this user what of {path} is in memory",
                needed="to be its owner, to have the right to write it, or root",
            )
        yield fd
    finally:
        os.close(fd)


def residency(fd: int, first: int = 0, pages: int | None = None) -> Bool:
    """Which pages of an open file are in memory; bool by page, of the range or of the whole file."""
    size = os.fstat(fd).st_size
    whole = page_align(size) >> PAGE_SHIFT
    count = whole - first if pages is None else min(pages, whole - first)
    if count <= 0:
        return np.zeros(0, np.bool_)
    address = map_file(fd, count << PAGE_SHIFT, first << PAGE_SHIFT)
    try:
        return resident(address, count << PAGE_SHIFT)
    finally:
        unmap(address, count << PAGE_SHIFT)


def areas_of(identity: tuple[int, int], pids: Iterable[int]) -> tuple[list[Area], int]:
    """Every VMA of a file, and how many processes could not be asked."""
    mark = f" {os.major(identity[0]):02x}:{os.minor(identity[0]):02x} {identity[1]} ".encode()
    areas, hidden = [], 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                text = file.read()
        except PermissionError:
            hidden += 1
            continue
        except (FileNotFoundError, ProcessLookupError):
            continue
        lines = text.splitlines() if mark in text else []
        areas += [Area(pid, procfs.parse_maps_line(line.decode(errors="replace"))) for line in lines if mark in line]
    return areas, hidden


def file_pages(path: str) -> FilePages:
    """Look at a file.

    Raises:
        SourceError, NotPermitted: as :func:`opened`.
    """
    real = os.path.realpath(path)
    with opened(real) as fd:
        found = os.fstat(fd)
        identity = file_identity(real, found) if found.st_size else (found.st_dev, found.st_ino)
        pids = [pid for pid in procfs.pids() if pid != os.getpid()]
        areas, hidden = areas_of(identity, pids)
        pages = residency(fd)
        mapped = _mapped(areas, len(pages))
        mappers = np.zeros(len(pages), np.int64)
        for one in mapped.values():
            np.add.at(mappers, one, 1)
        return FilePages(
            real, found.st_size, pages, mappers, cachestat(fd), areas, mapped, holders_of(found, pids), hidden
        )


def _mapped(areas: Iterable[Area], pages: int) -> dict[int, I64]:
    by_pid: dict[int, list[I64]] = {}
    for area in areas:
        found = mapped_pages(area)
        by_pid.setdefault(area.pid, []).append(found[found < pages])
    return {pid: np.sort(np.concatenate(parts)) for pid, parts in by_pid.items()}


def mapped_pages(area: Area) -> I64:
    """The pages of its file that an area maps now, ascending; private copies are none of them."""
    line = area.line
    try:
        with Pagemap(area.pid) as pagemap:
            address, entry = pagemap.read([(line.start, line.end)])
    except OSError:
        return np.zeros(0, np.int64)
    ours = (entry < 0) & ((entry & FILE) != 0)
    page: I64 = (address[ours] - line.start + line.offset) >> PAGE_SHIFT
    return page


def holders_of(found: os.stat_result, pids: Iterable[int]) -> list[int]:
    """The processes that hold a file open."""
    holders = []
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                other = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino):
                holders.append(pid)
                break
    return holders


def frames_of(fd: int, pages: I64) -> I64:
    """The frames that hold some pages of an open file, which are in memory; int64, -1 where one went meanwhile.

    A mapping of our own touches them: that maps what is there, and reads nothing.

    Args:
        pages: int64, their numbers, ascending.
    """
    answer = np.full(len(pages), -1, np.int64)
    if not len(pages):
        return answer
    first, last = int(pages[0]), int(pages[-1]) + 1
    length = (last - first) << PAGE_SHIFT
    address = map_file(fd, length, first << PAGE_SHIFT)
    try:
        there = resident(address, length)[pages - first]
        _touch(address, pages[there] - first)
        with Pagemap(os.getpid()) as pagemap:
            where, entry = pagemap.read([(address, address + length)])
        frame = dict(zip(((where - address) >> PAGE_SHIFT).tolist(), (entry & ((1 << 55) - 1)).tolist()))
        present = dict(zip(((where - address) >> PAGE_SHIFT).tolist(), (entry < 0).tolist()))
        for row, page in enumerate((pages - first).tolist()):
            if there[row] and present.get(page):
                answer[row] = frame[page]
    finally:
        unmap(address, length)
    return answer


def _touch(address: int, pages: I64) -> None:
    import ctypes

    for page in pages.tolist():
        ctypes.string_at(address + (page << PAGE_SHIFT), 1)


def addresses_in(area: Area, pages: I64) -> list[tuple[int, int]]:
    """Where some pages of its file (int64, ascending) lie in an area, as ``(address, length)`` in bytes, joined."""
    line = area.line
    at = (pages << PAGE_SHIFT) - line.offset + line.start
    at = at[(at >= line.start) & (at < line.end)]
    if not len(at):
        return []
    begins = np.concatenate(([0], np.flatnonzero(np.diff(at) != PAGE_SIZE) + 1))
    counts = np.diff(np.append(begins, len(at)))
    return [(int(at[begin]), int(count) * PAGE_SIZE) for begin, count in zip(begins, counts)]


def spread(first: int, pages: int) -> I64:
    """So many page numbers from the first on; int64."""
    return expand(np.array([first]), np.array([pages]))


