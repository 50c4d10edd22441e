"""/proc/PID/pagemap: the page-table entries of a process as numbers (rule 8.2).

Dense memory is read in 64 KiB pieces straight into a NumPy buffer: the fastest source of frame numbers there is. Where
a VMA is much larger than all the memory its process has, the ioctl PAGEMAP_SCAN (Linux 6.7) first says which parts of
it hold anything.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterable, Iterator

import numpy as np

from rmap.columns import I64, expand
from rmap.live.sources.pagemap import PagemapFile
from rmap.snapshot import flags as f
from rmap.uapi.pagemap import (
    FIRST_SPECIAL_TYPE,
    PAGE_IS_PRESENT,
    PAGE_IS_SWAPPED,
    PAGEMAP_SCAN,
    PM_FILE,
    PM_GUARD_REGION,
    PM_MMAP_EXCLUSIVE,
    PM_PFRAME_MASK,
    PM_SWAP,
    PM_UFFD_WP,
)
from rmap.units import PAGE_SHIFT, PAGE_SIZE

_ENTRIES = 8192  # 64 KiB: larger buffers are slower

_SCAN_ARG = struct.Struct("<12Q")
_REGIONS = 4096

_SPARSE_FACTOR = 4
"""A VMA is scanned for holes first if it is this many times larger than the memory of its whole process."""


class Pagemap(PagemapFile):
    """The open pagemap of one process; a context manager.

    Raises (all methods):
        ProcessLookupError: the process has ended.
        PermissionError: this user may not read it.
    """

    def read(self, ranges: Iterable[tuple[int, int]]) -> tuple[I64, I64]:
        """Read every entry of some address ranges that holds anything.

        Args:
            ranges: ``(start, end)`` in bytes, ascending.

        Returns:
            ``(address, entry)``, int64: where, and the 64 bits the kernel shows.
        """
        address, entry, count = self.read_extents(ranges)
        return expand(address >> PAGE_SHIFT, count) << PAGE_SHIFT, expand(entry, count)

    def read_extents(self, ranges: Iterable[tuple[int, int]]) -> tuple[I64, I64, I64]:
        """The same, with present entries that continue the one before (next page, next frame, same flags) as one.

        Returns:
            ``(address, entry, count)``, int64: of the first entry of each, and how many they are.
        """
        buffer: I64 = np.empty(_ENTRIES, np.int64)
        view = buffer.data.cast("B")
        pieces: list[tuple[int, int]] = []  # first page and number of pages of what lies in the buffer
        used = 0
        parts: list[tuple[I64, I64, I64]] = []
        for start, end in _joined(ranges):
            page, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
            while page < last:
                n = min(last - page, _ENTRIES - used)
                self.fill(view[used * 8 : (used + n) * 8], page)
                pieces.append((page, n))
                page, used = page + n, used + n
                if used == _ENTRIES:
                    parts.append(_extents(buffer, pieces))
                    pieces, used = [], 0
        if used:
            parts.append(_extents(buffer[:used], pieces))
        if not parts:
            nothing: I64 = np.empty(0, np.int64)
            return nothing, nothing, nothing
        address, entry, count = (np.concatenate(column) for column in zip(*parts))
        return address, entry, count

    def populated(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of an address range that hold anything, by PAGEMAP_SCAN.

        Raises:
            OSError: this kernel has no such call (ENOTTY, EINVAL).
        """
        vector: I64 = np.empty((_REGIONS, 3), np.int64)
        wanted = PAGE_IS_PRESENT | PAGE_IS_SWAPPED
        while start < end:
            argument = bytearray(
                _SCAN_ARG.pack(_SCAN_ARG.size, 0, start, end, 0, vector.ctypes.data, _REGIONS, 0, 0, 0, wanted, wanted)
            )
            n = fcntl.ioctl(self._fd, PAGEMAP_SCAN, argument, True)
            yield from ((int(region[0]), int(region[1])) for region in vector[:n])
            # walk_end is not to be trusted here: after an overflow of the kernel's own buffer it points into what was
            # already returned. A vector that is not full means that the walk is done.
            if n < _REGIONS:
                return
            start = int(vector[n - 1, 1])


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    # Ranges that touch as one: a call of the kernel costs as much as a thousand entries.
    first, last = 0, 0
    for start, end in ranges:
        if start != last:
            if last:
                yield first, last
            first = start
        last = end
    if last:
        yield first, last


def _extents(buffer: I64, pieces: list[tuple[int, int]]) -> tuple[I64, I64, I64]:
    # What a buffer holds, as extents. Present entries are negative numbers, and the next frame is the next number.
    follows = np.empty(len(buffer), np.bool_)
    follows[0] = False
    np.equal(buffer[1:], buffer[:-1] + 1, out=follows[1:])
    follows &= buffer < 0
    ends = np.cumsum(np.array([count for _, count in pieces], np.int64))
    follows[ends[:-1]] = False
    begins = np.flatnonzero(~follows)
    count = np.diff(begins, append=len(buffer))
    holds = (buffer[begins] >> 62) & 3 != 0
    begins, count = begins[holds], count[holds]
    piece = np.searchsorted(ends, begins, side="right")
    first = np.array([page for page, _ in pieces], np.int64) - np.concatenate(([0], ends[:-1]))
    return (begins + first[piece]) << PAGE_SHIFT, buffer[begins], count


def split_at(address: I64, entry: I64, count: I64, starts: I64) -> tuple[I64, I64, I64]:
    """Cut extents of :meth:`Pagemap.read_extents` where others begin.

    Args:
        starts: int64, bytes, ascending: of VMAs.
    """
    last = address + ((count - 1) << PAGE_SHIFT)
    inside = starts[np.searchsorted(address, starts) != np.searchsorted(last, starts)]
    if not len(inside):
        return address, entry, count
    begins = np.insert(address, np.searchsorted(address, inside), inside)
    row = np.searchsorted(address, begins, side="right") - 1
    within = (begins - address[row]) >> PAGE_SHIFT
    ends = np.minimum(np.append(begins[1:], np.iinfo(np.int64).max), last[row] + PAGE_SIZE)
    return begins, entry[row] + within, (ends - begins) >> PAGE_SHIFT


def ranges_to_read(pagemap: Pagemap, vmas: Iterable[tuple[int, int]], memory: int) -> Iterator[tuple[int, int]]:
    """Address ranges that together hold every page of some VMAs: the VMAs themselves, or parts of sparse ones.

    Args:
        vmas: ``(start, end)`` in bytes.
        memory: pages the process has in memory and in swap.
    """
    limit = _SPARSE_FACTOR * memory * PAGE_SIZE + _ENTRIES * PAGE_SIZE
    for start, end in vmas:
        if end - start <= limit:
            yield start, end
            continue
        try:
            yield from pagemap.populated(start, end)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            yield start, end


def decode(entries: I64, nr_swap_areas: int) -> tuple[I64, I64]:
    """Turn pagemap entries into what a picture holds.

    Args:
        entries: int64, none of them empty.
        nr_swap_areas: how many swap areas are in use.

    Returns:
        ``(pfn, flags)``: the columns of the table ``ptes``.
    """
    value = entries & PM_PFRAME_MASK
    present = entries < 0
    guard = ~present & ((entries & PM_GUARD_REGION) != 0)
    swap = ~present & ~guard & ((entries & PM_SWAP) != 0)
    swap &= (value & (f.SWAP_STEP - 1)) < max(FIRST_SPECIAL_TYPE, nr_swap_areas)
    flags: I64 = np.select(
        [present, guard, swap],
        [np.int64(f.PTE_PRESENT), np.int64(f.PTE_GUARD), np.int64(f.PTE_SWAP)],
        np.int64(f.PTE_OTHER),
    )
    flags |= np.where(present & ((entries & PM_MMAP_EXCLUSIVE) != 0), np.int64(f.PTE_EXCLUSIVE), 0)
    flags |= np.where((entries & PM_FILE) != 0, np.int64(f.PTE_FILE), 0)
    flags |= np.where((entries & PM_UFFD_WP) != 0, np.int64(f.PTE_UFFD_WP), 0)
    return np.where(present | swap, value, -1), flags
