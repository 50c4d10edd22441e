"""Measure on this machine's kernel what the visits of a reverse map cost, as far as that shows from outside.

Only system calls are timed, by small programs that fork: the differences of their times are what is looked for. What a
node of a tree, a chain's cache line or a lock costs cannot be told apart from outside; those keep their defaults.
"""

from __future__ import annotations

import mmap
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rmap.lab.compare.unit_costs import UnitCost, UnitCosts, with_measured
from rmap.live.sources.procfs import areas_with_anonymous_pages
from rmap.units import PAGE_SIZE

ROUNDS = 9
PAGES = 8192
AREAS = 400
DEPTH = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """One thing that was measured.

    Attributes:
        name: of the unit cost.
        what: how, in a phrase.
        median, low, high: ns.
        rounds: how often.
    """

    name: str
    what: str
    median: float
    low: float
    high: float
    rounds: int


def calibrate(say: Callable[[str], None] = lambda line: None, rounds: int = ROUNDS) -> tuple[UnitCosts, list[Measured]]:
    """Measure, and put the medians in the place of the defaults.

    Args:
        say: told what is measured now.
        rounds: how often each; the first one warms up and is dropped.
    """
    measurements = []
    for name, what, measure in (
        ("pages_copied", f"a copy on write of {PAGES:,} pages in a child", _copy_on_write),
        ("objects_made", f"a link of a chain: forks of {AREAS} areas, {DEPTH} deep, against one deep", _links),
    ):
        say(f"measuring {what}")
        times = sorted(measure() for _ in range(rounds + 1))[:rounds]
        measurements.append(Measured(name, what, statistics.median(times), times[0], times[-1], rounds))
    machine = f"Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs, host {platform.node()}"
    costs = {m.name: UnitCost(round(m.median, 1), m.what) for m in measurements}
    return with_measured(costs, machine), measurements


def _copy_on_write() -> float:
    # ns per page that a child writes and its parent has too.
    memory = mmap.mmap(-1, PAGES * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _small_pages(memory)
    _write(memory)
    copied = _in_child(lambda: _write(memory))
    rewritten = _write(memory)  # the last owner: no copy, the same loop
    memory.close()
    return max(0.0, (copied - rewritten) / PAGES)


def _links() -> float:
    # ns per anon_vma_chain: how much longer a fork takes in the depth of a line of forks, by area and level.
    areas = []
    for number in range(AREAS):
        prot = mmap.PROT_READ | mmap.PROT_WRITE | (mmap.PROT_EXEC if number % 2 else 0)
        area = mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=prot)
        area[0] = 1
        areas.append(area)
    chains = areas_with_anonymous_pages()  # the interpreter's own areas have chains too
    times = _line(DEPTH)
    for area in areas:
        area.close()
    return max(0.0, (times[-1] - times[0]) / (chains * (DEPTH - 1)))


def _line(depth: int) -> list[float]:
    # How long each fork of a line takes, ns: every ancestor waits, so all of them live.
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # else parent and child contend for the root's lock
            _go_deeper(depth, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        times = [float(line) for line in answers]
    os.waitpid(child, 0)
    return times


def _go_deeper(depth: int, writer: int) -> None:
    begun = time.perf_counter_ns()
    child = os.fork()
    if child:
        os.write(writer, f"{time.perf_counter_ns() - begun}\n".encode())
        os.waitpid(child, 0)
    elif depth > 1:
        time.sleep(0.002)  # the parent writes first
        _go_deeper(depth - 1, writer)
    os._exit(0)


def _small_pages(memory: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)


def _write(memory: mmap.mmap) -> float:
    begun = time.perf_counter_ns()
    for at in range(0, len(memory), PAGE_SIZE):
        memory[at] = 1
    return time.perf_counter_ns() - begun


def _in_child(work: Callable[[], float]) -> float:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        took = float(answer.read())
    os.waitpid(child, 0)
    return took
