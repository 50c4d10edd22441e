"""The same jobs on whatever executor is given: threads, processes, a cluster's machines.

An executor of ``concurrent.futures`` is all that is asked for, so a cluster's serves too (``dask.distributed``'s
``Client.get_executor()``). What runs there must have this very version of rmap installed.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed

from rmap.errors import RmapError
from rmap.lab.compare.workers import Answer, Job, interrupts_held
from rmap.lab.results import Progress


def on_executor(job: Job, designs: Sequence[str], executor: Executor, progress: Progress) -> list[Answer]:
    """Do a job under every design, on an executor; the answers in the order of ``designs``.

    Raises:
        RmapError, OSError: what a job raised. What has not begun by then is not begun any more.
    """
    futures: dict[Future[Answer], int] = {}
    with interrupts_held():
        for n, name in enumerate(designs):
            futures[executor.submit(_quietly, job, name)] = n
    answers: dict[int, Answer] = {}
    reported = 0
    try:
        for future in as_completed(list(futures)):
            answers[futures[future]] = future.result()
            while reported in answers:
                subject, result = answers[reported]
                if not reported:
                    progress(subject)
                progress(result)
                reported += 1
    except (RmapError, OSError, KeyboardInterrupt):
        for future in futures:
            future.cancel()
        raise
    return [answers[n] for n in range(len(designs))]


def local_pool() -> ProcessPoolExecutor:
    """Processes of this machine, one for each CPU it lends."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context)


def _quietly(job: Job, design: str) -> Answer:
    return job(design, _nobody)


def _nobody(what: str) -> None:
    return
