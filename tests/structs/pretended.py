"""A source of kernel structures that is nobody's kernel: a parent and its forked child, made by hand.

Both have a heap (one anon_vma family: the parent's, and below it the child's) and map one file. Written as whoever
adds a source would write it: structs in, columns out, nothing of the package but its column types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from rmap.structs.anon_vmas import KernelVmas, LinkRecords, Topology, join_links
from rmap.structs.page import NODE_COLUMNS, EntryAt, RawPtes, StructPages, TreeNodes
from tests.support import PAGE

KERNEL = -1 << 47  # where the kernel's objects begin, as a signed number
PARENT, CHILD = 100, 101
PARENT_MM, CHILD_MM = KERNEL + 0x1000, KERNEL + 0x2000
MAPPING = KERNEL + 0x3000
ROOT, BELOW, EMPTIED = KERNEL + 0x4000, KERNEL + 0x4100, KERNEL + 0x4200
HEAP, FILE = 0x10000, 0x400000
READ_WRITE, SHARED = 0x73, 0xFB
PRESENT, WRITE = 0x25, 0x2  # present, user, accessed
SWAP_SLOT = 2 << 59 | ~(77 << 9) & (1 << 59) - 1 & ~0x1FF  # area 2, slot 77


@dataclass
class Vma:
    """``struct vm_area_struct``."""

    address: int
    pid: int
    mm: int
    start: int
    end: int
    pgoff: int
    flags: int
    anon_vma: int = 0
    mapping: int = 0
    chain: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.pgoff + (self.end - self.start) // PAGE - 1


@dataclass
class AnonVma:
    """``struct anon_vma``; ``vmas`` are those in its tree."""

    root: int
    parent: int
    refcount: int
    num_children: int
    num_active_vmas: int
    vmas: list[Vma]


@dataclass
class Page:
    """``struct page``, of a folio of one page."""

    mapping: int
    index: int
    mapcount: int
    exclusive: bool = False


class PretendedMemory:
    """The structures, for a test to break; and the protocol ``KernelMemory``."""

    why_no_ptes = None

    def __init__(self) -> None:
        self.release = "6.18.0"
        heap, file = (HEAP, HEAP + 4 * PAGE, 0x10, READ_WRITE), (FILE, FILE + 3 * PAGE, 1, SHARED)
        self.parent_heap = Vma(KERNEL + 0x5000, PARENT, PARENT_MM, *heap, ROOT, chain=[ROOT])
        self.child_heap = Vma(KERNEL + 0x5100, CHILD, CHILD_MM, *heap, BELOW, chain=[BELOW, ROOT])
        self.parent_file = Vma(KERNEL + 0x5200, PARENT, PARENT_MM, *file, mapping=MAPPING)
        self.child_file = Vma(KERNEL + 0x5300, CHILD, CHILD_MM, *file, mapping=MAPPING)
        self.vmas = [self.parent_heap, self.parent_file, self.child_heap, self.child_file]
        self.anon_vmas = {
            ROOT: AnonVma(ROOT, ROOT, 2, 2, 1, [self.parent_heap, self.child_heap]),
            BELOW: AnonVma(ROOT, ROOT, 1, 0, 1, [self.child_heap]),
        }
        self.i_mmap, self.i_mmap_writable = [self.parent_file, self.child_file], 2
        self.pages = {
            0x500: Page(ROOT | 1, 0x11, 2),  # as the fork left it: both map it
            0x501: Page(BELOW | 1, 0x12, 1, exclusive=True),  # the child's copy
            0x502: Page(ROOT | 1, 0x12, 1),  # and what it was copied from
            0x503: Page(ROOT | 1, 0x13, 1),  # read from swap by the child, not yet by the parent
            0x600: Page(MAPPING, 2, 2),
            0x700: Page(0, 0, 0),
        }
        self.page_tables = {
            (PARENT_MM, HEAP + PAGE): 0x500 << 12 | PRESENT,
            (CHILD_MM, HEAP + PAGE): 0x500 << 12 | PRESENT,
            (PARENT_MM, HEAP + 2 * PAGE): 0x502 << 12 | PRESENT,
            (CHILD_MM, HEAP + 2 * PAGE): 0x501 << 12 | PRESENT | WRITE,
            (PARENT_MM, HEAP + 3 * PAGE): SWAP_SLOT,
            (CHILD_MM, HEAP + 3 * PAGE): 0x503 << 12 | PRESENT,
            (PARENT_MM, FILE + PAGE): 0x600 << 12 | PRESENT,
            (CHILD_MM, FILE + PAGE): 0x600 << 12 | PRESENT | WRITE,
        }
        self.misread_reach: dict[int, int] = {}
        self.asked = 0
        self.ksm = 0

    def comm(self, pid: int) -> str:
        return {PARENT: "parent", CHILD: "child"}[pid]

    def ksm_references(self) -> int:
        return self.ksm

    def topology(self, pids: Iterable[int] | None = None) -> Topology:
        vmas = [vma for vma in self.vmas if pids is None or vma.pid in set(pids)]
        links = [(row, address) for row, vma in enumerate(vmas) for address in vma.chain]
        of_vmas = [
            (v.pid, v.address, v.start, v.end, v.flags, v.pgoff, v.mm, v.anon_vma, v.mapping, v.mapping,
             0x801 * bool(v.mapping), 12 * bool(v.mapping), self.i_mmap_writable * bool(v.mapping))
            for v in vmas
        ]  # fmt: skip
        of_links = [
            (row, address, a.root, a.parent, a.refcount, a.num_children, a.num_active_vmas)
            for row, address in links
            for a in [self.anon_vmas[address]]
        ]
        return join_links(KernelVmas(*columns(of_vmas, 13)), LinkRecords(*columns(of_links, 7)), np.empty(0, np.int64))

    def struct_pages(self, pfns: np.ndarray) -> StructPages:
        nothing = Page(0, 0, 0)
        pages = [self.pages.get(pfn, nothing) for pfn in pfns.tolist()]
        mapping, index, mapcount, exclusive = columns(
            [(page.mapping, page.index, page.mapcount, page.exclusive) for page in pages], 4
        )
        zeros = np.zeros(len(pfns), np.int64)
        return StructPages(
            pfn=pfns, valid=np.isin(pfns, list(self.pages)), flags=zeros, mapping=mapping, index=index,
            mapcount=mapcount, refcount=mapcount + 1, head=pfns, order=zeros, large_mapcount=zeros,
            entire_mapcount=zeros, nr_pages_mapped=zeros, exclusive=exclusive != 0,
        )  # fmt: skip

    def ptes(self, mm: int, addresses: np.ndarray) -> RawPtes:
        self.asked += len(addresses)
        held = [address for of, address in self.page_tables if of == mm]
        rows = []
        for address in addresses.tolist():
            # The entry that decides is of the lowest table there is: one that also leads to something else.
            shifts = (s for s in (12, 21, 30) if any(address >> s + 9 == other >> s + 9 for other in held))
            rows.append((self.page_tables.get((mm, address), 0), next(shifts, 39)))
        return RawPtes(*columns(rows, 2))

    def entry_at(self, pid: int, mm: int, address: int) -> EntryAt | None:
        if mm not in (PARENT_MM, CHILD_MM):
            return None
        at = np.array([address], np.int64)
        return self.ptes(mm, at).entries_at(at)[0]

    def anon_vma_tree(self, address: int) -> TreeNodes:
        return self._tree(self.anon_vmas[address].vmas, 0)

    def i_mmap_tree(self, address: int) -> TreeNodes:
        return self._tree(self.i_mmap, self.i_mmap_writable)

    def _tree(self, vmas: list[Vma], writable: int) -> TreeNodes:
        # Every node is the right child of the one before.
        def node(row: int) -> int:
            return vmas[row].address + 0x40 if row < len(vmas) else 0

        rows = [
            (node(row), 0, node(row + 1), self._reach(vmas[row:]), v.address, v.start, v.end, v.pgoff, v.mm, v.flags, 1)
            for row, v in enumerate(vmas)
        ]
        return TreeNodes(*columns(rows, len(NODE_COLUMNS)), truncated=False, i_mmap_writable=writable)

    def _reach(self, vmas: list[Vma]) -> int:
        return self.misread_reach.get(vmas[0].address, max(vma.last for vma in vmas))


def columns(rows: list[tuple[int, ...]], width: int) -> Iterator[np.ndarray]:
    """Rows of numbers as int64 columns; numbers above 2^63 wrap, as the kernel's addresses do."""
    table = np.array([[value & (1 << 64) - 1 for value in row] for row in rows], np.uint64).reshape(-1, width)
    return iter(table.astype(np.int64).T.copy())
