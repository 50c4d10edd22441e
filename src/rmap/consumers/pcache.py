"""LegoOS's page cache of a processor: sets and ways, and what goes when a set is full (2018).

Memory is elsewhere; what a processor works on are *lines* of a page each, in a set-associative cache. An address says
its set; when the set is full, a line of it is evicted through the reverse map: unmapped from everybody, flushed if it
is dirty, perhaps kept in a small *victim cache* for a while, from which it comes back without a fetch.

Eviction policies: ``fifo`` (the line that came first), ``lru`` (not used for longest, by the accessed bits that a sweep
gathers, as LegoOS's thread does), ``random`` (by a seed). A line that is being flushed keeps its records until that is
done, so that its owners are found (``reserve``): here the flush is immediate.

Source: WukLab/LegoOS, 1f4da865, ``managers/processor/pcache``. Works under any design; under ``lego_pcache`` it is what
LegoOS was. Left out: locks, the piggybacked flush, write-protect in the place of unmapping."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import numpy as np

from rmap.consumers.reclaim import WalkReclaimer
from rmap.consumers.referenced import folio_referenced
from rmap.errors import UsageError
from rmap.mm.core import Core
from rmap.mm.fault import touch
from rmap.mm.frames import PG_DIRTY
from rmap.mm.mm_types import Mm
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import DIRTY, PRESENT, SPECIAL
from rmap.mm.walk import walk1
from rmap.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

Policy = Literal["fifo", "lru", "random"]


class Pcache:
    """A cache in front of the memory of a machine.

    Args:
        core: the machine.
        sets: a power of two.
        ways: lines of a set (LegoOS: 8).
        policy: which line goes.
        victims: lines that the victim cache keeps (LegoOS: 8).
        seed: of ``random``.

    Attributes:
        lines: by set: the frames, the oldest first, each with the (mm, address) it was brought in for.
        counts: ``hits``, ``fills``, ``evictions``, ``flushes``, ``victim_hits``.

    Invariants: no set has more lines than ways; every line is mapped.
    """

    def __init__(
        self, core: Core, *, sets: int = 64, ways: int = 8, policy: Policy = "lru", victims: int = 8, seed: int = 1
    ) -> None:
        if sets < 1 or sets & (sets - 1) or ways < 1 or victims < 0 or policy not in ("fifo", "lru", "random"):
            raise UsageError(f"no such cache: {sets} sets, {ways} ways, {victims} victims, {policy}")
        self._core = core
        self._reclaimer = WalkReclaimer(core)
        self._sets, self._ways, self._policy = sets, ways, policy
        self._state = seed
        self.lines: list[OrderedDict[int, tuple[Mm, int]]] = [OrderedDict() for _ in range(sets)]
        self._set_of_line: dict[int, int] = {}
        self._victims: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._nr_victims = victims
        self.counts = {"hits": 0, "fills": 0, "evictions": 0, "flushes": 0, "victim_hits": 0}

    def access(self, mm: Mm, addr: int, length: int = 1, *, write: bool = False) -> None:
        """What a program's accesses do: hits, or fills, which may evict. Addresses and lengths in bytes."""
        for page in range(addr & PAGE_MASK, addr + length, PAGE_SIZE):
            self._access1(mm, page, write)

    def _access1(self, mm: Mm, addr: int, write: bool) -> None:
        before = self._line_of(mm, addr)
        if before:
            self.counts["hits"] += 1
        else:
            self._make_room(self._set_of(addr))
        touch(self._core, mm, addr, 1, write)
        line = self._line_of(mm, addr)
        if line == before or not line:
            return
        if not before:
            self.counts["fills"] += 1
            if (mm.id, addr) in self._victims:
                del self._victims[mm.id, addr]
                self.counts["victim_hits"] += 1
        self._note(line, mm, addr)

    def _note(self, line: int, mm: Mm, addr: int) -> None:
        # A line is in the set of the address that it was brought in for; copies on write bring in another.
        number = self._set_of(addr)
        if line not in self._set_of_line:
            self._make_room(number)
            self.lines[number][line] = (mm, addr)
            self._set_of_line[line] = number

    def _forget_unmapped(self) -> None:
        # Of every set: a frame that was freed may come back as a line of another.
        mapcount = self._core.frames.mv_mapcount
        for line in [line for line in self._set_of_line if not mapcount[line]]:
            self._drop(line)

    def _drop(self, line: int) -> None:
        del self.lines[self._set_of_line.pop(line)][line]

    def _make_room(self, number: int) -> None:
        self._forget_unmapped()
        lines = self.lines[number]
        while len(lines) >= self._ways:
            self._evict(self._chosen(lines))

    def _chosen(self, lines: OrderedDict[int, tuple[Mm, int]]) -> int:
        if self._policy == "random":
            self._state = (self._state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
            return list(lines)[(self._state >> 33) % len(lines)]
        return next(iter(lines))

    def _evict(self, line: int) -> None:
        core = self._core
        dirty = bool(core.frames.mv_flags[line] & PG_DIRTY)
        for owner, addr in walk1(core, line):
            ptep = ptep_of(core.mms[owner], addr)
            dirty = dirty or bool(core.tables.mv[ptep] & DIRTY)
            self._victims[owner, addr] = None
        self._reclaimer.reclaim(np.array([line], np.int64))
        self.counts["evictions"] += 1
        self.counts["flushes"] += dirty
        self._drop(line)
        while len(self._victims) > self._nr_victims:
            self._victims.popitem(last=False)

    def sweep(self) -> int:
        """Gather accessed bits and put the used lines behind the unused, as LegoOS's thread does each second (``lru``).

        Returns:
            how many lines had been used.
        """
        used = 0
        for lines in self.lines:
            for line in list(lines):
                if folio_referenced(self._core, np.array([line], np.int64))[0]:
                    used += 1
                    lines.move_to_end(line)
        return used

    def _set_of(self, addr: int) -> int:
        return (addr >> PAGE_SHIFT) & (self._sets - 1)

    def _line_of(self, mm: Mm, addr: int) -> int:
        ptep = ptep_of(mm, addr)
        entry = self._core.tables.mv[ptep] if ptep else 0
        return entry >> PAGE_SHIFT if entry & (PRESENT | SPECIAL) == PRESENT else 0

