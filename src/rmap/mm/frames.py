"""Page frames: what ``struct page`` and ``struct folio`` say, one column per field.

Frame 0 is the zero page. It is never handed out, and no count of it is kept (rule 1.4). A frame's reference
count is ``mapcount + extra``. ``mapping`` and ``index`` mean something only while the page is mapped, and only
on the head of a folio: :meth:`Frames.anchor` is the way to read them (rules 1.1 to 1.3).
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I8, I32, I64, scalar_view
from rmap.errors import InvariantError, LimitError

# Flags of a frame.
ANON = 0x01
EXCLUSIVE = 0x02  # PG_anon_exclusive (rule 1.7)
PG_DIRTY = 0x04
SWAPBACKED = 0x08
SWAPCACHE = 0x10
PG_MLOCKED = 0x20
PG_REFERENCED = 0x40
KERNEL_OWNED = 0x80  # mapped into users, never tracked (rule 4.17)
LARGE = 0x100  # a page of a folio of order 1 or more
WAS_LARGE = 0x200  # a page of a folio that was split: it may be exclusive and yet hang on an ancestor (rule 4.7)
MLOCK_KEPT = 0x800  # PG_mlocked for good: its area is not locked any more, and nobody has unlocked the page (rule 2.14)
MLOCK_MISSED = 0x1000  # swapped into a locked area, and not PG_mlocked for all that (rule 4.12)
KEPT_ANCHOR = 0x400  # taken exclusively from the swap cache, anonymous already: may hang on an ancestor (rule 4.12)

NEW_ANON = ANON | EXCLUSIVE | SWAPBACKED
"""A new anonymous page; only its entry is dirty, as in the kernel."""
NOT_EXCLUSIVE = np.int32(~EXCLUSIVE)

# The low two bits of ``mapping`` (rule 1.1); the rest is an id.
TAG_FILE = 0
TAG_ANON = 1
TAG_LAZY = 2
TAG_KSM = 3
TAG_BITS = 3
TAG_SHIFT = 2

ZERO_PFN = 0
ONE = np.int32(1)
MINUS_ONE = np.int32(-1)


def as_run(numbers: I64) -> I64 | slice:
    """The same frames as a slice, when they are one ascending run: four to ten times cheaper to index with."""
    n = len(numbers)
    if n > 1 and numbers[-1] - numbers[0] == n - 1 and bool((numbers[1:] - numbers[:-1] == 1).all()):
        first = int(numbers[0])
        return slice(first, first + n)
    return numbers


class Frames:
    """All frames of the machine.

    Args:
        nr_pages: how many frames, the zero page included.

    Attributes:
        flags, mapcount, extra: int32 columns. ``extra`` counts references that are not mappings (page cache,
            swap cache, pins).
        mapping, index: int64 columns; see :meth:`anchor`.
        private: int64 column; the swap slot of a frame in the swap cache.
        order: int8 column; the order of the folio, on its head.
        head_offset: int32 column; how far behind its folio's head a frame is.
        has_large: whether any folio is larger than a page. While False, heads are not looked up.
        free_stack, free_top: the free frames are ``free_stack[:free_top]``; they are handed out in order, so
            that runs stay runs.

    The ``mv_`` names are memoryviews of the same columns, for single accesses at half the price.

    Invariants: a free frame has no flags, no mapping, no counts, and is in the stack once.
    """

    def __init__(self, nr_pages: int) -> None:
        if not 2 <= nr_pages <= 1 << 34:
            raise LimitError(f"a machine has 2 to 2^34 frames, not {nr_pages:,}")
        self.nr_pages = nr_pages
        self.flags: I32 = np.zeros(nr_pages, np.int32)
        self.mapcount: I32 = np.zeros(nr_pages, np.int32)
        self.extra: I32 = np.zeros(nr_pages, np.int32)
        self.mapping: I64 = np.zeros(nr_pages, np.int64)
        self.index: I64 = np.zeros(nr_pages, np.int64)
        self.private: I64 = np.zeros(nr_pages, np.int64)
        self.order: I8 = np.zeros(nr_pages, np.int8)
        self.head_offset: I32 = np.zeros(nr_pages, np.int32)
        self.has_large = False
        self.free_stack: I64 = np.arange(1, nr_pages + 1, dtype=np.int64)
        self.free_top = nr_pages - 1
        self.mv_flags = scalar_view(self.flags)
        self.mv_mapcount = scalar_view(self.mapcount)
        self.mv_extra = scalar_view(self.extra)
        self.mv_mapping = scalar_view(self.mapping)
        self.mv_index = scalar_view(self.index)
        self.mv_free_stack = scalar_view(self.free_stack)
        self.flags[ZERO_PFN] = KERNEL_OWNED

    def alloc(self, n: int) -> I64:
        """Take ``n`` free frames, all of order 0, with clean columns.

        Raises:
            LimitError: fewer are free. :meth:`rmap.mm.core.Core.reserve` is asked before it comes to that.
        """
        top = self.free_top - n
        if top < 0:
            raise LimitError(f"{n:,} frames wanted, {self.free_top:,} of {self.nr_pages:,} are free")
        self.free_top = top
        return self.free_stack[top : top + n].copy()

    def alloc1(self) -> int:
        """Take one free frame; the scalar twin of :meth:`alloc`."""
        top = self.free_top - 1
        if top < 0:
            raise LimitError(f"a frame wanted, none of {self.nr_pages:,} is free")
        self.free_top = top
        return self.mv_free_stack[top]

    def take(self, pfns: I64) -> None:
        """Take these very frames out of the free stack (when a picture of memory is loaded)."""
        gone = np.zeros(self.nr_pages + 1, np.bool_)
        gone[pfns] = True
        kept = self.free_stack[: self.free_top]
        kept = kept[~gone[kept]]
        if len(kept) != self.free_top - len(pfns):
            raise InvariantError("frames", "a frame was taken that is not free")
        self.free_top = len(kept)
        self.free_stack[: self.free_top] = kept

    def free(self, pfns: I64) -> None:
        """Give frames back. Counts must be zero already; flags and anchors are cleared here."""
        n = len(pfns)
        where = as_run(pfns)
        self.flags[where] = 0
        self.mapping[where] = 0
        self.index[where] = 0
        top = self.free_top
        self.free_stack[top : top + n] = pfns
        self.free_top = top + n

    def free1(self, pfn: int) -> None:
        """The scalar twin of :meth:`free`."""
        self.mv_flags[pfn] = 0
        self.mv_mapping[pfn] = 0
        self.mv_index[pfn] = 0
        self.mv_free_stack[self.free_top] = pfn
        self.free_top += 1

    def anchor(self, pfns: I64) -> tuple[I64, I64]:
        """``(mapping, index)`` of pages: the head's mapping, the head's index plus the offset in the folio."""
        if not self.has_large:
            return self.mapping[pfns], self.index[pfns]
        offset = self.head_offset[pfns]
        head = pfns - offset
        return self.mapping[head], self.index[head] + offset

    def anchor1(self, pfn: int) -> tuple[int, int]:
        """The scalar twin of :meth:`anchor`."""
        if not self.has_large:
            return self.mv_mapping[pfn], self.mv_index[pfn]
        offset = int(self.head_offset[pfn])
        return self.mv_mapping[pfn - offset], self.mv_index[pfn - offset] + offset

    def set_mapping(self, pfns: I64, mapping: int) -> None:
        """Hang pages on an anchor, a tagged id (rule 1.1); the index stays (``folio_move_anon_rmap``)."""
        if self.has_large:
            pfns = pfns - self.head_offset[pfns]
        self.mapping[as_run(pfns)] = mapping

    def set_anchor(self, pfns: I64, mapping: int, index: I64) -> None:
        """Hang pages on an anchor, a tagged id, at these page indexes (``__folio_set_anon``; rules 1.1 and 1.3)."""
        if self.has_large:
            offset = self.head_offset[pfns]
            pfns, index = pfns - offset, index - offset
        where = as_run(pfns)
        self.mapping[where] = mapping
        self.index[where] = index

    def set_index(self, pfns: I64, index: I64) -> None:
        """Give pages another page index; the anchor stays."""
        if self.has_large:
            offset = self.head_offset[pfns]
            pfns, index = pfns - offset, index - offset
        self.index[as_run(pfns)] = index

    def make_folio(self, head: int, order: int) -> None:
        """Make ``1 << order`` frames from ``head`` on one folio."""
        if not order:
            return
        n = 1 << order
        self.has_large = True
        self.order[head] = order
        self.head_offset[head : head + n] = np.arange(n)
        self.flags[head : head + n] |= LARGE

    def folio_of(self, pfn: int) -> slice:
        """All frames of the folio this frame belongs to."""
        head = pfn - int(self.head_offset[pfn])
        return slice(head, head + (1 << int(self.order[head])))

    def dissolve_folio(self, head: int) -> None:
        """Forget that these frames were one folio (it is being freed whole)."""
        pages = self.folio_of(head)
        self.head_offset[pages] = 0
        self.order[head] = 0

    def drop_mapping(self, pfns: I64) -> I64:
        """Lower the mapcount of distinct frames by one each.

        Returns:
            the frames that nobody references any more (of a large folio: only if none of its pages is).
        """
        where = as_run(pfns)
        if isinstance(where, slice):
            self.mapcount[where] -= ONE
        else:
            np.add.at(self.mapcount, pfns, MINUS_ONE)
        return self.unreferenced(pfns)

    def unreferenced(self, pfns: I64) -> I64:
        """Which of these frames nobody references (of a large folio: all of its frames, if none of them is)."""
        where = as_run(pfns)
        left = self.mapcount[where] | self.extra[where]
        dead = pfns if not left.any() else pfns[left == 0]
        if self.has_large and len(dead):
            return self._without_living_folios(dead)
        return dead

    def _without_living_folios(self, dead: I64) -> I64:
        # A page of a large folio is freed with its folio: when no page of it is referenced.
        large = (self.flags[dead] & LARGE) != 0
        if not large.any():
            return dead
        parts = [dead[~large]]
        heads = dead[large] - self.head_offset[dead[large]]
        for head in dict.fromkeys(heads.tolist()):
            pages = self.folio_of(head)
            if not self.mapcount[pages].any() and not self.extra[pages].any():
                parts.append(np.arange(pages.start, pages.stop))
        return np.concatenate(parts)
