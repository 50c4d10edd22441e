"""Looking for the entries of one page in the page tables of the running machine, without reading all of them.

The kernel's own reverse map looks at a page's file or family, and so do the first two here: one entry of each process
at one address (:func:`at_address`), one of each area of a file (:func:`in_file`). What they do not find is searched
for in everything (:func:`everywhere`): 64 KiB of pagemap at a time, compared as numbers, not decoded.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from rmap.columns import I64
from rmap.live import procfs
from rmap.live.pagemap import PFN_MASK, Pagemap, ranges_to_read
from rmap.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

PRESENT = 1 << 63
SWAP = 1 << 62
FILE = 1 << 61
_STATE = PRESENT | SWAP | PFN_MASK
_ENTRIES = 8192
_BITS = (1 << 64) - 1


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
        ended, refused: processes that ended meanwhile, or may not be read.
    """

    wanted: int
    hits: set[Hit] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    def matches(self, entry: int) -> bool:
        """Whether an entry (64 bits, signed or not) names the page."""
        return (entry & _BITS) & _STATE == self.wanted

    def guarded(self, pid: int, look: Callable[[], None]) -> None:
        """Look at a process, noting that it ended or may not be read."""
        try:
            look()
        except (FileNotFoundError, ProcessLookupError):
            self.ended.add(pid)
        except PermissionError:
            self.refused.add(pid)


def for_page(pfn: int) -> Search:
    """A search for the entries of a frame."""
    return Search(PRESENT | pfn)


def for_slot(area: int, slot: int) -> Search:
    """A search for the entries that name a slot of swap."""
    return Search(SWAP | area | slot << 5)


def at_address(search: Search, pids: Iterable[int], address: int) -> None:
    """Look at one address of every process: a fork keeps addresses."""
    for pid in pids:

        def look(pid: int = pid) -> None:
            with Pagemap(pid) as pagemap:
                if search.matches(pagemap.entry(address)):
                    search.hits.add(Hit(pid, address & PAGE_MASK))

        search.guarded(pid, look)


def in_file(search: Search, pids: Iterable[int], identity: tuple[int, int], page: int) -> int:
    """Look at one page of a file in every area of it.

    Args:
        identity: device and inode, as maps shows them.
        page: its number in the file.

    Returns:
        how many areas cover that page.
    """
    mark = f" {os.major(identity[0]):02x}:{os.minor(identity[0]):02x} {identity[1]} ".encode()
    areas = 0
    for pid in pids:
        addresses: list[int] = []

        def look(pid: int = pid, addresses: list[int] = addresses) -> None:
            with open(f"/proc/{pid}/maps", "rb") as file:
                text = file.read()
            if mark not in text:
                return
            for line in (procfs.parse_maps_line(line.decode()) for line in text.splitlines() if mark in line):
                address = line.start + (page << PAGE_SHIFT) - line.offset
                if line.start <= address < line.end:
                    addresses.append(address)
            with Pagemap(pid) as pagemap:
                search.hits.update(Hit(pid, at) for at in addresses if search.matches(pagemap.entry(at)))

        search.guarded(pid, look)
        areas += len(addresses)
    return areas


def everywhere(search: Search, pids: Iterable[int]) -> None:
    """Look at every entry of every process; on each processor that this one may use, a process at a time."""
    local = threading.local()

    def scan(pid: int) -> None:
        if not hasattr(local, "buffers"):
            local.buffers = np.empty(_ENTRIES, np.int64), np.empty(_ENTRIES, np.int64)
        search.guarded(pid, lambda: _scan(search, pid, *local.buffers))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(scan, pids))


def _scan(search: Search, pid: int, entries: I64, masked: I64) -> None:
    vmas = [(line.start, line.end) for line in procfs.read_maps(pid)]
    if not vmas:
        return
    mask, wanted = np.int64(_signed(_STATE)), np.int64(_signed(search.wanted))
    view = entries.data.cast("B")
    with Pagemap(pid) as pagemap:
        for first, last in _joined(ranges_to_read(pagemap, vmas, procfs.read_stat(pid).rss)):
            page = first
            while page < last:
                n = min(last - page, _ENTRIES)
                pagemap.fill(view[: n * 8], page)
                np.bitwise_and(entries[:n], mask, out=masked[:n])
                found = masked[:n] == wanted
                if found.any():
                    at = np.flatnonzero(found).tolist()
                    search.hits.update(Hit(pid, (page + one) << PAGE_SHIFT) for one in at)
                page += n


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    first, last = 0, 0
    for start, end in ranges:
        if start != last << PAGE_SHIFT:
            if last:
                yield first, last
            first = start >> PAGE_SHIFT
        last = end >> PAGE_SHIFT
    if last:
        yield first, last


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def cached_page(path: str, page: int) -> int | None:
    """The frame that holds a page of a file, if it is in memory; the file is not read for it.

    Args:
        page: its number in the file.

    Raises:
        OSError: the file cannot be opened, or not be mapped.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if page << PAGE_SHIFT >= os.fstat(fd).st_size:
            return None
        with mmap.mmap(fd, PAGE_SIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=page << PAGE_SHIFT) as own:
            return _frame_of(own)
    finally:
        os.close(fd)


# Only a page that is there is touched: that maps it, and reads nothing.
def _frame_of(own: mmap.mmap) -> int | None:
    import ctypes

    from rmap.live.syscalls import address_of, resident

    address = address_of(own)
    if not resident(address, PAGE_SIZE)[0]:
        return None
    ctypes.string_at(address, 1)
    with Pagemap(os.getpid()) as pagemap:
        entry = pagemap.entry(address) & _BITS
    return entry & PFN_MASK if entry & PRESENT else None
