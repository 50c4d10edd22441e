"""What a KEY names on the running machine: a frame or a slot of swap, and what is known of where to look for it."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from rmap.errors import UsageError
from rmap.live.capture.settle import read_until
from rmap.live.lookup.search import looking_at
from rmap.live.lookup.ways import AtAddress, Everywhere, InFile, Way
from rmap.live.sources import procfs
from rmap.live.sources.areas import FileIdentity, Numbers, address_in, area_at, areas_of, identity_at, is_device
from rmap.live.sources.pagemap import entry_of, slot_of
from rmap.snapshot import flags as f
from rmap.snapshot.keys import Key
from rmap.uapi.pagemap import PM_FILE, PM_GUARD_REGION, PM_PFRAME_MASK, PM_PRESENT, PM_SWAP
from rmap.units import PAGE_SHIFT, PAGE_SIZE

_LOOKS = 5  # at an entry that is being migrated
_PAUSE = 0.002  # seconds between them
_DELETED = " (deleted)"


class NoPage(NamedTuple):
    """Why a KEY names no page now: one sentence."""

    reason: str


class Place(NamedTuple):
    """A page, or a slot of swap.

    Attributes:
        pfn, slot: one of them.
        address: where some process has it (bytes).
        file, page: the file that it is of, and its number there; None for a page that is not a file's.
        path: of the file.
        note: what a reader must know about how it was understood.
    """

    pfn: int | None = None
    slot: tuple[int, int] | None = None
    address: int | None = None
    file: FileIdentity | None = None
    page: int = 0
    path: str | None = None
    note: str = ""

    @property
    def is_located(self) -> bool:
        """Whether a place is known where some process may have it."""
        return self.file is not None or self.address is not None

    def ways(self) -> list[Way]:
        """How to look for its entries, in this order: where the kernel's reverse map would look, then everywhere.

        Of a page that is known by its frame or slot alone, only everywhere.
        """
        if self.file is not None:
            return [InFile(self.file, self.page), Everywhere(rest=True)]
        if self.address is not None:
            return [AtAddress(self.address), Everywhere(rest=True)]
        return [Everywhere()]


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
        pfn = entry & PM_PFRAME_MASK
        if not area.inode or not entry & PM_FILE:
            return Place(pfn=pfn, address=address)
        file, page = FileIdentity((area.dev, area.inode)), (area.offset + address - area.start) >> PAGE_SHIFT
        return Place(pfn=pfn, address=address, file=file, page=page, path=area.path)
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


def _settled_entry(pid: int, address: int) -> int:
    # While a page is moved to another frame, its entries name neither: that takes some microseconds.
    def names_something(entry: int) -> bool:
        return bool(entry & (PM_PRESENT | PM_GUARD_REGION)) or not entry & PM_SWAP or slot_of(entry) is not None

    return read_until(lambda: entry_of(pid, address), names_something, readings=_LOOKS, pause=_PAUSE)


# -- a page of a file --------------------------------------------------------------------------------------------------


def _of_file(path: str, offset: int) -> Place | NoPage:
    real, page = os.path.realpath(path), offset >> PAGE_SHIFT
    try:
        status = os.stat(real)
    except (FileNotFoundError, NotADirectoryError):
        return _of_mapped_file(path, page)
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{path} is a directory: only a file has pages")
    if stat.S_ISREG(status.st_mode) and page << PAGE_SHIFT >= status.st_size:
        return NoPage(f"{path} has no page {page:,}: it is {status.st_size:,} bytes long")
    file = identity_at(real, status)
    try:
        pfn = cached_page(real, page)
    except OSError:  # it may not be opened, or not be mapped by us: whoever maps it shows the frame
        pfn = mapped_page(file, page)
        if pfn is None:
            return NoPage(f"page {page:,} of {path}: no process maps it, and it cannot be looked at otherwise")
    if pfn is None:
        return NoPage(f"page {page:,} of {path} is not in memory: nobody maps it")
    return Place(pfn=pfn, file=file, page=page, path=real)


def _of_mapped_file(path: str, page: int) -> Place | NoPage:
    # A file that has no such name here: deleted, a memfd, in another mount namespace.
    mapped = _mapped_under(path)
    if not mapped:
        raise FileNotFoundError(2, "there is no such file here, and no process maps one of this name", path)
    file = FileIdentity(max(mapped, key=lambda one: mapped[one]))
    pfn = mapped_page(file, page)
    if pfn is None:
        return NoPage(f"no process maps page {page:,} of {path} (there is no such file here, but processes map one)")
    others = len(mapped) - 1
    note = f"{others} more mapped {'file has' if others == 1 else 'files have'} this name" if others else ""
    return Place(pfn=pfn, file=file, page=page, path=path, note=note)


def _mapped_under(path: str) -> dict[Numbers, int]:
    # The files that processes map under a name, and how many areas each has.
    areas: dict[Numbers, int] = {}
    for pid in procfs.pids():
        with looking_at(pid):
            for line in procfs.read_maps(pid):
                if line.inode and line.path in (path, path + _DELETED):
                    areas[line.dev, line.inode] = areas.get((line.dev, line.inode), 0) + 1
    return areas


def mapped_page(file: FileIdentity, page: int) -> int | None:
    """The frame that some process maps as one page of a file, None if none does.

    Args:
        page: its number in the file.
    """
    for pid in procfs.pids():
        with looking_at(pid):
            for area in areas_of(pid, file):
                address = address_in(area, page)
                entry = 0 if address is None else entry_of(pid, address)
                if entry & PM_PRESENT and entry & PM_FILE:
                    return entry & PM_PFRAME_MASK
    return None


def cached_page(path: str, page: int) -> int | None:
    """The frame that holds a page of a file, if it is in memory; the file is not read for it.

    Args:
        page: its number in the file; the file has one of that number.

    Raises:
        OSError: the file cannot be opened, or not be mapped.
    """
    from rmap.live.sources.syscalls import is_resident, map_file, touch, unmap

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        address = map_file(fd, PAGE_SIZE, page << PAGE_SHIFT)
        try:
            if not is_resident(address):
                return None
            touch(address)  # it is there: that maps it, and reads nothing
            entry = entry_of(os.getpid(), address)
            return entry & PM_PFRAME_MASK if entry & PM_PRESENT else None
        finally:
            unmap(address, PAGE_SIZE)
    finally:
        os.close(fd)
