"""Watching a family without one: fates of runs against fates of single pages, and who goes on with a shared mm."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.live import watch
from rmap.live.sources import procfs
from rmap.live.watch import Watch
from tests.support import PAGE

_Pages = dict[int, int]

_pages = st.dictionaries(st.integers(0, 40), st.integers(1, 12), max_size=40)


def runs(pages: _Pages) -> watch._Runs:
    """Pages and their frames as runs, as long as they can be."""
    rows: list[list[int]] = []
    for page, frame in sorted(pages.items()):
        if rows and (page, frame) == (rows[-1][0] + rows[-1][2], rows[-1][1] + rows[-1][2]):
            rows[-1][2] += 1
        else:
            rows.append([page, frame, 1])
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return watch._Runs(*columns)


def memory(shared: _Pages, own: _Pages | None = None, edges: tuple[int, ...] = (0, 50)) -> watch._Memory:
    """An mm whose areas begin and end at these pages."""
    areas = [
        procfs.MapsLine(start * PAGE, end * PAGE, 0, 0, 0, 0, f"{start % 3}")
        for start, end in pairwise(edges)
        if start < end
    ]
    return watch._Memory(areas, runs(shared), runs(own or {}))


@given(_pages, _pages, st.sets(st.integers(0, 40)), st.sets(st.integers(1, 40), max_size=3))
def test_runs_have_the_fates_of_their_pages(old: _Pages, now: _Pages, own: set[int], cuts: set[int]) -> None:
    edges = (0, *sorted(cuts), 50)
    mine = {page: frame for page, frame in now.items() if page in own}
    others = {page: frame for page, frame in now.items() if page not in own}
    fate = watch._fate(runs(old), memory(others, mine, edges))
    unshared = [page for page, frame in old.items() if mine.get(page, frame) != frame]
    assert fate.unshared == Counter(f"{max(edge for edge in edges if edge <= page) % 3}" for page in unshared)
    assert fate.left == sum(mine.get(page) == frame for page, frame in old.items())
    assert fate.gone == sum(page not in now for page in old)


class Scripted:
    """Rounds of a family made up: mms by number, of each process which one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.users: dict[int, int] = {}
        self.born: dict[int, int] = {}
        self.mms: dict[int, watch._Memory] = {}
        self.ending: set[int] = set()
        self.reads = 0
        monkeypatch.setattr(watch, "_zero_frame", lambda: 0)
        monkeypatch.setattr(watch, "family_of", lambda _: sorted((pid, self.born.get(pid, pid)) for pid in self.users))
        monkeypatch.setattr(watch, "compare_mms", self._compare)
        monkeypatch.setattr(Watch, "_read", lambda _, pid: self._read(pid))

    def _compare(self, pid: int, other: int) -> int:
        left, right = self.users[pid], self.users[other]
        return 0 if left == right else 1 if left < right else 2

    def _read(self, pid: int) -> watch._Memory | None:
        if pid in self.ending:
            raise ProcessLookupError(3, "ended")
        self.reads += 1
        return self.mms[self.users[pid]]


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(monkeypatch)


def look(one: Watch) -> watch.Round:
    found = one.look()
    assert found is not None
    return found


SHARED = {page: 100 + page for page in range(30)}


def test_a_shared_mm_is_read_once_and_counts_all_its_processes(family: Scripted) -> None:
    family.users, family.mms = {10: 1, 11: 1, 12: 2}, {1: memory(SHARED), 2: memory(SHARED)}
    found = look(Watch(10))
    assert (found.processes, found.shared, family.reads) == (3, 60, 2)


@pytest.mark.parametrize("parent", [10, 12], ids=["lower pid", "pids began anew"])
def test_an_exec_leaves_the_mm_to_the_parent(family: Scripted, parent: int) -> None:
    family.users, family.mms = {parent: 1, 11: 1}, {1: memory(SHARED)}
    family.born = {parent: 1, 11: 2}
    watching = Watch(parent)
    look(watching)
    family.users[11] = 0
    family.mms = {1: memory({}, {page: 500 + page for page in range(30)}), 0: memory({}, {7: 7})}
    found = look(watching)
    assert (found.unshared, found.gone, found.processes) == (30, 0, 2)


def test_the_mm_of_one_that_ended_goes_on_in_those_who_share_it(family: Scripted) -> None:
    family.users, family.mms = {10: 1, 11: 1}, {1: memory(SHARED)}
    watching = Watch(10)
    look(watching)
    family.ending = {10}
    family.mms = {1: memory({}, SHARED)}
    found = look(watching)
    assert (found.left, found.gone, found.went, found.ended) == (30, 0, [10], 1)
    family.ending = {10, 11}
    assert watching.look() is None


def test_a_given_away_pid_is_another_process(family: Scripted) -> None:
    family.users, family.mms = {10: 1, 11: 2}, {1: memory(SHARED), 2: memory(SHARED)}
    watching = Watch(10)
    look(watching)
    family.born[11] = 99
    family.mms[2] = memory({}, {3: 3})
    found = look(watching)
    assert (found.came, found.went, found.unshared, found.gone) == ([11], [11], 0, 0)
