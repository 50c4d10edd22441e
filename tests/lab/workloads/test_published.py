"""Published workloads and worst cases: their sizes are the published ones, their figures those that hands compute."""

from __future__ import annotations

import numpy as np
import pytest

from rmap.designs import DESIGNS
from rmap.lab.compare.sampling import draw, measure_walks
from rmap.lab.workloads import WORKLOADS
from rmap.lab.workloads.base import MAX_PTES
from tests.support.small_workloads import played

PUBLISHED = [workload for workload in WORKLOADS.values() if workload.source]


def walk(name: str, design: str, which: int = 0, **chosen: float) -> tuple[float, float, int]:
    """(mappers, entries looked at in vain, worst walk) of a sample."""
    kernel, samples = played(name, design, **chosen)
    pages = draw(kernel, samples[which].places, np.random.default_rng(1))
    found = measure_walks(kernel, pages, "")
    return found.mappers, found.in_vain, found.worst


def test_there_are_those_of_the_literature() -> None:
    names = {workload.name for workload in PUBLISHED}
    assert names >= {
        "T1", "T2", "T3", "T4", "test-mmap2", "test-mmap3", "thought-case", "decision-support", "aim7", "kernbench",
        "sdet", "patch-scripts", "shells-fifo", "shells-lifo", "apache-prefork", "redis-bgsave", "mremap-after-fork",
        "remap-permutation", "kvm-rmap-fork", "sga", "sga-windows",
    }  # fmt: skip
    worst = {name.removeprefix("worst-") for name in WORKLOADS if name.startswith("worst-")}
    assert worst >= {design.replace("_", "-") for design in DESIGNS}


@pytest.mark.parametrize("workload", PUBLISHED, ids=lambda workload: workload.name)
def test_the_published_size_is_within_the_limits(workload: object) -> None:
    settings = workload.settings({"scale": 1.0})  # type: ignore[attr-defined]
    assert workload.size(**settings).ptes <= MAX_PTES  # type: ignore[attr-defined]


def test_the_published_sizes_are_the_published_ones() -> None:
    def size(name: str) -> tuple[int, int]:
        settings = WORKLOADS[name].settings({"scale": 1.0})
        needs = WORKLOADS[name].size(**settings)
        return needs.ptes, needs.vmas

    assert size("T1")[0] == 100 * 100 * 600
    assert size("test-mmap3")[1] == 32 * 18_000 + 1
    assert size("decision-support")[0] == pytest.approx(22_817_885, rel=1e-5)
    assert size("aim7")[0] == 1001 * 1000


def test_t1_asks_every_vma_under_lists_and_the_mappers_under_chains() -> None:
    """J14 in small: 5 tasks of 5 windows: 25 windows and 20 gaps, of which 5 map the page."""
    chosen = {"scale": 0.05, "evicted": 0.0}
    assert walk("T1", "pte_chain", **chosen) == (5, 0, 5 + 1)
    assert walk("T1", "objrmap", **chosen)[2] == 25 + 5


def test_mmap3_has_32_mappers_of_each_page_and_no_tree_looks_at_others() -> None:
    for design in ("objrmap_prio", "anon_vma_chain"):
        mappers, in_vain, _ = walk("test-mmap3", design)
        assert (mappers, in_vain) == (32, 0)


def test_aim7_asks_the_family_under_anon_vma_and_one_vma_under_chains() -> None:
    mappers, in_vain, worst = walk("aim7", "anon_vma", 1)
    assert mappers == 1 and in_vain > 3 and worst >= 2 * 10
    assert walk("aim7", "anon_vma_chain", 1)[:2] == (1, 0)


def test_mremap_after_fork_copies_under_anonmm_only() -> None:
    designs = ("anonmm", "anon_vma_chain")
    copies = {d: played("mremap-after-fork", d)[0].costs["mremap"]["copies_asked"] for d in designs}
    assert copies == {"anonmm": 5 * 2 * 3, "anon_vma_chain": 0}


@pytest.mark.parametrize(
    ("name", "design", "operation", "counter", "value"),
    [
        ("worst-lego-pcache", "lego_pcache", "fork", "blocks_visited", 12 * (1 + 2 + 3 + 4 + 5)),
        ("worst-anonmm", "anonmm", "mremap", "copies_asked", 5 * 12),
        ("worst-pv-chunk", "pv_chunk", "munmap", "blocks_visited", 12 * (6 + 5 + 4)),
        ("worst-anon-vma-lazy", "anon_vma_lazy", "mprotect", "entries_written", 6 * 2 * 12),
    ],
)
def test_a_worst_case_costs_what_its_summary_says(
    name: str, design: str, operation: str, counter: str, value: int
) -> None:
    assert played(name, design)[0].costs[operation][counter] == value


def test_a_late_survivor_is_found_last() -> None:
    assert walk("worst-late-survivor", "anonmm")[1] == 5
    assert walk("worst-virtual-scan", "virtual_scan")[1] >= 12
    assert walk("worst-objrmap", "objrmap")[2] == 6 * 12 - 12 + 1 + 6
