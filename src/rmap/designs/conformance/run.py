"""The run: calls on two machines, compared after each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

from rmap.designs import design_named
from rmap.designs.conformance.calls import Dice, next_call
from rmap.designs.conformance.machine import Call, SmallMachine
from rmap.designs.conformance.scenarios import SCENARIOS
from rmap.designs.conformance.state import canonical, check_machine, differences
from rmap.errors import InvariantError
from rmap.mm.costs import OPERATIONS
from rmap.mm.interface import ReverseMapFactory


@dataclass(slots=True)
class Conformance:
    """What a test covered. There is one only if the design passed.

    Attributes:
        design, profile: what was tested, under the rules of which release.
        seeds: how many sequences of calls.
        calls: how often each call was made.
        refused: how many calls were refused, as Linux would.
        pages: pages walked and compared with the page tables, summed over all calls.
    """

    design: str
    profile: str
    seeds: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    pages: int = 0


def run_conformance_test(
    factory: str | ReverseMapFactory, *, profile: str = "6.18", seeds: Iterable[int] = range(20), steps: int = 60
) -> Conformance:
    """Test a reverse map: first the fixed scenarios, then random calls. Returns what was covered.

    Args:
        factory: the design: a class or another callable ``(core, profile) -> ReverseMap``, or a name of ``DESIGNS``.
        profile: the rules of which release the machines follow.
        seeds: one sequence of calls each.
        steps: calls per sequence; then every process exits, the oldest first.

    Raises:
        InvariantError: the design is wrong. Whatever is raised carries a note with the calls that led to it.
    """
    make = design_named(factory)
    name = SmallMachine(make, profile, True).core.rmap.name
    covered = Conformance(name, profile)
    for title, calls in SCENARIOS.items():
        with _Story(f"scenario {title!r}") as story:
            machines = _two_machines(make, profile)
            for call in calls:
                _step(machines, covered, call, story)
            _end(machines, covered, story)
    for seed in seeds:
        covered.seeds += 1
        with _Story(f"seed {seed}") as story:
            machines, dice = _two_machines(make, profile), Dice(seed)
            for _ in range(steps):
                _step(machines, covered, next_call(dice, machines[0]), story)
            _end(machines, covered, story)
    return covered


class _Story:
    def __init__(self, name: str) -> None:
        # Adds the calls made so far to an error that passes by.
        self.name = name
        self.calls: list[Call] = []

    def __enter__(self) -> _Story:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            calls = "\n".join(f"  {_in_words(call)}" for call in self.calls)
            error.add_note(f"{self.name}, after {len(self.calls)} calls, the last of which failed:\n{calls}")


def _in_words(call: Call) -> str:
    name, *arguments = call
    return f"{name}({', '.join(hex(a) if isinstance(a, int) and a > 4095 else repr(a) for a in arguments)})"


def _two_machines(make: ReverseMapFactory, profile: str) -> tuple[SmallMachine, SmallMachine]:
    return SmallMachine(make, profile, True), SmallMachine(make, profile, False)


def _end(machines: tuple[SmallMachine, SmallMachine], covered: Conformance, story: _Story) -> None:
    # Every process exits: the oldest first, so that pages outlive those who made them.
    while machines[0].mms:
        _step(machines, covered, ("exit", 0), story)
    for machine in machines:
        if machine.core.frames.mapcount.any() or machine.core.tables.live:
            raise InvariantError("exit", "every process has gone, and something is still mapped")


def _step(machines: tuple[SmallMachine, SmallMachine], covered: Conformance, call: Call, story: _Story) -> None:
    story.calls.append(call)
    with_twins, without = (machine.apply(call) for machine in machines)
    covered.calls[call[0]] += 1
    covered.refused += with_twins is not None and with_twins < 0
    if with_twins != without:
        raise InvariantError("twins", f"with scalar twins the call answers {with_twins}, without {without}")
    states = []
    for machine in machines:
        walks = check_machine(machine.core)
        states.append(canonical(machine, walks))
        covered.pages += len(walks)
    _compare(*states)
    for operation, ours, theirs in zip(OPERATIONS, *(machine.core.costs.by_operation for machine in machines)):
        if ours != theirs:
            raise InvariantError("costs", f"{operation}: with and without twins: {differences(ours, theirs)}")


def _compare(ours: dict[str, object], theirs: dict[str, object]) -> None:
    for key in ours.keys() | theirs.keys():
        if ours.get(key) != theirs.get(key):
            raise InvariantError("twins", f"{key}: with scalar twins {ours.get(key)}, without {theirs.get(key)}")
