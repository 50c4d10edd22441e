"""Every design with a mistake put in, three or more for each: the conformance test finds all of them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmap.columns import I64, Bool
from rmap.designs.anon_vma import AnonVmaList
from rmap.designs.anon_vma_chain import AnonVmaChain2634
from rmap.designs.anon_vma_lazy import AnonVmaLazy
from rmap.designs.anonmm import Anonmm
from rmap.designs.conformance import run_conformance_test
from rmap.designs.cow_context import CowContexts
from rmap.designs.lego_pcache import LegoPcache
from rmap.designs.objrmap import Objrmap
from rmap.designs.objrmap_prio import ObjrmapPrio
from rmap.designs.parts.entry_lists import EntryLists
from rmap.designs.parts.file_lists import FileLists
from rmap.designs.parts.prio_tree import PrioTree
from rmap.designs.pte_chain import PteCells
from rmap.designs.pv_chunk import PvChunk
from rmap.designs.virtual_scan import VirtualScan
from rmap.errors import InvariantError
from rmap.mm.costs import BLOCKS_VISITED, PTES_CHECKED
from rmap.mm.interface import CloneWhy, How, PteBatch, Query, Why
from rmap.mm.mm_types import Mm, Vma
from tests.designs.mistakes import VisitsUncounted


# -- virtual_scan -------------------------------------------------------------------------------------------------
class AChildIsNotInTheRing(VirtualScan):
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        if parent is None:
            super().mm_init(mm, parent)
        else:
            mm.design = 0

    def mm_exit(self, mm: Mm) -> None:
        if mm in self.ring:
            super().mm_exit(mm)


class TheDeadStayInTheRing(VirtualScan):
    def mm_exit(self, mm: Mm) -> None:
        pass


class TheScanForgetsTheHandsOwn(VirtualScan):
    def _scan(self) -> Any:
        scan = super()._scan()
        next(scan, None)
        yield from scan


class TheScanIsNotCounted(VirtualScan):
    def candidates(self, query: Query) -> Any:
        before = self.core.costs.current[PTES_CHECKED]
        yield from super().candidates(query)
        self.core.costs.current[PTES_CHECKED] = before


# -- cells and lists ----------------------------------------------------------------------------------------------
class CellsMoveWithoutTheirEntries(PteCells):
    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        pass


class DirectEntriesAreCountedAsCells(PteCells):
    def candidates1(self, pfn: int) -> Any:
        return self.lists.candidates1(pfn)


class PvUnmapsForgotten(PvChunk):
    def unmapped(self, query: Query, pos: I64, pteps: I64) -> None:
        pass


class PvEntriesOfTheParentsChunk(PvChunk):
    def take_records(self, batch: PteBatch, pteps: I64) -> I64:
        mm, batch.mm = batch.mm, batch.mm.parent if batch.mm.parent and batch.mm.parent.alive else batch.mm
        records = super().take_records(batch, pteps)
        batch.mm = mm
        return records


class PvEmptyChunksStay(PvChunk):
    def give_records(self, records: I64) -> None:
        chunk, place = np.divmod(records - 1, 168)
        self.used[chunk, place] = False


class LegoMovesAcrossSets(LegoPcache):
    def must_copy(self, batch: PteBatch, new_addr: int, why: Why) -> Bool | None:
        return None

    def validate(self) -> None:
        super().validate()
        for pfn in np.flatnonzero(self.core.frames.mapcount > 1).tolist():
            records = self.lists.records_of(pfn)
            places = self.core.tables.addr_of(self.lists.ptep[records])
            if not self.core.frames.mapping[pfn] and len(set(self.set_of(places).tolist())) > 1:
                raise InvariantError("list", "an anonymous line is in two sets")


class LegoBootRecordsAreNotFreed(LegoPcache):
    def give_records(self, records: I64) -> None:
        super().give_records(records[records >= self.core.frames.nr_pages])


class LegoMigrationForgotten(LegoPcache):
    def migrated(self, old: I64, new: I64) -> None:
        pass


# -- objrmap ------------------------------------------------------------------------------------------------------
class PrivateMappingsAreInNoList(FileLists):
    __slots__ = ()

    def __iter__(self) -> Any:
        yield from self.shared


class ObjrmapWithoutPrivate(Objrmap):
    def i_mmap(self) -> FileLists:
        lists = PrivateMappingsAreInNoList(self.core.costs)
        self._lists.append(lists)
        return lists


class NonlinearPagesAreNotConverted(Objrmap):
    def vma_nonlinear(self, vma: Vma) -> None:
        pass


class ConvertedPagesKeepTheirFlag(Objrmap):
    def removed1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        if anon or self.converted[pfn]:
            self.chains.remove1(pfn, ptep)


class TheWrongWayDown(PrioTree):
    """Inserts a node that ends later below one that ends before."""

    __slots__ = ()

    def _replace(self, old: Any, new: Any) -> None:
        super()._replace(old, new)
        new.left, new.right = new.right, new.left


class PrioWithTheWrongTree(ObjrmapPrio):
    def i_mmap(self) -> Any:
        index = super().i_mmap()
        index.tree = TheWrongWayDown()
        return index


class PrioForgetsNonlinearAreas(ObjrmapPrio):
    def candidates1(self, pfn: int) -> Any:
        found = super().candidates1(pfn)
        return [candidate for candidate in found if not isinstance(candidate, int) or self.core.frames.flags[pfn] & 1]


class PrioSearchesUncounted(VisitsUncounted, ObjrmapPrio):
    pass


# -- anonmm -------------------------------------------------------------------------------------------------------
class NoEarlyCopy(Anonmm):
    def must_copy(self, batch: PteBatch, new_addr: int, why: Why) -> Bool | None:
        return None


class MovesKeepTheAddress(Anonmm):
    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        pass


class FreedPagesStayCounted(Anonmm):
    def freed(self, pfns: I64) -> None:
        pass


class ExecFamiliesAreOne(Anonmm):
    def mm_exit(self, mm: Mm) -> None:
        anonmm = mm.design
        super().mm_exit(mm)
        anonmm.family.pop(anonmm, None)


# -- anon_vma -----------------------------------------------------------------------------------------------------
class TheChildIsNotListed(AnonVmaList):
    def vma_fork(self, child: Vma, parent: Vma) -> None:
        child.anon = parent.anon
        child.chain = None


class SplitHasAnAnonVmaOfItsOwn(AnonVmaList):
    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        self.anon_vma_prepare(new)


class FamilyWithoutVeto(AnonVmaList):
    def is_mergeable_anon_vma(self, target: Vma, source: Vma | None) -> bool:
        return True

    def are_anon_vmas_compatible(self, prev: Vma, next: Vma) -> bool:
        return True


class IndexIsThePlaceInTheVma(AnonVmaList):
    def set_anon(self, batch: PteBatch, how: How) -> None:
        super().set_anon(batch, how)
        if how != "reuse":
            self.core.frames.index[batch.pfns] -= batch.vma.pgoff  # type: ignore[union-attr]


class EmptyAnonVmasStay(AnonVmaList):
    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        if vma.anon is not None:
            vma.anon.vmas.remove(vma.chain)
            vma.anon = vma.chain = None


# -- 2.6.34 -------------------------------------------------------------------------------------------------------
class ResizedLinksAreStale(AnonVmaChain2634):
    def post_update(self, vma: Vma) -> None:
        pass


class TheListLosesTheRoot(AnonVmaChain2634):
    def vma_fork(self, child: Vma, parent: Vma) -> None:
        super().vma_fork(child, parent)
        link = child.chain.pop()
        link.anon_vma.tree.remove(link)


class ForkTakesTheParentsAnonVma(AnonVmaChain2634):
    def vma_fork(self, child: Vma, parent: Vma) -> None:
        super().vma_fork(child, parent)
        child.anon.num_active_vmas -= 1
        child.anon = parent.anon
        child.anon.num_active_vmas += 1


# -- cow_context --------------------------------------------------------------------------------------------------
class MovesAreNotNoted(CowContexts):
    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        pass


class AChildHasNoParent(CowContexts):
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        super().mm_init(mm, None)


class DeadContextsGoAtOnce(CowContexts):
    def mm_exit(self, mm: Mm) -> None:
        context = mm.design
        super().mm_exit(mm)
        self.contexts.pop(context.id, None)


class SharedPagesHangOnWhoeverSwapsThemIn(CowContexts):
    def set_anon(self, batch: PteBatch, how: How) -> None:
        super().set_anon(batch, "new" if how == "shared" else how)


# -- anon_vma_lazy ------------------------------------------------------------------------------------------------
class ForkDoesNotRepoint(AnonVmaLazy):
    def _repoint(self, vma: Vma, before: int, after: int, where: Vma | None = None) -> None:
        if where is not None:
            super()._repoint(vma, before, after, where)


class SplitDoesNotRepoint(AnonVmaLazy):
    def _repoint(self, vma: Vma, before: int, after: int, where: Vma | None = None) -> None:
        if where is None:
            super()._repoint(vma, before, after, where)


class MovedPagesPointAtTheOldArea(AnonVmaLazy):
    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        pass


class GrowthTakesNothingOver(AnonVmaLazy):
    def _take_over(self, vma: Vma, start: int, end: int) -> None:
        pass


MUTANTS = [
    AChildIsNotInTheRing, TheDeadStayInTheRing, TheScanForgetsTheHandsOwn, TheScanIsNotCounted,
    CellsMoveWithoutTheirEntries, DirectEntriesAreCountedAsCells,
    PvUnmapsForgotten, PvEntriesOfTheParentsChunk, PvEmptyChunksStay,
    LegoMovesAcrossSets, LegoBootRecordsAreNotFreed, LegoMigrationForgotten,
    ObjrmapWithoutPrivate, NonlinearPagesAreNotConverted, ConvertedPagesKeepTheirFlag,
    PrioWithTheWrongTree, PrioForgetsNonlinearAreas, PrioSearchesUncounted,
    NoEarlyCopy, MovesKeepTheAddress, FreedPagesStayCounted, ExecFamiliesAreOne,
    TheChildIsNotListed, SplitHasAnAnonVmaOfItsOwn, FamilyWithoutVeto, IndexIsThePlaceInTheVma, EmptyAnonVmasStay,
    ResizedLinksAreStale, TheListLosesTheRoot, ForkTakesTheParentsAnonVma,
    MovesAreNotNoted, AChildHasNoParent, DeadContextsGoAtOnce, SharedPagesHangOnWhoeverSwapsThemIn,
    ForkDoesNotRepoint, SplitDoesNotRepoint, MovedPagesPointAtTheOldArea, GrowthTakesNothingOver,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mistake_is_found_out(mutant: type) -> None:
    # Whatever it is that notices: an invariant, the oracle, the twin, or the design's own objects.
    with pytest.raises((InvariantError, AttributeError, KeyError, TypeError, IndexError, ValueError)):
        run_conformance_test(mutant, seeds=range(6), steps=60)


def test_a_search_from_the_tail_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin without scalar twins searches lists otherwise: the costs differ."""
    right = EntryLists.search

    def wrong(self: EntryLists, pfns: I64, pteps: I64) -> I64:
        found = right(self, pfns, pteps)
        if len(pfns) == 1:
            self._costs.current[BLOCKS_VISITED] += 1
        return found

    monkeypatch.setattr(EntryLists, "search", wrong)
    with pytest.raises(InvariantError, match="costs"):
        run_conformance_test(PvChunk, seeds=())


def test_every_design_has_three_mutants_or_more() -> None:
    by_base: dict[str, int] = {}
    for mutant in MUTANTS:
        by_base[mutant.name] = by_base.get(mutant.name, 0) + 1  # type: ignore[attr-defined]
    by_base["pte_chain:cells"] += 1  # the search above is theirs too
    assert all(count >= 3 for count in by_base.values()), by_base
    assert len(by_base) == 11  # and pte_chain and anon_vma_chain in test_conformance.py
