"""An address space of processes: ``struct mm_struct``, with its VMAs in address order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

from rmap.mm.vma import Vma

TASK_SIZE = 0x7FFFFFFFF000
MMAP_MIN_ADDR = 0x10000
STACK_TOP = 0x7FFFFFFFF000
MMAP_BASE = 0x7FFFF7FFF000
"""Rule 3.13: top-down below this, with an 8 MiB stack limit and no randomisation."""
START_BRK = 0x555555559000
DEFAULT_MAX_MAP_COUNT = 65530
STACK_GUARD_GAP = 256 << 12


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
