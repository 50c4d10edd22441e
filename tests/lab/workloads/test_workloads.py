"""Workloads: legal under every design, within the size they announce, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap import DESIGNS, Kernel
from rmap.errors import LimitError, UsageError
from rmap.lab.workloads import WORKLOADS
from rmap.lab.workloads.base import MAX_PTES, random_runs
from tests.support.small_workloads import SMALL, played


def maps(kernel: Kernel) -> list[list[str]]:
    return [[str(row) for row in process.maps()] for process in kernel.processes.values()]


def test_every_workload_has_a_small_case() -> None:
    assert SMALL.keys() == WORKLOADS.keys()


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_runs_under_every_design(name: str, design: str) -> None:
    """Every invariant holds at the end, and nothing was evicted to make room."""
    kernel, samples = played(name, design)
    assert kernel.check()["ptes"] > 0
    evicts = "evict" in WORKLOADS[name].shows
    assert evicts or kernel.costs["unmap_walk"]["pages_walked"] == 0
    assert samples
    for sample in samples:
        assert sample.places, sample.label
        mapped = [
            bool(kernel.pfn(process, address + page * 4096))
            for process, address, pages in sample.places
            for page in (range(pages) if evicts else (0, pages - 1))
        ]
        assert any(mapped) if evicts or name.startswith("sga") else all(mapped)


@pytest.mark.parametrize("name", WORKLOADS)
def test_stays_within_its_size(name: str) -> None:
    kernel, _ = played(name)
    size = WORKLOADS[name].size(**WORKLOADS[name].settings(SMALL[name]))
    frames, tables = kernel.core.frames, kernel.core.tables
    assert frames.nr_pages - 1 - frames.free_top <= size.frames
    assert int(frames.mapcount.sum()) <= size.ptes
    assert tables.live <= size.tables
    assert sum(len(mm.vmas) for mm in kernel.core.mms.values()) <= size.vmas


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_seed_reproduces_everything(name: str) -> None:
    first, second, other = (played(name, seed=seed)[0] for seed in (7, 7, 8))
    assert first.costs.as_dict() == second.costs.as_dict()
    assert maps(first) == maps(second)
    assert np.array_equal(first.core.frames.mapcount, second.core.frames.mapcount)
    same = np.array_equal(first.core.frames.mapcount, other.core.frames.mapcount)
    draws = WORKLOADS[name].theme == "own"  # of the others many draw nothing
    assert not draws or not same or maps(first) != maps(other) or first.costs.as_dict() != other.costs.as_dict()


def test_the_server_shares_what_its_children_did_not_rewrite() -> None:
    kernel, (parents, childrens) = played("fork-server")
    children, pages, rewritten = 4, 700, 70
    frames = kernel.core.frames
    assert int(frames.mapcount.sum()) == (children + 1) * pages
    assert int(np.count_nonzero(frames.mapcount)) == pages + children * rewritten
    assert sum(n for _, _, n in parents.places) == pages
    assert sum(n for _, _, n in childrens.places) == children * rewritten
    for process, address, _ in childrens.places:
        assert kernel.walk(kernel.pfn(process, address)) == [(process.pid, address)]


def test_a_line_whose_ancestors_leave_does_not_grow() -> None:
    """Rule 2.5: abandoned anon_vmas are used again; where nobody leaves, each fork links to one more ancestor."""
    grown, _ = played("fork-line", depth=12, exits=0.0)
    flat, _ = played("fork-line", depth=12, exits=1.0)
    assert grown.costs["fork"]["objects_made"] == sum(generation + 2 for generation in range(1, 13))
    assert flat.costs["fork"]["objects_made"] <= 4 * 12


def test_the_zygotes_areas_are_its_own() -> None:
    kernel, _ = played("zygote")
    assert len(kernel.processes[1].maps()) == 30
    assert len({vma.anon.id for vma in kernel.processes[1].mm.vmas}) == 30


def test_storms_end_with_what_is_alive() -> None:
    kernel, _ = played("shell-storm")
    assert len(kernel.processes) == 1 + 5


def test_splits_that_were_undone_merge_again() -> None:
    split, _ = played("split-storm", merge=0.0)
    merged, _ = played("split-storm", merge=1.0)
    assert [len(process.maps()) for process in merged.processes.values()] == [1, 1, 1, 1]
    assert all(len(process.maps()) >= 40 for process in list(split.processes.values())[1:])


@pytest.mark.parametrize("name", WORKLOADS)
def test_defaults_are_within_the_limits(name: str) -> None:
    settings = WORKLOADS[name].settings({})
    assert WORKLOADS[name].size(**settings).ptes <= MAX_PTES
    assert all(parameter.help and parameter.high > parameter.low for parameter in WORKLOADS[name].parameters)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("fork-server", {"childs": 3}, "no parameter 'childs'"),
        ("fork-server", {"children": 0}, "--children goes from 1 to 10,000: 0"),
        ("fork-server", {"children": 1.5}, "whole number"),
        ("fork-server", {"rewrite": 1.2}, "--rewrite goes from 0% to 100%: 120%"),
        ("split-storm", {"splits": 50, "pages": 99}, "needs at least --pages 100"),
        ("file-windows", {"pages": 64, "file_pages": 63}, "--file-pages 63"),
    ],
)
def test_nonsense_is_refused_in_words(name: str, given: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        WORKLOADS[name].settings(given)


def test_what_would_not_fit_is_refused_before_it_starts() -> None:
    with pytest.raises(LimitError, match=r"81,920,000 page-table entries: the limit is 67,108,864"):
        WORKLOADS["fork-server"].settings({"children": 9999, "pages": 8192})
    with pytest.raises(LimitError, match="VMAs"):
        WORKLOADS["zygote"].settings({"vmas": 10_000, "children": 1000, "pages": 1})


@given(st.integers(1, 3000), st.data(), st.integers(1, 70))
def test_runs_are_disjoint_and_complete(pages: int, data: st.DataObject, run: int) -> None:
    count = data.draw(st.integers(0, pages))
    drawn = random_runs(np.random.default_rng(3), pages, count, run)
    covered = [page for first, n in drawn for page in range(first, first + n)]
    assert len(covered) == len(set(covered)) == count
    assert all(0 <= page < pages for page in covered)
    assert all(0 < n <= run for _, n in drawn)
