"""Both designs pass the conformance test, and it fails each of a list of wrong ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from rmap.columns import I64
from rmap.designs.anon_vma_chain import AnonVmaChainDesign
from rmap.designs.conformance import run_conformance_test
from rmap.designs.conformance.calls import WEIGHTS, Dice, next_call
from rmap.designs.conformance.machine import SmallMachine
from rmap.designs.conformance.scenarios import SCENARIOS
from rmap.designs.pte_chain import PteChain
from rmap.errors import InvariantError, UsageError
from rmap.mm.costs import BLOCKS_VISITED, ENTRIES_WRITTEN
from rmap.mm.interface import Candidate1, Candidates, CloneWhy, How, PteBatch, Query, Why
from rmap.mm.mm_types import Vma
from tests.designs.mistakes import VisitsUncounted


@pytest.mark.parametrize(
    ("design", "profile"), [("pte_chain", "6.18"), ("anon_vma_chain", "6.18"), ("anon_vma_chain", "7.0")]
)
@pytest.mark.parametrize("block", range(2))
def test_designs_conform(design: str, profile: str, block: int) -> None:
    covered = run_conformance_test(design, profile=profile, seeds=range(5 * block, 5 * block + 5), steps=80)
    assert covered.design == design and covered.seeds == 5
    assert sum(covered.calls.values()) >= 600
    assert covered.refused < sum(covered.calls.values()) / 5
    assert covered.pages > 20_000


def test_no_call_of_a_scenario_is_refused() -> None:
    covered = run_conformance_test("anon_vma_chain", seeds=())
    assert covered.refused == 0 and covered.seeds == 0
    assert sum(covered.calls.values()) > sum(map(len, SCENARIOS.values()))


# -- wrong on purpose -----------------------------------------------------------------------------------------------
class OnlyTheNewAnonVma(AnonVmaChainDesign):
    """Fork links the child to its own anon_vma only."""

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        self.anon_vma_prepare(child)


class ALinkNotCloned(AnonVmaChainDesign):
    """Fork forgets the root."""

    def vma_fork(self, child: Vma, parent: Vma) -> None:
        super().vma_fork(child, parent)
        if len(child.chain) > 2:
            link = child.chain.pop()
            link.anon_vma.tree.remove(link)


class SplitClonesTheActiveOnly(AnonVmaChainDesign):
    def vma_clone(self, new: Vma, old: Vma, why: CloneWhy) -> None:
        super().vma_clone(new, old, why)
        for link in [link for link in new.chain if link.anon_vma is not new.anon]:
            link.anon_vma.tree.remove(link)
            new.chain.remove(link)


class SplitWithoutTreeUpdate(AnonVmaChainDesign):
    def pre_update(self, vma: Vma) -> None:
        pass

    def post_update(self, vma: Vma) -> None:
        pass


class RootInsteadOfActive(AnonVmaChainDesign):
    def set_anon(self, batch: PteBatch, how: How) -> None:
        super().set_anon(batch, "shared" if how == "new" else how)

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        super().set_anon1(vma, addr, ptep, pfn, "shared" if how == "new" else how)


class ReuseDoesNotMoveTheAnchor(AnonVmaChainDesign):
    def set_anon(self, batch: PteBatch, how: How) -> None:
        if how != "reuse":
            super().set_anon(batch, how)

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        if how != "reuse":
            super().set_anon1(vma, addr, ptep, pfn, how)


class IndexIsTheAddress(AnonVmaChainDesign):
    def set_anon(self, batch: PteBatch, how: How) -> None:
        super().set_anon(batch, how)
        self.core.frames.index[batch.pfns] = batch.addrs >> 12

    def set_anon1(self, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        super().set_anon1(vma, addr, ptep, pfn, how)
        self.core.frames.index[pfn] = addr >> 12


class NoMergeVeto(AnonVmaChainDesign):
    def is_mergeable_anon_vma(self, target: Vma, source: Vma | None) -> bool:
        return True

    def are_anon_vmas_compatible(self, prev: Vma, next: Vma) -> bool:
        return True


class UnlinkLeavesTheTree(AnonVmaChainDesign):
    def vma_unlink(self, vma: Vma, heir: Vma | None) -> None:
        vma.anon.num_active_vmas -= 1
        vma.anon = vma.chain = None


class WalkStopsOneShort(AnonVmaChainDesign):
    def candidates(self, query: Query) -> Candidates:
        held = None
        for chunk in super().candidates(query):
            if held is not None:
                yield held
            held = chunk


class WalkVisitsUncounted(VisitsUncounted, AnonVmaChainDesign):
    pass


class WalkInAnotherOrder(AnonVmaChainDesign):
    def candidates1(self, pfn: int) -> Any:
        return reversed(list(super().candidates1(pfn)))


class MovesForgotten(PteChain):
    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        pass


class MigrationForgotten(PteChain):
    def migrated(self, old: I64, new: I64) -> None:
        pass


class UnmapsForgotten(PteChain):
    def unmapped(self, query: Query, pos: I64, pteps: I64) -> None:
        pass


class FilesForgotten(PteChain):
    def added(self, batch: PteBatch, why: Why) -> None:
        if batch.anon:
            super().added(batch, why)

    def added1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        if anon:
            super().added1(vma, addr, ptep, pfn, anon, why)


class CollapseLosesAnEntry(PteChain):
    def candidates(self, query: Query) -> Candidates:
        yield from self.chains.candidates(query)
        if query.purpose == "referenced":
            for pfn in query.pfns.tolist():
                entries = self.chains.entries1(pfn)
                if len(entries) == 2:
                    self.chains.forget1(pfn, entries[0])


class TwinWritesUncounted(PteChain):
    def added1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        super().added1(vma, addr, ptep, pfn, anon, why)
        self.core.costs.current[ENTRIES_WRITTEN] -= 1


class TwinAddsAtTheEnd(PteChain):
    """The scalar twin adds where a walk looks last: every entry is found, in another order."""

    def added1(self, vma: Vma, addr: int, ptep: int, pfn: int, anon: bool, why: Why) -> None:
        held = self.chains.entries1(pfn)
        super().added1(vma, addr, ptep, pfn, anon, why)
        if len(held) == 1:
            block = -int(self.chains.head[pfn])
            self.chains.blocks[block, 6:8] = [held[0], ptep]


class RemoveSearchUncounted(PteChain):
    def removed(self, batch: PteBatch, why: Why) -> None:
        before = self.core.costs.current[BLOCKS_VISITED]
        super().removed(batch, why)
        self.core.costs.current[BLOCKS_VISITED] = before


class EntriesInvented(PteChain):
    """A walk of one page proposes its first entry twice."""

    def candidates1(self, pfn: int) -> Iterable[Candidate1]:
        entries = list(super().candidates1(pfn))
        return [entries[0], *entries]


MUTANTS = [
    OnlyTheNewAnonVma, ALinkNotCloned, SplitClonesTheActiveOnly, SplitWithoutTreeUpdate, RootInsteadOfActive,
    ReuseDoesNotMoveTheAnchor, IndexIsTheAddress, NoMergeVeto, UnlinkLeavesTheTree,
    WalkStopsOneShort, WalkVisitsUncounted, WalkInAnotherOrder, MovesForgotten, MigrationForgotten, UnmapsForgotten,
    FilesForgotten, CollapseLosesAnEntry, TwinWritesUncounted, TwinAddsAtTheEnd, RemoveSearchUncounted, EntriesInvented,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_wrong_designs_are_found_out(mutant: type) -> None:
    # The fixed scenarios are enough for all of them.
    with pytest.raises(InvariantError) as error:
        run_conformance_test(mutant, seeds=())
    # The report says how to do it again.
    (note,) = error.value.__notes__
    assert note.startswith("scenario ") and "mmap(" in note


# -- the tool itself ------------------------------------------------------------------------------------------------
def test_a_seed_fixes_the_calls_and_every_call_is_made() -> None:
    def calls(seed: int) -> list[Any]:
        dice, machine, made = Dice(seed), SmallMachine(PteChain, "6.18", True), []
        for _ in range(60):
            call = next_call(dice, machine)
            machine.apply(call)
            made.append(call)
        return made

    assert calls(3) == calls(3) != calls(4)
    names = {call[0] for seed in range(30) for call in calls(seed)}
    assert names == set(WEIGHTS) == set(SmallMachine.CALLS)


def test_whatever_goes_wrong_the_calls_that_led_to_it_are_told() -> None:
    class Breaks(PteChain):
        def migrated(self, old: I64, new: I64) -> None:
            super().migrated(old, new)
            if len(old) == 1:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        run_conformance_test(Breaks, seeds=range(30), steps=80)
    (note,) = error.value.__notes__
    assert note.startswith("seed ") and "move_pages(" in note.splitlines()[-1]


def test_seeds_give_sequences_of_their_own() -> None:
    def numbers(seed: int) -> list[int]:
        dice = Dice(seed)
        return [dice.below(1 << 64) for _ in range(50)]

    assert numbers(7) == numbers(7)
    assert len({number for seed in range(50) for number in numbers(seed)}) == 2500


def test_an_unknown_design_or_profile_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UsageError):
        run_conformance_test("nope")
    with pytest.raises(UsageError):
        run_conformance_test("pte_chain", profile="2.4")
