"""What a KEY names on the running machine: a frame or a slot of swap, and what is known of where to look for it."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass

from rmap.errors import UsageError
from rmap.live.lookup import search
from rmap.live.sources import procfs
from rmap.live.sources.pagemap import entry_of, slot_of
from rmap.snapshot import flags as f
from rmap.snapshot.keys import Key
from rmap.uapi.pagemap import PM_FILE, PM_GUARD_REGION, PM_PFRAME_MASK, PM_PRESENT, PM_SWAP
from rmap.units import PAGE_SHIFT, PAGE_SIZE

_LOOKS = 5  # at an entry that is being migrated
_PAUSE = 0.002  # seconds between them
_DELETED = " (deleted)"


@dataclass(frozen=True)
class NoPage:
    """Why a KEY names no page now: one sentence."""

    reason: str


@dataclass(frozen=True)
class Place:
    """A page, or a slot of swap.

    Attributes:
        pfn, slot: one of them.
        address: where some process has it (bytes).
        file: device and inode as maps shows them, with the page's number; None for a page that is not a file's.
        path: of the file.
        note: what a reader must know about how it was understood.
    """

    pfn: int | None = None
    slot: tuple[int, int] | None = None
    address: int | None = None
    file: tuple[search.FileId, int] | None = None
    path: str | None = None
    note: str = ""


def place_of(key: Key) -> Place | NoPage:
    """Find what a KEY names.

    Args:
        key: of any kind but ``process``.

    Raises:
        UsageError: it names something that has no pages of its own, a directory.
        PermissionError: the process that it names may not be read.
        OSError: the file that it names cannot be.
    """
    if key.kind == "pfn":
        return Place(pfn=key.pfn)
    if key.kind == "swap":
        return _slot(*key.swap)
    return at(key.pid, key.address) if key.kind == "address" else _of_file(key.path, key.offset)


def _slot(area: int, slot: int) -> Place | NoPage:
    if not procfs.nr_swap_areas():
        return NoPage("no swap area is in use on this machine")
    if area >= f.SWAP_STEP:
        return NoPage(f"there is no swap area {area}: their numbers go from 0 to {f.SWAP_STEP - 1}")
    return Place(slot=(area, slot))


def at(pid: int, address: int) -> Place | NoPage:
    """What a process has at an address (bytes).

    Raises:
        PermissionError: it may not be read.
    """
    try:
        area = area_at(pid, address)
        if area is None:
            return NoPage(f"process {pid} has nothing at {address:#x}")
        if address >> 63:  # [vsyscall]: beyond every offset of pagemap
            return NoPage(f"{address:#x} of process {pid} is the kernel's own page for it, which pagemap does not show")
        entry = _settled_entry(pid, address)
    except (FileNotFoundError, ProcessLookupError):
        return NoPage(f"process {pid} has ended")
    if entry & PM_PRESENT:
        if not area.inode or not entry & PM_FILE:
            return Place(pfn=entry & PM_PFRAME_MASK, address=address)
        page = (area.offset + address - area.start) >> PAGE_SHIFT
        return Place(pfn=entry & PM_PFRAME_MASK, address=address, file=((area.dev, area.inode), page), path=area.path)
    where = f"{address:#x} of process {pid}"
    if entry & PM_GUARD_REGION:
        return NoPage(f"{where} holds a guard marker: no page, and every access is refused")
    if not entry & PM_SWAP:
        if not area.path.startswith("[vvar") and not is_device(pid, area.start, area.end, area.path):
            return NoPage(f"{where} is mapped, but no page is there yet")
        return NoPage(f"{where} is mapped from a device or the kernel: such entries (PFNMAP) pagemap does not show")
    slot = slot_of(entry)
    if slot is None:
        return NoPage(f"{where} holds an entry that is neither a page nor swap: a migration that goes on, or a marker")
    return Place(slot=slot, address=address)


# While a page is moved to another frame, its entries name neither: that takes some microseconds.
def _settled_entry(pid: int, address: int) -> int:
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        entry = entry_of(pid, address)
        if entry & (PM_PRESENT | PM_GUARD_REGION) or not entry & PM_SWAP or slot_of(entry) is not None:
            break
    return entry


def area_at(pid: int, address: int) -> procfs.MapsLine | None:
    """The VMA of a process at an address (bytes), None if there is none."""
    with open(f"/proc/{pid}/maps", "rb", buffering=1 << 16) as file:
        for line in file:
            end = line[line.index(b"-") + 1 : line.index(b" ")]
            if address < int(end, 16):
                area = procfs.parse_maps_line(line.decode(errors="replace").rstrip("\n"))
                return area if area.start <= address else None
    return None


def is_device(pid: int, start: int, end: int, path: str) -> bool:
    """Whether what an area maps is no file with pages of its own: a device, a socket, a ring of the kernel.

    Args:
        start, end, path: of the area, as maps shows them.
    """
    if not path.startswith("/"):
        return path.startswith(("anon_inode:", "socket:"))
    try:
        mode = os.stat(f"/proc/{pid}/map_files/{start:x}-{end:x}").st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISBLK(mode)


# -- a page of a file --------------------------------------------------------------------------------------------------


def _of_file(path: str, offset: int) -> Place | NoPage:
    real, page = os.path.realpath(path), offset >> PAGE_SHIFT
    try:
        found = os.stat(real)
    except (FileNotFoundError, NotADirectoryError):
        return _of_mapped_file(path, page)
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is a directory: only a file has pages")
    if stat.S_ISREG(found.st_mode) and page << PAGE_SHIFT >= found.st_size:
        return NoPage(f"{path} has no page {page:,}: it is {found.st_size:,} bytes long")
    identity = file_identity(real, found)
    file = identity, page
    try:
        pfn = search.cached_page(real, page)
    except OSError:  # it may not be opened, or not be mapped by us: whoever maps it shows the frame
        pfn = search.page_by_maps(procfs.pids(), *file)
        if pfn is None:
            return NoPage(f"page {page:,} of {path}: no process maps it, and it cannot be looked at otherwise")
    if pfn is None:
        return NoPage(f"page {page:,} of {path} is not in memory: nobody maps it")
    return Place(pfn=pfn, file=file, path=real)


# A file that has no such name here: deleted, a memfd, in another mount namespace.
def _of_mapped_file(path: str, page: int) -> Place | NoPage:
    mapped = _mapped_under(path)
    if not mapped:
        raise FileNotFoundError(2, "there is no such file here, and no process maps one of this name", path)
    identity = max(mapped, key=lambda one: mapped[one])
    pfn = search.page_by_maps(procfs.pids(), identity, page)
    if pfn is None:
        return NoPage(f"no process maps page {page:,} of {path} (there is no such file here, but processes map one)")
    others = len(mapped) - 1
    note = f"{others} more mapped {'file has' if others == 1 else 'files have'} this name" if others else ""
    return Place(pfn=pfn, file=(identity, page), path=path, note=note)


# The files that processes map under a name, and how many areas each has.
def _mapped_under(path: str) -> dict[search.FileId, int]:
    areas: dict[search.FileId, int] = {}
    looked = search.Search(0)
    for pid in procfs.pids():
        lines: list[procfs.MapsLine] = []
        with looked.looking_at(pid):
            lines = procfs.read_maps(pid)
        for line in lines:
            if line.inode and line.path in (path, path + _DELETED):
                areas[line.dev, line.inode] = areas.get((line.dev, line.inode), 0) + 1
    return areas


def file_identity(path: str, found: os.stat_result) -> search.FileId:
    """Device and inode of a file as /proc/PID/maps shows them: on btrfs and overlayfs not those of stat."""
    from rmap.live.sources.syscalls import map_file, unmap

    area = None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            address = map_file(fd, PAGE_SIZE)
            area = area_at(os.getpid(), address)
            unmap(address, PAGE_SIZE)
        finally:
            os.close(fd)
    except OSError:  # a file that we cannot open or map; the numbers of stat are the best there is
        pass
    return (area.dev, area.inode) if area is not None and area.inode else (found.st_dev, found.st_ino)
