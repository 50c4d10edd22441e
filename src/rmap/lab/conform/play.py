"""Telling a scenario to the model and to puppets, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rmap.errors import InvariantError, SyscallError
from rmap.lab.conform.pair import NR_PAGES, Both, BothFiles, Compared, Diverged, Pair
from rmap.lab.conform.puppets import PuppetDied, Puppets
from rmap.lab.conform.scenario import BASE, FILE_PAGES, FILES, SUBJECTS, ScenarioStep, pages
from rmap.structs.memory import KernelMemory

FINDINGS = (Diverged, InvariantError, ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""What is a finding: a divergence, and whatever else the model should never do. Any other error ends the run."""


@dataclass
class ScenarioPlayed:
    """What came of a scenario.

    Attributes:
        why: in words, what went wrong; None if the machines agree to the end.
        kind: the class of what went wrong, ``"Diverged"``; empty if nothing did.
        lost: what went wrong is that a puppet went away.
        refused: which of the steps that were made were refused, by both alike; ends where something went wrong.
    """

    why: str | None = None
    kind: str = ""
    lost: bool = False
    refused: list[bool] = field(default_factory=list)


@dataclass
class Totals:
    """What was done, over many scenarios.

    Attributes:
        calls, refusals: how many calls of each kind were made, and refused by both alike.
        compared: what was compared, how often.
        costs: what the model counted, by operation and counter.
    """

    calls: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    compared: Compared = field(default_factory=Compared)
    costs: dict[str, Counter[str]] = field(default_factory=dict)

    def add_costs(self, costs: Mapping[str, Mapping[str, int]]) -> None:
        """Add what one model counted."""
        for operation, counters in costs.items():
            self.costs.setdefault(operation, Counter()).update(counters)


class ScenarioPlayer:
    """Plays scenarios with one group of puppets, each in a world of its own. A context manager.

    Args:
        design, profile: of the model.
        memory: reads the running kernel's structures; None: compare what /proc shows.
        stopped: asked before each step; ends a scenario early, without a finding.
    """

    def __init__(
        self,
        design: str = "anon_vma_chain",
        *,
        profile: str = "6.18",
        memory: KernelMemory | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.design = design
        self.profile = profile
        self._memory = memory
        self._stopped = stopped
        self._puppets: Puppets | None = None

    def close(self) -> None:
        """Every process goes."""
        if self._puppets is not None:
            self._puppets.close()
            self._puppets = None

    def __enter__(self) -> ScenarioPlayer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def play(self, steps: Sequence[ScenarioStep], totals: Totals | None = None) -> ScenarioPlayed:
        """Tell both machines the calls; those of processes that are not there, or wait, are left out."""
        totals = totals or Totals()
        played = ScenarioPlayed()
        try:
            if self._puppets is None:
                self._puppets = Puppets()
            with Pair(
                self.design,
                profile=self.profile,
                nr_pages=nr_pages_for(steps),
                puppets=self._puppets,
                memory=self._memory,
                compared=totals.compared,
            ) as pair:
                try:
                    self._tell(_World(pair), steps, totals, played)
                finally:
                    totals.add_costs(pair.model.kernel.costs.as_dict())
        except FINDINGS as found:
            played.kind = type(found).__name__
            played.why = f"{played.kind}: {found}"
        except PuppetDied as died:
            played.why, played.kind, played.lost = str(died), type(died).__name__, True
            self.close()  # whoever took one puppet may have taken all of them
        return played

    def _tell(self, world: _World, steps: Sequence[ScenarioStep], totals: Totals, played: ScenarioPlayed) -> None:
        for step in steps:
            if self._stopped():
                return
            if not world.can(step):
                continue
            totals.calls[step.kind] += 1
            refused = world.make(step)
            totals.refusals[step.kind] += refused
            played.refused.append(refused)


def nr_pages_for(steps: Sequence[ScenarioStep]) -> int:
    """How much memory the model needs for these calls: enough that none is ever short, as in the kernel."""
    longest = max((arg for step in steps for arg in step.args if isinstance(arg, int) and arg < BASE), default=0)
    return NR_PAGES if longest <= pages(NR_PAGES // 64) else 8 * NR_PAGES


class _World:
    def __init__(self, pair: Pair) -> None:
        # The files and processes of one scenario, by the names that steps have for them.
        self._pair = pair
        self._files: dict[str, BothFiles] = {}
        for name, (path, how) in FILES.items():
            self._files[name] = pair.open(path, 0 if path == "/dev/zero" else pages(FILE_PAGES), **how)
        self._there: dict[int, Both] = {}
        self._waits_for: dict[int, int] = {}

    def can(self, step: ScenarioStep) -> bool:
        return step.call == "spawn" or step.process < 0 or self._acts(step.process)

    def _acts(self, process: int) -> bool:
        return process in self._there and process not in self._waits_for.values()

    def make(self, step: ScenarioStep) -> bool:
        # Whether it was refused, by both alike.
        how = {key: self._files[value] if key == "file" else value for key, value in step.how.items()}
        subject: Any = self._pair if step.call == "spawn" else self._there.get(step.process)
        if subject is None:
            subject = self._files[SUBJECTS[step.process]]
        try:
            made = getattr(subject, step.call)(*step.args, **how)
        except SyscallError:
            return True
        if step.makes is not None:
            self._there[step.makes] = made
        if step.call == "vfork" and step.makes is not None:
            self._waits_for[step.makes] = step.process
        if step.call == "exit":
            del self._there[step.process]
            self._waits_for.pop(step.process, None)
        return False
