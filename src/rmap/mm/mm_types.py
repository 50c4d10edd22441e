"""What the memory manager is about: ``struct vm_area_struct``, ``mm_struct``, ``address_space`` and ``file``.

They know each other, as they do in the kernel (include/linux/mm_types.h and fs.h, Linux 6.18): an area its mm and its
file, an mm its areas, a file the areas that map it. Fields have the kernel's names without the ``vm_`` prefix. An
anonymous VMA is one without ``mapping`` (the kernel's ``vm_ops == NULL``, rule 1.8), not one without ``file``: a
private mapping of /dev/zero has a file and is anonymous.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from rmap.columns import I64
from rmap.errors import LimitError
from rmap.uapi.vm_flags import VM_MAYWRITE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED, perms
from rmap.units import PAGE_SHIFT, page_align

TASK_SIZE = 0x7FFFFFFFF000
MMAP_MIN_ADDR = 0x10000
STACK_TOP = 0x7FFFFFFFF000
MMAP_BASE = 0x7FFFF7FFF000
"""Rule 3.13: top-down below this, with an 8 MiB stack limit and no randomisation."""
START_BRK = 0x555555559000
DEFAULT_MAX_MAP_COUNT = 65530
STACK_GUARD_GAP = 256 << 12
MAX_FILE_PAGES = 1 << 36


class Vma:
    """One area of one mm.

    Attributes:
        mm: whose it is.
        start, end: addresses in bytes, page aligned, end exclusive. Together with ``pgoff`` they change only
            inside the bracket ``pre_update`` / ``post_update`` of the reverse map.
        flags: ``VM_*`` bits.
        pgoff: the page index of ``start``: in the file, or in the anonymous index space (rule 2.10).
        file: the open file, or None. Compared by identity, as ``vm_file`` is (rule 3.1).
        mapping: the address_space whose pages are mapped, None for an anonymous VMA.
        faulted: prepared for anonymous pages (``anon_vma != NULL``, rule 2.1). A fact of the VMA, under every design.
        anon, chain: two slots that belong to the design.
        shared: the node in ``mapping.i_mmap``, owned by the index.

    Invariants: ``start < end``; a shared VMA is never faulted.
    """

    __slots__ = ("anon", "chain", "end", "faulted", "file", "flags", "mapping", "mm", "pgoff", "shared", "start")

    def __init__(
        self,
        mm: Mm,
        start: int,
        end: int,
        flags: int,
        pgoff: int,
        file: File | None = None,
        mapping: AddressSpace | None = None,
    ) -> None:
        self.mm = mm
        self.start = start
        self.end = end
        self.flags = flags
        self.pgoff = pgoff
        self.file = file
        self.mapping = mapping
        self.faulted = False
        self.anon: Any = None
        self.chain: Any = None
        self.shared: Any = None

    @property
    def last(self) -> int:
        """The page index of the last page."""
        return self.pgoff + ((self.end - self.start) >> PAGE_SHIFT) - 1

    @property
    def pages(self) -> int:
        """How many pages the area covers."""
        return (self.end - self.start) >> PAGE_SHIFT

    @property
    def is_cow_mapping(self) -> bool:
        """Private and possibly writable: fork write-protects its pages (rule 4.5)."""
        return self.flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE

    @property
    def is_indivisible(self) -> bool:
        """A special mapping of the kernel's (the vDSO): it goes and moves whole or not at all (``may_split``)."""
        if self.file is not None:
            return self.file.special is not None
        return self.flags & (VM_MIXEDMAP | VM_PFNMAP) == VM_MIXEDMAP

    def linear_page_index(self, addr: int) -> int:
        """The page index of an address (rule 1.3)."""
        return self.pgoff + ((addr - self.start) >> PAGE_SHIFT)

    def prot(self) -> str:
        """The permission column of /proc/PID/maps."""
        return perms(self.flags)

    def __repr__(self) -> str:
        return f"Vma({self.start:#x}-{self.end:#x} {self.prot()} pgoff={self.pgoff:#x} mm={self.mm.id})"


def vma_address(vma: Vma, index: int) -> int | None:
    """Where a page with this page index lies in the VMA, None if outside (rule 5.3, for one page)."""
    if index < vma.pgoff:
        return None
    addr = vma.start + ((index - vma.pgoff) << PAGE_SHIFT)
    return addr if addr < vma.end else None


class Mm:
    """One address space. Threads and CLONE_VM processes share it.

    Attributes:
        id: a positive number, never used twice.
        rows: 2 MiB region number -> row in the page-table arena.
        vmas, starts: the VMAs in address order, and their start addresses beside them.
        hit: the VMA the last lookup found, or ``nowhere``; saves the next lookup.
        parent: the mm this one was forked from, or None.
        users: how many processes live in it.
        start_brk, brk: the heap.
        locked_vm: pages in VM_LOCKED VMAs.
        def_flags: flags of every new VMA (``mlockall(MCL_FUTURE)``). A child does not inherit them.
        design: a slot that belongs to the reverse map.

    Invariants: VMAs do not overlap; ``starts[i] == vmas[i].start``.
    """

    __slots__ = ("alive", "brk", "def_flags", "design", "hit", "id", "locked_vm", "nowhere", "parent", "rows",
                 "start_brk", "starts", "users", "vmas")  # fmt: skip

    def __init__(self, id: int, parent: Mm | None = None) -> None:
        self.id = id
        self.parent = parent
        self.rows: dict[int, int] = {}
        self.vmas: list[Vma] = []
        self.starts: list[int] = []
        self.nowhere = Vma(self, 0, 0, 0, 0)
        self.hit = self.nowhere
        self.users = 1
        self.alive = True
        self.start_brk: int = START_BRK if parent is None else parent.start_brk
        self.brk: int = START_BRK if parent is None else parent.brk
        self.locked_vm = 0
        self.def_flags = 0
        self.design: Any = None

    def find(self, addr: int) -> Vma | None:
        """The VMA that contains an address (``vma_lookup``)."""
        vma = self.hit
        if vma.start <= addr < vma.end:
            return vma
        i = bisect_right(self.starts, addr) - 1
        if i >= 0:
            vma = self.vmas[i]
            if addr < vma.end:
                self.hit = vma
                return vma
        return None

    def insert(self, vma: Vma) -> None:
        """Put a VMA into its place."""
        i = bisect_left(self.starts, vma.start)
        self.starts.insert(i, vma.start)
        self.vmas.insert(i, vma)

    def append(self, vma: Vma) -> None:
        """Put a VMA behind all others (fork copies them in order)."""
        self.starts.append(vma.start)
        self.vmas.append(vma)

    def remove(self, vma: Vma) -> None:
        """Take a VMA out."""
        i = bisect_left(self.starts, vma.start)
        del self.starts[i]
        del self.vmas[i]
        self.hit = self.nowhere

    def clear(self) -> None:
        """Forget all VMAs and page tables (the mm is dead)."""
        self.vmas = []
        self.starts = []
        self.rows = {}
        self.hit = self.nowhere
        self.alive = False

    def set_start(self, vma: Vma, start: int) -> None:
        """Move a VMA's start, its place in the order unchanged."""
        self.starts[bisect_left(self.starts, vma.start)] = start
        vma.start = start

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """The VMAs that touch ``[start, end)``, in address order."""
        i = bisect_right(self.starts, start) - 1
        if i < 0 or self.vmas[i].end <= start:
            i += 1
        return self.vmas[i : bisect_left(self.starts, end)]

    def neighbours(self, start: int, end: int) -> tuple[Vma | None, Vma | None]:
        """The last VMA that ends at or before ``start`` and the first that begins at or after ``end``."""
        i = bisect_left(self.starts, start)
        prev = self.vmas[i - 1] if i else None
        j = bisect_left(self.starts, end)
        return prev, self.vmas[j] if j < len(self.vmas) else None

    def covers(self, start: int, end: int) -> bool:
        """Whether every page of ``[start, end)`` lies in some VMA."""
        at = start
        for vma in self.overlapping(start, end):
            if vma.start > at:
                return False
            at = vma.end
        return at >= end

    def __repr__(self) -> str:
        return f"Mm({self.id}, {len(self.vmas)} VMAs)"


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


class MappingIndex(Protocol):
    """The VMAs of a file by page index (``i_mmap``): a list, a prio_tree, an interval tree."""

    def insert(self, vma: Vma) -> None:
        """Add a VMA under its present ``[pgoff, last]``."""

    def insert_after(self, vma: Vma, sibling: Vma) -> None:
        """Add a forked VMA right behind its parent's, whose interval it has."""

    def remove(self, vma: Vma) -> None:
        """Take a VMA out; its interval is still the one it was inserted under."""

    def stab(self, first: int, last: int) -> Iterable[Vma]:
        """The VMAs that touch page indexes ``first`` to ``last``, in the order of the original."""

    def __iter__(self) -> Iterator[Vma]:
        """All VMAs, in order."""

    def __len__(self) -> int:
        """How many VMAs."""
