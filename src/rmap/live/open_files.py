"""Every file that a process maps or holds open, once, and how much of it is in the page cache.

Files are opened through the process that has them (``/proc/PID/map_files``, ``/proc/PID/fd``), so that deleted files
and those of other mount namespaces can be asked, too. Files that nobody has open or mapped keep their cache as well;
they cannot be found this way, and what the kernel counts as cached beyond the sum is theirs, and the kernel's.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rmap.live import procfs
from rmap.live.file_pages import residency
from rmap.live.syscalls import cachestat
from rmap.units import PAGE_SIZE

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CachedFile:
    """One file. Sizes in bytes.

    Attributes:
        path: as the process that ``seen_by`` names sees it.
        resident: in the page cache; dirty of it, None if unknown.
        mapped_by, open_by: how many processes.
        seen_by: a process that has it, if its mounts are not ours: the path is that of its container; else None.
    """

    path: str
    resident: int
    dirty: int | None
    size: int
    mapped_by: int
    open_by: int
    seen_by: int | None


@dataclass
class _Found:
    link: str
    path: str
    pid: int
    mapped: set[int]
    opened: set[int]


def cached_files(pids: Iterable[int], *, progress: Progress = lambda done, total: None) -> tuple[list[CachedFile], int]:
    """The files of some processes, the largest in memory first; and how many processes could not be asked."""
    files: dict[tuple[int, int], _Found] = {}
    refused = 0
    for pid in pids:
        try:
            _collect(files, pid)
        except PermissionError:
            refused += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    here = procfs.read_link("/proc/self/ns/mnt")
    answer = []
    for done, found in enumerate(files.values(), 1):
        progress(done, len(files))
        with contextlib.suppress(OSError):
            answer.append(_ask(found, here))
    return sorted(answer, key=lambda file: (-file.resident, file.path)), refused


def _collect(files: dict[tuple[int, int], _Found], pid: int) -> None:
    for line in procfs.read_maps(pid):
        if line.inode and line.path.startswith("/") and not line.path.startswith("/dev/"):
            link = f"/proc/{pid}/map_files/{line.start:x}-{line.end:x}"
            _note(files, link, line.path, pid, mapped=True)
    for name in os.listdir(f"/proc/{pid}/fd"):
        link = f"/proc/{pid}/fd/{name}"
        path = procfs.read_link(link)
        if path.startswith("/"):
            _note(files, link, path, pid, mapped=False)


def _note(files: dict[tuple[int, int], _Found], link: str, path: str, pid: int, *, mapped: bool) -> None:
    try:
        found = os.stat(link)
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode) or path.startswith(("/proc/", "/sys/")):
        return
    file = files.setdefault((found.st_dev, found.st_ino), _Found(link, path, pid, set(), set()))
    (file.mapped if mapped else file.opened).add(pid)


def _ask(found: _Found, here: str) -> CachedFile:
    fd = os.open(found.link, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        told = cachestat(fd)
        resident = told.cache if told is not None else int(residency(fd).sum())
    finally:
        os.close(fd)
    elsewhere = procfs.read_link(f"/proc/{found.pid}/ns/mnt") != here
    return CachedFile(
        found.path,
        resident * PAGE_SIZE,
        told.dirty * PAGE_SIZE if told is not None else None,
        size,
        len(found.mapped),
        len(found.opened),
        found.pid if elsewhere else None,
    )


def meminfo(name: str) -> int:
    """A line of /proc/meminfo, in bytes."""
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
