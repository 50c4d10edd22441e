"""The reverse map of anon_vmas and chains (``mm/rmap.c``, and the anon_vma rules of ``mm/vma.c``).

A page knows only an object and its page index in it: an anonymous page its anon_vma, a page of a file its
address_space. The object knows the VMAs that may map the page, and linearity says where (rules 1.3, 5.3). So nothing is
written per mapping, and a walk may look where the page is not.

Each fork gives the child's VMA an anon_vma of its own for new pages, and links it to all the parent's anon_vmas, where
the pages it inherits hang. A page is looked for in the VMAs below the anon_vma that it was made in, not in the
whole family.

Releases differ in the order of a clone's chain and in which old anon_vma a fork takes up again: the profile says (rules
0.3, 2.4, 2.5). What an anon_vma keeps its links in, and what things weigh, are attributes: a design sets them. Left
out: mempolicy, userfaultfd and names in the test for a mergeable neighbour (rule 2.3), references of KSM and of
migration (rule 2.9), and the leftmost-node shortcut of the trees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np

from rmap.columns import I64, scalar_view
from rmap.designs.parts.anon_vma import AnonVma, AnonVmaChain
from rmap.designs.parts.anon_vma_check import check_anon_vmas, check_pages, check_vmas
from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.designs.parts.interval_tree import IntervalTree
from rmap.designs.parts.mergeable import mergeable_but_for_permissions
from rmap.designs.parts.slab import Places, slab_bytes
from rmap.mm.costs import LOCKS_ANON_VMA, LOCKS_I_MMAP, OBJECTS_FREED, OBJECTS_MADE
from rmap.mm.frames import LARGE, TAG_ANON, TAG_BITS, TAG_FILE, TAG_SHIFT
from rmap.mm.interface import Candidate1, Candidates, CloneWhy, DesignCore, How, Linear, PteBatch, Query, ReverseMap
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.profile import Profile
from rmap.units import PAGE_SHIFT

PAGE_MAPCOUNT = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the structures of one release on one kind of machine.

    Attributes:
        vma_anon: ``anon_vma`` and the head of its chain, in a VMA with anonymous memory.
        vma_shared: ``shared``, in a VMA of a file.
        anon_vma, link: the objects, as their slabs stride.
        per_slab: how many anon_vmas, and how many links, a slab of one page holds.
    """

    vma_anon: int
    vma_shared: int
    anon_vma: int
    link: int
    per_slab: tuple[int, int]


class ChainedAnonVmas(ReverseMap):
    """Anon_vmas, chains, and a file's VMAs by page index.

    ``vma.anon`` is the active anon_vma, ``vma.chain`` the list of links, newest first.

    Attributes:
        anon_vmas: the living ones, by id.
        sizes: of what release, by bits of a word.

    Invariants: I1 to I14, I16 (``docs/rules.md``).
    """

    index_is = "linear"
    sizes: ClassVar[dict[int, Sizes]] = {}
    index_type: ClassVar[type[Any]] = IntervalTree
    """What an anon_vma keeps its links in."""
    takes_up = True
    """Whether a fork takes up deserted anon_vmas again, as the profile says."""

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.anon_vmas: dict[int, AnonVma] = {}
        self._frames = core.frames
        self._flags = core.frames.mv_flags
        self._mapping = core.frames.mv_mapping
        self._index = core.frames.mv_index
        self._costs = core.costs
        self._next_id = 0
        self._may_take_up = _TAKEN_UP[profile.taken_up if self.takes_up else "never"]
        self._anon_vma_places = Places()
        self._link_places = Places()
        self._mms: dict[int, Mm] = {}
        self._indexes: list[IntervalIndex] = []

    # -- processes ----------------------------------------------------------------------------------------------------
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        """Remember the mm: :meth:`validate` looks at every VMA."""
        self._mms[mm.id] = mm

    def mm_exit(self, mm: Mm) -> None:
        """Forget the mm."""
        del self._mms[mm.id]

    # -- VMAs ---------------------------------------------------------------------------------------------------------
    def anon_vma_prepare(self, vma: Vma) -> None:
        """``__anon_vma_prepare`` (rule 2.2): take a neighbour's anon_vma, or make a new root."""
        counters = self._costs.current
        counters[LOCKS_ANON_VMA] += 1
        anon_vma = self._find_mergeable_anon_vma(vma)
        if anon_vma is None:
            anon_vma = self._new_anon_vma(None)
        link = AnonVmaChain(vma, anon_vma, vma.pgoff, vma.last, self._link_places.take())
        anon_vma.tree.insert(link)
        anon_vma.num_active_vmas += 1
        counters[OBJECTS_MADE] += 1
        vma.anon = anon_vma
        vma.chain = [link]

    def _new_anon_vma(self, parent: AnonVma | None) -> AnonVma:
        id = self._next_id
        self._next_id = id + 1
        anon_vma = self.anon_vmas[id] = AnonVma(id, parent, self.index_type(), self._anon_vma_places.take())
        self._costs.current[OBJECTS_MADE] += 1
        return anon_vma

    def _find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        # Rule 2.3: the next VMA first, then the previous one.
        prev, next = self.core.neighbours(vma)
        if next is not None and _may_share(next) and mergeable_but_for_permissions(vma, next):
            return next.anon
        if prev is not None and _may_share(prev) and mergeable_but_for_permissions(prev, vma):
            return prev.anon
        return None

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        """``anon_vma_fork`` (rule 2.4): link the child to all the parent's anon_vmas, and give it its own."""
        # The hottest hook that is called per VMA: locals, no calls that can be spared.
        chain: list[AnonVmaChain] = parent.chain
        # The child's own range: it is the parent's at a fork, but not when a picture is loaded.
        start, last = child.pgoff, child.last
        active = None
        links = []
        take, may_take_up = self._link_places.take, self._may_take_up
        for old in reversed(chain) if self.profile.reuse_from_root else chain:
            anon_vma = old.anon_vma
            link = AnonVmaChain(child, anon_vma, start, last, take())
            anon_vma.tree.insert(link)
            links.append(link)
            if active is None and anon_vma.num_children < 2 and may_take_up(anon_vma, parent):
                active = anon_vma  # rules 2.5 and 2.7: taken up again, at whatever place of the chain it has
        counters = self._costs.current
        counters[LOCKS_ANON_VMA] += 1
        if active is None:  # rule 2.6: one of its own, made before any write
            counters[LOCKS_ANON_VMA] += 1
            active = self._new_anon_vma(parent.anon)
            link = AnonVmaChain(child, active, start, last, take())
            active.tree.insert(link)
            links.append(link)
        active.num_active_vmas += 1
        counters[OBJECTS_MADE] += len(links)
        links.reverse()
        child.anon = active
        child.chain = links

    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        """``anon_vma_clone`` for split, mremap and merge (rule 2.4): the same active anon_vma, a chain of its own."""
        if old.anon is None:
            return
        counters = self._costs.current
        counters[LOCKS_ANON_VMA] += 1
        start, last = new.pgoff, new.last
        chain: list[AnonVmaChain] = old.chain
        links = []
        for link in reversed(chain) if self.profile.root_is_last else chain:
            copy = AnonVmaChain(new, link.anon_vma, start, last, self._link_places.take())
            link.anon_vma.tree.insert(copy)
            links.append(copy)
        counters[OBJECTS_MADE] += len(links)
        links.reverse()
        new.anon = old.anon
        new.chain = links
        new.anon.num_active_vmas += 1

    def pre_update(self, vma: Vma) -> None:
        """Out of all trees (``anon_vma_interval_tree_pre_update_vma``)."""
        if vma.anon is None:
            return
        self._costs.current[LOCKS_ANON_VMA] += 1
        for link in vma.chain:
            link.anon_vma.tree.remove(link)

    def post_update(self, vma: Vma) -> None:
        """Back into all trees, under the new interval."""
        if vma.anon is None:
            return
        start, last = vma.pgoff, vma.last
        for link in vma.chain:
            link.start = start
            link.last = last
            link.anon_vma.tree.insert(link)

    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        """``unlink_anon_vmas`` (rule 2.8): anon_vmas whose last VMA this was are freed."""
        if vma.anon is None:
            return
        counters = self._costs.current
        counters[LOCKS_ANON_VMA] += 1
        counters[OBJECTS_FREED] += len(vma.chain)
        deserted = []
        for link in vma.chain:
            anon_vma = link.anon_vma
            anon_vma.tree.remove(link)
            self._link_places.give(link.place)
            if anon_vma.tree.root is None:
                anon_vma.parent.num_children -= 1
                deserted.append(anon_vma)
        vma.anon.num_active_vmas -= 1
        vma.anon = None
        vma.chain = None
        for anon_vma in deserted:
            self._put_anon_vma(anon_vma)

    def _put_anon_vma(self, anon_vma: AnonVma) -> None:
        anon_vma.refcount -= 1
        if anon_vma.refcount:
            return
        del self.anon_vmas[anon_vma.id]
        self._anon_vma_places.give(anon_vma.place)
        self._costs.current[OBJECTS_FREED] += 1
        if anon_vma.root is not anon_vma:  # rule 2.9: the root goes when the last of its family has gone
            self._put_anon_vma(anon_vma.root)

    def is_mergeable_anon_vma(self, target: Vma, source: Vma | None) -> bool:
        """Rule 3.3: a VMA that came through fork with an anon_vma neither gives it away nor takes others in."""
        ours = None if source is None else source.anon
        if target.anon is None and source is not None and ours is not None:
            return self.profile.unfaulted_vma_takes_in and len(source.chain) < 2
        if target.anon is not None and ours is None:
            return len(target.chain) < 2
        return target.anon is ours

    def are_anon_vmas_compatible(self, prev: Vma, next: Vma) -> bool:
        """Rule 3.4."""
        return prev.anon is None or next.anon is None or prev.anon is next.anon

    # -- pages --------------------------------------------------------------------------------------------------------
    def set_anon(self, batch: PteBatch, how: How) -> None:
        """``__folio_set_anon`` (rules 4.2, 4.3), or ``folio_move_anon_rmap`` for ``reuse`` (4.7)."""
        assert batch.vma is not None
        anon_vma = batch.vma.anon
        if how == "shared":
            anon_vma = anon_vma.root
        if how == "reuse":
            self._frames.set_mapping(batch.pfns, anon_vma.handle)
        else:
            self._frames.set_anchor(batch.pfns, anon_vma.handle, batch.pgoffs)

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        """The scalar twin of :meth:`set_anon` (rules 4.2, 4.3, 4.7)."""
        if how == "new" and not self._flags[pfn] & LARGE:
            # Every fault comes here: a base page, on the active anon_vma.
            self._mapping[pfn] = vma.anon.handle
            self._index[pfn] = vma.pgoff + ((addr - vma.start) >> PAGE_SHIFT)
            return
        frames = self._frames
        if frames.mv_flags[pfn] & LARGE:
            self.set_anon(PteBatch.single(vma, addr, ptep, pfn, True), how)
            return
        frames.mv_mapping[pfn] = vma.anon.root.handle if how == "shared" else vma.anon.handle
        if how != "reuse":
            frames.mv_index[pfn] = vma.pgoff + ((addr - vma.start) >> PAGE_SHIFT)

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """``rmap_walk_anon`` and ``rmap_walk_file`` (rules 5.2, 5.5): anchor by anchor, the VMAs in its tree."""
        if not len(query.pfns):
            return
        mapping, index = query.sort_by_anchor()
        keys = scalar_view(index)
        cuts = (np.flatnonzero(np.diff(mapping)) + 1).tolist()
        for lo, hi in pairwise([0, *cuts, len(mapping)]):
            yield from self.group_candidates(query, int(mapping[lo]), keys, lo, hi)

    def group_candidates(self, query: Query, anchor: int, keys: memoryview[int], lo: int, hi: int) -> Candidates:
        """Where the pages at positions ``lo`` to ``hi``, which hang on one anchor, may be mapped."""
        tree, lock = self._tree_of(anchor)
        if tree is None:
            return
        counters = self._costs.current
        counters[lock] += query.asking(lo, hi)
        for node, first, end in tree.stab_many(keys, lo, hi, query.asking, counters):
            yield Linear(node.vma, first, end)
            if query.all_found(lo, hi):
                return

    def candidates1(self, pfn: int) -> Iterator[Candidate1]:
        """The scalar twin: ``(VMA, address)`` by linearity (rule 5.3)."""
        counters = self._costs.current
        anchor, index = self._frames.anchor1(pfn)
        tree, lock = self._tree_of(anchor)
        if tree is None:
            return
        counters[lock] += 1
        for node in tree.stab(index, index, counters):
            vma = node.vma
            yield vma, vma.start + ((index - vma.pgoff) << PAGE_SHIFT)

    def _tree_of(self, anchor: int) -> tuple[Any, int]:
        # Where a page with this anchor is looked for, and under which lock. None: nothing can map it any more
        # (rule 1.2: the anchor outlives the last mapping), or no tree knows (KSM).
        tag = anchor & TAG_BITS
        if tag == TAG_ANON:
            anon_vma = self.anon_vmas.get(anchor >> TAG_SHIFT)
            return (None if anon_vma is None else anon_vma.tree), LOCKS_ANON_VMA
        if tag == TAG_FILE and anchor:
            return cast("IntervalIndex", self.core.mapping_index(anchor >> TAG_SHIFT)).tree, LOCKS_I_MMAP
        return None, LOCKS_ANON_VMA

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> IntervalIndex:
        """The interval tree of a file's VMAs."""
        index = IntervalIndex(self._costs)
        self._indexes.append(index)
        return index

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata. Fields count where they are in use: ``_mapcount`` in mapped pages (``mapping`` and
        ``index`` serve the page cache anyway), ``anon_vma`` and its list head in VMAs with anonymous memory,
        ``shared`` in VMAs of files. Sizes on 32-bit were not read: the answer is empty.
        """
        sizes = self.sizes.get(bits)
        if sizes is None:
            return {}
        living = self.anon_vmas.values()
        return {
            "page.mapcount": PAGE_MAPCOUNT * int(np.count_nonzero(self._frames.mapcount)),
            "vma.anon_vma": sizes.vma_anon * sum(anon_vma.num_active_vmas for anon_vma in living),
            "vma.shared": sizes.vma_shared * sum(map(len, self._indexes)),
            "anon_vma": sizes.anon_vma * len(living),
            "anon_vma_chain": sizes.link * sum(len(anon_vma.tree) for anon_vma in living),
        }

    def slab_bytes(self, bits: int = 64) -> dict[str, int]:
        """Whole slabs with a living anon_vma or link in them, the places as SLUB would have handed them out."""
        sizes = self.sizes.get(bits)
        if sizes is None:
            return {}
        links = (link.place for anon_vma in self.anon_vmas.values() for link in anon_vma.tree)
        return {
            "anon_vma": slab_bytes((anon_vma.place for anon_vma in self.anon_vmas.values()), sizes.per_slab[0]),
            "anon_vma_chain": slab_bytes(links, sizes.per_slab[1]),
        }

    def validate(self) -> None:
        """Check I1 to I14 and I16 over every VMA, anon_vma and anonymous page.

        Raises:
            InvariantError: with the invariant's number.
        """
        vmas = [vma for mm in self._mms.values() for vma in mm.vmas]
        check_vmas(vmas, self.profile)
        check_anon_vmas(vmas, self.anon_vmas)
        for index in self._indexes:
            index.validate()
        for vma in vmas:
            for batch in self.core.batches(vma, vma.start, vma.end):
                check_pages(self._frames, vma, batch)

    def describe_vma(self, vma: Vma) -> str:
        """``A1, chain [A1 A0]``."""
        if vma.anon is None:
            return "none"
        return f"{vma.anon.name}, chain [{' '.join(link.anon_vma.name for link in vma.chain)}]"

    def describe_page(self, pfn: int) -> str:
        """``anon_vma A0``, or the page's file."""
        anchor, _ = self._frames.anchor1(pfn)
        if anchor & TAG_BITS == TAG_ANON:
            return f"anon_vma A{anchor >> TAG_SHIFT}"
        return f"address_space {anchor >> TAG_SHIFT}" if anchor else "none"

    def topology(self) -> dict[str, I64] | None:
        """The anon_vmas and chains as columns, int64. An anon_vma is named by its id, ``mapping >> 2`` of its pages.

        * anon_vmas: ``id``, ``root``, ``parent``, ``refcount``, ``num_children``, ``num_active_vmas``;
        * VMAs that have one: ``vma_mm`` (id of the mm), ``vma_start`` (bytes), ``vma_anon_vma`` (the active one);
        * links, newest first: ``chain_mm``, ``chain_start`` (which VMA), ``chain_anon_vma``.
        """
        living = list(self.anon_vmas.values())
        vmas = [vma for mm in self._mms.values() for vma in mm.vmas if vma.anon is not None]
        links = [(vma, link.anon_vma) for vma in vmas for link in vma.chain]

        def column(values: Iterable[int]) -> I64:
            return np.fromiter(values, np.int64)

        return {
            "id": column(anon_vma.id for anon_vma in living),
            "root": column(anon_vma.root.id for anon_vma in living),
            "parent": column(anon_vma.parent.id for anon_vma in living),
            "refcount": column(anon_vma.refcount for anon_vma in living),
            "num_children": column(anon_vma.num_children for anon_vma in living),
            "num_active_vmas": column(anon_vma.num_active_vmas for anon_vma in living),
            "vma_mm": column(vma.mm.id for vma in vmas),
            "vma_start": column(vma.start for vma in vmas),
            "vma_anon_vma": column(vma.anon.id for vma in vmas),
            "chain_mm": column(vma.mm.id for vma, _ in links),
            "chain_start": column(vma.start for vma, _ in links),
            "chain_anon_vma": column(anon_vma.id for _, anon_vma in links),
        }

    def adopt_topology(self, columns: dict[str, I64], vmas: list[Vma]) -> I64:
        """Make the anon_vmas and chains of a picture; see :meth:`ReverseMap.adopt_topology`."""
        roots, parents = columns["root"].tolist(), columns["parent"].tolist()
        made: dict[int, AnonVma] = {}

        for row in range(len(roots)):
            # Parents first. A parent may have no VMA left, but lives while a child names it (rule 2.8).
            line = []
            while row not in made and row not in line:
                line.append(row)
                row = parents[row]
            for member in reversed(line):
                parent = None if roots[member] == member else made[parents[member]]
                made[member] = self._new_anon_vma(parent)
        for row, children in enumerate(columns["num_children"].tolist()):
            made[row].num_children = children
        for vma, row in zip(vmas, columns["active"].tolist()):
            if row >= 0:
                vma.anon = made[row]
                vma.anon.num_active_vmas += 1
                vma.chain = []
        for vma_row, row in zip(columns["chain_vma"].tolist(), columns["chain_anon_vma"].tolist()):
            vma = vmas[vma_row]
            link = AnonVmaChain(vma, made[row], vma.pgoff, vma.last, self._link_places.take())
            link.anon_vma.tree.insert(link)
            vma.chain.append(link)
        return np.array([made[row].handle for row in range(len(roots))], np.int64)


def _deserted(anon_vma: AnonVma, parent: Vma) -> bool:
    # Rule 2.5, since 2022: nobody's new pages hang there. (That it has less than two children, the caller has asked.)
    return not anon_vma.num_active_vmas


def _of_low_degree(anon_vma: AnonVma, parent: Vma) -> bool:
    # Rule 2.5 in 5.1: one number counts VMAs and children together, so that a living user may go unnoticed.
    return anon_vma is not parent.anon and anon_vma.num_active_vmas + anon_vma.num_children < 2


_TAKEN_UP: dict[str, Callable[[AnonVma, Vma], bool]] = {
    "never": lambda anon_vma, parent: False,
    "degree": _of_low_degree,
    "deserted": _deserted,
}


def _may_share(vma: Vma) -> bool:
    # Only a VMA that has its anon_vma to itself lends it: never one that came through fork.
    return vma.anon is not None and len(vma.chain) == 1
