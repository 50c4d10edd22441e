"""The search: hill climbing with restarts over short sequences of moves; a seed and a number of evaluations fix it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmap.designs import design_named
from rmap.errors import UsageError
from rmap.lab.compare.figures import Meter
from rmap.lab.compare.work import STEPS
from rmap.lab.worst.adversaries import adversary
from rmap.lab.worst.arena import MOVES, Arena
from rmap.mm.walk import walk_many

LENGTH = 10
PATIENCE = 60
"""Changes in a row that do not help before the search begins again elsewhere."""


def _memory(arena: Arena) -> float:
    # By mappings and areas: a design that pays per area shall not be judged by areas without pages.
    mapped = int(arena.kernel.core.frames.mapcount.sum())
    areas = sum(len(mm.vmas) for mm in arena.kernel.core.mms.values())
    return sum(arena.kernel.metadata_bytes().values()) / max(1, mapped + areas)


def _walked(arena: Arena) -> tuple[float, float]:
    # (steps and entries, entries in vain) per page, over every page that is mapped.
    pages = np.flatnonzero(arena.kernel.core.frames.mapcount)
    meter = Meter(arena.kernel.costs)
    walk_many(arena.kernel.core, pages)
    looked = sum(meter.get("walk", name) for name in ("nodes_visited", "blocks_visited", "ptes_checked"))
    n = max(1, len(pages))
    return looked / n, meter.get("walk", "ptes_in_vain") / n


def _steps_per(operations: tuple[str, ...], per: str) -> Callable[[Arena], float]:
    def cost(arena: Arena) -> float:
        table = arena.kernel.costs.as_dict()
        rows = [table[operation] for operation in operations if operation in table]
        times = sum(row.get(per, 0) for row in rows)
        return sum(row.get(step, 0) for row in rows for step in STEPS) / times if times else 0.0

    return cost


COSTS: dict[str, tuple[str, Callable[[Arena], float]]] = {
    "memory": ("bytes of metadata by mapping and area", _memory),
    "walk": ("steps and entries by page walked, all pages", lambda arena: _walked(arena)[0]),
    "in-vain": ("entries looked at in vain by page walked", lambda arena: _walked(arena)[1]),
    "fault": ("steps by page faulted or copied", _steps_per(("fault", "cow"), "ptes_added")),
    "fork": ("steps by fork", _steps_per(("fork",), "calls")),
    "exit": ("steps by exit", _steps_per(("exit",), "calls")),
    "unmap": ("steps by mapping unmapped", _steps_per(("munmap",), "ptes_removed")),
    "split": ("steps by mprotect", _steps_per(("mprotect",), "calls")),
    "move": ("steps and copies by mremap", _steps_per(("mremap",), "calls")),
}
"""What can be made large: what it counts, and how."""


@dataclass(frozen=True, slots=True)
class WorstFound:
    """The worst that was found.

    Attributes:
        design, cost: of what.
        counts: what the figures count.
        sequence: the moves, those that made sense.
        figure: their cost.
        known: the moves of the known adversary, cut to the same length.
        known_figure: their cost.
        evaluations: sequences tried.
        seed, length: of the search.
        interrupted: whether it was ended early.
    """

    design: str
    cost: str
    counts: str
    sequence: tuple[str, ...]
    figure: float
    known: tuple[str, ...]
    known_figure: float
    evaluations: int
    seed: int
    length: int
    interrupted: bool = False


def search(
    design: str,
    cost: str,
    *,
    seconds: float = 60.0,
    evaluations: int | None = None,
    seed: int = 1,
    length: int = LENGTH,
    say: Callable[[str], None] = lambda line: None,
) -> WorstFound:
    """Search for the sequence of at most ``length`` moves with the largest cost.

    Args:
        design: a name.
        cost: in :data:`COSTS`.
        seconds: when to stop.
        evaluations: stop after so many, whatever the clock says: then the result is the same everywhere.
        say: told the best figure now and then.

    Raises:
        UsageError: no such design or cost, or an impossible bound.
    """
    design_named(design)
    if cost not in COSTS:
        raise UsageError(f"no cost {cost!r}: have {', '.join(COSTS)}")
    if seconds <= 0 or length < 1 or length > 40 or (evaluations is not None and evaluations < 1):
        raise UsageError("a search needs some seconds, some evaluations, and 1 to 40 moves")
    counts, measure = COSTS[cost]
    run = _Search(design, measure, np.random.default_rng(seed), length)
    until = time.monotonic() + seconds
    interrupted = False
    try:
        while run.tried < (evaluations or run.tried + 1) and (evaluations is not None or time.monotonic() < until):
            run.step()
            if run.tried % 50 == 0:
                say(f"{run.tried:,} sequences, the worst so far {run.best_figure:,.2f}")
    except KeyboardInterrupt:
        interrupted = True
    moves = adversary(design, cost)[:length]
    made, figure = run.evaluate(moves)
    best, worst = run.best, run.best_figure
    return WorstFound(design, cost, counts, best, worst, made, figure, run.tried, seed, length, interrupted)


class _Search:
    def __init__(
        self, design: str, measure: Callable[[Arena], float], rng: np.random.Generator, length: int
    ) -> None:
        self._design = design
        self._measure = measure
        self._rng = rng
        self._length = length
        self._names = list(MOVES)
        self._known: dict[tuple[str, ...], float] = {}
        self.tried = 0
        self.best: tuple[str, ...] = ()
        self.best_figure = 0.0
        self._here: tuple[str, ...] = ()
        self._figure = -1.0
        self._idle = 0
        self._restart()

    def evaluate(self, sequence: tuple[str, ...]) -> tuple[tuple[str, ...], float]:
        """The moves that made sense, and their cost."""
        arena = Arena(self._design)
        made = arena.play(sequence)
        return made, self._measure(arena)

    def step(self) -> None:
        """Try one change of where the search stands."""
        changed = self._changed(self._here)
        self.tried += 1
        made, figure = self.evaluate(changed)
        if figure > self._figure:
            self._here, self._figure, self._idle = made, figure, 0
        else:
            self._idle += 1
        if figure > self.best_figure:
            self.best, self.best_figure = made, figure
        if self._idle > PATIENCE:
            self._restart()

    def _restart(self) -> None:
        # Half of the time from the best there is, shaken; else from anywhere.
        self._idle = 0
        if self.best and self._rng.random() < 0.5:
            self._here = self._changed(self._changed(self._changed(self.best)))
        else:
            self._here = tuple(self._rng.choice(self._names, self._rng.integers(1, self._length + 1)).tolist())
        self._figure = -1.0

    def _changed(self, sequence: tuple[str, ...]) -> tuple[str, ...]:
        moves = list(sequence)
        at = int(self._rng.integers(0, len(moves) + 1))
        kind = self._rng.random()
        if len(moves) < self._length and (kind < 0.5 or not moves):
            moves.insert(at, self._any())
        elif kind < 0.8:
            moves[at % len(moves)] = self._any()
        elif kind < 0.9 and len(moves) > 1:
            del moves[at % len(moves)]
        else:
            other = int(self._rng.integers(0, len(moves)))
            at %= len(moves)
            moves[at], moves[other] = moves[other], moves[at]
        return tuple(moves)

    def _any(self) -> str:
        return str(self._names[int(self._rng.integers(0, len(self._names)))])
