"""The kernel's own memory, read by BPF: VMAs with chains, struct pages in bulk, interval trees.

What is read is a copy of a moment that nobody else stopped: an object may be freed while it is read, and two objects
may be of two moments. Whoever draws conclusions reads again, or stops the processes first.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from rmap.columns import I64, Bool
from rmap.errors import NotPermitted
from rmap.live.bpf.libbpf import BpfObject, refusal, run
from rmap.live.bpf.topology import Topology, parse
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.uapi.pagemap import PM_PFRAME_MASK
from rmap.units import PAGE_SHIFT, PAGE_SIZE

OBJECT = Path(__file__).with_name("memory.bpf.o")

# As in memory.bpf.c.
_BATCH = 65536
_PAGE_WORDS = 12
_NODE_WORDS = 11
_ANON_VMA_TREE, _I_MMAP_TREE = 0, 1
_PTE_WORDS = 2
_EXCHANGE_BYTES = (_BATCH + _BATCH * _PAGE_WORDS + 2) * 8
_FRAME = 0x000FFFFFFFFFF000
_PRESENT, _PROTNONE = 1, 1 << 8
_TOP_SHIFTS = (39, 48)  # four levels, five levels
_MOST_GIBIBYTES = 1 << 12


@dataclass(frozen=True)
class StructPages:
    """``struct page`` of some frames, in the order asked; int64 columns unless stated.

    Attributes:
        pfn: as asked.
        valid: bool: there is such a struct page. The other columns of an invalid row are 0.
        flags: of the folio's head.
        mapping: of the head: a tagged pointer (rule 1.1); trustworthy only while the page is mapped.
        index: of this page: its head's, and its place in the folio (rule 1.3).
        mapcount: how many entries map this page (rule 1.4; of a large folio: by entries and as a whole).
        refcount: of the folio.
        head: PFN of the folio's head.
        order: of the folio.
        large_mapcount, entire_mapcount, nr_pages_mapped: counters of a large folio (rule 1.5), as stored.
        exclusive: bool: PG_anon_exclusive, where this page keeps it (rule 1.7).
    """

    pfn: I64
    valid: Bool
    flags: I64
    mapping: I64
    index: I64
    mapcount: I64
    refcount: I64
    head: I64
    order: I64
    large_mapcount: I64
    entire_mapcount: I64
    nr_pages_mapped: I64
    exclusive: Bool


@dataclass(frozen=True)
class TreeNodes:
    """The nodes of one interval tree, a parent before its children; int64 columns.

    Attributes:
        node, left, right: addresses of ``rb_node``, 0 for none.
        subtree_last: as the node keeps it: the last page index of any interval below it.
        vma, start, end, pgoff, mm, flags: of the VMA behind the node.
        mm_users: of the VMA's mm: 0 from when its last user left it.
        truncated: there are more nodes than are read of one tree (65,536).
        i_mmap_writable: of a file's tree; 0 for an anon_vma's.
    """

    node: I64
    left: I64
    right: I64
    subtree_last: I64
    vma: I64
    start: I64
    end: I64
    pgoff: I64
    mm: I64
    flags: I64
    mm_users: I64
    truncated: bool
    i_mmap_writable: int

    def __len__(self) -> int:
        return len(self.node)


@dataclass(frozen=True)
class RawPtes:
    """Page-table entries as the machine has them, in the order asked (x86-64).

    Attributes:
        entry: int64: the entry that decides about the address: of the lowest level reached.
        shift: int64: what that entry covers, as a power of two in bytes: 12 for a page, 21 for a PMD, and so on.
    """

    entry: I64
    shift: I64

    @property
    def present(self) -> Bool:
        """Whether the entry maps a page, or a huge page; also where nobody may use it now (PROT_NONE, NUMA hints)."""
        return (self.entry & (_PRESENT | _PROTNONE) != 0) & ((self.shift == 12) | (self.entry & 1 << 7 != 0))

    @property
    def write(self) -> Bool:
        """Whether it allows writing."""
        return self.present & (self.entry & 1 << 1 != 0)

    @property
    def dirty(self) -> Bool:
        """Whether the page was written through it. Where writing is not allowed, the bit is kept elsewhere (58)."""
        return self.present & (self.entry & (1 << 6 | 1 << 58) != 0)

    @property
    def pfn(self) -> I64:
        """The frame of the entry; of a huge page, its first."""
        # Against L1TF, an entry that the processor must not follow has the bits of its frame inverted.
        entry = np.where(self.entry & _PRESENT != 0, self.entry, ~self.entry)
        first = np.int64(-1) << self.shift  # a huge page has other bits below its frame
        return np.where(self.present, (entry & _FRAME & first) >> PAGE_SHIFT, 0)

    def maps(self, addresses: I64, pfns: I64) -> Bool:
        """Which entries map these frames at these addresses (int64, bytes, as asked), be it within a huge page."""
        inside = addresses >> PAGE_SHIFT & (np.int64(1) << self.shift - PAGE_SHIFT) - 1
        return self.present & (self.pfn + inside == pfns)

    @property
    def swap_exclusive(self) -> Bool:
        """The exclusive marker of a swap entry (rule 4.12); makes no sense for others."""
        return ~self.present & (self.shift == 12) & (self.entry & 1 << 3 != 0)


class KernelMemory:
    """Reads the running kernel's memory. A context manager; one reader at a time.

    Raises:
        NotPermitted: what is missing is in ``needed``.
    """

    def __init__(self) -> None:
        self._asked = self._answer = np.empty(0, np.int64)
        self._exchange: mmap.mmap | None = None
        self._object = BpfObject(OBJECT)
        try:
            self._open()
        except OSError as error:
            self.close()
            raise refusal(f"a kernel that runs the BPF programs: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._vmas = self._object.iterator("vmas")
        self._wanted = self._object.map("wanted")
        self._only_wanted = self._object.map("only_wanted")
        self._asked_for: set[int] | None = None
        self._programs = {name: self._object.program(name) for name in ("pages", "tree", "ptes")}
        self._exchange = mmap.mmap(self._object.map("exchange").fd, _whole_pages(_EXCHANGE_BYTES))
        words = np.frombuffer(self._exchange, np.int64)
        self._asked, self._answer = words[:_BATCH], words[_BATCH : _BATCH + _BATCH * _PAGE_WORDS]
        del words  # a failure from here on must be able to close it
        self._page_size = self._number("size_of_page")
        self._exclusive_bit = self._number("exclusive_bit")
        self._vmemmap = self._find_vmemmap()

    def close(self) -> None:
        """Unload everything."""
        self._asked = self._answer = np.empty(0, np.int64)
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        self._object.close()

    def __enter__(self) -> KernelMemory:
        return self

    def __exit__(self, *stopped_by: object) -> None:
        self.close()

    def topology(self, pids: Iterable[int] | None = None) -> Topology:
        """Every VMA with its chain, in order.

        Args:
            pids: of these processes (thread groups); None means all.
        """
        self._ask_for(None if pids is None else set(pids))
        return parse(self._vmas.read())

    def struct_pages(self, pfns: I64) -> StructPages:
        """The struct pages of some frames.

        Args:
            pfns: int64, in any order, repeated or not.
        """
        pfns = np.ascontiguousarray(pfns, np.int64)
        rows = np.empty((len(pfns), _PAGE_WORDS), np.int64)
        for first in range(0, len(pfns), _BATCH):
            part = pfns[first : first + _BATCH]
            self._asked[: len(part)] = part
            run(self._programs["pages"], np.array([self._vmemmap, len(part)], np.int64))
            rows[first : first + len(part)] = self._answer[: len(part) * _PAGE_WORDS].reshape(-1, _PAGE_WORDS)
        return self._decode(pfns, rows)

    @cached_property
    def page_tables(self) -> str | None:
        """What is missing for :meth:`ptes`, in words; None if nothing is."""
        return "x86-64" if os.uname().machine != "x86_64" else None if self._direct_map else "a known direct map"

    def ptes(self, mm: int, addresses: I64) -> RawPtes:
        """Page-table entries of one process, without its memory map's lock.

        Args:
            mm: address of its ``mm_struct``, as :meth:`topology` gives it. If it was freed meanwhile, what is read
                makes no sense: compare the frames with those of pagemap.
            addresses: int64, bytes, in any order.

        Raises:
            NotPermitted: :attr:`page_tables` says why.
        """
        if self.page_tables is not None or self._direct_map is None:
            raise refusal(self.page_tables or "a known direct map")
        base, top_shift = self._direct_map
        rows = np.empty((len(addresses), _PTE_WORDS), np.int64)
        for first in range(0, len(addresses), _BATCH):
            part = addresses[first : first + _BATCH]
            rows[first : first + len(part)] = self._read_ptes(mm, base, top_shift, part)
        return RawPtes(rows[:, 0], rows[:, 1])

    def _read_ptes(self, mm: int, base: int, top_shift: int, addresses: I64) -> I64:
        n = len(addresses)
        self._asked[:n] = addresses
        run(self._programs["ptes"], np.array([mm, base, top_shift, n], np.int64))
        return self._answer[: n * _PTE_WORDS].reshape(-1, _PTE_WORDS)

    # Where the kernel maps all memory in one piece, and how many levels page tables have. The base is a multiple of
    # 1 GiB below every object of the kernel's; the right one is that under which this process's own page tables lead
    # from an address to the frame that pagemap tells for it.
    @cached_property
    def _direct_map(self) -> tuple[int, int] | None:
        mm = self._number("own_mm")
        with mmap.mmap(-1, PAGE_SIZE) as page, Pagemap(os.getpid()) as pagemap:
            page[0] = 1
            address = np.frombuffer(page, np.int8).ctypes.data
            pfn = pagemap.entry(address) & PM_PFRAME_MASK
            for top_shift in _TOP_SHIFTS:
                for below in range(_MOST_GIBIBYTES):
                    base = ((mm >> 30) - below) << 30
                    found = self._read_ptes(mm, base, top_shift, np.array([address], np.int64))
                    raw = RawPtes(found[:, 0].copy(), found[:, 1].copy())
                    if raw.present[0] and raw.shift[0] == PAGE_SHIFT and raw.pfn[0] == pfn:
                        return base, top_shift
        return None

    def anon_vma_tree(self, address: int) -> TreeNodes:
        """The interval tree of an anon_vma.

        Args:
            address: of the ``struct anon_vma``. If it was freed meanwhile, what is read makes no sense.
        """
        return self._tree(address, _ANON_VMA_TREE)

    def i_mmap_tree(self, address: int) -> TreeNodes:
        """The interval tree of a file: every VMA that maps it.

        Args:
            address: of the ``struct address_space``.
        """
        return self._tree(address, _I_MMAP_TREE)

    def _tree(self, address: int, which: int) -> TreeNodes:
        request = np.array([address, which, 0, 0, 0], np.int64)
        run(self._programs["tree"], request)
        count, waiting, writable = request[2:].tolist()
        columns = self._answer[: count * _NODE_WORDS].reshape(-1, _NODE_WORDS).T.copy()
        node, left, right, last, vma, start, end, pgoff, mm, flags, users = columns
        return TreeNodes(node, left, right, last, vma, start, end, pgoff, mm, flags, users, bool(waiting), writable)

    def _decode(self, pfns: I64, rows: I64) -> StructPages:
        valid, own_flags, own, folio, flags, mapping, index, refcount, order, large, entire, mapped = rows.T.copy()
        exists = valid == 1
        for column in (own_flags, own, folio, flags, mapping, index, refcount, order, large, entire, mapped):
            column[~exists] = 0
        is_large = order >= 0
        head = np.where(exists, (folio - self._vmemmap) // self._page_size, pfns)
        # A page that is not mapped by design of its owner (a slab, a page table) keeps its type in this field.
        mapcount = np.maximum(own + exists, 0) + np.where(is_large & exists, entire + 1, 0)
        whole = is_large & exists & (entire >= 0)
        exclusive = ((own_flags | np.where(whole, flags, 0)) >> self._exclusive_bit & 1) != 0
        return StructPages(
            pfn=pfns,
            valid=exists,
            flags=flags,
            mapping=mapping,
            index=index + (pfns - head),
            mapcount=mapcount,
            refcount=refcount,
            head=head,
            order=np.maximum(order, 0),
            large_mapcount=large,
            entire_mapcount=entire,
            nr_pages_mapped=mapped,
            exclusive=exclusive,
        )

    # Tell the iterator whose VMAs are wanted; only what changed since the last time.
    def _ask_for(self, pids: set[int] | None) -> None:
        if pids == self._asked_for:
            return
        if pids is not None:
            before = self._asked_for or set()
            for pid in before - pids:
                self._wanted.delete(pid)
            for pid in pids - before:
                self._wanted.set(pid, b"\x01")
        elif self._asked_for:
            for pid in self._asked_for:
                self._wanted.delete(pid)
        if (pids is None) != (self._asked_for is None):
            self._only_wanted.set(0, int(pids is not None).to_bytes(4, "little"))
        self._asked_for = pids

    def _number(self, program: str, argument: int = 0) -> int:
        answer = np.array([argument], np.int64)
        run(self._object.program(program), answer)
        return int(answer[0])

    # Where the array of struct pages begins. A file of one page keeps that page's folio where its tree of pages would
    # be; pagemap tells its frame; the rest is arithmetic. No symbol of the kernel is needed (rule 8.7).
    def _find_vmemmap(self) -> int:
        fd = os.memfd_create("rmap")
        try:
            os.ftruncate(fd, PAGE_SIZE)
            with mmap.mmap(fd, PAGE_SIZE) as page:
                page[0] = 1
                folio = self._number("first_folio", fd)
                address = np.frombuffer(page, np.int8).ctypes.data
                with Pagemap(os.getpid()) as pagemap:
                    pfn = pagemap.entry(address) & PM_PFRAME_MASK
        finally:
            os.close(fd)
        if not pfn:
            raise refusal("CAP_SYS_ADMIN (page frames)")
        return folio - pfn * self._page_size


@lru_cache(maxsize=1)
def why_not() -> str | None:
    """What is missing for :class:`KernelMemory`, in words; None if nothing is. Tried once."""
    try:
        KernelMemory().close()
    except NotPermitted as error:
        return error.needed
    return None


def _whole_pages(size: int) -> int:
    return (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
