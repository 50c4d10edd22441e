"""A machine: its memory, its processes and its files (``kernel/fork.c``, ``kernel/exit.c``, ``kernel/pid.c``).

What processes, loaders and pictures need to know of the machine they belong to. Whoever asks questions and reclaims
pages talks to the public face above it, :class:`rmap.Kernel`.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from rmap.columns import I64
from rmap.consumers.reclaim import WalkReclaimer
from rmap.designs import design_named
from rmap.errors import LimitError, SyscallError, UsageError
from rmap.kernel.exec import load_image
from rmap.kernel.inodes import Inodes
from rmap.mm import fork as fork_ops
from rmap.mm import special
from rmap.mm.core import Core
from rmap.mm.costs import SETUP
from rmap.mm.interface import ReverseMapFactory
from rmap.mm.mm_types import AddressSpace, Mm
from rmap.mm.profile import profile_named
from rmap.snapshot import Snapshot

MAX_PID = 1 << 22


class Task:
    """A process as the machine knows it (``struct task_struct``).

    Attributes:
        pid: its number.
        parent: the process that forked it, or None.
        mm: its address space; processes may share one.
        alive: False after exit.
    """

    __slots__ = ("alive", "mm", "parent", "pid")

    def __init__(self, pid: int, mm: Mm, parent: Task | None) -> None:
        self.pid = pid
        self.mm = mm
        self.parent = parent
        self.alive = True

    def must_be_alive(self) -> None:
        """Refuse to act for a process that has exited.

        Raises:
            SyscallError: ESRCH.
        """
        if not self.alive:
            raise SyscallError(errno.ESRCH, "syscall", f"process {self.pid} has exited")


AnyTask = TypeVar("AnyTask", bound=Task)


@dataclass(frozen=True)
class Adoption:
    """How a picture was loaded.

    Attributes:
        pages, ptes: distinct frames mapped, and entries that map them.
        inferred: what was inferred, a sentence each.
        left_out: entries that were not loaded, by reason.
        unseen: pages that the kernel counts more mappings of than the picture has entries: somebody outside it maps
            them too. Here their mapcount is the number of entries that were loaded.
        copied: entries whose page became a private copy, because the design or the rules cannot hold it as it was.
    """

    pages: int
    ptes: int
    inferred: tuple[str, ...]
    left_out: dict[str, int]
    unseen: int
    copied: int


class Machine(ABC, Generic[AnyTask]):
    """The state of a modelled machine, and what begins and ends processes.

    Args:
        design, profile, nr_pages, nr_swap, nr_tables, scalar_twins: see :class:`rmap.Kernel`.

    Attributes:
        core: its memory.
        reclaimer: who makes room when frames run out.
        processes: those alive, by pid.
        files: the address_spaces that have a name, by it.
        adoption: how the picture was loaded that the machine began with, or None.

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
        self.processes: dict[int, AnyTask] = {}
        self.files: dict[str, AddressSpace] = {}
        self.adoption: Adoption | None = None
        self._next_pid = 1
        self._vdso: I64 = np.empty(0, np.int64)
        self._snapshot_pfns: I64 = np.empty(0, np.int64)

    # -- processes ------------------------------------------------------------------------------------------------
    def spawn(self, *, pid: int | None = None) -> AnyTask:
        """A process with an empty address space, as after exec; with ``pid`` if one is given, and nobody has it."""
        self._next_free_pid(pid)
        self.core.costs.enter(SETUP)
        return self._add(self.core.new_mm(None), None, pid)

    def fork(self, parent: AnyTask, *, pid: int | None = None) -> AnyTask:
        """``fork``: a child with a copy-on-write copy of its parent's address space.

        The child gets ``pid`` if one is given, and nobody has it.
        """
        parent.must_be_alive()
        self._next_free_pid(pid)
        return self._add(fork_ops.fork(self.core, parent.mm), parent, pid)

    def clone_vm(self, parent: AnyTask, *, pid: int | None = None) -> AnyTask:
        """A process that shares its parent's address space."""
        parent.must_be_alive()
        self._next_free_pid(pid)
        parent.mm.users += 1
        return self._add(parent.mm, parent, pid)

    def exec(self, process: AnyTask, snapshot: Snapshot, inodes: Inodes) -> dict[str, int]:
        """Give a process a new address space, as a picture of it right after execve shows it.

        Args:
            snapshot: of this process alone; see :mod:`rmap.kernel.exec`.
            inodes: the machine's files, as pictures name them.

        Returns:
            how many entries of the picture were left out, by reason.
        """
        process.must_be_alive()
        old = process.mm
        process.mm, left_out = load_image(self.core, snapshot, inodes)
        self._mmput(old)
        return left_out

    def exit(self, process: AnyTask) -> None:
        """End a process; the last one of an mm takes it along."""
        process.must_be_alive()
        process.alive = False
        del self.processes[process.pid]
        self._mmput(process.mm)

    def map_kernel_pages(self, process: AnyTask, nr_pages: int, kind: str) -> int:
        """Map pages that the kernel owns, and that no reverse map tracks; returns the address.

        Args:
            nr_pages: how many pages. The vDSO's are the same in every process.
            kind: ``"vdso"``, or ``"pfnmap"`` for memory of a device.
        """
        if kind not in special.KINDS or nr_pages < 1:
            raise UsageError(f"kinds of kernel pages: {', '.join(special.KINDS)}; at least one page of them")
        pfns = self._vdso[:nr_pages] if kind == "vdso" else np.empty(0, np.int64)
        if len(pfns) < nr_pages:
            pfns = np.concatenate((pfns, special.kernel_pages(self.core, nr_pages - len(pfns))))
            self._vdso = pfns if kind == "vdso" else self._vdso
        return special.map_kernel_pages(self.core, process.mm, pfns, kind)

    def reserve_pids(self, last: int) -> None:
        """Give new processes pids behind this one."""
        self._next_pid = max(self._next_pid, last + 1)

    def _mmput(self, mm: Mm) -> None:
        mm.users -= 1
        if not mm.users:
            fork_ops.exit_mmap(self.core, mm)

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

    @abstractmethod
    def _new_process(self, pid: int, mm: Mm, parent: AnyTask | None) -> AnyTask:
        # What stands for a process of this machine.
        ...

    def _add(self, mm: Mm, parent: AnyTask | None, wanted: int | None) -> AnyTask:
        pid = self._next_free_pid(wanted)
        self._next_pid += wanted is None
        process = self.processes[pid] = self._new_process(pid, mm, parent)
        return process

    # -- the picture it began with --------------------------------------------------------------------------------
    def set_snapshot_pfns(self, pfns: I64) -> None:
        """Note which PFN of the picture each frame had (int64 by frame, -1 for none)."""
        self._snapshot_pfns = pfns

    def to_snapshot(self, pfns: I64) -> I64:
        """The picture's PFNs of frames of an adopted machine, int64[n]; -1 for frames it did not have."""
        had = pfns < len(self._snapshot_pfns)
        return np.where(had, self._snapshot_pfns[np.where(had, pfns, 0)], -1) if len(self._snapshot_pfns) else pfns

    def from_snapshot(self, pfns: I64) -> I64:
        """The frames of an adopted machine that had these PFNs in the picture, int64[n]; -1 for none."""
        if not len(self._snapshot_pfns):
            return pfns
        at = np.minimum(np.searchsorted(self._snapshot_pfns, pfns), len(self._snapshot_pfns) - 1)
        return np.where(self._snapshot_pfns[at] == pfns, at, -1)
