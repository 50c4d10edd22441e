"""A differential run: scenario after scenario, until enough steps were made, time is up, or a divergence is found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from rmap.designs import design_named
from rmap.errors import NotPermitted, SourceError, UsageError
from rmap.lab.conform.pair import Compared
from rmap.lab.conform.play import ScenarioPlayed, ScenarioPlayer, Totals, nr_pages_for
from rmap.lab.conform.program import missing_ability
from rmap.lab.conform.scenario import FEWEST_PROCESSES, MOST_PROCESSES, Scenario, ScenarioStep, scenario
from rmap.lab.conform.script import script_of
from rmap.lab.conform.shrink import shrink
from rmap.lab.conform.swap import swap_to_zram, why_no_zram
from rmap.live.bpf import open_memory, why_not
from rmap.live.undo import machine_state, undo_left_behind
from rmap.mm.profile import PROFILES

BLOCK = 32
"""Scenarios are drawn so many at a time; those with swap of a block are played together."""
REPLAYS = 4
MOST_LOST_IN_A_ROW = 5
DEFAULT_STEPS = 5_000


@dataclass(frozen=True)
class Divergence:
    """A difference that repeats.

    Attributes:
        seed: of the scenario.
        drawn: how many calls it has.
        steps: the calls that are left of it, as text.
        why: what differs, in words.
        script: a Python script that shows it.
    """

    seed: int
    drawn: int
    steps: tuple[str, ...]
    why: str
    script: str


@dataclass(frozen=True)
class Incident:
    """A scenario that says nothing about the model.

    Attributes:
        seed: of the scenario.
        why: what happened.
    """

    seed: int
    why: str


@dataclass
class ConformRun:
    """What a run found.

    Attributes:
        design, profile: of the model.
        release: of the running kernel.
        seed, next_seed: the scenarios played are those of ``range(seed, next_seed)``.
        processes, swap: as asked for.
        bpf: None if the kernel's own structures were read, else what was missing for that.
        steps, scenarios: how much was done.
        swapping: scenarios that used swap.
        calls, refused: how many calls of each kind were made, and refused by both alike.
        compared: what was compared, how often.
        costs: what the model counted, by operation and counter.
        seconds: how long it took.
        complete: False if it was interrupted.
        divergence: the difference that ended the run.
        not_seen_again: differences that did not repeat.
        lost: scenarios that lost a puppet to something else than their own calls.
        undone: what an earlier run had left behind, and this one has undone.
    """

    design: str
    profile: str
    release: str
    seed: int
    next_seed: int
    processes: int
    swap: bool
    bpf: str | None
    steps: int = 0
    scenarios: int = 0
    swapping: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    compared: Compared = field(default_factory=Compared)
    costs: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True
    divergence: Divergence | None = None
    not_seen_again: list[Incident] = field(default_factory=list)
    lost: list[Incident] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)


def conform(
    *,
    seed: int = 1,
    steps: int | None = None,
    seconds: float | None = None,
    processes: int = MOST_PROCESSES,
    swap: bool = False,
    design: str = "anon_vma_chain",
    profile: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[str], None] = lambda doing: None,
) -> ConformRun:
    """Play scenarios until a limit is reached or a divergence found.

    Args:
        seed: of the first scenario; the next one has the next number.
        steps: stop after so many; 5,000 if neither limit is given.
        seconds: stop when they are over.
        processes: so many at once at most, 2 to 8.
        swap: half of the scenarios also send pages to swap, on a zram device that is set up for them.
        design, profile: of the model; the profile of the running kernel's release if None.
        stopped: asked before every step; True ends the run with what was found so far.
        progress: told what is being done.

    Raises:
        NotPermitted: no puppets here, or no zram.
        UsageError: an impossible argument.
        SourceError: puppets die again and again.
    """
    profile = profile or profile_of_this_kernel()
    design_named(design)
    _check_arguments(steps, seconds, processes, profile)
    undone = undo_left_behind()
    missing = missing_ability() or (_why_no_swap() if swap else None)
    if missing:
        raise NotPermitted("real processes cannot be driven and seen here", needed=missing)
    steps = DEFAULT_STEPS if steps is None and seconds is None else steps
    result = ConformRun(design, profile, os.uname().release, seed, seed, processes, swap, why_not())
    result.undone = undone
    with ExitStack() as stack:
        memory = None if result.bpf else stack.enter_context(open_memory())
        player = stack.enter_context(ScenarioPlayer(design, profile=profile, memory=memory, stopped=stopped))
        _Run(result, player, stopped, progress, steps, seconds).play_all()
    return result


def _why_no_swap() -> str | None:
    # Asked when nobody else has changed the machine's swap for a while.
    with machine_state():
        return why_no_zram()


def profile_of_this_kernel() -> str:
    """The profile whose release runs here; else the default one, whose rules may then not hold."""
    release = ".".join(os.uname().release.split(".")[:2])
    return release if release in PROFILES else "6.18"


def _check_arguments(steps: int | None, seconds: float | None, processes: int, profile: str) -> None:
    if steps is not None and steps < 1:
        raise UsageError(f"a run has at least one step, not {steps:,}")
    if seconds is not None and seconds <= 0:
        raise UsageError("a run needs some time")
    if not FEWEST_PROCESSES <= processes <= MOST_PROCESSES:
        raise UsageError(f"{FEWEST_PROCESSES} to {MOST_PROCESSES} processes at once, not {processes:,}")
    if profile not in PROFILES:
        raise UsageError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")


class _Run:
    def __init__(
        self,
        result: ConformRun,
        player: ScenarioPlayer,
        stopped: Callable[[], bool],
        progress: Callable[[str], None],
        steps: int | None,
        seconds: float | None,
    ) -> None:
        # One run under way.
        self.result = result
        self.player = player
        self.stopped = stopped
        self.progress = progress
        self.steps = steps
        self.seconds = seconds
        self.began = time.monotonic()
        self.totals = Totals()
        self.lost_in_a_row = 0

    def play_all(self) -> None:
        try:
            while not self._enough():
                self._play_block()
        finally:
            result, totals = self.result, self.totals
            result.complete = not self.stopped()
            result.calls = dict(totals.calls.most_common())
            result.refused = dict(totals.refusals)
            result.compared = totals.compared
            result.costs = {operation: dict(counters) for operation, counters in totals.costs.items()}
            result.seconds = time.monotonic() - self.began

    def _enough(self) -> bool:
        if self.stopped() or self.result.divergence is not None:
            return True
        if self.steps is not None and self.result.steps >= self.steps:
            return True
        return self.seconds is not None and time.monotonic() - self.began >= self.seconds

    def _play_block(self) -> None:
        # Those with swap come last, so that the machine's swap is changed once for all of them.
        first = self.result.next_seed
        drawn = [
            scenario(seed, processes=self.result.processes, swap=self.result.swap)
            for seed in range(first, first + BLOCK)
        ]
        self.result.next_seed = first + BLOCK
        self._play_some([one for one in drawn if not one.swap])
        with_swap = [one for one in drawn if one.swap]
        if with_swap and not self._enough():
            self.progress(self._status("waiting for the machine's swap"))
            with machine_state(), swap_to_zram():
                try:
                    self._play_some(with_swap)
                finally:
                    self.player.close()  # what is in swap goes with its processes, and need not come back

    def _play_some(self, scenarios: Sequence[Scenario]) -> None:
        for one in scenarios:
            if self._enough():
                return
            self.progress(self._status(f"seed {one.seed}"))
            self._play(one)

    def _play(self, one: Scenario) -> None:
        played = self.player.play(one.steps, self.totals)
        result = self.result
        result.scenarios += 1
        result.swapping += one.swap
        result.steps = sum(self.totals.calls.values())
        if played.why is None:
            self.lost_in_a_row = 0
        elif tries := self._repeats(one, played):
            result.divergence = self._cut_down(one, played, tries)
        else:
            why = f"interrupted before it was repeated; {played.why}" if self.stopped() else played.why
            (result.lost if played.lost else result.not_seen_again).append(Incident(one.seed, why))
            self.lost_in_a_row = self.lost_in_a_row + 1 if played.lost else 0
            if self.lost_in_a_row == MOST_LOST_IN_A_ROW:
                raise SourceError(f"puppets die again and again, last in the scenario of seed {one.seed}: {played.why}")

    def _repeats(self, one: Scenario, played: ScenarioPlayed) -> int:
        # A difference is one if it comes again, with the same calls. So is a puppet that dies at the same call again.
        # Returns the try at which it came; 0: not again.
        for tries in range(1, REPLAYS + 1):
            self.progress(self._status(f"seed {one.seed} again"))
            again = self.player.play(one.steps)
            if again.kind != played.kind or again.why is None:
                continue
            if not played.lost or len(again.refused) == len(played.refused):
                return tries
        return 0

    def _cut_down(self, one: Scenario, played: ScenarioPlayed, tries: int) -> Divergence:
        plays = 0

        def diverges(steps: Sequence[ScenarioStep]) -> bool:
            nonlocal plays
            plays += 1
            self.progress(self._status(f"seed {one.seed} diverges; cut down to {len(steps)} calls, try {plays}"))
            for _ in range(0 if self.stopped() else tries):
                replayed = self.player.play(steps)
                if replayed.why is not None and replayed.kind == played.kind:
                    return True
            return False

        fewest = shrink(one.steps, diverges)
        last = self.player.play(fewest)
        if last.why is None:  # it needs some luck: show it whole
            fewest, last = list(one.steps), played
        result = self.result
        command = f"rmap conform --seed {one.seed} --steps 1 --processes {result.processes}"
        about = (
            f"Linux {result.release} and the model (design {result.design}, rules of {result.profile}) differ:"
            f" `{command}{' --swap' if result.swap else ''}`."
        )
        why = last.why or ""
        machine = {"design": result.design, "profile": result.profile, "swap": one.swap}
        script = script_of(fewest, last.refused, why, about, nr_pages=nr_pages_for(fewest), **machine)
        return Divergence(one.seed, len(one.steps), tuple(map(str, fewest)), why, script)

    def _status(self, doing: str) -> str:
        seconds = max(time.monotonic() - self.began, 1e-9)
        steps = sum(self.totals.calls.values())
        return f"{steps:,} steps, {self.result.scenarios:,} scenarios, {steps / seconds:,.0f} steps/s: {doing}"
