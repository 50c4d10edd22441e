"""Areas of files in memory maps: which lines of /proc/PID/maps are of a file, and where they have a page of it.

Maps shows a device and an inode of each file, which may be others than those of stat: of a file below an overlay, and
of one in a btrfs, whose subvolumes have one device in maps, and inode numbers of their own. There a line may look like
that of a file and be of another one; the file that it leads to (``/proc/PID/map_files``) tells.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from rmap.live.sources import procfs
from rmap.live.sources.root import root_path
from rmap.units import PAGE_SHIFT, PAGE_SIZE

Numbers = tuple[int, int]
"""A device and an inode."""


class FileIdentity(NamedTuple):
    """What a file is known by, whatever its names.

    Attributes:
        in_maps: device and inode as maps shows them.
        of_stat: those of stat; None if they are not known: then every line that looks like the file is taken for it.
    """

    in_maps: Numbers
    of_stat: Numbers | None = None


def identity_of(fd: int, status: os.stat_result) -> FileIdentity:
    """What an open file is known by: a page of it is mapped for a moment, to see how maps shows it.

    Args:
        status: of that file.
    """
    from rmap.live.sources.syscalls import map_file, unmap

    numbers = status.st_dev, status.st_ino
    area = None
    try:
        address = map_file(fd, PAGE_SIZE)
        try:
            area = _area_in("/proc/self/maps", address)
        finally:
            unmap(address, PAGE_SIZE)
    except OSError:  # it cannot be mapped: nobody maps it, or the numbers of stat are the best there is
        pass
    return FileIdentity((area.dev, area.inode) if area is not None and area.inode else numbers, numbers)


def identity_at(path: str, status: os.stat_result) -> FileIdentity:
    """The same of a file that may be one we cannot open."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return FileIdentity((status.st_dev, status.st_ino), (status.st_dev, status.st_ino))
    try:
        return identity_of(fd, status)
    finally:
        os.close(fd)


def area_at(pid: int, address: int) -> procfs.MapsLine | None:
    """The VMA of a process at an address (bytes), None if there is none.

    Raises:
        FileNotFoundError, ProcessLookupError: the process has ended.
        PermissionError: this user may not see its VMAs.
    """
    return _area_in(root_path(f"/proc/{pid}/maps"), address)


def _area_in(maps: str, address: int) -> procfs.MapsLine | None:
    with open(maps, "rb", buffering=1 << 16) as file:
        for line in file:
            end = line[line.index(b"-") + 1 : line.index(b" ")]
            if address < int(end, 16):
                area = procfs.parse_maps_line(line.decode(errors="replace").rstrip("\n"))
                return area if area.start <= address else None
    return None


def areas_of(pid: int, file: FileIdentity) -> list[procfs.MapsLine]:
    """The VMAs of a process that map a file, in order of address.

    Raises:
        FileNotFoundError, ProcessLookupError: the process has ended.
        PermissionError: this user may not see its VMAs.
    """
    dev, inode = file.in_maps
    mark = f" {os.major(dev):02x}:{os.minor(dev):02x} {inode} ".encode()
    text = procfs.maps_text(pid)
    if mark not in text:
        return []
    lines = [procfs.parse_maps_line(line.decode(errors="replace")) for line in text.splitlines() if mark in line]
    if file.of_stat in (None, file.in_maps):
        return lines
    return [line for line in lines if _leads_to(pid, line, file.of_stat)]


def _leads_to(pid: int, line: procfs.MapsLine, numbers: Numbers | None) -> bool:
    try:
        status = os.stat(procfs.map_file(pid, line.start, line.end))
    except OSError:  # only the administrator may follow it
        return True
    return (status.st_dev, status.st_ino) == numbers


def address_in(area: procfs.MapsLine, page: int) -> int | None:
    """Where an area of a file has a page of it, by the page's number in the file (bytes); None if it has not."""
    address = area.start + (page << PAGE_SHIFT) - area.offset
    return address if area.start <= address < area.end else None


def is_device(pid: int, start: int, end: int, path: str) -> bool:
    """Whether what an area maps is no file with pages of its own: a device, a socket, a ring of the kernel.

    Args:
        start, end, path: of the area, as maps shows them.
    """
    if not path.startswith("/"):
        return path.startswith(("anon_inode:", "socket:"))
    try:
        mode = os.stat(procfs.map_file(pid, start, end)).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISBLK(mode)
