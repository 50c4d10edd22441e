"""The same subject once per design: right? what does it cost?

A subject is a workload, a picture or a recorded program. Every design has a kernel of its own, and of several each a
process; what is counted is the same on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rmap.errors import UsageError
from rmap.lab.compare.cache import ResultCache, key_of
from rmap.lab.compare.of_snapshot import SHIPPED, is_shipped, run_snapshot
from rmap.lab.compare.of_trace import name_of, run_trace
from rmap.lab.compare.of_workload import run_workload
from rmap.lab.compare.remarks import snapshot_remarks, trace_remarks, workload_remarks
from rmap.lab.compare.workers import Answer, Job, Say, chosen, on_executor, once_per_design
from rmap.lab.results import Comparison, DesignResult, Progress, Subject, no_progress
from rmap.lab.workloads import WORKLOADS
from rmap.mm.profile import profile_named
from rmap.snapshot import Snapshot
from rmap.trace import Trace

if TYPE_CHECKING:
    from concurrent.futures import Executor


def compare_workload(
    name: str,
    parameters: Mapping[str, int | float] | None = None,
    *,
    designs: Sequence[str] | None = None,
    profile: str = "6.18",
    seed: int = 1,
    progress: Progress = no_progress,
    executor: Executor | None = None,
    cache: ResultCache | None = None,
) -> Comparison:
    """Run a workload under each design.

    Args:
        name: in ``WORKLOADS``.
        parameters: those that shall not have their default.
        designs: names in ``DESIGNS``, with or without a variant; None for ``DEFAULT_DESIGNS``.
        profile: the kernel release whose rules the model follows.
        seed: of everything that is drawn.
        progress: told how it gets on.
        executor: where the designs run; None for processes of this machine, one per design.
        cache: where results are looked up and kept; None for nowhere.

    Raises:
        UsageError: no such workload, parameter, design or profile, or a value outside its limits.
        LimitError: more memory than a workload may use.
    """
    if name not in WORKLOADS:
        raise UsageError(f"unknown workload {name!r}: have {', '.join(WORKLOADS)}")
    profile_named(profile)
    settings = WORKLOADS[name].settings(parameters or {})
    names = chosen(designs)
    folder = None if cache is None else cache.folder
    job = partial(run_and_keep, folder, name, settings, profile, _seed(seed))
    kept = {} if cache is None else _kept(cache, name, settings, profile, seed, names)
    tell = _once_the_subject(progress)
    for design in (name for name in names if name in kept):
        tell(kept[design][0])
        tell(kept[design][1])
    missing = [design for design in names if design not in kept]
    fresh = _run(job, missing, tell, executor) if missing else []
    by_design = {**kept, **dict(zip(missing, fresh))}
    answers = [by_design[design] for design in names]
    results = _without_empty_rows([result for _, result in answers])
    return Comparison(answers[0][0], profile, results, tuple(workload_remarks()))


def run_and_keep(
    folder: Path | None,
    name: str,
    settings: Mapping[str, int | float],
    profile: str,
    seed: int,
    design: str,
    say: Say,
) -> Answer:
    """Run a workload under one design, and keep the answer as soon as it is there."""
    answer = run_workload(name, settings, profile, seed, design, say)
    if folder is not None:
        ResultCache(folder).put(key_of(name, settings, profile, seed, design), answer)
    return answer


def _once_the_subject(progress: Progress) -> Progress:
    # What was kept and what is run each begin with the same subject.
    subject_sent = False

    def tell(event: Subject | DesignResult | str) -> None:
        nonlocal subject_sent
        if not (isinstance(event, Subject) and subject_sent):
            progress(event)
        subject_sent = subject_sent or isinstance(event, Subject)

    return tell


def _kept(
    cache: ResultCache, name: str, settings: Mapping[str, int | float], profile: str, seed: int, designs: Sequence[str]
) -> dict[str, Answer]:
    answers = {design: cache.get(key_of(name, settings, profile, seed, design)) for design in designs}
    return {design: answer for design, answer in answers.items() if answer is not None}


def compare_snapshot(
    snapshot: str | os.PathLike[str] | Snapshot,
    *,
    designs: Sequence[str] | None = None,
    profile: str = "6.18",
    seed: int = 1,
    progress: Progress = no_progress,
    executor: Executor | None = None,
) -> Comparison:
    """Load a picture under each design, and put each through the same script (``rmap.lab.compare.of_snapshot``).

    Args:
        snapshot: a file, or a picture in memory.
        designs, profile, seed, progress, executor: as for :func:`compare_workload`.

    Raises:
        UsageError: no such design or profile.
        SnapshotError: the file is no picture.
    """
    profile_named(profile)
    source: str | Snapshot
    if isinstance(snapshot, Snapshot):
        source, called, summary = snapshot, "picture", ""
    else:
        path = os.fspath(snapshot)
        called, summary = os.path.basename(path), SHIPPED if is_shipped(path) else ""
        source = path if executor is None else Snapshot.load(path)  # where it runs there may be no such file
    job = partial(run_snapshot, source, called, summary, profile, _seed(seed))
    answers = _run(job, chosen(designs), progress, executor)
    results = tuple(result for _, result in answers)
    return Comparison(answers[0][0], profile, results, tuple(snapshot_remarks(results)))


def compare_trace(
    trace: str | os.PathLike[str] | Trace,
    *,
    name: str = "",
    summary: str = "",
    designs: Sequence[str] | None = None,
    profile: str = "6.18",
    seed: int = 1,
    progress: Progress = no_progress,
    executor: Executor | None = None,
) -> Comparison:
    """Play a recorded program under each design (``rmap.lab.compare.of_trace``).

    Args:
        trace: a file, the folder of an unfinished recording, or a trace in memory.
        name, summary: what to call it, if not by its file name and command.
        designs, profile, seed, progress, executor: as for :func:`compare_workload`.

    Raises:
        UsageError: no such design or profile.
        TraceError: the file is no trace.
        LimitError: it needs more memory than a machine of the model is given.
    """
    profile_named(profile)
    source = trace if isinstance(trace, Trace) else os.fspath(trace)
    called = name or ("trace" if isinstance(source, Trace) else name_of(source))
    if executor is not None and not isinstance(source, Trace):
        source = Trace.load(source)
    job = partial(run_trace, source, called, summary, profile, _seed(seed))
    answers = _run(job, chosen(designs), progress, executor)
    results = _without_empty_rows([result for _, result in answers])
    about = (source if isinstance(source, Trace) else Trace.load(source)).about
    missing = () if about["complete"] else (f"INCOMPLETE: {about['why_incomplete']}. What is not there cost nothing.",)
    return Comparison(answers[0][0], profile, results, (*missing, *trace_remarks(results)))


def _run(job: Job, designs: Sequence[str], progress: Progress, executor: Executor | None) -> list[Answer]:
    if executor is None:
        return once_per_design(job, designs, progress)
    return on_executor(job, designs, executor, progress)


def _seed(seed: int) -> int:
    if seed < 0:
        raise UsageError(f"a seed is 0 or more: {seed}")
    return seed


def _without_empty_rows(results: Sequence[DesignResult]) -> tuple[DesignResult, ...]:
    # A cost that no design has is no news.
    paid = {(f.operation, f.label) for result in results for f in result.figures if f.value}
    return tuple(
        replace(result, figures=tuple(f for f in result.figures if (f.operation, f.label) in paid))
        for result in results
    )
