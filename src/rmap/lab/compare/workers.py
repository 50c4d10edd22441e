"""The same job under every design, side by side, reported in the order of the designs.

Each in a process of its own (:func:`once_per_design`), or on whatever executor is given (:func:`on_executor`): an
executor of ``concurrent.futures`` is all that is asked for, so a cluster's serves too (``dask.distributed``'s
``Client.get_executor()``). What runs there must have this very version of rmap installed.

A process that is started for a design imports this module first. So what only its parent needs, pools and futures, is
imported where it is used.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, TypeAlias

from rmap.designs import DEFAULT_DESIGNS, DESIGNS, design_named
from rmap.errors import InvariantError, LimitError, RmapError, UsageError
from rmap.lab.results import DesignResult, Progress, Subject

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future, ProcessPoolExecutor

Say: TypeAlias = Callable[[str], None]
Answer: TypeAlias = tuple[Subject, DesignResult]
Job: TypeAlias = Callable[[str, Say], Answer]
"""What is done under one design: ``(design, say) -> (subject, result)``. Must be picklable."""


def chosen(designs: Sequence[str] | None) -> list[str]:
    """The designs asked for, ``DEFAULT_DESIGNS`` if None, every design for ``["all"]``.

    Raises:
        UsageError: an unknown name, a name twice, or none at all.
    """
    names = list(DEFAULT_DESIGNS) if designs is None else list(designs)
    if names == ["all"]:
        names = list(DESIGNS)
    if not names:
        raise UsageError(f"no design is named: have {', '.join(DESIGNS)}")
    for name in names:
        design_named(name)
    if len(set(names)) < len(names):
        raise UsageError("a design is named twice")
    return names


def once_per_design(job: Job, designs: Sequence[str], progress: Progress) -> list[Answer]:
    """Do a job under every design; one in this process, several at the same time, each in a process of its own.

    Args:
        progress: told what goes on; the subject first, then the results, in the order of ``designs``.

    Raises:
        RmapError, OSError: what the job raised. The other processes are ended first, as on an interrupt.
    """
    if len(designs) == 1:
        answer = job(designs[0], partial(_say, progress, designs[0]))
        _report(answer, True, progress)
        return [answer]
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, tuple[str, SpawnProcess]] = {}
    try:
        for design in designs:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, design, theirs), name=f"rmap {design}", daemon=True)
            with _interrupts_held():
                process.start()
                workers[ours] = (design, process)
            theirs.close()
        return _collect(workers, designs, progress)
    finally:
        for connection, (_, process) in workers.items():
            process.terminate()
            process.join()
            connection.close()


def on_executor(job: Job, designs: Sequence[str], executor: Executor, progress: Progress) -> list[Answer]:
    """Do a job under every design, on an executor; the answers in the order of ``designs``.

    Args:
        progress: told the subject first, then the results, in the order of ``designs``.

    Raises:
        RmapError, OSError: what a job raised. What has not begun by then is not begun any more.
    """
    from concurrent.futures import as_completed

    futures: dict[Future[Answer], int] = {}
    with _interrupts_held():
        for n, name in enumerate(designs):
            futures[executor.submit(_quietly, job, name)] = n
    answers: dict[int, Answer] = {}
    reported = 0
    try:
        for future in as_completed(list(futures)):
            answers[futures[future]] = future.result()
            while reported in answers:
                _report(answers[reported], reported == 0, progress)
                reported += 1
    except (RmapError, OSError, KeyboardInterrupt):
        for future in futures:
            future.cancel()
        raise
    return [answers[n] for n in range(len(designs))]


def local_pool() -> ProcessPoolExecutor:
    """Processes of this machine, one for each CPU it lends."""
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context)


def _collect(
    workers: dict[Connection, tuple[str, SpawnProcess]], designs: Sequence[str], progress: Progress
) -> list[Answer]:
    answers: dict[str, Answer] = {}
    reported = 0
    open_ends = dict(workers)
    while open_ends:
        for ready in wait(list(open_ends)):
            assert isinstance(ready, Connection)
            design, process = open_ends[ready]
            try:
                event = ready.recv()
            except EOFError:
                process.join()
                raise _early_end(design, process.exitcode) from None
            if isinstance(event, str):
                _say(progress, design, event)
                continue
            if isinstance(event, BaseException):
                raise event
            answers[design] = event
            del open_ends[ready]
            while reported < len(designs) and designs[reported] in answers:
                _report(answers[designs[reported]], reported == 0, progress)
                reported += 1
    return [answers[name] for name in designs]


def _say(progress: Progress, design: str, what: str) -> None:
    progress(f"{design}: {what}")


def _report(answer: Answer, first: bool, progress: Progress) -> None:
    subject, result = answer
    if first:
        progress(subject)
    progress(result)


def _early_end(design: str, code: int | None) -> RmapError:
    if code is None or code >= 0:
        return InvariantError("worker", f"the process of {design} failed; what it said is above")
    hint = ": is memory short?" if -code == signal.SIGKILL else ""
    return LimitError(f"the process of {design} was killed by {signal.Signals(-code).name}{hint}")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    # Start processes that an interrupt does not reach, and let none tear the starting of them apart.
    #
    # An interrupt from the terminal goes to every process of the command. It is for the parent, which then ends the
    # others: a process that is started while interrupts are held inherits the mask, and never sees one. The mask is of
    # one thread: in the parent another (of a library) may take the signal, whose handler then waits, too.
    resource_tracker.ensure_running()  # else the first start makes it, and lets interrupts through from there on
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if main:
            signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


def _quietly(job: Job, design: str) -> Answer:
    # What runs on an executor.
    return job(design, _nobody)


def _nobody(what: str) -> None:
    return


def _work(job: Job, design: str, pipe: Connection) -> None:
    # What runs in the process of a design.
    answer: Answer | Exception
    try:
        answer = job(design, pipe.send)
    except (RmapError, OSError) as error:
        answer = error
    except MemoryError as error:
        answer = LimitError(f"{design}: not enough memory on this machine: {error}")
    pipe.send(answer)
