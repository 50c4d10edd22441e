"""Our side of the published figures: which workload and designs stand for each, and what is counted.

Small runs, as ratios of counts do not need the published sizes; where the value itself is to be met, the counts that
decide it (sharers, areas) are the published ones. A measure gives ``(before, after)``, or ``(None, value)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

import numpy as np

from rmap.columns import I64
from rmap.kernel import Kernel
from rmap.lab.compare.figures import Meter
from rmap.lab.compare.sampling import draw, measure_walks
from rmap.lab.compare.work import STEPS
from rmap.lab.workloads import WORKLOADS, Sample
from rmap.mm.walk import walk1, walk_many
from rmap.snapshot import Snapshot, shipped
from rmap.units import PAGE_SIZE

Pair: TypeAlias = "tuple[float | None, float]"


@cache
def played(workload: str, design: str, **parameters: int | float) -> tuple[Kernel, tuple[Sample, ...]]:
    """A machine after a workload, and the pages whose walks are of interest."""
    chosen = WORKLOADS[workload]
    settings = chosen.settings(parameters)
    size = chosen.size(**settings)
    kernel = Kernel(design, nr_pages=size.frames + 1024, nr_swap=0, nr_tables=size.tables + 64)
    steps = chosen.run(kernel, seed=1, **settings)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return kernel, done.value


def forget() -> None:
    """Let go of the machines."""
    played.cache_clear()


def steps(kernel: Kernel, operations: tuple[str, ...] = ()) -> float:
    """Steps of the reverse map in these operations, or all; entries looked at in vain among them."""
    table: Mapping[str, Mapping[str, int]] = kernel.costs.as_dict()
    names = (*STEPS, "ptes_in_vain")
    return float(
        sum(row.get(name, 0) for op, row in table.items() if not operations or op in operations for name in names)
    )


def _steps(workload: str, before: str, after: str, operations: tuple[str, ...] = (), **parameters: float) -> Pair:
    first, second = (steps(played(workload, design, **parameters)[0], operations) for design in (before, after))
    return first, second


def _walk(workload: str, design: str, **parameters: float) -> tuple[float, int]:
    # (visits of a walk on average, at worst) for the pages of one sample.
    kernel, samples = played(workload, design, **parameters)
    pages = draw(kernel, samples[0].places, np.random.default_rng(1))
    walk = measure_walks(kernel, pages, samples[0].label)
    return walk.visits, walk.worst


def _blocks(workload: str, design: str, **parameters: float) -> float:
    kernel, _ = played(workload, design, **parameters)
    return kernel.metadata_bytes()["pte_chain"] / 64


PEAK: dict[str, int | float] = {"scale": 1.0, "processes": 87, "pages": 2000}
MAPPINGS = 22_817_885


def _decision_support() -> tuple[float, float]:
    # (blocks per mapping, slab by live bytes), on 32-bit.
    kernel, _ = played("decision-support", "pte_chain", **PEAK)
    live, slabs = kernel.metadata_bytes(32)["pte_chain"], kernel.design.slab_bytes(32)["pte_chain"]
    return live / 32 / float(kernel.core.frames.mapcount.sum()), slabs / live


def _adding(design: str) -> float:
    kernel, _ = played("kernbench", design)
    table = kernel.costs.as_dict()
    return float(sum(row.get(name, 0) for op, row in table.items() if op in ("fault", "cow", "fork")
                     for name in ("entries_written", "objects_made")))  # fmt: skip


def _aim7(design: str) -> tuple[Kernel, I64]:
    kernel, samples = played("aim7", design, scale=1.0, pages=20)
    return kernel, draw(kernel, samples[1].places, np.random.default_rng(1))


def _aim7_child() -> Pair:
    # VMAs asked about a child's page: members of the family's list, at worst; candidates of its own anon_vma.
    kernel, pages = _aim7("anon_vma")
    asked = []
    for pfn in pages[::20].tolist():
        meter = Meter(kernel.costs)
        walk1(kernel.core, pfn)
        asked.append(meter.get("walk", "nodes_visited"))
    kernel, pages = _aim7("anon_vma_chain")
    meter = Meter(kernel.costs)
    walk_many(kernel.core, pages)
    return float(max(asked)), meter.get("walk", "ptes_checked") / len(pages)


def _aim7_average() -> float:
    # VMAs that may map any page, and are asked if the walk does not stop when all mappings are found.
    kernel, _ = _aim7("anon_vma_chain")
    every = np.flatnonzero(kernel.core.frames.mapcount)
    meter = Meter(kernel.costs)
    walk_many(kernel.core, every, stop_at_mapcount=False)
    return meter.get("walk", "ptes_checked") / len(every)


def _chains_by_tables() -> float:
    kernel = Kernel.adopt(Snapshot.load(shipped()), design="pte_chain")
    return kernel.metadata_bytes(32)["pte_chain"] / (kernel.core.tables.live * PAGE_SIZE / 2)


def _android(structure: str) -> Pair:
    # A machine after boot: many processes that never fork, and a zygote with a few children.
    values = []
    for design in ("anon_vma_chain", "anon_vma_lazy"):
        kernel = Kernel(design, nr_pages=1 << 14, nr_swap=0, nr_tables=1 << 12)
        _boot(kernel)
        values.append(float(kernel.metadata_bytes()[structure]))
    return values[0], values[1]


def _boot(kernel: Kernel) -> None:
    for service in range(60):
        process = kernel.spawn()
        for area in range(40):
            at = process.mmap(4 * PAGE_SIZE, "rw" if area % 2 else "rwx")
            process.write(at, PAGE_SIZE)
        if service == 0:
            zygote = process
    for _ in range(10):
        child = zygote.fork()
        for vma in list(child.mm.vmas)[::2]:
            child.write(vma.start, PAGE_SIZE)


Settings: TypeAlias = "dict[str, int | float]"
T1: Settings = {"scale": 0.2}
T1_COUNTS: Settings = {"scale": 1.0, "pages": 2}
T3: Settings = {"scale": 0.1}
CHAIN, LIST, PRIO = "pte_chain", "objrmap", "objrmap_prio"
SHORT: Settings = {"scale": 0.05}
LIVES = ("fault", "cow", "fork", "exit", "munmap", "unmap_walk", "mmap")

MEASURES: dict[str, tuple[str, Callable[[], Pair]]] = {
    "cells_to_blocks": ("blocks and cells searched at exit, shells-fifo",
                        lambda: _steps("shells-fifo", "pte_chain:cells", CHAIN, ("exit",), scale=0.05)),
    "scan_to_chain_forks": ("steps, shells-lifo", lambda: _steps("shells-lifo", "virtual_scan", CHAIN, LIVES, **SHORT)),
    "scan_to_chain_build": ("steps, kernbench", lambda: _steps("kernbench", "virtual_scan", CHAIN, LIVES)),
    "blocks_per_mapping": ("decision-support, 87 sharers", lambda: (None, 1000 * _decision_support()[0])),
    "blocks_live_mib": ("at 22.8 million mappings",
                        lambda: (None, _decision_support()[0] * MAPPINGS * 32 / (1 << 20))),
    "blocks_slab_mib": ("at 22.8 million mappings",
                        lambda: (None, float(np.prod(_decision_support())) * MAPPINGS * 32 / (1 << 20))),
    "kernbench_steps": ("steps, kernbench", lambda: _steps("kernbench", CHAIN, LIST, LIVES)),
    "kernbench_removal": ("steps at exit and unmap, kernbench",
                          lambda: _steps("kernbench", CHAIN, LIST, ("exit", "munmap", "cow"))),
    "kernbench_adding": ("entries and objects made, kernbench", lambda: (_adding(CHAIN), _adding(LIST))),
    "kernbench_blocks": ("kernbench", lambda: (_blocks("kernbench", CHAIN), _blocks("kernbench", LIST))),
    "patches_steps": ("steps, patch-scripts", lambda: _steps("patch-scripts", CHAIN, LIST, LIVES)),
    "sdet_steps": ("steps, sdet", lambda: _steps("sdet", CHAIN, LIST, LIVES)),
    "t1_chain_to_list": ("steps, T1 at 20%", lambda: _steps("T1", CHAIN, LIST, LIVES, **T1)),
    "t2_chain_to_list": ("steps, T2 at 20%", lambda: _steps("T2", CHAIN, LIST, LIVES, **T1)),
    "t3_chain_to_list": ("steps, T3 at 10%", lambda: _steps("T3", CHAIN, LIST, LIVES, **T3)),
    "t1_slots": ("T1, 100 tasks", lambda: (None, _mappers("T1"))),
    "t1_vmas_asked": ("T1, 100 x 100 windows", lambda: (None, _walk("T1", LIST, **T1_COUNTS)[1] - _mappers("T1"))),
    "fork_chain_to_anonmm": ("steps at fork, apache-prefork",
                             lambda: _steps("apache-prefork", LIST, "anonmm", ("fork",), scale=0.1)),
    "t1_chain_to_prio": ("steps, T1 at 20%", lambda: _steps("T1", CHAIN, PRIO, LIVES, **T1)),
    "t1_prio_to_list": ("steps, T1 at 20%", lambda: _steps("T1", PRIO, LIST, LIVES, **T1)),
    "t2_chain_to_prio": ("steps, T2 at 20%", lambda: _steps("T2", CHAIN, PRIO, LIVES, **T1)),
    "t3_prio_to_list": ("steps, T3 at 10%", lambda: _steps("T3", PRIO, LIST, LIVES, **T3)),
    "mmap3_prio_to_list": ("visits of a walk, test-mmap3 at 2%",
                           lambda: (_walk("test-mmap3", PRIO)[0], _walk("test-mmap3", LIST)[0])),
    "aim7_child": ("aim7, 1,000 children", _aim7_child),
    "aim7_average": ("aim7, 1,000 children", lambda: (None, _aim7_average())),
    "chains_by_tables": ("the shipped picture of a web server", lambda: (None, _chains_by_tables())),
    "lazy_links": ("60 services, a zygote and 10 children", lambda: _android("anon_vma_chain")),
    "lazy_anon_vmas": ("60 services, a zygote and 10 children", lambda: _android("anon_vma")),
}  # fmt: skip
"""What was run and counted, and how, by name."""


def _mappers(workload: str) -> float:
    kernel, samples = played(workload, LIST, **T1_COUNTS)
    pages = draw(kernel, samples[0].places, np.random.default_rng(1))
    return float(kernel.core.frames.mapcount[pages].max())
