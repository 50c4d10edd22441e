"""What every design must do, on hand-made machines: walks equal the page tables, and costs are what they claim."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rmap.designs import DEFAULT_DESIGNS, DESIGNS, DesignInfo, design_named, design_names
from rmap.errors import InvariantError, UsageError
from rmap.mm.mm_types import File
from rmap.mm.pte import PRESENT
from rmap.mm.walk import hits

MakeWorld = Callable[..., Any]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("design", "profile"), [("pte_chain", "6.18"), ("anon_vma_chain", "6.18"), ("anon_vma_chain", "7.0")]
)
def test_random_lives_keep_walks_and_page_tables_equal(
    make_world: MakeWorld, design: str, profile: str, seed: int
) -> None:
    rng = random.Random(seed)
    world = make_world(design, profile)
    mms = [world.spawn()]
    next_page = 0
    for _ in range(50):
        mm = rng.choice(mms)
        untouched = [vma for vma in mm.vmas if not vma.faulted]
        choice = rng.random()
        if choice < 0.3 or not mm.vmas:
            pages = rng.choice((1, 3, 12, 40))
            world.map(mm, next_page, pages)
            next_page += pages + rng.choice((0, 0, 1, 600))
        elif choice < 0.55 and untouched:
            world.touch(rng.choice(untouched))
        elif choice < 0.7 and len(mms) < 8:
            mms.append(world.fork(mm))
        elif choice < 0.82:
            vma = rng.choice(mm.vmas)
            if vma.pages > 1:
                world.split(vma, rng.randrange(1, vma.pages))
        elif choice < 0.93:
            world.unmap(rng.choice(mm.vmas))
        elif len(mms) > 1:
            mms.remove(mm)
            world.exit(mm)
        world.check()
    for mm in mms:
        world.exit(mm)
        world.check()
    assert not world.core.frames.mapcount.any()
    bytes_left = world.core.rmap.metadata_bytes()
    assert not any(bytes_left.values()), bytes_left


def mapped_file(world: Any, processes: int, pages: int) -> tuple[list[int], list[Any]]:
    """A file mapped whole by several unrelated processes; returns its frames and the VMAs."""
    core = world.core
    mapping = core.new_mapping("libc.so", pages * 4096, False)
    file = File(mapping, "libc.so")
    pfns = core.frames.alloc(pages)
    core.frames.set_anchor(pfns, mapping.id << 2, np.arange(pages))
    core.frames.extra[pfns] = 1
    mapping.pages[:] = pfns
    vmas = []
    for _ in range(processes):
        mm = world.spawn()
        vma = world.map(mm, 0, pages, pgoff=0, file=file, mapping=mapping)
        world.map_frames(vma, pfns)
        vmas.append(vma)
    return pfns.tolist(), vmas


def test_pages_of_files_are_found_in_every_process(world: Any) -> None:
    _, vmas = mapped_file(world, 12, 20)
    world.check()
    for vma in vmas[::2]:
        world.exit(vma.mm)
        world.check()
    world.split(vmas[1], 7)
    world.check()


def test_a_forked_vma_stands_right_behind_its_parent_in_i_mmap(world: Any) -> None:
    _, vmas = mapped_file(world, 3, 4)
    child = world.fork(vmas[1].mm)
    index = vmas[0].mapping.i_mmap
    assert list(index) == [vmas[0], vmas[1], child.vmas[0], vmas[2]]
    assert list(index.stab(0, 3)) == list(index)
    assert list(index.stab(4, 9)) == []
    assert len(index) == 4
    index.remove(vmas[1])
    assert vmas[1].shared is None and len(index) == 3


def test_a_vma_of_a_file_moved_outside_the_index_is_noticed(world: Any) -> None:
    _, vmas = mapped_file(world, 3, 4)
    vmas[1].pgoff += 1
    with pytest.raises(InvariantError) as error:
        world.core.rmap.validate()
    assert error.value.id == "I12"


@pytest.mark.parametrize("stopped", [0, 3])
def test_entries_that_a_walk_cleared_are_gone(world: Any, stopped: int) -> None:
    # Eviction, as try_to_unmap does it; ``stopped`` pages keep what is left of them after the first hit.
    parent = world.spawn()
    world.touch(world.map(parent, 0, 30))
    for _ in range(10):
        world.fork(parent)
    core, frames = world.core, world.core.frames
    pages = np.flatnonzero(frames.mapcount)
    query = world.query(pages.tolist(), purpose="unmap")
    positions, pteps = [], []
    for found in hits(core, query):
        pos = np.arange(found.pos.start, found.pos.stop) if isinstance(found.pos, slice) else found.pos
        core.tables.ptes[found.pteps] = 0
        np.add.at(frames.mapcount, query.pfns[pos], np.int32(-1))
        positions.append(pos)
        pteps.append(found.pteps)
        query.left[:stopped] = 0
    if core.hooks.unmapped:
        core.hooks.unmapped(query, np.concatenate(positions), np.concatenate(pteps))
    kept = query.pfns[:stopped]
    assert (frames.mapcount[kept] == 10).all()
    assert int(frames.mapcount.sum()) == 10 * stopped
    gone = pages[frames.mapcount[pages] == 0]
    core.free_pages(gone)
    world.check()


def test_forking_writes_an_entry_per_page_or_none(make_world: MakeWorld) -> None:
    for design, entries, objects in (("pte_chain", 64, 64), ("anon_vma_chain", 0, 3)):
        world = make_world(design)
        parent = world.spawn()
        world.touch(world.map(parent, 0, 64))
        world.fork(parent)
        fork = world.core.costs["fork"]
        assert (fork["entries_written"], fork["objects_made"]) == (entries, objects)


def test_a_referenced_walk_collapses_chains_and_no_other_walk_does(make_world: MakeWorld) -> None:
    world = make_world("pte_chain")
    parent = world.spawn()
    pages = world.touch(world.map(parent, 0, 20))
    world.exit(world.fork(parent))
    chains = world.core.rmap.chains
    assert chains.live == 20
    for purpose in ("walk", "unmap", "mkclean"):
        list(hits(world.core, world.query(pages, purpose=purpose)))
        assert chains.live == 20
    list(hits(world.core, world.query(pages, purpose="referenced")))
    assert chains.live == 0
    world.check()
    assert world.core.rmap.metadata_bytes() == {"page.pte": 160, "pte_chain": 0}
    assert world.core.rmap.metadata_bytes(32) == {"page.pte": 80, "pte_chain": 0}


def test_a_chain_in_words(make_world: MakeWorld) -> None:
    world = make_world("pte_chain")
    parent = world.spawn()
    (page,) = world.touch(world.map(parent, 0, 1))
    describe = world.core.rmap.describe_page
    assert describe(page) == "direct 0x10000000 in mm 1"
    world.fork(parent)
    assert describe(page) == "chain [0x10000000 in mm 2, 0x10000000 in mm 1]"
    assert describe(page - 1) == "none"


def test_chains_that_miss_or_invent_an_entry_are_noticed(make_world: MakeWorld) -> None:
    def broken(change: Callable[[Any, int, Any], None]) -> str:
        world = make_world("pte_chain")
        parent = world.spawn()
        page, _ = world.touch(world.map(parent, 0, 2))
        world.fork(parent)
        world.check()
        change(world.core.rmap.chains, page, world.core)
        with pytest.raises(InvariantError) as error:
            world.core.rmap.validate()
        return str(error.value)

    def lose(chains: Any, page: int, core: Any) -> None:
        chains.forget1(page, chains.entries1(page)[0])

    def invent(chains: Any, page: int, core: Any) -> None:
        chains.add1(page, 4096)

    def twice(chains: Any, page: int, core: Any) -> None:
        chains.add1(page, chains.entries1(page)[0])

    def stale(chains: Any, page: int, core: Any) -> None:
        core.tables.ptes[chains.entries1(page)[0]] &= ~PRESENT

    assert "mapcount" in broken(lose)
    assert "maps another" in broken(invent)
    assert "twice" in broken(twice)
    assert "maps another" in broken(stale)


def test_the_registry_names_every_design() -> None:
    assert set(DEFAULT_DESIGNS) <= set(DESIGNS)
    for name, info in DESIGNS.items():
        assert info.name == name and info.release and info.essence
        design = design_named(name)
        assert design is info.factory
        assert design.name == name  # type: ignore[attr-defined]
    mine = DESIGNS["pte_chain"].factory
    assert design_named(mine) is mine
    assert isinstance(DESIGNS["pte_chain"], DesignInfo)
    with pytest.raises(UsageError, match=r"unknown design 'nope': have .*pte_chain"):
        design_named("nope")
    with pytest.raises(UsageError, match="unknown variant anon_vma_chain:nope: have "):
        design_named("anon_vma_chain:nope")


def test_every_variant_can_be_made() -> None:
    assert set(design_names()) == set(DESIGNS)
    for name in design_names(variants=True):
        factory = design_named(name)
        base, _, variant = name.partition(":")
        assert (factory is DESIGNS[base].factory) == (not variant)
