"""The kernel's own memory, read by BPF: VMAs with chains, struct pages in bulk, interval trees, page-table entries.

What is read is a copy of a moment that nobody else stopped: an object may be freed while it is read, and two objects
may be of two moments. Whoever draws conclusions reads again, or stops the processes first.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from rmap.columns import I64
from rmap.errors import NotPermitted
from rmap.live.bpf.libbpf import BpfObject, refusal, run
from rmap.live.bpf.topology import parse
from rmap.live.sources import procfs, sysfs
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.structs.anon_vmas import Topology
from rmap.structs.memory import KernelMemory
from rmap.structs.page import EntryAt, RawPtes, StructPages, TreeNodes
from rmap.uapi.pagemap import PM_PFRAME_MASK, PM_PRESENT, PM_SWAP
from rmap.units import PAGE_SHIFT, PAGE_SIZE

OBJECT = Path(__file__).with_name("memory.bpf.o")

# As in memory.bpf.c.
_BATCH = 65536
_PAGE_WORDS = 12
_NODE_WORDS = 11
_ANON_VMA_TREE, _I_MMAP_TREE = 0, 1
_PTE_WORDS = 2
_EXCHANGE_BYTES = (_BATCH + _BATCH * _PAGE_WORDS + 2) * 8
_TOP_SHIFTS = (39, 48)  # four levels, five levels
_MOST_GIBIBYTES = 1 << 12


class BpfMemory(KernelMemory):
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

    def __enter__(self) -> BpfMemory:
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

    @property
    def release(self) -> str:
        """As uname says."""
        return os.uname().release

    def comm(self, pid: int) -> str:
        """The command of a process, ``"(ended)"`` if there is none."""
        try:
            return procfs.read_stat(pid).comm
        except OSError:
            return "(ended)"

    def ksm_references(self) -> int:
        """How many references KSM holds to anon_vmas: one per page in its stable tree (rule 2.9)."""
        return sysfs.ksm_items()

    @cached_property
    def why_no_ptes(self) -> str | None:
        """What is missing for :meth:`ptes`, in words; None if nothing is."""
        return "x86-64" if os.uname().machine != "x86_64" else None if self._direct_map else "a known direct map"

    def ptes(self, mm: int, addresses: I64) -> RawPtes:
        """Page-table entries of one process, without its memory map's lock.

        Args:
            mm: address of its ``mm_struct``, as :meth:`topology` gives it. If it was freed meanwhile, what is read
                makes no sense: compare the frames with those of pagemap.
            addresses: int64, bytes, in any order.

        Raises:
            NotPermitted: :attr:`why_no_ptes` says why.
        """
        if self.why_no_ptes is not None or self._direct_map is None:
            raise refusal(self.why_no_ptes or "a known direct map")
        base, top_shift = self._direct_map
        rows = np.empty((len(addresses), _PTE_WORDS), np.int64)
        for first in range(0, len(addresses), _BATCH):
            part = addresses[first : first + _BATCH]
            rows[first : first + len(part)] = self._read_ptes(mm, base, top_shift, part)
        return RawPtes(rows[:, 0], rows[:, 1])

    def entry_at(self, pid: int, mm: int, address: int) -> EntryAt | None:
        """What the page tables of a process hold at one address, None where it is gone or not readable.

        Asked of ``/proc/PID/pagemap``, which looks under the lock of the memory map.
        """
        try:
            with Pagemap(pid) as pagemap:
                entry = pagemap.entry(address) & (1 << 64) - 1
        except OSError:
            return None
        return EntryAt(entry & PM_PFRAME_MASK if entry & PM_PRESENT else -1, bool(entry & PM_SWAP))

    def _read_ptes(self, mm: int, base: int, top_shift: int, addresses: I64) -> I64:
        n = len(addresses)
        self._asked[:n] = addresses
        run(self._programs["ptes"], np.array([mm, base, top_shift, n], np.int64))
        return self._answer[: n * _PTE_WORDS].reshape(-1, _PTE_WORDS)

    @cached_property
    def _direct_map(self) -> tuple[int, int] | None:
        # Where the kernel maps all memory in one piece, and how many levels page tables have. The base is a multiple of
        # 1 GiB below every object of the kernel's; the right one is that under which this process's own page tables
        # lead from an address to the frame that pagemap tells for it.
        mm = self._number("own_mm")
        with mmap.mmap(-1, PAGE_SIZE) as page, Pagemap(os.getpid()) as pagemap:
            page[0] = 1
            address = np.frombuffer(page, np.int8).ctypes.data
            pfn = pagemap.entry(address) & PM_PFRAME_MASK
            for top_shift in _TOP_SHIFTS:
                for below in range(_MOST_GIBIBYTES):
                    base = ((mm >> 30) - below) << 30
                    ptes = self._read_ptes(mm, base, top_shift, np.array([address], np.int64))
                    raw = RawPtes(ptes[:, 0].copy(), ptes[:, 1].copy())
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

    def _ask_for(self, pids: set[int] | None) -> None:
        # Tell the iterator whose VMAs are wanted; only what changed since the last time.
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

    def _find_vmemmap(self) -> int:
        # Where the array of struct pages begins. A file of one page keeps that page's folio where its tree of pages
        # would be; pagemap tells its frame; the rest is arithmetic. No symbol of the kernel is needed (rule 8.7).
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


def open_memory() -> BpfMemory:
    """The running kernel's memory, a context manager.

    Raises:
        NotPermitted: what is missing is in ``needed``.
    """
    return BpfMemory()


def memory_or_none() -> BpfMemory | None:
    """The running kernel's memory, None where it cannot be read."""
    try:
        return BpfMemory()
    except NotPermitted:
        return None


@lru_cache(maxsize=1)
def why_not() -> str | None:
    """What is missing for :class:`BpfMemory`, in words; None if nothing is. Tried once."""
    try:
        BpfMemory().close()
    except NotPermitted as error:
        return error.needed
    return None


def _whole_pages(size: int) -> int:
    return (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
