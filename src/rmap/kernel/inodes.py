"""The files of a machine by device and inode: how pictures and traces name them."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.frames import SWAPBACKED, TAG_FILE, TAG_SHIFT
from rmap.mm.mm_types import AddressSpace, File
from rmap.mm.page_cache import add_to_page_cache, missing
from rmap.mm.special import special_mapping
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.units import PAGE_SHIFT, PAGE_SIZE

MOST_CACHED = 256 << 20
"""In bytes. A larger file is not read in at first sight."""
LARGEST = 1 << 40
"""In bytes. A file of the model has a column of all its pages; a larger one begins empty, and grows."""
ZERO_DEVICE = "/dev/zero"
HEAP = "[heap]"
KERNEL_LABELS = (HEAP, "[stack]")
"""What the kernel calls VMAs that are ordinary anonymous memory. Other labels are its own special mappings."""


class Inodes:
    """Which address_space stands for which inode.

    Args:
        core: the machine.
        cached: bring a file into the page cache whole when it is first seen, as it mostly is on a machine that has
            run the program before.

    Attributes:
        by_mapping: ``(dev, inode)`` of every address_space made here, by its id.
    """

    def __init__(self, core: Core, *, cached: bool = True) -> None:
        self.core = core
        self.cached = cached
        self.by_mapping: dict[int, tuple[int, int]] = {}
        self._mappings: dict[tuple[int, int], AddressSpace] = {}
        self._special: dict[object, File] = {}

    def mapping(self, dev: int, inode: int, path: str, size: int, shmem: bool) -> AddressSpace:
        """The address_space of an inode, made when it is first asked for with ``size`` bytes."""
        mapping = self._mappings.get((dev, inode))
        if mapping is None:
            mapping = self.core.new_mapping(path, size_in_model(size), shmem)
            self._mappings[dev, inode] = mapping
            self.by_mapping[mapping.id] = (dev, inode)
            if self.cached and not shmem and mapping.size <= MOST_CACHED:
                read_in(self.core, mapping)
        return mapping

    def later(self, dev: int, inode: int, path: str, size: int, shmem: bool) -> AddressSpace:
        """Another inode that got the number of one that was deleted; :meth:`mapping` goes on to name the first."""
        first = self._mappings.pop((dev, inode), None)
        made = self.mapping(dev, inode, path, size, shmem)
        if first is not None:
            self._mappings[dev, inode] = first
        return made

    def grow(self, mapping: AddressSpace, size: int) -> None:
        """Let a file have at least ``size`` bytes."""
        if size > mapping.size:
            first = mapping.nr_pages
            mapping.resize(size)
            if self.cached and not mapping.shmem and mapping.size <= MOST_CACHED:
                read_in(self.core, mapping, first)

    def file_of(self, snapshot: Snapshot, row: int) -> File:
        """One open of the file in a row of a picture's table ``files``."""
        files = snapshot.files
        dev, inode, path = int(files.dev[row]), int(files.inode[row]), files.path[row]
        if files.kind[row] == f.FILE_DEVICE:
            return self.device(dev, inode, path)
        mapping = self.mapping(dev, inode, path, int(files.size[row]), bool(files.kind[row] == f.FILE_SHMEM))
        return File(mapping, path)

    def device(self, dev: int, inode: int, path: str) -> File:
        """One open of a device. /dev/zero is memory; others show frames of the kernel's."""
        if path == ZERO_DEVICE:
            return File(None, path)
        return self.special((dev, inode), path, 1)

    def special(self, key: object, name: str, nr_pages: int) -> File:
        """The special mapping of this key, with at least so many pages: every process sees the same."""
        file = self._special.get(key)
        if file is None or file.special is None or len(file.special) < nr_pages:
            file = self._special[key] = special_mapping(self.core, name, nr_pages)
        return file


def size_in_model(size: int) -> int:
    """The size in bytes that a file begins with in the model; -1 is an unknown one."""
    return size if 0 <= size <= LARGEST else 0


def read_in(core: Core, mapping: AddressSpace, first: int = 0) -> None:
    """Bring the pages of a file from index ``first`` on into the page cache, room being made for them."""
    absent = missing(mapping, first, mapping.nr_pages - 1)
    core.reserve(len(absent))
    add_to_page_cache(core, mapping, absent)


def fill_page_cache(core: Core, mapping: AddressSpace, heads: I64, first: I64, order: I64) -> None:
    """Put these very folios into the page cache of a file that has none; where two claim one place, the first stays.

    Args:
        heads: int64: the first frame of each, taken already.
        first: int64: the page index of that frame.
        order: int64: of the folio.
    """
    frames = core.frames
    for head, at, n in zip(*(c[order > 0].tolist() for c in (heads, first, 1 << order))):
        place = mapping.pages[max(at, 0) : at + n]
        if at >= 0 and not place.any():
            place[:] = np.arange(head, head + len(place))
    free = (order == 0) & (mapping.pages[np.where(order == 0, first, 0)] == 0)
    places, which = np.unique(first[free], return_index=True)
    mapping.pages[places] = heads[free][which]
    cached = np.flatnonzero(mapping.pages > 0)
    held = mapping.pages[cached]
    frames.extra[held] = 1
    frames.flags[held] |= np.int32(SWAPBACKED if mapping.shmem else 0)
    frames.mapping[held] = mapping.id << TAG_SHIFT | TAG_FILE
    frames.index[held] = cached
    mapping.nr_cached = len(cached)


def is_special(label: str) -> bool:
    """Whether a VMA without a file, of this label, is a special mapping of the kernel's (``[vdso]``, ``[vvar]``)."""
    return label.startswith("[") and label not in KERNEL_LABELS and not label.startswith("[anon")


def pages_of_bytes(size: int) -> int:
    """Pages that hold so many bytes."""
    return (size + PAGE_SIZE - 1) >> PAGE_SHIFT
