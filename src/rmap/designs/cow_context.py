"""COW contexts: what Lorenzo Stoakes proposed to put in the place of anon_vma (a prototype of 2026, nothing merged).

Every mm has a context, and a context has those of the mm's forks below it. An anonymous page points at the context it
was made in, and its ``index`` is where it lay then. Most memory never moves, so a page is looked for at that address,
in its context and in all below it. Where memory did move, the context has a *remap record*: pages of this range of
indexes lie so far away. Nothing hangs on VMAs, so any two may merge, a split makes no object, and fork makes one.

So it is anonmm again, with a tree in the place of the list, and with a record where anonmm took a copy.

What is known: the talk at LSF/MM/BPF 2026 (LWN 1072378, its free part) and mails of its review. The model's own
choices, where that says nothing: a record is dropped with the last area that needs it; a child has copies of its
parent's records; a page that may be shared and is swapped in hangs on the topmost context; the sizes are those of the
fields that the model needs. Files: the interval tree of today. Left out: RCU, and callbacks that sleep (the review's
objection).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from rmap.columns import I64, scalar_view
from rmap.designs.parts.file_objects import FileObjects, ObjectIndex
from rmap.designs.parts.slab import Places, slab_bytes
from rmap.errors import InvariantError
from rmap.mm.costs import NODES_VISITED, OBJECTS_FREED, OBJECTS_MADE
from rmap.mm.frames import TAG_ANON, TAG_BITS, TAG_SHIFT
from rmap.mm.interface import At, Candidate1, Candidates, CloneWhy, DesignCore, How, PteBatch, Query, ReverseMap
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.profile import Profile
from rmap.units import PAGE_SHIFT, PAGE_SIZE

PAGE_MAPCOUNT = 4
CONTEXT = 64
REMAP = 48
MM_FIELD = 8
"""Bytes on 64-bit: mm, parent, list heads of children and siblings, records, a count; a range, a distance, a node."""


class CowContext:
    """The context of one mm.

    Attributes:
        id: never used twice. handle: what ``mapping`` of its pages holds.
        mm: None once it has exited.
        parent: the context it was forked from, None for the topmost.
        children: those forked from it, in order.
        remaps: where pages of this mm lie elsewhere than where they were made: distance in pages -> ranges of page
            indexes, ascending, ``[first, last]``.
        place: where it lies in its slabs.
    """

    __slots__ = ("children", "handle", "id", "mm", "parent", "place", "remaps")

    def __init__(self, id: int, mm: Mm, parent: CowContext | None, place: int) -> None:
        self.id = id
        self.handle = id << TAG_SHIFT | TAG_ANON
        self.mm: Mm | None = mm
        self.parent = parent
        self.children: dict[CowContext, None] = {}
        self.remaps: dict[int, list[tuple[int, int]]] = {}
        self.place = place

    @property
    def top(self) -> CowContext:
        """The topmost context of the family."""
        context = self
        while context.parent is not None:
            context = context.parent
        return context

    def subtree(self) -> Iterator[CowContext]:
        """This context and all below it, a parent before its children."""
        stack = [self]
        while stack:
            context = stack.pop()
            yield context
            stack += reversed(context.children)


class CowContexts(ReverseMap):
    """``mm.design`` is the context of an mm.

    Attributes:
        contexts: by id; that of a dead mm stays while one below it lives.
        files: the trees of the files.

    Invariants: every anonymous page that an mm maps hangs on the mm's context or one above it; where it lies, its index
    says, alone or with one of the mm's records.
    """

    name = "cow_context"
    release = "2026"
    index_is = "linear"

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.contexts: dict[int, CowContext] = {}
        self.files = FileObjects(core, by_intervals=True)
        self._next_id = 0
        self._places = Places()

    # -- processes ----------------------------------------------------------------------------------------------------
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        """A context: topmost, or below the parent's, whose records it copies."""
        above: CowContext | None = None if parent is None else parent.design
        context = self.contexts[self._next_id] = CowContext(self._next_id, mm, above, self._places.take())
        self._next_id += 1
        self.core.costs.current[OBJECTS_MADE] += 1
        mm.design = context
        if above is not None:
            above.children[context] = None

    def mm_exit(self, mm: Mm) -> None:
        """The context goes if none is below it, and so do dead ones above that have no other."""
        context: CowContext | None = mm.design
        assert context is not None
        mm.design = None
        context.mm = None
        context.remaps.clear()
        while context is not None and context.mm is None and not context.children:
            del self.contexts[context.id]
            self._places.give(context.place)
            self.core.costs.current[OBJECTS_FREED] += 1
            parent = context.parent
            if parent is not None:
                del parent.children[context]
            context = parent

    # -- VMAs ---------------------------------------------------------------------------------------------------------
    def anon_vma_prepare(self, vma: Vma) -> None:
        """Nothing, unless the area's pages have other indexes than their addresses say (private mappings of files)."""
        self._note(vma)

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        """The child's area is where the parent's is: its records say the same."""
        self._note(child)

    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        """A move: the new place is noted. A split or a merge says nothing new."""
        self._note(new)

    def post_update(self, vma: Vma) -> None:
        """An area that was noted has another range."""
        if vma.faulted:
            self._note(vma)

    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        """What only this area needed is not noted any more."""
        distance = (vma.start >> PAGE_SHIFT) - vma.pgoff
        if not distance:
            return
        context: CowContext = vma.mm.design
        needed = [
            (other.pgoff, other.last)
            for other in vma.mm.vmas
            if other.faulted and other is not vma and (other.start >> PAGE_SHIFT) - other.pgoff == distance
        ]
        before = len(context.remaps.pop(distance, ()))
        ranges = _joined(needed)
        if ranges:
            context.remaps[distance] = ranges
        self._count(before, len(ranges))

    def _note(self, vma: Vma) -> None:
        # remap record: pages of this range of indexes lie so far from where they were made.
        distance = (vma.start >> PAGE_SHIFT) - vma.pgoff
        if distance:
            context: CowContext = vma.mm.design
            before = context.remaps.get(distance, [])
            after = context.remaps[distance] = _joined([*before, (vma.pgoff, vma.last)])
            self._count(len(before), len(after))

    def _count(self, before: int, after: int) -> None:
        self.core.costs.current[OBJECTS_MADE if after > before else OBJECTS_FREED] += abs(after - before)

    # -- pages --------------------------------------------------------------------------------------------------------
    def set_anon(self, batch: PteBatch, how: How) -> None:
        """The mm's context and the linear index; the topmost context for pages that others may have."""
        context: CowContext = batch.mm.design
        if how == "shared":
            context = context.top
        if how == "reuse":
            self.core.frames.set_mapping(batch.pfns, context.handle)
        else:
            self.core.frames.set_anchor(batch.pfns, context.handle, batch.pgoffs)

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """``cow_context_walk``: the page's context and all below it; in each, its address and those the records say."""
        if not len(query.pfns):
            return
        mapping, index = query.sort_by_anchor()
        keys = scalar_view(index)
        cuts = (np.flatnonzero(np.diff(mapping)) + 1).tolist()
        for lo, hi in pairwise([0, *cuts, len(mapping)]):
            anchor = int(mapping[lo])
            if anchor & TAG_BITS == TAG_ANON:
                context = self.contexts.get(anchor >> TAG_SHIFT)
                if context is not None:
                    yield from self._below(query, context, index, lo, hi)
            else:
                yield from self.files.candidates(query, anchor, keys, lo, hi)

    def _below(self, query: Query, top: CowContext, index: I64, lo: int, hi: int) -> Candidates:
        counters = self.core.costs.current
        pos = np.arange(lo, hi)
        for context in top.subtree():
            if query.all_found(lo, hi):
                return
            counters[NODES_VISITED] += query.asking(lo, hi)
            if context.mm is None:
                continue
            yield At(context.mm, pos, index[lo:hi] << PAGE_SHIFT)
            for distance, ranges in context.remaps.items():
                for first, last in ranges:
                    counters[NODES_VISITED] += query.asking(lo, hi)
                    a, b = np.searchsorted(index[lo:hi], (first, last + 1)).tolist()
                    if a < b:
                        yield At(context.mm, pos[a:b], (index[lo + a : lo + b] + distance) << PAGE_SHIFT)

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        anchor, index = self.core.frames.anchor1(pfn)
        if anchor & TAG_BITS != TAG_ANON:
            yield from self.files.candidates1(anchor, index)
            return
        top = self.contexts.get(anchor >> TAG_SHIFT)
        if top is None:
            return
        counters = self.core.costs.current
        for context in top.subtree():
            counters[NODES_VISITED] += 1
            if context.mm is None:
                continue
            yield context.mm, index << PAGE_SHIFT
            for distance, ranges in context.remaps.items():
                for first, last in ranges:
                    counters[NODES_VISITED] += 1
                    if first <= index <= last:
                        yield context.mm, (index + distance) << PAGE_SHIFT

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> ObjectIndex:
        """The interval tree of a file's VMAs."""
        return self.files.new_index()

    # -- accounts -----------------------------------------------------------------------------------------------------
    def _nr_remaps(self) -> int:
        return sum(len(ranges) for context in self.contexts.values() for ranges in context.remaps.values())

    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata, in sizes of the model's own; 64-bit only."""
        if bits != 64:
            return {}
        living = sum(context.mm is not None for context in self.contexts.values())
        return {
            "page.mapcount": PAGE_MAPCOUNT * int(np.count_nonzero(self.core.frames.mapcount)),
            "vma.shared": self.files.metadata_bytes(bits),
            "mm.cow_context": MM_FIELD * living,
            "cow_context": CONTEXT * len(self.contexts),
            "remap": REMAP * self._nr_remaps(),
        }

    def slab_bytes(self, bits: int = 64) -> dict[str, int]:
        """Whole slabs with a context in them; records are taken to lie densely."""
        if bits != 64:
            return {}
        places = (context.place for context in self.contexts.values())
        return {
            "cow_context": slab_bytes(places, PAGE_SIZE // CONTEXT),
            "remap": slab_bytes(range(self._nr_remaps()), PAGE_SIZE // REMAP),
        }

    def validate(self) -> None:
        """Check the tree, the records and the pages.

        Raises:
            InvariantError: ``context`` or ``I14``.
        """
        for context in self.contexts.values():
            if context.mm is None and not context.children:
                raise InvariantError("context", f"context {context.id} is dead, and none is below it")
            if context.parent is not None and context not in context.parent.children:
                raise InvariantError("context", f"context {context.id} is not below its parent")
            if any(child.parent is not context or child.id not in self.contexts for child in context.children):
                raise InvariantError("context", f"below context {context.id} is one that is not its child")
            if context.mm is not None:
                self._check_mm(context, context.mm)
        self.files.validate()

    def _check_mm(self, context: CowContext, mm: Mm) -> None:
        above, parent = [context.handle], context.parent
        while parent is not None:
            above.append(parent.handle)
            parent = parent.parent
        for vma in mm.vmas:
            distance = (vma.start >> PAGE_SHIFT) - vma.pgoff
            for batch in self.core.batches(vma, vma.start, vma.end):
                mapping, index = self.core.frames.anchor(batch.pfns)
                if not np.isin(mapping, above).all():
                    raise InvariantError("context", f"a page in {vma} hangs neither on its context nor above")
                if (index != batch.pgoffs).any():
                    raise InvariantError("I14", f"a page index does not fit its place in {vma}")
            ranges = context.remaps.get(distance, [])
            if vma.faulted and distance and not any(a <= vma.pgoff and vma.last <= b for a, b in ranges):
                raise InvariantError("context", f"{vma} is not where its pages were made, and no record says so")

    def describe_page(self, pfn: int) -> str:
        """``context 0 at page index 0x10``, or the page's file."""
        anchor, index = self.core.frames.anchor1(pfn)
        if anchor & TAG_BITS == TAG_ANON:
            return f"context {anchor >> TAG_SHIFT} at page index {index:#x}"
        return f"address_space {anchor >> TAG_SHIFT}" if anchor else "none"


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    # Ranges in ascending order; those that touch are one.
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
