"""PTE chains against a plain-list model of the 2.6.0 rules: order, blocks, costs; scalar and array twins."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rmap.designs.parts.pte_chains import FIRST_BLOCKS, NRPTE, PteChains
from rmap.errors import InvariantError
from rmap.mm.costs import BLOCKS_VISITED, ENTRIES_WRITTEN, LOCKS_CHAIN, OBJECTS_FREED, OBJECTS_MADE, Costs
from rmap.mm.frames import Frames
from rmap.mm.interface import Query


class Model:
    """One page's chain: None, a direct pte pointer, or blocks, head first, each a list of its used slots in order."""

    def __init__(self) -> None:
        self.direct: int | None = None
        self.blocks: list[list[int]] = []
        self.visited = self.made = self.freed = 0

    def entries(self) -> list[int]:
        return [self.direct] if self.direct else [ptep for block in self.blocks for ptep in block]

    def add(self, ptep: int) -> None:
        if self.blocks:
            self.visited += 1
            if len(self.blocks[0]) < NRPTE:
                self.blocks[0].insert(0, ptep)
            else:
                self.blocks.insert(0, [ptep])
                self.made += 1
        elif self.direct:
            self.blocks, self.direct = [[ptep, self.direct]], None
            self.made += 1
        else:
            self.direct = ptep

    def remove(self, ptep: int) -> None:
        if self.direct:
            assert self.direct == ptep
            self.direct = None
            return
        for block in self.blocks:
            self.visited += 1
            if ptep in block:
                block[block.index(ptep)] = self.blocks[0][0]
                break
        del self.blocks[0][0]
        if not self.blocks[0]:
            del self.blocks[0]
            self.freed += 1

    def collapse(self) -> None:
        if len(self.blocks) == 1 and len(self.blocks[0]) == 1:
            self.direct = self.blocks.pop()[0]
            self.freed += 1


def agree(chains: PteChains, costs: Costs, models: list[Model]) -> None:
    chains.validate()
    for pfn, model in enumerate(models):
        assert chains.entries1(pfn) == model.entries()
        assert list(chains.candidates1(pfn)) == model.entries()
        assert bool(chains.head[pfn] < 0) == bool(model.blocks)
    assert chains.live == sum(len(model.blocks) for model in models)


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_random_adds_and_removes_follow_the_rules(seed: int, scalar: bool) -> None:
    rng = random.Random(seed)
    costs = Costs()
    counters = costs.current
    chains = PteChains(40, costs)
    models = [Model() for _ in range(40)]
    next_ptep = 600
    calls = added = 0
    for _ in range(120):
        pages = rng.sample(range(1, 40), rng.randrange(1, 39))
        if rng.random() < 0.5:
            pages.sort()
        pages_left = [pfn for pfn in pages if models[pfn].entries()]
        if rng.random() < 0.55 or not pages_left:
            pteps = [next_ptep + i for i in range(len(pages))]
            next_ptep += len(pages)
            apply(chains, scalar, "add", pages, pteps)
            for pfn, ptep in zip(pages, pteps):
                models[pfn].add(ptep)
            added += len(pages)
        else:
            pages = pages_left
            pteps = [rng.choice(models[pfn].entries()) for pfn in pages]
            apply(chains, scalar, "remove", pages, pteps)
            for pfn, ptep in zip(pages, pteps):
                models[pfn].remove(ptep)
        calls += len(pages)
        expected = {
            LOCKS_CHAIN: calls,
            ENTRIES_WRITTEN: added,
            BLOCKS_VISITED: sum(m.visited for m in models),
            OBJECTS_MADE: sum(m.made for m in models),
            OBJECTS_FREED: sum(m.freed for m in models),
        }
        assert {counter: counters[counter] for counter in expected} == expected
        before = list(counters)
        agree(chains, costs, models)
        counters[:] = before


def apply(chains: PteChains, scalar: bool, what: str, pages: list[int], pteps: list[int]) -> None:
    if scalar:
        one = getattr(chains, f"{what}1")
        for pfn, ptep in zip(pages, pteps):
            one(pfn, ptep)
    else:
        getattr(chains, what)(np.array(pages, np.int64), np.array(pteps, np.int64))


def chains_with(counts: list[int]) -> tuple[PteChains, Costs, Frames, list[Model]]:
    """Chains with so many entries each; frames whose mapcounts agree."""
    costs = Costs()
    frames = Frames(len(counts) + 1)
    chains = PteChains(frames.nr_pages, costs)
    models = [Model() for _ in range(frames.nr_pages)]
    for pfn, count in enumerate(counts, 1):
        for i in range(count):
            chains.add1(pfn, 1000 * pfn + i)
            models[pfn].add(1000 * pfn + i)
        frames.mapcount[pfn] = count
    costs.current[:] = [0] * len(costs.current)
    return chains, costs, frames, models


def test_a_batch_walk_gives_each_page_its_chain_in_order_and_counts_like_single_walks() -> None:
    counts = [1, 2, 7, 8, 15, 29, 1, 3]
    chains, costs, frames, models = chains_with(counts)
    pfns = np.arange(1, len(counts) + 1)
    query = Query(frames, pfns, "never")
    found: dict[int, list[int]] = {int(pfn): [] for pfn in pfns}
    for chunk in chains.candidates(query):
        assert len(np.unique(chunk.pos)) == len(chunk.pos)
        for pos, ptep in zip(chunk.pos.tolist(), chunk.pteps.tolist()):
            found[int(query.pfns[pos])].append(ptep)
    assert found == {pfn: models[pfn].entries() for pfn in found}
    batch = list(costs.current)
    costs.current[:] = [0] * len(batch)
    for pfn in pfns.tolist():
        assert list(chains.candidates1(pfn)) == models[pfn].entries()
    assert costs.current == batch
    assert batch[BLOCKS_VISITED] == sum(-(-n // NRPTE) for n in counts if n > 1)


def test_a_page_that_is_done_visits_no_further_block() -> None:
    chains, costs, frames, _ = chains_with([29, 29])
    query = Query(frames, np.array([1, 2]))
    walk = chains.candidates(query)
    next(walk)
    query.left[0] = 0
    assert all(0 not in chunk.pos for chunk in walk if len(chunk.pos) == 1)
    assert costs.current[BLOCKS_VISITED] == 1 + 5


def test_only_a_chain_with_one_entry_collapses() -> None:
    chains, costs, _, models = chains_with([2, 2, 8, 1])
    for pfn, ptep in ((1, 1000), (3, 3000)):
        chains.remove1(pfn, ptep)
        models[pfn].remove(ptep)
    for model in models:
        model.collapse()
    chains.collapse(np.arange(1, 5))
    agree(chains, costs, models)
    assert chains.head[1] == 1001
    assert chains.head[2] < 0 and chains.head[3] < 0


def test_dropping_pages_frees_their_blocks_and_says_how_many_entries_they_had() -> None:
    chains, costs, _, models = chains_with([29, 1, 2, 7, 5])
    assert chains.drop_all(np.array([1, 2, 3])) == 32
    models[1], models[2], models[3] = Model(), Model(), Model()
    agree(chains, costs, models)


def test_migration_takes_the_chain_along() -> None:
    chains, _, _, models = chains_with([9, 1, 0, 0])
    chains.migrate(np.array([1, 2]), np.array([3, 4]))
    assert chains.entries1(3) == models[1].entries()
    assert chains.entries1(4) == models[2].entries()
    assert not chains.head[1] and not chains.head[2]
    chains.validate()


@pytest.mark.parametrize("count", [0, 1, 2, 9])
@pytest.mark.parametrize("scalar", [False, True])
def test_removing_what_is_not_there_is_our_bug(count: int, scalar: bool) -> None:
    chains, *_ = chains_with([count])
    with pytest.raises(InvariantError, match="chain"):
        apply(chains, scalar, "remove", [1], [77])


def test_the_arena_grows_with_its_chains_intact() -> None:
    n = 3 * FIRST_BLOCKS
    costs = Costs()
    chains = PteChains(n + 1, costs)
    pfns = np.arange(1, n + 1)
    for mapping in range(3):
        chains.add(pfns, pfns * 8 + mapping)
    chains.validate()
    assert chains.live == n
    assert chains.entries1(n) == [n * 8 + 2, n * 8 + 1, n * 8]
    for mapping in range(3):
        chains.remove(pfns, pfns * 8 + mapping)
    chains.validate()
    assert not chains.live and not chains.head.any()


def test_validate_notices_a_hole_a_double_use_and_a_lost_block() -> None:
    def broken() -> PteChains:
        return chains_with([9, 9])[0]

    hole = broken()
    hole.blocks[-hole.head[1], NRPTE] = 0
    with pytest.raises(InvariantError, match="slots"):
        hole.validate()
    shared = broken()
    shared.head[2] = shared.head[1]
    with pytest.raises(InvariantError, match="two chains"):
        shared.validate()
    lost = broken()
    lost.head[2] = 0
    with pytest.raises(InvariantError, match="neither free"):
        lost.validate()
    behind = broken()
    second = behind.blocks[-behind.head[1], 0] >> 3
    behind.blocks[second, 0] += 1
    behind.blocks[second, 1] = 0
    with pytest.raises(InvariantError, match="behind the head"):
        behind.validate()
