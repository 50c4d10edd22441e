"""The plug every reverse map fits: what the memory manager tells a design, and what it asks.

**The design proposes, the core checks.** A design names candidates, places where a page may be mapped; the core looks
at the page tables, counts, stops when the mapcount is satisfied and tells the design which candidates hit. The core
owns every fact of the machine: entries, mapcounts, flags, VMAs, who is freed. A design owns its metadata, and
the meaning of ``mapping`` and ``index`` of anonymous pages, which it writes in :meth:`ReverseMap.set_anon`.

A design never acts on memory. It may veto a merge (``is_mergeable_anon_vma``) and ask for an early copy
(``must_copy``).

The order of calls inside each operation stands in ``docs/architecture.md``. Two rules hold everywhere:

* one batch belongs to one mm and names every frame at most once;
* no hook keeps a batch, a slice of one or a memoryview beyond its call.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from rmap.columns import I32, I64, Bool
from rmap.mm.mm_types import MappingIndex
from rmap.mm.pte import PRESENT
from rmap.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from rmap.mm.costs import Costs
    from rmap.mm.frames import Frames
    from rmap.mm.mm_types import Mm, Vma
    from rmap.mm.page_tables import PageTables, Span
    from rmap.mm.profile import Profile

Why: TypeAlias = Literal[
    "fault", "fork", "swapin", "unmap", "zap", "cow", "exit", "truncate", "reclaim", "move", "migrate", "adopt"
]
"""Why entries begin or end to be tracked."""

How: TypeAlias = Literal["new", "shared", "reuse", "move", "collapse", "adopt"]
"""How a page becomes anonymous or changes anchor: ``new`` exclusive, on the active anchor (rule 4.2); ``shared``
swapped in and perhaps shared, on the root (4.3); ``reuse`` the anchor moves and the index stays (4.7); ``move`` both
move (4.15)."""

CloneWhy: TypeAlias = Literal["split", "mremap", "merge"]
Stop: TypeAlias = Literal["mapcount", "never"]
Purpose: TypeAlias = Literal["walk", "referenced", "unmap", "mkclean"]
"""Who asks. A design may tidy up after one kind of walk only (2.6.0 collapses chains under ``referenced``)."""


class PteBatch:
    """Frames, and the entries that map them: one mm, each frame at most once.

    Attributes:
        mm: whose entries.
        vma: their VMA, None if they lie in several.
        addr: the address that offset 0 means, in bytes.
        pfns: int64[n].
        offs: int64[n], in pages from ``addr``, ascending; None means 0 to n-1.
        anon: whether the pages are anonymous (all of them, or none).
        order: 0; the order of the mapping where one entry maps more than a page.
    """

    __slots__ = ("_pteps", "_span", "addr", "anon", "mm", "offs", "order", "pfns", "vma")

    def __init__(self, vma: Vma, span: Span, pfns: I64, offs: I64 | None, anon: bool, addr: int | None = None) -> None:
        self.mm = vma.mm
        self.vma: Vma | None = vma
        self.addr = span.addr if addr is None else addr
        self.pfns = pfns
        self.offs = offs
        self.anon = anon
        self.order = 0
        self._span = span
        self._pteps: I64 | None = None

    @classmethod
    def single(cls, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool) -> PteBatch:
        """A batch of one entry."""
        batch = cls.__new__(cls)
        batch.mm = vma.mm
        batch.vma = vma
        batch.addr = addr
        batch.pfns = np.array([pfn], np.int64)
        batch.offs = None
        batch.anon = anon
        batch.order = 0
        batch._pteps = np.array([ptep], np.int64)
        return batch

    @classmethod
    def anchored(cls, vma: Vma, pfns: I64, index: I64) -> PteBatch:
        """Pages to be hung on a VMA's anchor at these page indexes, wherever they are mapped. Has no pte pointers."""
        batch = cls.single(vma, vma.start, 0, 0, True)
        batch.pfns = pfns
        batch.offs = index - vma.pgoff
        return batch

    @property
    def pteps(self) -> I64:
        """The pte pointers, int64[n]; computed when first read."""
        if self._pteps is None:
            self._pteps = self._span.pteps(self.offs)
        return self._pteps

    @property
    def addrs(self) -> I64:
        """The addresses in bytes, int64[n]."""
        offs = np.arange(len(self.pfns)) if self.offs is None else self.offs
        return offs * PAGE_SIZE + self.addr

    @property
    def pgoffs(self) -> I64:
        """The linear page indexes in ``vma``, int64[n] (rule 1.3)."""
        assert self.vma is not None
        first = self.vma.linear_page_index(self.addr)
        return np.arange(first, first + len(self.pfns)) if self.offs is None else self.offs + first

    def __len__(self) -> int:
        return len(self.pfns)


class Linear:
    """Candidates: query positions ``lo`` to ``hi``, where their page indexes put them in ``vma`` (rule 5.3).

    The query must be sorted by (anchor, index), so that the positions of one VMA are neighbours.
    """

    __slots__ = ("hi", "lo", "vma")

    def __init__(self, vma: Vma, lo: int, hi: int) -> None:
        self.vma = vma
        self.lo = lo
        self.hi = hi


class At:
    """Candidates: positions ``pos`` (int64[m]) at addresses ``addrs`` (int64[m]) of one mm."""

    __slots__ = ("addrs", "mm", "pos")

    def __init__(self, mm: Mm, pos: I64, addrs: I64) -> None:
        self.mm = mm
        self.pos = pos
        self.addrs = addrs


class Ptes:
    """Candidates: positions ``pos`` (int64[m]) that the design knows to be mapped by ``pteps`` (int64[m])."""

    __slots__ = ("pos", "pteps")

    def __init__(self, pos: I64, pteps: I64) -> None:
        self.pos = pos
        self.pteps = pteps


Chunk: TypeAlias = Linear | At | Ptes
"""Candidates of one step of a walk. A chunk holds each position at most once; for one page, chunks come in the order in
which the original design would visit them."""

Candidates: TypeAlias = Generator[Chunk, "I64 | slice", None]
Candidate1: TypeAlias = "tuple[Vma, int] | tuple[Mm, int] | int"
"""One candidate of a walk of one page: (VMA, address), (mm, address) or a pte pointer."""


class Query:
    """What a walk looks for.

    Attributes:
        pfns: int64[n], the pages, distinct, in the order the design chose.
        index: int64[n], their page indexes, once :meth:`sort_by_anchor` was called.
        mapping: int64[n], their anchors, likewise.
        want: int64[n], the entry that would map each, masked with ``mask``.
        left: int32[n], mappings still to be found; not maintained when ``stop`` is ``never``.
        stop: ``mapcount``: a page is done when all its mappings are found; ``never``: look everywhere.
        skip_vma: VMAs the consumer does not want to see (``invalid_vma`` of rule 5.7), or None.
        purpose: who asks.
    """

    __slots__ = ("frames", "index", "left", "mapping", "mask", "order", "pfns", "purpose", "skip_vma", "stop", "want")

    def __init__(
        self,
        frames: Frames,
        pfns: I64,
        stop: Stop = "mapcount",
        skip_vma: Callable[[Vma], bool] | None = None,
        purpose: Purpose = "walk",
    ) -> None:
        self.frames = frames
        self.pfns = pfns
        self.stop = stop
        self.mask = ~((1 << PAGE_SHIFT) - 1) | PRESENT
        self.want: I64 = (pfns << PAGE_SHIFT) | PRESENT
        self.left: I32 = frames.mapcount[pfns]
        self.skip_vma = skip_vma
        self.purpose: Purpose = purpose
        self.mapping: I64 | None = None
        self.index: I64 | None = None
        self.order: I64 | None = None

    def sort_by_anchor(self) -> tuple[I64, I64]:
        """Order the query by (mapping, index); returns both columns, sorted.

        Costs 3 ns a page if it was in order, 20 if not.
        """
        mapping, index = self.frames.anchor(self.pfns)
        ahead = np.diff(mapping)
        if not (bool((ahead >= 0).all()) and bool(((np.diff(index) >= 0) | (ahead > 0)).all())):
            order = np.lexsort((index, mapping))
            mapping, index = mapping[order], index[order]
            self._reorder(order)
        self.mapping, self.index = mapping, index
        return mapping, index

    def _reorder(self, order: I64) -> None:
        self.pfns = self.pfns[order]
        self.want = self.want[order]
        self.left = self.left[order]
        self.order = order

    def asking(self, lo: int, hi: int) -> int:
        """How many of the positions still search: what a design adds to its visit counters."""
        if self.stop == "never":
            return hi - lo
        return int(np.count_nonzero(self.left[lo:hi]))

    def asking_at(self, pos: I64) -> int:
        """The same for a set of positions."""
        if self.stop == "never":
            return len(pos)
        return int(np.count_nonzero(self.left[pos]))

    def all_found(self, lo: int, hi: int) -> bool:
        """Whether none of the positions searches any more: the design leaves their group."""
        return self.stop == "mapcount" and not self.left[lo:hi].any()


class DesignCore(Protocol):
    """What the core offers a design, and nothing else."""

    frames: Frames
    tables: PageTables
    costs: Costs
    profile: Profile

    def mm_by_id(self, id: int) -> Mm:
        """An mm by its id (``tables.mm_of`` gives ids)."""

    def mapping_index(self, id: int) -> MappingIndex:
        """The i_mmap of the address_space with this id (``mapping >> 2`` of a file page)."""

    def neighbours(self, vma: Vma) -> tuple[Vma | None, Vma | None]:
        """The VMAs before and behind, touching or not."""

    def batches(self, vma: Vma, start: int, end: int) -> Iterator[PteBatch]:
        """The tracked anonymous entries of a range, for a design that must look."""


class ReverseMap:
    """A reverse-map design. A hook does nothing unless overridden; those for entries and pages are then never called.

    Attributes:
        name: as in ``DESIGNS``.
        release: what it models.
        index_is: what ``index`` of an anonymous page means: ``"linear"`` (page index), ``"address"``, or None.
        stores_addresses: wants :meth:`moved` also when whole page tables move.
        moves_tables: False: mremap moves entry by entry, as before page tables could move whole.
        nonlinear: its release had areas whose pages lie in any order (remap_file_pages until 4.0).
        keeps_anchors: a page that nothing maps any more keeps its anchor, so that whoever swaps it in finds it there
            (rule 4.12). False: its first mapper anchors it anew (``page_add_anon_rmap`` before 2.6.8 or so).
    """

    name = "none"
    release = ""
    index_is: Literal["linear", "address"] | None = None
    stores_addresses = False
    moves_tables = True
    nonlinear = False
    keeps_anchors = True

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        self.core = core
        self.profile = profile

    # -- processes ----------------------------------------------------------------------------------------------
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        """A new mm: spawned (no parent) or forked. Before any of its VMAs exists. Not for CLONE_VM."""

    def mm_exit(self, mm: Mm) -> None:
        """The mm is dead: after the last zap and unlink, its page tables gone."""

    # -- VMAs ---------------------------------------------------------------------------------------------------
    def anon_vma_prepare(self, vma: Vma) -> None:
        """A page is about to become anonymous in a VMA for the first time (rule 2.2). Before the frame is allocated."""

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        """A faulted VMA is copied by fork (rule 2.6). The child is linked in its mm and in i_mmap, without entries."""

    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        """A second VMA for the same pages (rules 2.4, 2.13, 3.5). ``old`` still has its full range."""

    def pre_update(self, vma: Vma) -> None:
        """``start``, ``end`` or ``pgoff`` is about to change."""

    def post_update(self, vma: Vma) -> None:
        """``start``, ``end`` or ``pgoff`` has changed."""

    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        """A faulted VMA goes (rule 2.8): after its zap, or, in a merge, after ``heir`` covers its range."""

    def vma_nonlinear(self, vma: Vma) -> None:
        """A VMA is about to become nonlinear (``sys_remap_file_pages``): its entries are linear still."""

    def is_mergeable_anon_vma(self, target: Vma, source: Vma | None) -> bool:
        """May ``target`` take over a range? ``source`` is the VMA being modified or copied from, None for a
        new range (rule 3.3). Pure."""
        return True

    def are_anon_vmas_compatible(self, prev: Vma, next: Vma) -> bool:
        """May prev and next both join a range between them (rule 3.4)? Pure."""
        return True

    # -- pages --------------------------------------------------------------------------------------------------
    def set_anon(self, batch: PteBatch, how: How) -> None:
        """Pages become anonymous or change anchor. Flags and mapcount are set, the entry is not written yet."""

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        """The scalar twin of :meth:`set_anon`."""
        self.set_anon(PteBatch.single(vma, addr, ptep, pfn, True), how)

    def added(self, batch: PteBatch, why: Why) -> None:
        """Entries begin to be tracked: they are written, mapcounts are raised."""

    def added1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`added`."""
        self.added(PteBatch.single(vma, addr, ptep, pfn, anon), why)

    def removed(self, batch: PteBatch, why: Why) -> None:
        """Entries end to be tracked, not through a walk: they are cleared (COW: about to be replaced), mapcounts
        not yet lowered."""

    def removed1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        """The scalar twin of :meth:`removed`."""
        self.removed(PteBatch.single(vma, addr, ptep, pfn, anon), why)

    def unmapped(self, query: Query, pos: I64, pteps: I64) -> None:
        """The consumer of a walk cleared these entries, in walk order: position in the query, pte pointer."""

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """Entries moved (mremap): the same frames, new places. ``batch`` describes the old ones."""

    def must_copy(self, batch: PteBatch, new_addr: int, why: Why) -> Bool | None:
        """Which pages must be copied rather than moved or mapped, bool[n]; None for none."""
        return None

    def freed(self, pfns: I64) -> None:
        """The last reference is gone; flags, mapping and index are still there."""

    def migrated(self, old: I64, new: I64) -> None:
        """Pages moved to other frames; the columns are copied, the entries name the old frames."""

    # -- walks --------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Where the pages of a query may be mapped. Sends back which positions hit; always run to its end."""
        raise TypeError(f"{type(self).__name__} has no candidates()")

    def candidates1(self, pfn: int) -> Iterable[Candidate1]:
        """The scalar twin: where one page may be mapped."""
        raise TypeError(f"{type(self).__name__} has no candidates1()")

    def swap_out(self) -> Generator[I64, int, None]:
        """The entries at the hand, for whoever evicts without a reverse map: pte pointers int64[n] of tracked entries,
        in the order of a scan, for ever. Sends in how many of them were looked at; there the hand stops."""
        raise TypeError(f"{type(self).__name__} has no swap_out()")

    def collateral(self, query: Query) -> Generator[I64, int, None]:
        """What ``try_to_unmap`` goes for where it cannot find all entries of a page: clusters of pte pointers.

        Yields int64[n]. Sends in how many of a cluster's entries were cleared (young ones are not).
        """
        raise TypeError(f"{type(self).__name__} has no collateral()")

    # -- files --------------------------------------------------------------------------------------------------
    def i_mmap(self) -> MappingIndex:
        """A new index of the VMAs of a file."""
        raise TypeError(f"{type(self).__name__} has no i_mmap()")

    # -- accounts -----------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata by structure, in the sizes of the modelled release."""
        return {}

    def slab_bytes(self, bits: int = 64) -> dict[str, int]:
        """The same as slabs hold it: whole slabs with a living object in them. Only what lives in slabs; the names
        are those of :meth:`metadata_bytes`. Fields of other structures are not in it."""
        return {}

    def validate(self) -> None:
        """Check the design's own structures, every invariant that applies.

        Raises:
            InvariantError: with the invariant's number.
        """

    def describe_vma(self, vma: Vma) -> str:
        """The design's state of a VMA in words, for a story."""
        return ""

    def describe_page(self, pfn: int) -> str:
        """The design's state of a page in words, for a story."""
        return ""

    # -- the kernel's own topology, given or taken --------------------------------------------------------------
    def topology(self) -> dict[str, I64] | None:
        """The anon_vmas and chains as columns, None for designs without them.

        All int64. ``id, root, parent, refcount, num_children, num_active_vmas`` by anon_vma (``mapping >> 2`` of its
        pages); ``vma_mm, vma_start, vma_anon_vma`` by VMA that has one; ``chain_mm, chain_start, chain_anon_vma`` by
        link, in the order of the chain.
        """
        return None

    def adopt_topology(self, columns: dict[str, I64], vmas: list[Vma]) -> I64 | None:
        """Take over anon_vmas and chains as they are: a picture of a machine that knew them is being loaded.

        Args:
            columns: int64. ``root, parent, num_children, num_active_vmas`` by anon_vma, ids being row numbers;
                ``active`` by VMA of ``vmas``, -1 for none; ``chain_vma, chain_anon_vma`` by link, each chain in order.
            vmas: linked, unfaulted.

        Returns:
            what ``mapping`` of a page must hold to hang on each anon_vma, int64 by row; None from designs that have
            no use for them: forks are then inferred.
        """
        return None


class Reclaimer(Protocol):
    """Whoever can evict pages: the model's ``vmscan``."""

    def reclaim(self, pfns: I64) -> int:
        """Evict these pages through the reverse map, as far as the rules allow; returns how many frames went."""

    def make_room(self, wanted: int) -> int:
        """Evict until ``wanted`` frames are free, or nothing more can go; returns how many are free."""


ReverseMapFactory: TypeAlias = "Callable[[DesignCore, Profile], ReverseMap]"
