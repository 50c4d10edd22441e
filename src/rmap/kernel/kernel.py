"""The public kernel: a machine with frames, processes and one reverse-map design."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rmap.columns import I64, Bool
from rmap.consumers.mkclean import folio_mkclean
from rmap.consumers.reclaim import WalkReclaimer, try_to_unmap
from rmap.consumers.referenced import folio_referenced
from rmap.designs import design_named
from rmap.errors import LimitError, UntrackedPage, UsageError
from rmap.kernel.process import OpenFile, Process, PteRef
from rmap.mm import fork as fork_ops
from rmap.mm import special
from rmap.mm.core import Core
from rmap.mm.costs import SETUP, Costs
from rmap.mm.frames import ANON, KERNEL_OWNED, ZERO_PFN
from rmap.mm.interface import Query, ReverseMap, ReverseMapFactory
from rmap.mm.invariants import check
from rmap.mm.mm_types import AddressSpace, File, Mm
from rmap.mm.oracle import mappers
from rmap.mm.page_cache import add_to_page_cache, missing
from rmap.mm.page_tables import ptep_of
from rmap.mm.profile import profile_named
from rmap.mm.pte import PRESENT
from rmap.mm.walk import Hits, hits, walk1, walk_many
from rmap.snapshot.kinds import KINDS
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.kernel.adopt import Adoption
    from rmap.kernel.inodes import Inodes
    from rmap.snapshot import Snapshot

MAX_PID = 1 << 22

WHY_UNTRACKED = {
    **{kind.name: kind.why_untracked for kind in KINDS if kind.why_untracked},
    "free": "the frame is free: nothing maps it",
}
"""What no reverse map of the model leads back from, and why."""


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


class Kernel:
    """A modelled machine.

    Args:
        design: the reverse map: a name of ``DESIGNS``, or a factory of your own ``(core, profile) -> ReverseMap``.
        profile: the rules of which release: ``"6.18"`` or ``"7.0"``.
        nr_pages: frames of memory, the zero page included.
        nr_swap: swap slots in pages; 0 for no swap.
        nr_tables: page-table pages there can be; memory is used only for those there are.
        scalar_twins: use the faster code for ranges of a few pages. State and costs are the same without.

    Raises:
        UsageError: no such design or profile.
        LimitError: an impossible size.
    """

    def __init__(
        self,
        design: str | ReverseMapFactory = "anon_vma_chain",
        profile: str = "6.18",
        nr_pages: int = 1 << 20,
        *,
        nr_swap: int = 1 << 20,
        nr_tables: int = 1 << 18,
        scalar_twins: bool = True,
    ) -> None:
        try:
            self.core = Core(design_named(design), profile_named(profile), nr_pages, nr_tables, nr_swap, scalar_twins)
        except MemoryError:
            sizes = f"{nr_pages:,} frames, {nr_tables:,} page tables and {nr_swap:,} swap slots"
            raise LimitError(f"this host has no room for {sizes}") from None
        self.reclaimer = self.core.reclaimer = WalkReclaimer(self.core)
        self.processes: dict[int, Process] = {}
        self.files: dict[str, AddressSpace] = {}
        self.adoption: Adoption | None = None
        self._next_pid = 1
        self._vdso: I64 = np.empty(0, np.int64)
        self._picture_pfns: I64 = np.empty(0, np.int64)

    # -- making things --------------------------------------------------------------------------------------------
    def spawn(self, *, pid: int | None = None) -> Process:
        """A process with an empty address space, as after exec; with ``pid`` if one is given, and nobody has it."""
        self._next_free_pid(pid)
        self.core.costs.enter(SETUP)
        return self._add(self.core.new_mm(None), None, pid)

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
        if name == "/dev/zero":
            return OpenFile(self, File(None, name, writable))
        mapping = self.files.get(name)
        if mapping is None:
            mapping = self.files[name] = self.core.new_mapping(name, size, shmem)
        elif size and size != mapping.size:
            raise UsageError(f"{name} has {mapping.size:,} bytes, not {size:,}")
        return OpenFile(self, File(mapping, name, writable))

    def read_in(self, file: OpenFile) -> None:
        """Bring a whole file into the page cache."""
        mapping = file.file.mapping
        if mapping is not None and mapping.nr_pages:
            absent = missing(mapping, 0, mapping.nr_pages - 1)
            self.core.reserve(len(absent))
            add_to_page_cache(self.core, mapping, absent)

    def fork(self, parent: Process, *, pid: int | None = None) -> Process:
        """``fork``: see :meth:`Process.fork`. The child gets ``pid`` if one is given, and nobody has it."""
        parent.must_be_alive()
        self._next_free_pid(pid)
        return self._add(fork_ops.fork(self.core, parent.mm), parent, pid)

    def clone_vm(self, parent: Process, *, pid: int | None = None) -> Process:
        """A process that shares its parent's address space."""
        parent.must_be_alive()
        self._next_free_pid(pid)
        parent.mm.users += 1
        return self._add(parent.mm, parent, pid)

    def exec(self, process: Process, picture: Snapshot, inodes: Inodes) -> dict[str, int]:
        """Give a process a new address space, as a picture of it right after execve shows it.

        Args:
            picture: of this process alone; see :mod:`rmap.kernel.exec`.
            inodes: the machine's files, as pictures name them.

        Returns:
            how many entries of the picture were left out, by reason.
        """
        from rmap.kernel.exec import load_image

        process.must_be_alive()
        old = process.mm
        process.mm, left_out = load_image(self.core, picture, inodes)
        self._mmput(old)
        return left_out

    def exit(self, process: Process) -> None:
        """End a process; the last one of an mm takes it along."""
        process.must_be_alive()
        process.alive = False
        del self.processes[process.pid]
        self._mmput(process.mm)

    def _mmput(self, mm: Mm) -> None:
        mm.users -= 1
        if not mm.users:
            fork_ops.exit_mmap(self.core, mm)

    def map_kernel_pages(self, process: Process, nr_pages: int, kind: str) -> int:
        """See :meth:`Process.map_kernel_pages`."""
        if kind not in special.KINDS or nr_pages < 1:
            raise UsageError(f"kinds of kernel pages: {', '.join(special.KINDS)}; at least one page of them")
        pfns = self._vdso[:nr_pages] if kind == "vdso" else np.empty(0, np.int64)
        if len(pfns) < nr_pages:
            pfns = np.concatenate((pfns, special.kernel_pages(self.core, nr_pages - len(pfns))))
            self._vdso = pfns if kind == "vdso" else self._vdso
        return special.map_kernel_pages(self.core, process.mm, pfns, kind)

    def _next_free_pid(self, wanted: int | None = None) -> int:
        # Asked before a process is made of anything, so that a refusal leaves nothing behind. Pids start again from
        # the lowest that is free, as the kernel's do.
        if wanted is not None:
            if wanted in self.processes or not 1 <= wanted <= MAX_PID:
                raise UsageError(f"pid {wanted} is not free, or not a pid: they go from 1 to {MAX_PID:,}")
            return wanted
        if len(self.processes) >= MAX_PID:
            raise LimitError(f"a machine of the model has at most {MAX_PID:,} processes")
        while self._next_pid in self.processes or self._next_pid > MAX_PID:
            self._next_pid = self._next_pid + 1 if self._next_pid < MAX_PID else 1
        return self._next_pid

    def _add(self, mm: Mm, parent: Process | None, wanted: int | None = None) -> Process:
        pid = self._next_free_pid(wanted)
        self._next_pid += wanted is None
        process = self.processes[pid] = Process(self, pid, mm, parent)
        return process

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
        found, mm_ids, addrs = walk_many(self.core, self._numbers(pfns))
        pids = self._pids()
        table = np.zeros(max(pids, default=0) + 1, np.int64)
        table[list(pids)] = list(pids.values())
        return found, table[mm_ids], addrs

    def hits(self, pfns: Iterable[int] | I64) -> Iterator[Hits]:
        """Walk many pages as a stream, for whoever consumes the answers as they come."""
        return hits(self.core, Query(self.core.frames, self._numbers(pfns)))

    def who(self, pfn: int) -> PageMappers:
        """What a page is, who maps it, and, if no reverse map tracks it, why not."""
        kind = self._kind(pfn)
        frames = self.core.frames
        if kind in WHY_UNTRACKED:
            return PageMappers(pfn, kind, WHY_UNTRACKED[kind], int(frames.mapcount[pfn]), [])
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
        if kind in WHY_UNTRACKED:
            raise UntrackedPage(kind, WHY_UNTRACKED[kind])

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
        from rmap.kernel.snapshot import take_picture

        return take_picture(self)

    @classmethod
    def adopt(cls, snapshot: Snapshot, design: str | ReverseMapFactory = "anon_vma_chain", **options: Any) -> Kernel:
        """A machine in the state a picture shows; see :mod:`rmap.kernel.adopt`."""
        from rmap.kernel.adopt import adopt

        return adopt(snapshot, design, **options)

    def set_picture_pfns(self, pfns: I64) -> None:
        """Note which PFN of the picture each frame had (int64 by frame, -1 for none)."""
        self._picture_pfns = pfns

    def to_picture(self, pfns: I64) -> I64:
        """The picture's PFNs of frames of an adopted machine, int64[n]; -1 for frames it did not have."""
        known = pfns < len(self._picture_pfns)
        return np.where(known, self._picture_pfns[np.where(known, pfns, 0)], -1) if len(self._picture_pfns) else pfns

    def from_picture(self, pfns: I64) -> I64:
        """The frames of an adopted machine that had these PFNs in the picture, int64[n]; -1 for none."""
        if not len(self._picture_pfns):
            return pfns
        at = np.minimum(np.searchsorted(self._picture_pfns, pfns), len(self._picture_pfns) - 1)
        return np.where(self._picture_pfns[at] == pfns, at, -1)

    def reserve_pids(self, last: int) -> None:
        """Give new processes pids behind this one."""
        self._next_pid = max(self._next_pid, last + 1)

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
