"""The model's side of the comparison: the yardstick's operations through the public API, and a few of its own."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from rmap import Kernel, Process, Snapshot
from rmap.snapshot import shipped

PAGE = 4096
TABLE = 512 * PAGE
HOME = 1 << 40  # where the mapping starts out; both targets of mremap lie far behind it
AWAY = 1 << 41
RUN = 16  # pages that stay neighbours when the free frames are shuffled
SINGLES = 4096
SEED = 1


@dataclass
class Samples:
    """Times by operation, one per round, in ns per page (or per whatever was counted)."""

    by_operation: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def timing(self, operation: str, per: int = 1) -> Iterator[None]:
        began = time.perf_counter_ns()
        yield
        self.by_operation[operation].append((time.perf_counter_ns() - began) / per)

    def medians(self) -> dict[str, float]:
        return {operation: median(samples) for operation, samples in self.by_operation.items()}


def rounds_of(rounds: int, one_round: Callable[[Samples], None]) -> dict[str, float]:
    """Run a round once to warm up, then so often; the medians."""
    one_round(Samples())
    samples = Samples()
    for _ in range(rounds):
        one_round(samples)
    return samples.medians()


def measure(design: str, layout: str, pages: int, rounds: int, vmas: int) -> dict[str, float]:
    """The yardstick's operations: name -> ns, with the names and units of ``yardstick.c``.

    Args:
        layout: ``"contiguous"``, or ``"shuffled"``: page tables interleaved with another process's, free frames
            shuffled in runs of 16.
    """
    kernel = Kernel(design=design, nr_pages=max(1 << 18, 4 * pages))
    if layout == "shuffled":
        shuffle_free_frames(kernel)

    def one_round(samples: Samples) -> None:
        whole_mapping(samples, kernel, pages, interleaved=layout == "shuffled")
        single_faults(samples, kernel)
        many_vmas(samples, kernel, vmas)

    return rounds_of(rounds, one_round)


def shuffle_free_frames(kernel: Kernel) -> None:
    """Put the free frames into a random order that keeps runs of 16 together, as a machine has after a while."""
    frames = kernel.core.frames
    whole = frames.free_top // RUN * RUN
    np.random.default_rng(SEED).shuffle(frames.free_stack[:whole].reshape(-1, RUN))


def two_with_interleaved_tables(kernel: Kernel, pages: int) -> tuple[Process, Process]:
    """Two processes that made their page tables in turns, and have no page in them any more."""
    both = kernel.spawn(), kernel.spawn()
    for process in both:
        process.mmap(pages * PAGE, addr=HOME)
    for offset in range(0, pages * PAGE, TABLE):
        for process in both:
            process.write(HOME + offset, 1)
    for process in both:
        process.madvise(HOME, pages * PAGE, "dontneed")
    return both


def whole_mapping(samples: Samples, kernel: Kernel, pages: int, *, interleaved: bool) -> None:
    size = pages * PAGE
    if interleaved:
        p, other = two_with_interleaved_tables(kernel, pages)
        with samples.timing("touch", pages):
            p.write(HOME, size)
    else:
        p, other = kernel.spawn(), None
        with samples.timing("touch", pages):
            p.mmap(size, addr=HOME)
            p.write(HOME, size)
    family(samples, p, pages)
    with samples.timing("mprotect_ro", pages):
        p.mprotect(HOME, size, "r")
    with samples.timing("mprotect_rw", pages):
        p.mprotect(HOME, size, "rw")
    with samples.timing("mremap_tables", pages):
        p.mremap(HOME, size, size, AWAY)
    with samples.timing("mremap_pages", pages):
        p.mremap(AWAY, size, size, HOME + PAGE)
    with samples.timing("dontneed", pages):
        p.madvise(HOME + PAGE, size, "dontneed")
    p.write(HOME + PAGE, size)
    with samples.timing("munmap", pages):
        p.munmap(HOME + PAGE, size)
    p.exit()
    if other is not None:
        other.exit()


def family(samples: Samples, p: Process, pages: int) -> None:
    size = pages * PAGE
    with samples.timing("fork", pages):
        child = p.fork()
    with samples.timing("child_exit", pages):
        child.exit()
    with samples.timing("reuse", pages):
        p.write(HOME, size)
    child = p.fork()
    with samples.timing("cow", pages):
        child.write(HOME, size)
    child.exit()
    p.write(HOME, size)


def single_faults(samples: Samples, kernel: Kernel) -> None:
    p = kernel.spawn()
    p.mmap((SINGLES + 1) * PAGE, addr=HOME)
    p.write(HOME, 1)
    places = range(HOME + PAGE, HOME + (SINGLES + 1) * PAGE, PAGE)
    write = p.write
    with samples.timing("fault", SINGLES):
        for place in places:
            write(place, 1)
    child = p.fork()
    child.write(HOME, 1)
    write = child.write
    with samples.timing("cow_fault", SINGLES):
        for place in places:
            write(place, 1)
    child.exit()
    p.exit()


def many_vmas(samples: Samples, kernel: Kernel, vmas: int) -> None:
    p = kernel.spawn()
    for place in range(HOME, HOME + 2 * vmas * PAGE, 2 * PAGE):
        p.mmap(PAGE, addr=place)
        p.write(place, 1)
    with samples.timing("fork_vmas"):
        child = p.fork()
    child.exit()
    p.exit()


def measure_walk(design: str, layout: str, pages: int, mappers: int, rounds: int) -> dict[str, float]:
    """A walk of many pages with many mappers each, in ns per page and mapper.

    Returns:
        ``walk_stream``: every answer's pte pointer is taken from the stream and dropped; ``walk_columns``: all
        answers as columns of page, process and address.
    """
    kernel = Kernel(design=design, nr_pages=max(1 << 18, 4 * pages))
    if layout == "shuffled":
        shuffle_free_frames(kernel)
        p, _ = two_with_interleaved_tables(kernel, pages)
    else:
        p = kernel.spawn()
        p.mmap(pages * PAGE, addr=HOME)
    p.write(HOME, pages * PAGE)
    pfns = np.array([kernel.pfn(p, HOME + page * PAGE) for page in range(pages)], np.int64)
    for _ in range(mappers - 1):
        p.fork()

    def one_round(samples: Samples) -> None:
        found = 0
        with samples.timing("walk_stream", pages * mappers):
            for hits in kernel.hits(pfns):
                found += len(hits.pteps)
        assert found == pages * mappers
        with samples.timing("walk_columns", pages * mappers):
            kernel.walk_many(pfns)

    return rounds_of(rounds, one_round)


def frame_mib(design: str) -> float:
    """MiB that 1 Mi more frames cost, columns of the design included."""
    return bytes_more(design, {"nr_pages": 2}, {"nr_pages": 2 + (1 << 20)}) / (1 << 20)


def pte_bytes(design: str) -> float:
    """Bytes that an entry of one more page table costs, with what is kept beside the table."""
    return bytes_more(design, {"nr_tables": 1 << 10}, {"nr_tables": 2 << 10}) / (512 << 10)


def bytes_more(design: str, small: dict[str, int], large: dict[str, int]) -> int:
    """How much more a larger machine asks memory for, before anything is mapped."""
    asked = []
    for size in (small, large):
        tracemalloc.start()
        machine = Kernel(design=design, **({"nr_pages": 2} | size))
        asked.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        del machine
    return asked[1] - asked[0]


def load_s(design: str, rounds: int) -> float:
    """Seconds from the file of the shipped picture to a machine in that state."""

    def one_round(samples: Samples) -> None:
        with samples.timing("load", 10**9):
            Kernel.adopt(Snapshot.load(shipped()), design=design)

    return rounds_of(rounds, one_round)["load"]


def help_ms(rounds: int) -> float:
    """Milliseconds that ``rmap --help`` takes, start of Python included."""

    def one_round(samples: Samples) -> None:
        with samples.timing("help", 1_000_000):
            subprocess.run([sys.executable, "-m", "rmap", "--help"], check=True, capture_output=True)

    return rounds_of(rounds, one_round)["help"]
