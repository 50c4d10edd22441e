"""anon_vma, as it came in Linux 2.6.7 (``mm/rmap.c``): one object for a family of VMAs, inherited whole at fork.

A VMA gets an anon_vma when its first page becomes anonymous, or takes that of a neighbour it might merge with one day.
A fork puts the child's VMA on the same list, a split the new half, a move the moved part. A page keeps the anon_vma and
its page index for life: an area that moves carries its page offset along, so its pages are found where they are now.
Nothing is written per mapping.

The price is the length of the list. All of a fork family's VMAs hang on one anon_vma, whoever made the page: where a
thousand children have each copied their pages, a walk asks a thousand VMAs about a page that one of them maps.

Source: Andrea Arcangeli, March 2004; merged as b2e0caa9a0 ("rmap 39"), the neighbours by the step behind it; VMAs are
put at the head of the list (at the tail since 2.6.18). Files: the prio_tree of the same release. Left out: mempolicy in
the test for a neighbour; locks that are not to be had.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise

import numpy as np

from rmap.columns import I64, scalar_view
from rmap.designs.parts.file_lists import linear_candidates, linear_candidates1
from rmap.designs.parts.file_objects import FileObjects, ObjectIndex
from rmap.designs.parts.linked_list import LinkedList
from rmap.designs.parts.mergeable import mergeable_but_for_permissions
from rmap.designs.parts.slab import Places, objects_per_slab_2_6_0, slab_bytes
from rmap.errors import InvariantError
from rmap.mm.costs import LOCKS_ANON_VMA, OBJECTS_FREED, OBJECTS_MADE
from rmap.mm.frames import TAG_ANON, TAG_BITS, TAG_SHIFT
from rmap.mm.interface import Candidate1, Candidates, CloneWhy, DesignCore, How, PteBatch, Query, ReverseMap
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.profile import Profile

PAGE_MAPCOUNT = 4
VMA_FIELDS = {64: 24, 32: 12}
OBJECT = {64: 24, 32: 12}


class FamilyAnonVma:
    """``struct anon_vma`` of 2.6.7: a lock and the head of a list.

    Attributes:
        id: never used twice. handle: what ``mapping`` of its pages holds.
        vmas: the list, newest first.
        place: where it lies in its slabs.
    """

    __slots__ = ("handle", "id", "place", "vmas")

    def __init__(self, id: int, place: int) -> None:
        self.id = id
        self.handle = id << TAG_SHIFT | TAG_ANON
        self.vmas = LinkedList()
        self.place = place


class AnonVmaList(ReverseMap):
    """``vma.anon`` is the VMA's anon_vma, ``vma.chain`` its place in that one's list (``anon_vma_node``).

    Attributes:
        anon_vmas: the living ones, by id.
        files: the trees of the files.

    Invariants: a VMA is on the list of its anon_vma, once; a list is not empty; the anon_vma of a page is that of every
    VMA that maps it, and its index is its place there (I13, I14).
    """

    name = "anon_vma"
    release = "2.6.7"
    index_is = "linear"
    nonlinear = True
    keeps_anchors = False

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.anon_vmas: dict[int, FamilyAnonVma] = {}
        self.files = FileObjects(core)
        self._mms: dict[int, Mm] = {}
        self._next_id = 0
        self._places = Places()

    # -- processes ----------------------------------------------------------------------------------------------------
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        """Remember the mm: :meth:`validate` looks at every VMA."""
        self._mms[mm.id] = mm

    def mm_exit(self, mm: Mm) -> None:
        """Forget the mm."""
        del self._mms[mm.id]

    # -- VMAs ---------------------------------------------------------------------------------------------------------
    def anon_vma_prepare(self, vma: Vma) -> None:
        """Take a neighbour's anon_vma (``find_mergeable_anon_vma``: the next VMA's first), or make one."""
        counters = self.core.costs.current
        counters[LOCKS_ANON_VMA] += 1
        prev, next = self.core.neighbours(vma)
        anon_vma = None
        if next is not None and next.anon is not None and mergeable_but_for_permissions(vma, next):
            anon_vma = next.anon
        elif prev is not None and prev.anon is not None and mergeable_but_for_permissions(prev, vma):
            anon_vma = prev.anon
        if anon_vma is None:
            anon_vma = self.anon_vmas[self._next_id] = FamilyAnonVma(self._next_id, self._places.take())
            self._next_id += 1
            counters[OBJECTS_MADE] += 1
        self._link(vma, anon_vma)

    def _link(self, vma: Vma, anon_vma: FamilyAnonVma) -> None:
        vma.anon = anon_vma
        vma.chain = anon_vma.vmas.add(vma)

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        """``anon_vma_link``: on the parent's list, at its head."""
        self.core.costs.current[LOCKS_ANON_VMA] += 1
        self._link(child, parent.anon)

    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        """Split and move: at the head of the same list. Merge (``anon_vma_merge``): where the absorbed VMA is."""
        if old.anon is None:
            return
        self.core.costs.current[LOCKS_ANON_VMA] += 1
        if why == "merge":
            new.anon = old.anon
            new.chain = old.anon.vmas.insert_before(new, old.chain)
        else:
            self._link(new, old.anon)

    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        """``anon_vma_unlink``: an anon_vma whose list is empty is freed at once."""
        anon_vma: FamilyAnonVma | None = vma.anon
        if anon_vma is None:
            return
        self.core.costs.current[LOCKS_ANON_VMA] += 1
        anon_vma.vmas.remove(vma.chain)
        vma.anon = vma.chain = None
        if not anon_vma.vmas:
            del self.anon_vmas[anon_vma.id]
            self._places.give(anon_vma.place)
            self.core.costs.current[OBJECTS_FREED] += 1

    def is_mergeable_anon_vma(self, target: Vma, source: Vma | None) -> bool:
        """Forbidden only where both have one, and not the same."""
        return target.anon is None or source is None or source.anon is None or target.anon is source.anon

    def are_anon_vmas_compatible(self, prev: Vma, next: Vma) -> bool:
        """Likewise."""
        return prev.anon is None or next.anon is None or prev.anon is next.anon

    # -- pages --------------------------------------------------------------------------------------------------------
    def set_anon(self, batch: PteBatch, how: How) -> None:
        """``page_add_anon_rmap``: the VMA's anon_vma and the linear index. Whose page it is makes no difference."""
        assert batch.vma is not None
        if how != "reuse":
            self.core.frames.set_anchor(batch.pfns, batch.vma.anon.handle, batch.pgoffs)

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Anchor by anchor: every VMA of the list is asked, until all mappings are found."""
        if not len(query.pfns):
            return
        counters = self.core.costs.current
        mapping, index = query.sort_by_anchor()
        keys = scalar_view(index)
        cuts = (np.flatnonzero(np.diff(mapping)) + 1).tolist()
        for lo, hi in pairwise([0, *cuts, len(mapping)]):
            anchor = int(mapping[lo])
            if anchor & TAG_BITS == TAG_ANON:
                anon_vma = self.anon_vmas.get(anchor >> TAG_SHIFT)
                if anon_vma is not None:
                    counters[LOCKS_ANON_VMA] += query.asking(lo, hi)
                    yield from linear_candidates(anon_vma.vmas, query, keys, lo, hi, counters)
            else:
                yield from self.files.candidates(query, anchor, keys, lo, hi)

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin."""
        anchor, index = self.core.frames.anchor1(pfn)
        if anchor & TAG_BITS != TAG_ANON:
            yield from self.files.candidates1(anchor, index)
            return
        anon_vma = self.anon_vmas.get(anchor >> TAG_SHIFT)
        if anon_vma is not None:
            counters = self.core.costs.current
            counters[LOCKS_ANON_VMA] += 1
            yield from linear_candidates1(anon_vma.vmas, index, counters)

    def collateral(self, query: Query) -> Generator[I64, int, None]:
        """Clusters of the nonlinear areas, for pages of their files that are still mapped."""
        return self.files.collateral(query)

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> ObjectIndex:
        """The tree of a file's VMAs."""
        return self.files.new_index()

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: ``_mapcount`` of mapped pages, the list node and pointer of VMAs with an anon_vma,
        the tree nodes of file VMAs, and the anon_vmas."""
        living = self.anon_vmas.values()
        return {
            "page.mapcount": PAGE_MAPCOUNT * int(np.count_nonzero(self.core.frames.mapcount)),
            "vma.anon_vma": VMA_FIELDS[bits] * sum(len(anon_vma.vmas) for anon_vma in living),
            "vma.shared": self.files.metadata_bytes(bits),
            "anon_vma": OBJECT[bits] * len(living),
        }

    def slab_bytes(self, bits: int = 64) -> dict[str, int]:
        """Whole slabs with a living anon_vma in them."""
        places = (anon_vma.place for anon_vma in self.anon_vmas.values())
        return {"anon_vma": slab_bytes(places, objects_per_slab_2_6_0(OBJECT[bits]))}

    def validate(self) -> None:
        """Check lists and pages.

        Raises:
            InvariantError: ``I1``, ``I12``, ``I13`` or ``I14``.
        """
        vmas = [vma for mm in self._mms.values() for vma in mm.vmas]
        listed = [vma for anon_vma in self.anon_vmas.values() for vma in anon_vma.vmas]
        if len(listed) != len(set(listed)) or set(listed) != {vma for vma in vmas if vma.anon is not None}:
            raise InvariantError("I12", f"{len(listed)} VMAs are on lists, others have an anon_vma")
        for anon_vma in self.anon_vmas.values():
            mine = [node.vma for node in anon_vma.vmas.nodes() if node.vma is not None and node.vma.chain is node]
            if not mine or len(mine) != anon_vma.vmas.size or any(vma.anon is not anon_vma for vma in mine):
                raise InvariantError("I12", f"the list of anon_vma {anon_vma.id} is empty, or has others' VMAs")
        for vma in vmas:
            if (vma.anon is not None) != vma.faulted:
                raise InvariantError("I1", f"{vma} has anon_vma {vma.anon}")
            for batch in self.core.batches(vma, vma.start, vma.end):
                mapping, index = self.core.frames.anchor(batch.pfns)
                if (mapping != vma.anon.handle).any():
                    raise InvariantError("I13", f"a page in {vma} hangs on another anon_vma")
                if (index != batch.pgoffs).any():
                    raise InvariantError("I14", f"a page index does not fit its place in {vma}")
        self.files.validate()

    def describe_vma(self, vma: Vma) -> str:
        """``A0, one of 3 VMAs``."""
        return "none" if vma.anon is None else f"A{vma.anon.id}, one of {len(vma.anon.vmas)} VMAs"

    def describe_page(self, pfn: int) -> str:
        """``anon_vma A0 at page index 0x10``, or the page's file."""
        anchor, index = self.core.frames.anchor1(pfn)
        if anchor & TAG_BITS == TAG_ANON:
            return f"anon_vma A{anchor >> TAG_SHIFT} at page index {index:#x}"
        return f"address_space {anchor >> TAG_SHIFT}" if anchor else "none"


