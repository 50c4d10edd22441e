"""anonmm: an anonymous page knows its mm and its address (Hugh Dickins, March 2003 and March 2004).

Every mm has an ``anonmm``, and those of a fork family (up to the next exec) are in one list. A page points at the
anonmm of the mm it was first mapped by, and its ``index`` is the virtual address: for fork copies addresses as they
are, a page lies at one address in the whole family. So a walk tries that address in the page's own mm, then in the
others. Nothing hangs on VMAs: any two may merge.

What breaks the rule is mremap. A page that nobody else maps gets its new address; one that others map too is copied
there and then (Linus Torvalds' suggestion, 0c35710493), as is a shared page swapped in where its address is another.
So under this design a move costs memory that it costs under no other.

Source: anobjrmap of 18 March 2004, merged for a day as 06e0ee4abf ("rmap 10"), replaced by anon_vma ("rmap 38", "39").
Files: the prio_tree of the same series. Left out: locks that are not to be had (an mm whose lock is taken is passed
over, and the page stays), and ``find_vma`` is counted where a walk unmaps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise

import numpy as np

from rmap.columns import I64, Bool, scalar_view
from rmap.designs.parts.file_objects import FileObjects, ObjectIndex
from rmap.designs.parts.slab import Places, objects_per_slab_2_6_0, slab_bytes
from rmap.errors import InvariantError
from rmap.mm.costs import LOCKS_ANON_VMA, NODES_VISITED, OBJECTS_FREED, OBJECTS_MADE, VMAS_LOOKED_UP
from rmap.mm.frames import ANON, TAG_ANON, TAG_BITS, TAG_SHIFT
from rmap.mm.interface import At, Candidate1, Candidates, DesignCore, How, PteBatch, Query, ReverseMap, Why
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.profile import Profile
from rmap.units import PAGE_SHIFT

PAGE_MAPCOUNT = 4
OBJECT = {64: 40, 32: 24}
MM_FIELD = {64: 8, 32: 4}


class AnonMm:
    """``struct anonmm``.

    Attributes:
        id: never used twice. handle: what ``mapping`` of its pages holds.
        mm: None once it has exited.
        family: the anonmms of the family, the head's first, in the order of their forks.
        count: one for the mm, one for each page that points here.
        place: where it lies in its slabs.
    """

    __slots__ = ("count", "family", "handle", "id", "mm", "place")

    def __init__(self, id: int, mm: Mm, family: dict[AnonMm, None], place: int) -> None:
        self.id = id
        self.handle = id << TAG_SHIFT | TAG_ANON
        self.mm: Mm | None = mm
        self.family = family
        self.count = 1
        self.place = place
        family[self] = None


class Anonmm(ReverseMap):
    """``mm.design`` is the anonmm of an mm.

    Attributes:
        anonmms: by id; a dead mm's stays while pages point at it.
        files: the trees of the files.

    Invariants: the count of an anonmm is right; the address of an anonymous page is its index in every mm of the family
    that maps it, and nobody else does.
    """

    name = "anonmm"
    release = "2004"
    index_is = "address"
    stores_addresses = True
    nonlinear = True
    keeps_anchors = False

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.anonmms: dict[int, AnonMm] = {}
        self.files = FileObjects(core)
        self._next_id = 0
        self._places = Places()

    # -- processes ----------------------------------------------------------------------------------------------------
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        """``exec_rmap``: the head of a new family; ``dup_rmap``: at the tail of the parent's."""
        counters = self.core.costs.current
        counters[OBJECTS_MADE] += 1
        counters[LOCKS_ANON_VMA] += 1
        family: dict[AnonMm, None] = {} if parent is None else parent.design.family
        mm.design = self.anonmms[self._next_id] = AnonMm(self._next_id, mm, family, self._places.take())
        self._next_id += 1

    def mm_exit(self, mm: Mm) -> None:
        """``exit_rmap``: the mm is forgotten; its anonmm goes when no page points at it."""
        self.core.costs.current[LOCKS_ANON_VMA] += 1
        anonmm: AnonMm = mm.design
        anonmm.mm = None
        mm.design = None
        self._put(anonmm, 1)

    def _put(self, anonmm: AnonMm, n: int) -> None:
        anonmm.count -= n
        if not anonmm.count:
            del self.anonmms[anonmm.id]
            del anonmm.family[anonmm]
            self._places.give(anonmm.place)
            self.core.costs.current[OBJECTS_FREED] += 1

    # -- pages --------------------------------------------------------------------------------------------------------
    def set_anon(self, batch: PteBatch, how: How) -> None:
        """``page_add_anon_rmap``, the first mapping: the mm's anonmm, the address. Reuse changes nothing."""
        if how == "reuse":
            return
        self._forget(batch.pfns)
        anonmm: AnonMm = batch.mm.design
        anonmm.count += len(batch.pfns)
        self.core.frames.set_anchor(batch.pfns, anonmm.handle, batch.addrs >> PAGE_SHIFT)

    def _forget(self, pfns: I64) -> None:
        # The anonmms that these pages point at have as many pages less.
        mapping = self._heads_mapping(pfns)
        ids = mapping[(mapping & TAG_BITS) == TAG_ANON] >> TAG_SHIFT
        if len(ids):
            for id, n in zip(*(column.tolist() for column in np.unique(ids, return_counts=True))):
                anonmm = self.anonmms.get(id)
                if anonmm is not None:
                    self._put(anonmm, n)

    def _heads_mapping(self, pfns: I64) -> I64:
        frames = self.core.frames
        if frames.has_large:
            pfns = pfns[frames.head_offset[pfns] == 0]
        return frames.mapping[pfns]

    def freed(self, pfns: I64) -> None:
        """The last reference: the page points nowhere any more."""
        self._forget(pfns)

    def migrated(self, old: I64, new: I64) -> None:
        """The new frames point where the old ones did; the old ones go without being told of (:meth:`freed`)."""

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """mremap, and nobody else maps the pages: they have another address (``page_update_rmap``)."""
        if batch.anon:
            index = (batch.addrs - batch.addr + new_addr) >> PAGE_SHIFT
            self.core.frames.set_index(batch.pfns, index)

    def must_copy(self, batch: PteBatch, new_addr: int, why: Why) -> Bool | None:
        """A page that others map too cannot change its address: the mover takes a copy. Nor can it be mapped at a
        second one, by swap-in or when a picture is loaded."""
        if not batch.anon:
            return None
        frames = self.core.frames
        if why == "move":
            shared: Bool = frames.mapcount[batch.pfns] > 1
            return shared
        mapping, index = frames.anchor(batch.pfns)
        elsewhere: Bool = ((mapping & TAG_BITS) == TAG_ANON) & (index != batch.addrs >> PAGE_SHIFT)
        return elsewhere

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """The page's own mm first, then round the family from there; files through their trees."""
        if not len(query.pfns):
            return
        mapping, index = query.sort_by_anchor()
        keys = scalar_view(index)
        cuts = (np.flatnonzero(np.diff(mapping)) + 1).tolist()
        for lo, hi in pairwise([0, *cuts, len(mapping)]):
            anchor = int(mapping[lo])
            if anchor & TAG_BITS == TAG_ANON:
                anonmm = self.anonmms.get(anchor >> TAG_SHIFT)
                if anonmm is not None:
                    yield from self._in_family(query, anonmm, index, lo, hi)
            else:
                yield from self.files.candidates(query, anchor, keys, lo, hi)

    def _in_family(self, query: Query, anonmm: AnonMm, index: I64, lo: int, hi: int) -> Candidates:
        counters = self.core.costs.current
        counters[LOCKS_ANON_VMA] += query.asking(lo, hi)
        pos = np.arange(lo, hi)
        addrs = index[lo:hi] << PAGE_SHIFT
        found_home = anonmm.mm is not None
        for other in _round_from(anonmm):
            counters[NODES_VISITED] += query.asking(lo, hi)
            if other.mm is None or not other.mm.rows:
                continue
            hit = yield At(other.mm, pos, addrs)
            hit = np.arange(hit.start, hit.stop) if isinstance(hit, slice) else hit
            if query.purpose == "unmap":
                counters[VMAS_LOOKED_UP] += len(hit)
            if not found_home and len(hit) and query.purpose != "walk":
                self._rehome(query.pfns[hit], anonmm, other)
            if query.all_found(lo, hi):
                return

    def _rehome(self, pfns: I64, dead: AnonMm, living: AnonMm) -> None:
        # The first living mm that is found takes the page over (a look that is only a look changes nothing).
        pfns = pfns[self.core.frames.anchor(pfns)[0] == dead.handle]
        heads = pfns[self.core.frames.head_offset[pfns] == 0]
        if len(heads):
            self.core.frames.set_mapping(heads, living.handle)
            living.count += len(heads)
            self._put(dead, len(heads))

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        anchor, index = self.core.frames.anchor1(pfn)
        if anchor & TAG_BITS != TAG_ANON:
            yield from self.files.candidates1(anchor, index)
            return
        anonmm = self.anonmms.get(anchor >> TAG_SHIFT)
        if anonmm is None:
            return
        counters = self.core.costs.current
        counters[LOCKS_ANON_VMA] += 1
        for other in _round_from(anonmm):
            counters[NODES_VISITED] += 1
            if other.mm is not None and other.mm.rows:
                yield other.mm, index << PAGE_SHIFT

    def collateral(self, query: Query) -> Generator[I64, int, None]:
        """Clusters of the nonlinear areas, for pages of their files that are still mapped."""
        return self.files.collateral(query)

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> ObjectIndex:
        """The tree of a file's VMAs."""
        return self.files.new_index()

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: ``mapcount`` of mapped pages, the anonmms and a pointer in each mm, the tree nodes of
        file VMAs."""
        living = sum(anonmm.mm is not None for anonmm in self.anonmms.values())
        return {
            "page.mapcount": PAGE_MAPCOUNT * int(np.count_nonzero(self.core.frames.mapcount)),
            "vma.shared": self.files.metadata_bytes(bits),
            "mm.anonmm": MM_FIELD[bits] * living,
            "anonmm": OBJECT[bits] * len(self.anonmms),
        }

    def slab_bytes(self, bits: int = 64) -> dict[str, int]:
        """Whole slabs with an anonmm in them."""
        places = (anonmm.place for anonmm in self.anonmms.values())
        return {"anonmm": slab_bytes(places, objects_per_slab_2_6_0(OBJECT[bits]))}

    def validate(self) -> None:
        """Check counts, families and addresses.

        Raises:
            InvariantError: ``anonmm``.
        """
        frames = self.core.frames
        every = np.flatnonzero((frames.flags & ANON) != 0)
        pointing = self._heads_mapping(every)
        counts = np.bincount(pointing[(pointing & TAG_BITS) == TAG_ANON] >> TAG_SHIFT, minlength=self._next_id)
        for anonmm in self.anonmms.values():
            wanted = int(counts[anonmm.id]) + (anonmm.mm is not None)
            if anonmm.count != wanted:
                raise InvariantError("anonmm", f"anonmm {anonmm.id} counts {anonmm.count}, {wanted} point at it")
            if anonmm not in anonmm.family or (anonmm.mm is not None and anonmm.mm.design is not anonmm):
                raise InvariantError("anonmm", f"anonmm {anonmm.id} is not in its family, or not its mm's")
            if anonmm.mm is not None:
                self._check_pages(anonmm, anonmm.mm)
        self.files.validate()

    def _check_pages(self, anonmm: AnonMm, mm: Mm) -> None:
        family = np.array([member.handle for member in anonmm.family], np.int64)
        for vma in mm.vmas:
            for batch in self.core.batches(vma, vma.start, vma.end):
                mapping, index = self.core.frames.anchor(batch.pfns)
                if (index != batch.addrs >> PAGE_SHIFT).any() or not np.isin(mapping, family).all():
                    raise InvariantError("anonmm", f"a page in {vma} has another address, or is of another family")

    def describe_page(self, pfn: int) -> str:
        """``anonmm 0 at 0x7f0000000000``, or the page's file."""
        anchor, index = self.core.frames.anchor1(pfn)
        if anchor & TAG_BITS == TAG_ANON:
            return f"anonmm {anchor >> TAG_SHIFT} at {index << PAGE_SHIFT:#x}"
        return f"address_space {anchor >> TAG_SHIFT}" if anchor else "none"


def _round_from(anonmm: AnonMm) -> list[AnonMm]:
    # The family from this member on, and round. (A list: a walk may re-home pages, and so end members.)
    family = list(anonmm.family)
    at = family.index(anonmm)
    return family[at:] + family[:at]
