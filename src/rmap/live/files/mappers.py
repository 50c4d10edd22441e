"""Who maps a file of the running machine, and who holds it open.

A file is known by what our own mapping of it looks like in /proc (:mod:`rmap.live.sources.areas`). So neither its path
nor its mount namespace matters, and a deleted file or a memfd, opened by way of /proc/PID/fd/N or
/proc/PID/map_files/..., is a file like any other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from rmap.columns import I64
from rmap.errors import NotPermitted, UsageError
from rmap.live.sources import procfs
from rmap.live.sources.areas import FileIdentity, Numbers, areas_of, identity_of
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.same_mm import compare_mms, groups
from rmap.uapi.pagemap import PM_FILE, PM_PFRAME_MASK
from rmap.units import PAGE_MASK, PAGE_SHIFT


@dataclass(frozen=True)
class OpenedFile:
    """A file that this process has opened, to ask about it.

    Attributes:
        fd: open for reading.
        path: as the kernel names it now.
        size: bytes.
        identity: what it is known by, in maps and elsewhere.
        key: device and inode as of stat.
    """

    fd: int
    path: str
    size: int
    identity: FileIdentity
    key: Numbers

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return (self.size + ~PAGE_MASK) >> PAGE_SHIFT

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


def open_file(path: str) -> OpenedFile:
    """Open a regular file, a memfd, a deleted file.

    Raises:
        NotPermitted: this user may not read it.
        UsageError: it is something else: a directory, a device.
        OSError: it is not there.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        raise NotPermitted(
            f"{path}: this user may not read this file",
            needed="permission to read the file" if os.geteuid() == 0 else "CAP_DAC_READ_SEARCH, or to be its owner",
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is {_what(status.st_mode)}: only a regular file has pages of its own")
        return OpenedFile(
            fd, procfs.read_link(procfs.own_descriptor(fd)), status.st_size,
            identity_of(fd, status), (status.st_dev, status.st_ino),
        )  # fmt: skip
    except BaseException:
        os.close(fd)
        raise


def _what(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a directory"), (stat.S_ISBLK, "a block device"), (stat.S_ISCHR, "a character device"),
        (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    )  # fmt: skip
    return next((name for test, name in kinds if test(mode)), "no file")


@dataclass(frozen=True)
class Mapper:
    """A process with areas of a file.

    Attributes:
        pid: the lowest of those that share its memory.
        page, address, pfn: int64 columns, one row for each entry that maps a page of the file: the page's number in
            the file, where (bytes), its frame (0 where the kernel hides it).
        copies: private copies of its pages, made on writing.
    """

    pid: int
    comm: str
    page: I64
    address: I64
    pfn: I64
    copies: int


@dataclass
class Mappers:
    """Everybody with an area of a file; processes that ended meanwhile, or may not be read."""

    found: list[Mapper] = field(default_factory=list)
    ended: int = 0
    refused: list[int] = field(default_factory=list)

    @property
    def ptes(self) -> int:
        """Entries that map a page of it."""
        return sum(len(one.page) for one in self.found)


def mappers_of(file: OpenedFile, first: int = 0, count: int | None = None) -> Mappers:
    """Find everybody who maps a file: all memory maps are read, and of page tables those of its areas.

    Args:
        first, count: only entries of these pages; None means all.
    """
    answer = Mappers()
    areas: dict[int, list[procfs.MapsLine]] = {}
    for pid in procfs.pids():
        try:
            lines = areas_of(pid, file.identity)
        except (FileNotFoundError, ProcessLookupError):
            answer.ended += 1
        except PermissionError:
            answer.refused.append(pid)
        else:
            if lines:
                areas[pid] = lines
    last = None if count is None else first + count
    for pid in groups(sorted(areas), compare_mms):
        try:
            answer.found.append(_read(pid, areas[pid], first, last))
        except (FileNotFoundError, ProcessLookupError):
            answer.ended += 1
        except PermissionError:
            answer.refused.append(pid)
    return answer


def _read(pid: int, lines: list[procfs.MapsLine], first: int, last: int | None) -> Mapper:
    columns: list[tuple[I64, I64, I64]] = [(np.empty(0, np.int64),) * 3]
    copies = 0
    with Pagemap(pid) as pagemap:
        for line in lines:
            behind = line.offset >> PAGE_SHIFT
            start = max(line.start, line.start + (first - behind << PAGE_SHIFT))
            end = line.end if last is None else min(line.end, line.start + (last - behind << PAGE_SHIFT))
            if start >= end:
                continue
            address, entry = pagemap.read([(start, end)])
            ours = (entry < 0) & ((entry & PM_FILE) != 0)
            copies += int(((entry < 0) & ((entry & PM_FILE) == 0)).sum())
            address, entry = address[ours], entry[ours]
            columns.append((behind + (address - line.start >> PAGE_SHIFT), address, entry & PM_PFRAME_MASK))
    page, address, pfn = (np.concatenate(column) for column in zip(*columns))
    return Mapper(pid, procfs.read_stat(pid).comm, page, address, pfn, copies)


def open_by(key: Numbers) -> dict[int, list[int]]:
    """Who holds a file open: pid -> descriptors. This process is left out.

    Args:
        key: device and inode as of stat.
    """
    holders: dict[int, list[int]] = {}
    for pid in _others():
        for name, status in procfs.descriptors(pid):
            if (status.st_dev, status.st_ino) == key:
                holders.setdefault(pid, []).append(int(name))
    return {pid: sorted(fds) for pid, fds in holders.items()}


def _others() -> Iterable[int]:
    return (pid for pid in procfs.pids() if pid != os.getpid())
