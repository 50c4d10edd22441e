"""The public kernel: a machine with frames, processes and one reverse-map design, and all that can be asked of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmap.columns import I64, Bool
from rmap.consumers.mkclean import folio_mkclean
from rmap.consumers.reclaim import try_to_unmap
from rmap.consumers.referenced import folio_referenced
from rmap.errors import UntrackedPage, UsageError
from rmap.kernel.adopt import adopt
from rmap.kernel.inodes import ZERO_DEVICE
from rmap.kernel.machine import Machine
from rmap.kernel.process import OpenFile, Process, PteRef
from rmap.kernel.snapshot import snapshot_of
from rmap.mm.costs import Costs
from rmap.mm.frames import ANON, KERNEL_OWNED, ZERO_PFN
from rmap.mm.interface import Query, ReverseMap, ReverseMapFactory
from rmap.mm.invariants import check
from rmap.mm.mm_types import File, Mm
from rmap.mm.oracle import mappers
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import PRESENT
from rmap.mm.walk import Hits, hits, walk1, walk_many
from rmap.snapshot import Snapshot
from rmap.units import PAGE_SHIFT

UNTRACKED = {
    "zero": "the zero page is mapped by reads of untouched memory; nothing can be gained by finding those entries, so"
    " they are marked special and not counted",
    "kernel": "the page belongs to the kernel, which maps it into processes itself and never evicts or moves it",
    "free": "the frame is free: nothing maps it",
}


@dataclass(frozen=True, slots=True)
class PageMappers:
    """What a page is, and who maps it.

    Attributes:
        pfn: the frame.
        kind: ``anon``, ``file``, ``shmem``, ``zero``, ``kernel``, ``free``, or ``swapcache``.
        reason: why no reverse map tracks it; empty for tracked pages.
        mapcount: entries that map it, by its count.
        mappings: those entries.
        file, index: the file and the page index in it, for pages of files.
    """

    pfn: int
    kind: str
    reason: str
    mapcount: int
    mappings: list[PteRef]
    file: str | None = None
    index: int | None = None


class Kernel(Machine[Process]):
    """A modelled machine.

    Args:
        design: the reverse map: a name of ``DESIGNS``, or a factory of your own ``(core, profile) -> ReverseMap``.
        profile: the rules of which release: ``"5.1"``, ``"6.18"`` or ``"7.0"``.
        nr_pages: frames of memory, the zero page included.
        nr_swap: swap slots in pages; 0 for no swap.
        nr_tables: page-table pages there can be; memory is used only for those there are.
        scalar_twins: use the faster code for ranges of a few pages. State and costs are the same without.

    Raises:
        UsageError: no such design or profile.
        LimitError: an impossible size.
    """

    # -- making things --------------------------------------------------------------------------------------------
    def _new_process(self, pid: int, mm: Mm, parent: Process | None) -> Process:
        return Process(self, pid, mm, parent)

    def open(self, name: str, size: int = 0, *, shmem: bool = False, writable: bool = True) -> OpenFile:
        """Open a file; it is made with this size if there is none of the name.

        Args:
            name: a path. ``/dev/zero`` is the device.
            size: in bytes, for a new file; an existing one must have it, or 0 must be given.
            shmem: tmpfs, memfd: pages go to swap, not to a file.
            writable: opened for reading and writing.

        Raises:
            UsageError: a negative size, or another than the file has.
            LimitError: larger than the model holds.
        """
        if size < 0:
            raise UsageError(f"a file cannot have {size:,} bytes")
        if name == ZERO_DEVICE:
            return OpenFile(self.core, File(None, name, writable))
        mapping = self.files.get(name)
        if mapping is None:
            mapping = self.files[name] = self.core.new_mapping(name, size, shmem)
        elif size and size != mapping.size:
            raise UsageError(f"{name} has {mapping.size:,} bytes, not {size:,}")
        return OpenFile(self.core, File(mapping, name, writable))

    def read_in(self, file: OpenFile) -> None:
        """Bring a whole file into the page cache."""
        file.read_in()

    # -- the question ---------------------------------------------------------------------------------------------
    @property
    def zero_pfn(self) -> int:
        """The frame of the zero page."""
        return ZERO_PFN

    def pfn(self, process: Process, addr: int) -> int | None:
        """The frame an address maps, None if no page is present there."""
        entry = self.core.tables.mv[ptep_of(process.mm, addr)]
        return entry >> PAGE_SHIFT if entry & PRESENT else None

    def walk(self, pfn: int) -> list[PteRef]:
        """Every entry that maps a page, as the design says, sorted.

        Raises:
            UntrackedPage: no reverse map tracks this page.
        """
        self._tracked(pfn)
        pids = self._pids()
        return sorted(PteRef(pids[mm_id], addr) for mm_id, addr in walk1(self.core, pfn))

    def oracle(self, pfn: int) -> list[PteRef]:
        """The same by reading every page table."""
        pids = self._pids()
        return sorted(PteRef(pids[mm_id], addr) for mm_id, addr in mappers(self.core.tables, pfn))

    def walk_many(self, pfns: Iterable[int] | I64) -> tuple[I64, I64, I64]:
        """Walk many pages: columns ``(pfn, pid, address)``, int64, in the order found."""
        mapped, mm_ids, addrs = walk_many(self.core, self._numbers(pfns))
        pids = self._pids()
        table = np.zeros(max(pids, default=0) + 1, np.int64)
        table[list(pids)] = list(pids.values())
        return mapped, table[mm_ids], addrs

    def hits(self, pfns: Iterable[int] | I64) -> Iterator[Hits]:
        """Walk many pages as a stream, for whoever consumes the answers as they come."""
        return hits(self.core, Query(self.core.frames, self._numbers(pfns)))

    def who(self, pfn: int) -> PageMappers:
        """What a page is, who maps it, and, if no reverse map tracks it, why not."""
        kind = self._kind(pfn)
        frames = self.core.frames
        if kind in UNTRACKED:
            return PageMappers(pfn, kind, UNTRACKED[kind], int(frames.mapcount[pfn]), [])
        mapping, index = frames.anchor1(pfn)
        file = self.core.mappings[(mapping >> 2) - 1].name if kind in ("file", "shmem") else None
        where = index if file is not None else None
        return PageMappers(pfn, kind, "", int(frames.mapcount[pfn]), self.walk(pfn), file, where)

    def _kind(self, pfn: int) -> str:
        frames = self.core.frames
        if not 0 <= pfn < frames.nr_pages:
            raise UsageError(f"pfn {pfn:#x} is not a frame of this machine: it has {frames.nr_pages:,}")
        flags = int(frames.flags[pfn])
        if pfn == ZERO_PFN:
            return "zero"
        if flags & KERNEL_OWNED:
            return "kernel"
        if not frames.mapcount[pfn] and not frames.extra[pfn]:
            return "free"
        if flags & ANON:
            return "anon"
        mapping = int(frames.anchor1(pfn)[0])
        if not mapping:
            return "swapcache"
        return "shmem" if self.core.mappings[(mapping >> 2) - 1].shmem else "file"

    def _tracked(self, pfn: int) -> None:
        kind = self._kind(pfn)
        if kind in UNTRACKED:
            raise UntrackedPage(kind, UNTRACKED[kind])

    def _numbers(self, pfns: int | Iterable[int] | I64) -> I64:
        # What a caller names as frames, as a column of frames that there are.
        last = self.core.frames.nr_pages - 1
        try:
            numbers = np.atleast_1d(np.asarray(_listed(pfns), np.int64))
        except OverflowError:
            raise UsageError(f"not all of these are frames of this machine: it has {last + 1:,}") from None
        outside = numbers[(numbers < 0) | (numbers > last)]
        if len(outside):
            raise UsageError(f"pfn {int(outside[0]):#x} is not a frame of this machine: it has {last + 1:,}")
        return numbers

    def _pids(self) -> dict[int, int]:
        # mm id -> the lowest pid that lives in it.
        pids: dict[int, int] = {}
        for pid, process in self.processes.items():
            pids[process.mm.id] = min(pid, pids.get(process.mm.id, pid))
        return pids

    # -- consumers ------------------------------------------------------------------------------------------------
    def reclaim(self, pfns: Iterable[int] | I64) -> int:
        """Evict pages: clear every entry through the walk, free the frame; returns how many frames were freed."""
        return self.reclaimer.reclaim(_distinct(self._numbers(pfns))[0])

    def try_to_unmap(self, pfns: int | Iterable[int] | I64) -> Bool:
        """Clear every entry that maps these pages; bool[n]: which are unmapped now."""
        distinct, where = _distinct(self._numbers(pfns))
        return try_to_unmap(self.core, distinct)[where]

    def folio_referenced(self, pfns: int | Iterable[int] | I64) -> I64:
        """Through how many entries each page was touched since the last call, int64[n]; clears the accessed bits."""
        distinct, where = _distinct(self._numbers(pfns))
        return folio_referenced(self.core, distinct)[where]

    def folio_mkclean(self, pfns: int | Iterable[int] | I64) -> int:
        """Write-protect the shared mappings of pages of files; returns how many entries were dirty or writable."""
        return folio_mkclean(self.core, _distinct(self._numbers(pfns))[0])

    # -- accounts -------------------------------------------------------------------------------------------------
    @property
    def design(self) -> ReverseMap:
        """The reverse map."""
        return self.core.rmap

    @property
    def costs(self) -> Costs:
        """What was counted, by operation."""
        return self.core.costs

    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata of the design, by structure."""
        return self.core.rmap.metadata_bytes(bits)

    def check(self) -> dict[str, int]:
        """Check all invariants and the walk of every page against the oracle; returns how much was checked.

        Raises:
            InvariantError: the first that does not hold.
        """
        return check(self.core)

    # -- pictures -------------------------------------------------------------------------------------------------
    def snapshot(self) -> Snapshot:
        """This machine's memory as a picture."""
        return snapshot_of(self)

    @classmethod
    def adopt(cls, snapshot: Snapshot, design: str | ReverseMapFactory = "anon_vma_chain", **options: Any) -> Kernel:
        """A machine in the state a picture shows; see :func:`rmap.kernel.adopt.adopt` for the options."""
        return adopt(cls, snapshot, design, **options)

    def __repr__(self) -> str:
        frames = self.core.frames
        used = frames.nr_pages - 1 - frames.free_top
        return f"Kernel({self.design.name!r}, {len(self.processes)} processes, {used:,} of {frames.nr_pages:,} frames)"


def _distinct(pfns: I64) -> tuple[I64, I64]:
    # The frames without repetitions, in their order, and where each of those given is found among them.
    _, first, where = np.unique(pfns, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return pfns[first[order]], rank[where]


def _listed(pfns: int | Iterable[int] | I64) -> Any:
    return list(pfns) if isinstance(pfns, Iterable) and not isinstance(pfns, np.ndarray) else pfns
