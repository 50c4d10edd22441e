"""Every file that a process maps or holds open, once, and how much of it is in the page cache.

A file is told from others by device and inode as of stat, asked of the process that has it (``/proc/PID/map_files``,
``/proc/PID/fd``): so hard links are one file, and deleted files and those of other mount namespaces can be asked, too.
One file below several overlays is a file of each, with the same pages: there the frame of its first page tells.

Files that nobody has open or mapped keep their cache; they cannot be found this way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from rmap.live.sources import procfs
from rmap.live.sources.residency import frames_of, may_ask, mincore_pages
from rmap.live.sources.syscalls import cachestat
from rmap.units import PAGE_SIZE

Progress = Callable[[int, int], None]

_NO_CACHE = ("proc", "sysfs", "cgroup", "cgroup2", "tracefs", "debugfs", "securityfs", "bpf", "hugetlbfs")


@dataclass(frozen=True)
class CachedFile:
    """One file. Sizes in bytes.

    Attributes:
        path: as the process that has it sees it; of another mount namespace with ``/proc/PID/root`` before it.
        handle: a path by which it can be opened here, also if it is deleted or of a container.
        resident: in the page cache; None if the kernel does not tell this user.
        dirty: of it, None if unknown.
        mapped_by, open_by: processes, ascending.
    """

    path: str
    handle: str
    resident: int | None
    dirty: int | None
    size: int
    mapped_by: list[int]
    open_by: list[int]


@dataclass
class OpenFiles:
    """What was found, the largest in memory first; processes that ended meanwhile, or were refused."""

    files: list[CachedFile] = field(default_factory=list)
    ended: int = 0
    refused: list[int] = field(default_factory=list)


@dataclass
class _File:
    handle: str
    path: str
    pid: int
    mapped: set[int] = field(default_factory=set)
    opened: set[int] = field(default_factory=set)


_Key = tuple[int, int]


@dataclass
class _Walk:
    """Files found so far, and what maps called those of them that are mapped."""

    files: dict[_Key, _File] = field(default_factory=dict)
    named: dict[tuple[int, int, str], _Key | None] = field(default_factory=dict)
    without_cache: set[int] = field(
        default_factory=lambda: {dev for dev, kind in procfs.file_systems().items() if kind in _NO_CACHE}
    )


def cached_files(*, progress: Progress = lambda done, total: None) -> OpenFiles:
    """The files of every process but this one."""
    answer, walk = OpenFiles(), _Walk()
    for pid in procfs.pids():
        if pid == os.getpid():
            continue
        try:
            _of_process(walk, pid)
        except PermissionError:
            answer.refused.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            answer.ended += 1
    here = procfs.namespace(procfs.SELF, "mnt")
    below: dict[tuple[int, int], int] = {}
    for done, file in enumerate(walk.files.values(), 1):
        progress(done, len(walk.files))
        try:
            _ask(answer.files, file, here, below)
        except OSError:  # closed meanwhile, or not to be read by this user
            answer.files.append(_row(file, here, None, None, -1))
    answer.files.sort(key=lambda row: (-(row.resident or 0), row.path))
    return answer


def _of_process(walk: _Walk, pid: int) -> None:
    for line in procfs.read_maps(pid):
        if not line.inode:
            continue
        name = (line.dev, line.inode, line.path)
        if name not in walk.named:
            walk.named[name] = _note(walk, procfs.map_file(pid, line.start, line.end), line.path, pid)
        key = walk.named[name]
        if key is not None:
            walk.files[key].mapped.add(pid)
    for number, status in procfs.descriptors(pid):
        link = procfs.descriptor(pid, number)
        key = _noted(walk, link, status, pid, lambda link=link: procfs.read_link(link))  # type: ignore[misc]
        if key is not None:
            walk.files[key].opened.add(pid)


def _note(walk: _Walk, link: str, path: str, pid: int) -> _Key | None:
    try:
        status = os.stat(link)
    except PermissionError:  # only the administrator may follow map_files; the path may lead there as well
        link = procfs.below_root(pid, path)
        try:
            status = os.stat(link)
        except OSError:
            return None
    except OSError:
        return None
    return _noted(walk, link, status, pid, lambda: path)


def _noted(walk: _Walk, link: str, status: os.stat_result, pid: int, path: Callable[[], str]) -> _Key | None:
    if not stat.S_ISREG(status.st_mode) or status.st_dev in walk.without_cache:
        return None
    key = (status.st_dev, status.st_ino)
    if key not in walk.files:
        name = path()
        if name.startswith(("/proc/", "/sys/")):
            return None
        walk.files[key] = _File(link, name, pid)
    return key


def _ask(rows: list[CachedFile], file: _File, here: int | None, below: dict[tuple[int, int], int]) -> None:
    fd = os.open(file.handle, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        counts = cachestat(fd)
        if counts is None and may_ask(fd) and _has_cachestat():
            return  # hugetlb: not page cache
        if counts is not None and counts.cache:
            rows.append(_row(file, here, counts.cache, counts.dirty, size))
            return
        if not may_ask(fd):
            rows.append(_row(file, here, None if counts is None else 0, None, size))
            return
        below_it = counts is None or _overlaid(fd)
        pages = mincore_pages(fd, 0, -(-size // PAGE_SIZE) if below_it else 0)
        if counts is not None and len(pages):
            same = (int(frames_of(fd, pages[:1])[0]), size)
            if same[0] > 0 and same in below:
                row = rows[below[same]]
                both = sorted({*row.mapped_by, *file.mapped}), sorted({*row.open_by, *file.opened})
                rows[below[same]] = CachedFile(row.path, row.handle, row.resident, None, size, *both)
                return
            below[same] = len(rows)
        rows.append(_row(file, here, len(pages), None if len(pages) else 0, size))
    finally:
        os.close(fd)


def _overlaid(fd: int) -> bool:
    # Whether a file system keeps its pages in files below (overlayfs), where cachestat does not look. If it is mounted
    # elsewhere only, that is not known: then it may.
    return procfs.file_systems().get(os.fstat(fd).st_dev, "overlay") == "overlay"


def _has_cachestat() -> bool:
    fd = os.memfd_create("rmap")
    try:
        return cachestat(fd) is not None
    finally:
        os.close(fd)


def _row(file: _File, here: int | None, pages: int | None, dirty: int | None, size: int) -> CachedFile:
    path = file.path
    elsewhere = procfs.namespace(file.pid, "mnt") not in (here, None)
    if elsewhere and path.startswith("/") and not path.endswith(" (deleted)"):
        path = procfs.below_root(file.pid, path)
    return CachedFile(
        path,
        file.handle,
        None if pages is None else pages * PAGE_SIZE,
        None if dirty is None else dirty * PAGE_SIZE,
        size,
        sorted(file.mapped),
        sorted(file.opened),
    )
