"""Bugs that Linux had are found by our checks when they are put back."""

from __future__ import annotations

import pytest

from rmap import Kernel
from rmap.designs.conformance import run_conformance_test
from rmap.errors import InvariantError
from tests.model.historical_bugs import (
    BUGS,
    Bug,
    chains_grow_without_bound,
    merge_of_inherited_chains,
    reuse_of_a_busy_anon_vma,
)
from tests.support import PAGE

CONFORMANCE = [bug for bug in BUGS if bug.found_by == "conformance"]


@pytest.mark.parametrize("bug", CONFORMANCE, ids=lambda bug: bug.breaks.__name__)
def test_the_conformance_test_finds_it(bug: Bug) -> None:
    with bug.breaks(), pytest.raises((InvariantError, AttributeError, TypeError)):
        run_conformance_test("anon_vma_chain", seeds=range(10), steps=80)


def anon_vmas_of_a_line(forks: int) -> int:
    k = Kernel(nr_pages=256, nr_tables=64)
    process = k.spawn()
    at = process.mmap(PAGE)
    process.write(at)
    for _ in range(forks):
        child = process.fork()
        child.write(at)
        process.exit()
        process = child
    return len(k.design.anon_vmas)  # type: ignore[attr-defined]


def test_7a3ef208e_growth_is_found_by_counting() -> None:
    """Daniel Forrest's report of 2012: a daemon that forks itself again and again."""
    assert anon_vmas_of_a_line(40) <= 3
    with chains_grow_without_bound():
        assert anon_vmas_of_a_line(40) == 41


def test_2555283eb_two_living_areas_share_an_anon_vma() -> None:
    def shared() -> bool:
        k = Kernel(nr_pages=256, nr_tables=64)
        p = k.spawn()
        at = p.mmap(PAGE)
        p.write(at)
        c = p.fork()
        g = c.fork()
        c.exit()
        h = g.fork()
        g.exit()
        children = [h.fork(), h.fork()]
        active = [child.vma(at).anon for child in children]  # type: ignore[union-attr]
        return active[0] is active[1]

    assert not shared()
    with reuse_of_a_busy_anon_vma():
        assert shared()


def test_an_area_that_came_through_fork_merges_with_nothing() -> None:
    def areas() -> int:
        k = Kernel(nr_pages=256, nr_tables=64)
        p = k.spawn()
        at = p.mmap(PAGE)
        p.write(at)
        child = p.fork()
        child.mmap(PAGE, addr=at + PAGE)
        return len(child.maps())

    assert areas() == 2
    with merge_of_inherited_chains():
        assert areas() == 1


def test_six_or_more_are_real_and_cited() -> None:
    cited = [bug for bug in BUGS if bug.commit and int(bug.commit, 16)]
    assert len(cited) >= 6 and all(2002 <= bug.year <= 2026 for bug in BUGS)
