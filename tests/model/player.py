"""Calls as plain data, and the machine they are played on: a sequence can be made at random, written down, played again
under another design, and cut down to what matters.

A call is a tuple: a verb, then its arguments. Processes are named by their order of birth, modulo how many there are;
places by pages of a window that lies across a border between two page tables. Frames are chosen by who maps them,
never by number, so that a sequence means the same on machines that hand out frames in another order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rmap import Kernel, LimitError, Process, SyscallError
from rmap.mm.frames import ANON
from tests.support import PAGE

Call = tuple[Any, ...]

BORDER = 0x100000000000
"""Where the window lies: it begins twelve pages below this border between two page tables."""


class Player:
    """A machine on which calls are played.

    Args:
        design, profile, scalar_twins: as of :class:`rmap.Kernel`.
        nr_pages, nr_swap: frames and swap slots.
        max_processes: a call that would make one more does nothing.
        max_map_count: areas a process may have.
        scale: what a page of a call means in pages: 64 makes long ranges of short ones.

    Attributes:
        unit: that, in bytes.
        base: where the window begins.
    """

    def __init__(
        self,
        design: str,
        *,
        profile: str = "6.18",
        scalar_twins: bool = True,
        nr_pages: int = 512,
        nr_swap: int = 512,
        max_processes: int = 3,
        max_map_count: int = 65530,
        scale: int = 1,
    ) -> None:
        self.unit = unit = scale * PAGE
        self.base = BORDER - 12 * unit
        self.kernel = Kernel(design, profile, nr_pages, nr_swap=nr_swap, nr_tables=256, scalar_twins=scalar_twins)
        self.kernel.core.max_map_count = max_map_count
        self.max_processes = max_processes
        self.alive: list[Process] = [self.kernel.spawn()]
        self.files = {
            "lib": self.kernel.open("lib", 20 * unit),
            "lib again": self.kernel.open("lib"),
            "memfd": self.kernel.open("memfd", 20 * unit, shmem=True),
            "read-only": self.kernel.open("read-only", 8 * unit, writable=False),
            "/dev/zero": self.kernel.open("/dev/zero"),
        }

    def play(self, call: Call) -> str:
        """Make one call.

        Returns:
            ``""``, or what it was refused with.
        """
        verb, *arguments = call
        play: Callable[..., None] = getattr(self, f"_{verb}")
        try:
            play(*arguments)
        except SyscallError as refusal:
            return refusal.strerror or "refused"
        except LimitError as limit:
            return str(limit)
        return ""

    def play_all(self, calls: Sequence[Call]) -> None:
        """Make these calls."""
        for call in calls:
            self.play(call)

    def at(self, page: int) -> int:
        """The address of a page of the window."""
        return self.base + page * self.unit

    def process(self, number: int) -> Process:
        """A living process by number."""
        return self.alive[number % len(self.alive)]

    def frames_of(self, number: int, first: int, count: int) -> np.ndarray:
        """The tracked frames that a process maps in a range, each once, in address order."""
        process = self.process(number)
        found = (self.kernel.pfn(process, addr) for addr in range(self.at(first), self.at(first + count), PAGE))
        return np.array(list(dict.fromkeys(pfn for pfn in found if pfn)), np.int64)

    # -- processes ------------------------------------------------------------------------------------------------
    def _born(self, make: Callable[[], Process]) -> None:
        if len(self.alive) < self.max_processes:
            self.alive.append(make())

    def _spawn(self) -> None:
        self._born(self.kernel.spawn)

    def _fork(self, who: int) -> None:
        self._born(self.process(who).fork)

    def _clone_vm(self, who: int) -> None:
        self._born(self.process(who).clone_vm)

    def _exit(self, who: int) -> None:
        if len(self.alive) > 1:
            process = self.process(who)
            self.alive.remove(process)
            process.exit()

    # -- address spaces -------------------------------------------------------------------------------------------
    def _mmap(
        self, who: int, first: int, count: int, prot: str, flags: str, file: str | None, offset: int, how: str
    ) -> None:
        opened = self.files[file] if file is not None else None
        options = dict.fromkeys(how.split(), True)
        self.process(who).mmap(count * self.unit, prot, flags, opened, offset * self.unit, self.at(first), **options)

    def _special(self, who: int, first: int, count: int, kind: str) -> None:
        # Pages of the kernel, moved to where other calls meet them. A device has few, for they never come back.
        process = self.process(who)
        length = min(count, 2) * PAGE
        process.mremap(process.map_kernel_pages(length // PAGE, kind), length, length, self.at(first))

    def _munmap(self, who: int, first: int, count: int) -> None:
        self.process(who).munmap(self.at(first), count * self.unit)

    def _mprotect(self, who: int, first: int, count: int, prot: str) -> None:
        self.process(who).mprotect(self.at(first), count * self.unit, prot)

    def _mremap(self, who: int, first: int, old: int, new: int, target: int | None, dontunmap: bool) -> None:
        where = self.at(target) if target is not None else None
        self.process(who).mremap(self.at(first), old * self.unit, new * self.unit, where, dontunmap=dontunmap)

    def _madvise(self, who: int, first: int, count: int, advice: str) -> None:
        self.process(who).madvise(self.at(first), count * self.unit, advice)

    def _mlock(self, who: int, first: int, count: int, onfault: bool) -> None:
        self.process(who).mlock(self.at(first), count * self.unit, onfault=onfault)

    def _munlock(self, who: int, first: int, count: int) -> None:
        self.process(who).munlock(self.at(first), count * self.unit)

    def _brk(self, who: int, pages: int) -> None:
        process = self.process(who)
        process.brk(process.mm.start_brk + pages * self.unit)

    def _touch_heap(self, who: int) -> None:
        process = self.process(who)
        if process.mm.brk > process.mm.start_brk:
            process.write(process.mm.start_brk, process.mm.brk - process.mm.start_brk)

    # -- touching -------------------------------------------------------------------------------------------------
    def _write(self, who: int, first: int, count: int) -> None:
        self.process(who).write(self.at(first), count * self.unit)

    def _read(self, who: int, first: int, count: int) -> None:
        self.process(who).read(self.at(first), count * self.unit)

    def _write_mapped(self, who: int, first: int, count: int) -> None:
        # Whatever of the range can be written, page by page: most random ranges have a hole.
        for page in range(first, first + count):
            with contextlib.suppress(SyscallError):
                self.process(who).write(self.at(page), self.unit)

    def _write_areas(self, who: int, first: int, count: int) -> None:
        # The same, area by area.
        process = self.process(who)
        for area in process.maps():
            low, high = max(area.start, self.at(first)), min(area.end, self.at(first + count))
            if low < high:
                with contextlib.suppress(SyscallError):
                    process.write(low, high - low)

    # -- files ----------------------------------------------------------------------------------------------------
    def _truncate(self, file: str, pages: int) -> None:
        self.files[file].truncate(pages * self.unit)

    def _punch(self, file: str, first: int, count: int) -> None:
        self.files[file].punch_hole(first * self.unit, count * self.unit)

    def _read_in(self, file: str) -> None:
        self.files[file].read_in()

    # -- memory pressure ------------------------------------------------------------------------------------------
    def _reclaim(self, who: int, first: int, count: int) -> None:
        self.kernel.reclaim(self.frames_of(who, first, count))

    def _unmap(self, who: int, first: int, count: int) -> None:
        self.kernel.try_to_unmap(self.frames_of(who, first, count))

    def _referenced(self, who: int, first: int, count: int) -> None:
        self.kernel.folio_referenced(self.frames_of(who, first, count))

    def _mkclean(self, who: int, first: int, count: int) -> None:
        pfns = self.frames_of(who, first, count)
        self.kernel.folio_mkclean(pfns[(self.kernel.core.frames.flags[pfns] & ANON) == 0])


def shortened(calls: Sequence[Call], fails: Callable[[Sequence[Call]], bool]) -> list[Call]:
    """The calls without those that the failure does not need (each tried alone, and in growing runs)."""
    kept = list(calls)
    size = max(1, len(kept) // 2)
    while True:
        start = 0
        while start < len(kept):
            shorter = kept[:start] + kept[start + size :]
            if fails(shorter):
                kept = shorter
            else:
                start += size
        if size == 1:
            return kept
        size = max(1, size // 2)
