"""Files in memory: ``struct address_space`` (the page cache of one inode) and ``struct file`` (one open of it)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I64
from rmap.errors import LimitError
from rmap.units import PAGE_SHIFT, page_align

if TYPE_CHECKING:
    from rmap.mm.interface import MappingIndex

MAX_FILE_PAGES = 1 << 36


class AddressSpace:
    """The pages of one inode that are in memory, and the VMAs that map it.

    Attributes:
        id: its number; ``id << 2`` is the ``mapping`` of its pages.
        name: a path, or what the kernel would print.
        shmem: pages are swap-backed and are written back to swap, not to a file (tmpfs, memfd, shared anonymous).
        size: in bytes; a fault at or beyond its last page is refused.
        pages: int64 column by page index: a PFN, 0 if not in memory, or minus a swap slot (shmem).
        i_mmap: the VMAs of this file, in the index structure that the design chose (rule 1.12).
        nr_cached: how many pages are in memory.

    Invariants: ``pages[i] > 0`` iff that frame's mapping is this one and its index is ``i`` (I21).
    """

    __slots__ = ("i_mmap", "id", "name", "nr_cached", "pages", "shmem", "size")

    def __init__(self, id: int, name: str, size: int, shmem: bool, i_mmap: MappingIndex) -> None:
        self.id = id
        self.name = name
        self.shmem = shmem
        self.i_mmap = i_mmap
        self.size = 0
        self.nr_cached = 0
        self.pages: I64 = np.zeros(0, np.int64)
        self.resize(size)

    @property
    def nr_pages(self) -> int:
        """The size in pages, rounded up."""
        return page_align(self.size) >> PAGE_SHIFT

    def resize(self, size: int) -> None:
        """Set the size in bytes; the column of pages only ever grows.

        Raises:
            LimitError: larger than the model holds (8 bytes a page, in memory or not). Nothing was changed.
        """
        nr_pages = page_align(size) >> PAGE_SHIFT
        if not 0 <= nr_pages <= MAX_FILE_PAGES:
            raise LimitError(f"a file of the model has at most 2^36 pages, not {size:,} bytes")
        if nr_pages > len(self.pages):
            try:
                pages = np.zeros(nr_pages, np.int64)
            except MemoryError:
                raise LimitError(f"this host has no room for the page cache of a file of {size:,} bytes") from None
            pages[: len(self.pages)] = self.pages
            self.pages = pages
        self.size = size

    def __repr__(self) -> str:
        return f"AddressSpace({self.name!r}, {self.size} bytes, {self.nr_cached} pages cached)"


class File:
    """One open file. Two opens of one inode are two files: their VMAs never merge (rule 3.1).

    Attributes:
        mapping: the inode's pages.
        writable: opened for writing; a shared writable mapping needs that (EACCES otherwise).
        zero_device: /dev/zero: a private mapping of it is anonymous and keeps the file's offset (rule 2.10).
        special: no file at all, but a special mapping of the kernel's (vDSO, device memory): the frames that its pages
            are, by page index, int64; a fault maps them, untracked (rule 4.17). None for files.
    """

    __slots__ = ("mapping", "name", "special", "writable", "zero_device")

    def __init__(
        self, mapping: AddressSpace | None, name: str, writable: bool = True, special: I64 | None = None
    ) -> None:
        self.mapping = mapping
        self.name = name
        self.writable = writable
        self.special = special
        self.zero_device = mapping is None and special is None

    def __repr__(self) -> str:
        return f"File({self.name!r})"
