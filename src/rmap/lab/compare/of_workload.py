"""One workload under one design: run it, hold every walk against the oracle, gather what it cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rmap.kernel import Kernel
from rmap.lab.compare.figures import figures_of, memory_of
from rmap.lab.compare.sampling import draw, measure_walks, walk_figures
from rmap.lab.compare.workers import Answer, Say
from rmap.lab.correctness import correctness
from rmap.lab.results import DesignResult, Subject, WalkFigures
from rmap.lab.workloads import WORKLOADS, Sample, Workload

SPARE_FRAMES = 1024
SPARE_TABLES = 64
SAMPLING = 1
"""The stream of random numbers that the samples are drawn from; the workload itself has stream 0, its seed."""


def run_workload(
    name: str, settings: Mapping[str, int | float], profile: str, seed: int, design: str, say: Say
) -> Answer:
    """Run a workload and measure.

    Args:
        settings: every parameter's value (``Workload.settings``).
        say: told each phase.
    """
    workload = WORKLOADS[name]
    kernel = _machine(workload, settings, profile, design)
    samples = _run(workload, kernel, settings, seed, say)
    vmas = sum(len(mm.vmas) for mm in kernel.core.mms.values())
    structures = kernel.metadata_bytes()
    say("comparing every walk with the page tables")
    answer = correctness(kernel)
    figures = [*figures_of(kernel.costs.as_dict(), workload.shows)]
    rng = np.random.default_rng([seed, SAMPLING])
    costs, slabs = kernel.costs.as_dict(), dict(kernel.design.slab_bytes())
    walks: list[WalkFigures] = []
    for sample in samples:
        pages = draw(kernel, sample.places, rng)
        if len(pages):
            say(f"walking {sample.label}, {len(pages):,} times")
            figures += walk_figures(kernel, pages, sample.label)
            walks.append(measure_walks(kernel, pages, sample.label))
    subject = Subject(
        kind="workload",
        name=workload.name,
        summary=workload.summary,
        processes=len(kernel.processes),
        vmas=vmas,
        pages=answer.pages,
        ptes=answer.ptes_total,
        parameters=dict(settings),
        seed=seed,
    )
    result = DesignResult(
        design=design,
        correctness=answer,
        memory=memory_of(structures),
        bytes_per_page=sum(structures.values()) / max(1, answer.pages),
        figures=tuple(figures),
        vmas=vmas,
        costs=costs,
        structures=structures,
        slabs=slabs,
        walks=tuple(walks),
    )
    return subject, result


def _machine(workload: Workload, settings: Mapping[str, int | float], profile: str, design: str) -> Kernel:
    size = workload.size(**settings)
    return Kernel(design, profile, nr_pages=size.frames + SPARE_FRAMES, nr_swap=0, nr_tables=size.tables + SPARE_TABLES)


def _run(
    workload: Workload, kernel: Kernel, settings: Mapping[str, int | float], seed: int, say: Say
) -> tuple[Sample, ...]:
    steps = workload.run(kernel, seed=seed, **settings)
    while True:
        try:
            say(next(steps))
        except StopIteration as done:
            samples: tuple[Sample, ...] = done.value
            return samples
