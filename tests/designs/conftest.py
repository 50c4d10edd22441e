"""A small machine for tests of one design: real frames, page tables, fork and exit; VMAs and faults by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rmap.columns import I64
from rmap.designs import design_named
from rmap.mm.core import Core
from rmap.mm.costs import WALK
from rmap.mm.fork import exit_mmap, fork
from rmap.mm.frames import NEW_ANON, ONE
from rmap.mm.interface import How, PteBatch, Query
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.oracle import mappers, transpose
from rmap.mm.page_tables import ensure, span
from rmap.mm.profile import profile_named
from rmap.mm.pte import PRESENT, RW
from rmap.mm.walk import walk1, walk_many
from rmap.mm.zap import free_pgtables, unmap_page_range
from rmap.uapi.vm_flags import VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_WRITE
from tests.support import PAGE

BASE = 0x10000000
RW_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE


class World:
    """A machine under one design.

    Attributes:
        core: the model's core.
    """

    def __init__(self, design: str, profile: str = "6.18", nr_pages: int = 4096) -> None:
        self.core = Core(design_named(design), profile_named(profile), nr_pages, nr_tables=1 << 15, nr_swap=64)

    def spawn(self) -> Mm:
        return self.core.new_mm(None)

    def fork(self, mm: Mm) -> Mm:
        return fork(self.core, mm)

    def exit(self, mm: Mm) -> None:
        exit_mmap(self.core, mm)

    def map(self, mm: Mm, page: int, pages: int, flags: int = RW_FLAGS, **more: object) -> Vma:
        """A private mapping of ``pages`` pages, ``page`` pages above a base, with the page offset of its address."""
        start = BASE + page * PAGE
        more.setdefault("pgoff", start // PAGE)
        vma = Vma(mm, start, start + pages * PAGE, flags, **more)  # type: ignore[arg-type]
        mm.insert(vma)
        self.core.link_file(vma)
        return vma

    def touch(self, vma: Vma, first: int = 0, pages: int | None = None, how: How = "new") -> list[int]:
        """Give pages of a VMA new exclusive frames; returns these."""
        core, frames = self.core, self.core.frames
        if not vma.faulted:
            core.prepare(vma)
        addr = vma.start + first * PAGE
        n = vma.pages - first if pages is None else pages
        ensure(core.tables, vma.mm, addr, addr + n * PAGE)
        piece = span(core.tables, vma.mm, addr, addr + n * PAGE)
        pfns = frames.alloc(n)
        frames.flags[pfns] = NEW_ANON
        frames.mapcount[pfns] = ONE
        batch = PteBatch(vma, piece, pfns, None, True)
        core.rmap.set_anon(batch, how)
        piece.entries[:] = pfns << 12 | PRESENT | RW
        piece.commit()
        if core.hooks.added:
            core.hooks.added(batch, "fault")
        return pfns.tolist()

    def map_frames(self, vma: Vma, pfns: I64) -> None:
        """Map frames of a file read-only from the start of a VMA on."""
        core = self.core
        ensure(core.tables, vma.mm, vma.start, vma.end)
        piece = span(core.tables, vma.mm, vma.start, vma.end)
        piece.entries[:] = pfns << 12 | PRESENT
        piece.commit()
        core.frames.mapcount[pfns] += ONE
        if core.hooks.added:
            core.hooks.added(PteBatch(vma, piece, pfns, None, False), "fault")

    def split(self, vma: Vma, page: int) -> Vma:
        """Split a VMA behind its first ``page`` pages; returns the upper half (rule 2.11)."""
        at = vma.start + page * PAGE
        upper = Vma(vma.mm, at, vma.end, vma.flags, vma.pgoff + page, vma.file, vma.mapping)
        if vma.faulted:
            self.core.rmap.vma_clone(upper, vma, "split")
            upper.faulted = True
        self.core.rmap.pre_update(vma)
        self.core.unlink_file(vma)
        vma.end = at
        self.core.link_file(vma)
        self.core.rmap.post_update(vma)
        vma.mm.insert(upper)
        self.core.link_file(upper)
        return upper

    def unmap(self, vma: Vma) -> None:
        """Unmap a whole VMA."""
        unmap_page_range(self.core, vma, vma.start, vma.end, "unmap")
        if vma.faulted:
            self.core.rmap.vma_unlink(vma, None)
        self.core.unlink_file(vma)
        vma.mm.remove(vma)
        free_pgtables(self.core, vma.mm, vma.start, vma.end)

    def check(self) -> None:
        """Every walk against the page tables; the design's own invariants; batch against single visits."""
        core = self.core
        core.rmap.validate()
        pages = np.flatnonzero(core.frames.mapcount)
        for stop in (True, False):
            found = walk_many(core, pages, stop)
            order = np.lexsort((found[2], found[1], found[0]))
            for column, truth in zip(found, transpose(core.tables)):
                assert np.array_equal(column[order], truth)
        counters = core.costs.enter(WALK)
        counters[:] = [0] * len(counters)
        walk_many(core, pages)
        batch = list(counters)
        counters[:] = [0] * len(counters)
        for pfn in pages.tolist():
            assert sorted(walk1(core, pfn)) == mappers(core.tables, pfn)
        assert counters == batch

    def query(self, pfns: list[int], **options: object) -> Query:
        return Query(self.core.frames, np.array(pfns, np.int64), **options)  # type: ignore[arg-type]


@pytest.fixture(params=["pte_chain", "anon_vma_chain"])
def world(request: pytest.FixtureRequest) -> World:
    """A machine, once per design."""
    return World(request.param)


@pytest.fixture
def make_world() -> Callable[..., World]:
    """Make a machine: ``make_world(design, profile)``."""
    return World
