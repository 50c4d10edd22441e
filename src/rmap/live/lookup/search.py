"""Looking for the entries of one page where the kernel's own reverse map would look: one entry at a time.

A page of a file is looked for in every area of that file, at the place its offset gives (:func:`in_file`); an anonymous
page at the same address of every process, for a fork keeps addresses (:func:`at_address`). What these do not find is
searched for in everything (:mod:`rmap.live.lookup.scan`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rmap.live.sources import procfs
from rmap.live.sources.pagemap import PagemapFile
from rmap.live.sources.same_mm import compare_mms, groups
from rmap.snapshot import flags as f
from rmap.uapi.pagemap import PM_FILE, PM_PFRAME_MASK, PM_PRESENT, PM_SWAP
from rmap.units import PAGE_MASK, PAGE_SHIFT

STATE = PM_PRESENT | PM_SWAP | PM_PFRAME_MASK
"""The bits of an entry that say what it names."""

Enough = Callable[[], bool]
FileId = tuple[int, int]


@dataclass(frozen=True, order=True)
class Hit:
    """An entry that names the page: whose, and where (bytes)."""

    pid: int
    address: int


@dataclass
class Search:
    """A search for one page or one slot of swap.

    Attributes:
        wanted: the bits of an entry that must be so: present or swap, and the frame or slot.
        hits: what was found so far.
        empty: processes that had no memory when they were looked at: some have ended, others never had any.
        refused: processes that may not be read.
        scanned: those all of whose entries have been looked at.
    """

    wanted: int
    hits: set[Hit] = field(default_factory=set)
    empty: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    scanned: set[int] = field(default_factory=set)
    _distinct: tuple[int, list[Hit]] = field(default=(0, []))  # of how many hits, and what came of them

    def matches(self, entry: int) -> bool:
        """Whether an entry (64 bits, signed or not) names the page."""
        return entry & STATE == self.wanted

    @contextmanager
    def looking_at(self, pid: int) -> Iterator[None]:
        """Look at a process, noting that it has no memory any more or may not be read."""
        try:
            yield
        except (FileNotFoundError, ProcessLookupError):
            self.empty.add(pid)
        except PermissionError:
            self.refused.add(pid)

    def distinct(self) -> list[Hit]:
        """The hits in order; of processes that share an mm only those of the lowest pid."""
        if self._distinct[0] != len(self.hits):
            self._distinct = len(self.hits), self._of_lowest()
        return self._distinct[1]

    def _of_lowest(self) -> list[Hit]:
        places: dict[int, set[int]] = {}
        for hit in self.hits:
            places.setdefault(hit.pid, set()).add(hit.address)
        alike: dict[frozenset[int], list[int]] = {}
        for pid, addresses in places.items():
            alike.setdefault(frozenset(addresses), []).append(pid)
        lowest = {pid for pids in alike.values() for pid in groups(sorted(pids), compare_mms)}
        return sorted(hit for hit in self.hits if hit.pid in lowest)

    def ended(self) -> int:
        """How many processes ended while they were looked at, as far as can be told."""
        gone = 0
        for pid in self.empty:
            try:
                procfs.read_stat(pid)  # it is there: a thread of the kernel, or not yet waited for
            except (FileNotFoundError, ProcessLookupError):
                gone += 1
            except PermissionError:
                continue
        return gone


def for_page(pfn: int) -> Search:
    """A search for the entries of a frame."""
    return Search(PM_PRESENT | pfn)


def for_slot(area: int, slot: int) -> Search:
    """A search for the entries that name a slot of swap."""
    return Search(PM_SWAP | area | slot << f.SWAP_TYPE_BITS)


def at_address(search: Search, pids: Iterable[int], address: int, enough: Enough = lambda: False) -> None:
    """Look at one address of every process.

    Args:
        pids: ascending, so that of those who share an mm the lowest comes first.
        enough: asked after every hit: whether to stop.
    """
    for pid in pids:
        with search.looking_at(pid), PagemapFile(pid) as entries:
            if search.matches(entries.entry(address)):
                search.hits.add(Hit(pid, address & PAGE_MASK))
                if enough():
                    return


def in_file(search: Search, pids: Iterable[int], identity: FileId, page: int, enough: Enough = lambda: False) -> None:
    """Look at one page of a file in every area of it.

    Args:
        identity: device and inode, as maps shows them.
        page: its number in the file.
        pids, enough: as for :func:`at_address`.
    """
    for pid, address in places_in_file(search, pids, identity, page):
        with search.looking_at(pid), PagemapFile(pid) as entries:
            if search.matches(entries.entry(address)):
                search.hits.add(Hit(pid, address))
                if enough():
                    return


def places_in_file(search: Search, pids: Iterable[int], identity: FileId, page: int) -> Iterator[tuple[int, int]]:
    """Where the areas of a file cover one page of it: pid and address."""
    mark = f" {os.major(identity[0]):02x}:{os.minor(identity[0]):02x} {identity[1]} ".encode()
    for pid in pids:
        text = b""
        with search.looking_at(pid), open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
            text = file.readall()
        if mark not in text:
            continue
        ours = (line.decode(errors="replace") for line in text.splitlines() if mark in line)
        for line in map(procfs.parse_maps_line, ours):
            address = line.start + (page << PAGE_SHIFT) - line.offset
            if line.start <= address < line.end:
                yield pid, address


def page_by_maps(pids: Iterable[int], identity: FileId, page: int) -> int | None:
    """The frame that some area of a file maps at one page of it, None if none does."""
    looked = Search(0)
    for pid, address in places_in_file(looked, pids, identity, page):
        with looked.looking_at(pid), PagemapFile(pid) as entries:
            entry = entries.entry(address)
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
        length = 1 << PAGE_SHIFT
        address = map_file(fd, length, page << PAGE_SHIFT)
        try:
            if not is_resident(address):
                return None
            touch(address)  # it is there: that maps it, and reads nothing
            with PagemapFile(os.getpid()) as own:
                entry = own.entry(address)
            return entry & PM_PFRAME_MASK if entry & PM_PRESENT else None
        finally:
            unmap(address, length)
    finally:
        os.close(fd)
