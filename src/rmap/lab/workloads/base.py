"""What a workload is: a program of system calls with parameters, limits and a size.

A workload is a generator: it drives the public calls of :class:`rmap.kernel.Process`, yields a label whenever a new
phase begins, and returns the pages whose walks are worth measuring. It draws random numbers only from the
generator that its seed makes, so that a seed and a commit reproduce everything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from rmap.errors import LimitError, UsageError
from rmap.units import PAGE_SIZE, PTRS_PER_TABLE

if TYPE_CHECKING:
    from rmap.kernel import Process

MAX_FRAMES = 1 << 23
"""Frames a workload may use: 32 GiB of modelled memory, about 0.5 GiB of ours per design."""
MAX_PTES = 1 << 26
"""Page-table entries a workload may make: about 3 GiB of ours per design for half as many."""
MAX_PROCESSES = 10_000
MAX_VMAS = 2_100_000

RUN_PAGES = 64
"""Programs rewrite memory object by object: a share of a region is drawn as runs of up to so many pages."""

Kind: TypeAlias = Literal["count", "share", "size"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something about a workload that can be chosen.

    Attributes:
        name: as a keyword of the generator.
        default: its value if nothing is chosen.
        kind: ``count`` (a whole number), ``share`` (0 to 1) or ``size`` (bytes).
        help: what it means, in a few words.
        low, high: the least and the greatest value allowed.
    """

    name: str
    default: int | float
    kind: Kind
    help: str
    low: int | float = 0
    high: int | float = 1

    def checked(self, value: int | float) -> int | float:
        """The value, if it is allowed.

        Raises:
            UsageError: it is not.
        """
        option = f"--{self.name.replace('_', '-')}"
        if self.kind != "share" and int(value) != value:
            raise UsageError(f"{option} is a whole number, not {value}")
        if not self.low <= value <= self.high:
            shown = f"{value:,}" if self.kind != "share" else f"{value:.0%}"
            raise UsageError(f"{option} goes from {self._shown(self.low)} to {self._shown(self.high)}: {shown}")
        return float(value) if self.kind == "share" else int(value)

    def _shown(self, value: int | float) -> str:
        return f"{value:.0%}" if self.kind == "share" else f"{value:,}"


@dataclass(frozen=True, slots=True)
class Size:
    """What a workload needs at most.

    Attributes:
        frames: pages of memory.
        ptes: page-table entries.
        tables: page-table pages.
        vmas: VMAs.
    """

    frames: int
    ptes: int
    tables: int
    vmas: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Pages whose walk is measured.

    Attributes:
        label: ``"a page of the parent"``.
        places: where such pages are mapped: ``(process, address in bytes, pages)``.
    """

    label: str
    places: tuple[tuple[Process, int, int], ...]


Steps: TypeAlias = Generator[str, None, tuple[Sample, ...]]
"""A workload at work: labels of its phases; at the end, the pages to walk."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload.

    Attributes:
        name: on the command line.
        summary: one sentence for a reader.
        parameters: what can be chosen.
        run: the generator: ``(kernel, *, seed, **parameters)``.
        size: what it needs with these parameters.
        shows: the operations that it is about, in the order of the table.
        source: who published it, and when; empty for rmap's own.
        theme: under which heading it is listed.
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    run: Callable[..., Steps]
    size: Callable[..., Size]
    shows: tuple[str, ...]
    source: str = ""
    theme: str = "own"

    def settings(self, given: Mapping[str, int | float]) -> dict[str, int | float]:
        """Every parameter's value: those given, the defaults of the others.

        Raises:
            UsageError: an unknown parameter, or a value outside its limits.
            LimitError: together they ask for more memory than a workload may use.
        """
        by_name = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in by_name:
                raise UsageError(f"{self.name} has no parameter {name!r}: it has {', '.join(by_name)}")
        settings = {name: p.checked(given.get(name, p.default)) for name, p in by_name.items()}
        size = self.size(**settings)
        for what, asked, limit in (
            ("page-table entries", size.ptes, MAX_PTES),
            ("pages", size.frames, MAX_FRAMES),
            ("VMAs", size.vmas, MAX_VMAS),
        ):
            if asked > limit:
                raise LimitError(f"{self.name} would have {asked:,} {what}: the limit is {limit:,}; choose less")
        return settings


def tables_for(pages: int) -> int:
    """Page tables that one region of so many pages may need, wherever it begins."""
    return pages // PTRS_PER_TABLE + 2


def share_of(pages: int, share: float) -> int:
    """So many whole pages are this share."""
    return int(pages * share)


def random_runs(rng: np.random.Generator, pages: int, count: int, run: int = RUN_PAGES) -> list[tuple[int, int]]:
    """Draw ``count`` of ``pages`` pages, in runs, none twice.

    Returns:
        ``(first page, pages)`` of each run, in ascending order.
    """
    if not count:
        return []
    blocks = rng.permutation(-(-pages // run))
    runs, left = [], count
    for block in blocks.tolist():
        first = block * run
        n = min(run, pages - first, left)
        runs.append((first, n))
        left -= n
        if not left:
            break
    return sorted(runs)


def write_runs(process: Process, start: int, runs: list[tuple[int, int]]) -> None:
    """Write the pages of these runs of a region."""
    for first, n in runs:
        process.write(start + first * PAGE_SIZE, n * PAGE_SIZE)


def places(process: Process, start: int, runs: list[tuple[int, int]]) -> tuple[tuple[Process, int, int], ...]:
    """The same runs as places of a :class:`Sample`."""
    return tuple((process, start + first * PAGE_SIZE, n) for first, n in runs)
