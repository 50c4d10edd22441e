"""The state of the machine in one place, and the few services every operation needs.

Operations are functions in the modules beside this one (``fault``, ``fork``, ``mmap``, ...): they take a :class:`Core`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rmap.columns import I64, keep_temporaries
from rmap.errors import InvariantError, LimitError
from rmap.mm.costs import LOCKS_I_MMAP, Costs
from rmap.mm.frames import ANON, EXCLUSIVE, NEW_ANON, PG_DIRTY, SWAPCACHE, Frames
from rmap.mm.interface import PteBatch, Reclaimer, ReverseMap, ReverseMapFactory, Why
from rmap.mm.mm_types import DEFAULT_MAX_MAP_COUNT, AddressSpace, MappingIndex, Mm, Vma
from rmap.mm.page_tables import PageTables, Span, spans
from rmap.mm.profile import Profile
from rmap.mm.swap import SwapSlots

SMALL_PAGES = 8
"""Ranges of up to this many pages go through the scalar twins."""


class Hooks:
    """The hooks a design overrides, as bound methods; None for the others, so that no argument is made for them."""

    __slots__ = ("added", "added1", "collateral", "freed", "migrated", "moved", "must_copy", "removed", "removed1",
                 "set_anon1", "swap_out", "unmapped", "vma_nonlinear")  # fmt: skip

    def __init__(self, design: ReverseMap) -> None:
        def overridden(name: str) -> Any:
            return getattr(design, name) if getattr(type(design), name) is not getattr(ReverseMap, name) else None

        self.added: Callable[[PteBatch, Why], None] | None = overridden("added")
        self.removed: Callable[[PteBatch, Why], None] | None = overridden("removed")
        # A scalar twin that is not overridden stands for the array hook with one entry.
        self.added1 = design.added1 if self.added or overridden("added1") else None
        self.removed1 = design.removed1 if self.removed or overridden("removed1") else None
        self.set_anon1 = design.set_anon1
        self.unmapped = overridden("unmapped")
        self.moved = overridden("moved")
        self.must_copy = overridden("must_copy")
        self.freed = overridden("freed")
        self.migrated = overridden("migrated")
        self.swap_out = overridden("swap_out")
        self.collateral = overridden("collateral")
        self.vma_nonlinear = overridden("vma_nonlinear")


class Core:
    """All state of the model.

    Args:
        design: makes the reverse map.
        profile: the rules of which release.
        nr_pages: frames.
        nr_tables: page-table pages there can be.
        nr_swap: swap slots.
        scalar_twins: use the scalar twins for small ranges. Off: everything goes through arrays; state and costs
            are the same (that is tested).

    Attributes:
        frames, tables, swap, costs: the columns.
        mms: by id.
        mappings: the address_spaces, by id minus one.
        rmap: the reverse map. hooks: those of its hooks that it overrides.
        reclaimer: who makes room when frames run out, or None.
        max_map_count: VMAs an mm may have.
        new_anon: flags of a new anonymous page.
        stand_in: whose neighbours :meth:`neighbours` tells, if it is not None (rule 2.20 of 5.1).
        has_nonlinear: whether any VMA ever became nonlinear; while False, nobody looks.
    """

    def __init__(
        self,
        design: ReverseMapFactory,
        profile: Profile,
        nr_pages: int,
        nr_tables: int = 1 << 18,
        nr_swap: int = 1 << 20,
        scalar_twins: bool = True,
    ) -> None:
        keep_temporaries()
        self.frames = Frames(nr_pages)
        self.tables = PageTables(nr_tables)
        self.swap = SwapSlots(nr_swap)
        self.costs = Costs()
        self.profile = profile
        self.mms: dict[int, Mm] = {}
        self.mappings: list[AddressSpace] = []
        self.reclaimer: Reclaimer | None = None
        self.max_map_count = DEFAULT_MAX_MAP_COUNT
        self.scalar_twins = scalar_twins
        self.small_bytes = SMALL_PAGES << 12 if scalar_twins else 0
        self.has_nonlinear = False
        self.stand_in: Vma | None = None
        self.new_anon = NEW_ANON if profile.anon_exclusive else NEW_ANON & ~EXCLUSIVE
        self._next_mm = 1
        self.rmap = design(self, profile)
        self.hooks = Hooks(self.rmap)

    # -- what a design may ask ------------------------------------------------------------------------------------
    def mm_by_id(self, id: int) -> Mm:
        """An mm by its id."""
        return self.mms[id]

    def mapping_index(self, id: int) -> MappingIndex:
        """The i_mmap of an address_space by its id."""
        return self.mappings[id - 1].i_mmap

    def neighbours(self, vma: Vma) -> tuple[Vma | None, Vma | None]:
        """The VMAs before and behind, touching or not."""
        vma = self.stand_in or vma
        return vma.mm.neighbours(vma.start, vma.end)

    def batches(self, vma: Vma, start: int, end: int) -> Iterator[PteBatch]:
        """The tracked anonymous entries of a range."""
        for piece in spans(self.tables, vma.mm, start, end):
            pfns, offs = piece.tracked()
            for part, part_offs, anon in self.by_kind(vma, pfns, offs):
                if anon and len(part):
                    yield PteBatch(vma, piece, part, part_offs, True)

    # -- services for operations ----------------------------------------------------------------------------------
    def new_mm(self, parent: Mm | None) -> Mm:
        """An mm without VMAs, known to the design."""
        mm = Mm(self._next_mm, parent)
        self._next_mm += 1
        self.mms[mm.id] = mm
        self.rmap.mm_init(mm, parent)
        return mm

    def new_mapping(self, name: str, size: int, shmem: bool) -> AddressSpace:
        """An address_space without pages."""
        mapping = AddressSpace(len(self.mappings) + 1, name, size, shmem, self.rmap.i_mmap())
        self.mappings.append(mapping)
        return mapping

    def prepare(self, vma: Vma) -> None:
        """``anon_vma_prepare``: the first page is about to become anonymous here (rule 2.2)."""
        self.rmap.anon_vma_prepare(vma)
        vma.faulted = True

    def link_file(self, vma: Vma, sibling: Vma | None = None) -> None:
        """Enter a VMA in its file's i_mmap (rule 1.12); a forked one right behind its parent's (rule 1.11)."""
        mapping = vma.mapping
        if mapping is not None:
            self.costs.current[LOCKS_I_MMAP] += 1
            if sibling is None:
                mapping.i_mmap.insert(vma)
            else:
                mapping.i_mmap.insert_after(vma, sibling)

    def unlink_file(self, vma: Vma) -> None:
        """Take a VMA out of its file's i_mmap."""
        if vma.mapping is not None:
            self.costs.current[LOCKS_I_MMAP] += 1
            vma.mapping.i_mmap.remove(vma)

    def by_kind(self, vma: Vma, pfns: I64, offs: I64 | None) -> list[tuple[I64, I64 | None, bool]]:
        """Cut the pages of a VMA into anonymous ones and others: ``(pfns, offs, anon)``, none of them empty."""
        if not len(pfns):
            return []
        if vma.mapping is None:
            return [(pfns, offs, True)]
        anon = (self.frames.flags[pfns] & ANON) != 0
        if not anon.any():
            return [(pfns, offs, False)]
        if anon.all():
            return [(pfns, offs, True)]
        if offs is None:
            offs = np.arange(len(pfns))
        return [(pfns[anon], offs[anon], True), (pfns[~anon], offs[~anon], False)]

    def put_pages(self, pfns: I64) -> None:
        """Lower the mapcounts of distinct pages by one each; free those nobody holds any more."""
        dead = self.frames.drop_mapping(pfns)
        if len(dead):
            self.free_pages(dead)
        if self.swap.used:
            self._drop_unused_swapcache(pfns)

    def put_page1(self, pfn: int) -> None:
        """The scalar twin of :meth:`put_pages`."""
        frames = self.frames
        left = frames.mv_mapcount[pfn] - 1
        frames.mv_mapcount[pfn] = left
        if left:
            return
        if frames.mv_extra[pfn] or frames.has_large or self.hooks.freed:
            frames.mv_mapcount[pfn] = 1
            self.put_pages(np.array([pfn], np.int64))
        else:
            frames.free1(pfn)

    def free_pages(self, pfns: I64) -> None:
        """Free frames whose counts are zero."""
        if self.hooks.freed:
            self.hooks.freed(pfns)
        frames = self.frames
        if frames.has_large:
            for head in pfns[frames.order[pfns] > 0].tolist():
                frames.dissolve_folio(head)
        frames.free(pfns)

    def _drop_unused_swapcache(self, pfns: I64) -> None:
        # free_pages_and_swap_cache: with its last mapping, a page leaves the swap cache if no entry names its slot.
        frames = self.frames
        cached = pfns[(frames.flags[pfns] & SWAPCACHE) != 0]
        for pfn in cached[frames.mapcount[cached] == 0].tolist():
            if not self.swap.count[frames.private[pfn]]:
                self.drop_swapcache(pfn)

    def drop_swapcache(self, pfn: int) -> None:
        """Take a page out of the swap cache (``delete_from_swap_cache``); free it if that was the last reference."""
        frames, swap = self.frames, self.swap
        slot = int(frames.private[pfn])
        swap.cached[slot] = 0
        if not swap.count[slot]:
            swap.release(slot)
        frames.private[pfn] = 0
        # What was in the slot is nowhere else now (folio_free_swap marks it dirty).
        frames.flags[pfn] = (frames.flags[pfn] & ~SWAPCACHE) | PG_DIRTY
        frames.extra[pfn] -= 1
        if not frames.extra[pfn] and not frames.mapcount[pfn]:
            self.free_pages(np.array([pfn], np.int64))

    def swap_put(self, slots: list[int]) -> None:
        """Entries that named swap slots are gone (``free_swap_and_cache``)."""
        swap = self.swap
        for slot in slots:
            left = int(swap.count[slot]) - 1
            if left < 0:
                raise InvariantError("swap", f"slot {slot:#x} is named by more entries than its count")
            swap.count[slot] = left
            if left:
                continue
            pfn = int(swap.cached[slot])
            if not pfn:
                swap.release(slot)
            elif not self.frames.mapcount[pfn]:
                self.drop_swapcache(pfn)

    def reserve(self, nr_pages: int) -> None:
        """Make sure that so many frames are free, evicting others if there is somebody to do it.

        Called before an operation touches anything, so that a refusal leaves the state as it was.

        Raises:
            LimitError: there is not enough memory in this machine.
        """
        frames = self.frames
        if frames.free_top >= nr_pages:
            return
        free = self.reclaimer.make_room(nr_pages) if self.reclaimer is not None else frames.free_top
        if free < nr_pages:
            raise LimitError(
                f"out of memory: {nr_pages:,} frames wanted, {free:,} of {frames.nr_pages:,} are free"
                f" and {self.swap.free:,} swap slots"
            )

    def spans(self, vma: Vma, start: int, end: int) -> list[Span]:
        """The populated parts of a range of a VMA."""
        return spans(self.tables, vma.mm, start, end)
