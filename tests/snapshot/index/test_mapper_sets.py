"""The reverse index and the sets of mappers, against brute force over single entries."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings

from tests.support import PAGE
from tests.support.random_snapshots import World, worlds
from tests.support.snapshot_worlds import HEAP


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_the_reverse_index_has_every_entry_of_every_frame(world: World) -> None:
    places = defaultdict(list)  # of each frame: process and address
    pages = Counter[int]()
    for process, frame in world.entries:
        places[frame].append((process, HEAP + pages[process] * PAGE))
        pages[process] += 1
    reverse, pfns = world.snapshot.reverse, world.snapshot.pfns()
    assert reverse.nr_ptes == len(world.entries)
    assert reverse.found.tolist() == [len(places[frame]) for frame in pfns.tolist()]
    asked = np.concatenate((pfns[::-1], pfns, [99]))  # in any order, twice, and one that is not described
    found = reverse.entries(asked)
    process = world.snapshot.vmas.process[world.snapshot.ptes.vma[found.extent]]
    for position, frame in enumerate(asked.tolist()):
        rows = found.position == position
        assert list(zip(process[rows].tolist(), found.address[rows].tolist())) == sorted(places[frame])


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_mapper_sets_are_those_of_the_entries(world: World) -> None:
    sets = world.snapshot.mapper_sets
    assert sets.found.tolist() == world.snapshot.reverse.found.tolist()
    mappers = defaultdict(Counter)
    for process, frame in world.entries:
        mappers[frame][process] += 1
    for dense, frame in enumerate(world.snapshot.pfns().tolist()):
        members = slice(*sets.start[[sets.of_frame[dense], sets.of_frame[dense] + 1]])
        assert dict(zip(sets.members[members].tolist(), sets.entries[members].tolist())) == dict(mappers[frame])
    assert len({frozenset(one.items()) for one in mappers.values()} | {frozenset()}) == sets.nr_classes
