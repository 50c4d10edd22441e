"""The draw of scenarios, and how they are cut down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from rmap.lab.conform import ScenarioStep, scenario
from rmap.lab.conform.pair import Both
from rmap.lab.conform.scenario import FEWEST_STEPS, MOST_STEPS, PAGE
from rmap.lab.conform.shrink import shrink
from rmap.mm.madvise import FLAG_ADVICE, NOT_MODELLED, PAGE_ADVICE, POPULATE_ADVICE
from rmap.uapi.mman import MADVICE


def test_a_seed_gives_one_scenario() -> None:
    assert scenario(7) == scenario(7)
    assert scenario(7).steps != scenario(8).steps


def test_every_call_and_every_advice_of_the_model_is_drawn() -> None:
    drawn = [scenario(seed, swap=swap) for seed in range(400) for swap in (False, True)]
    kinds = Counter(step.kind for one in drawn for step in one.steps)
    calls = {kind for kind in kinds if " " not in kind}
    assert calls == Both.CALLS - {"madvise"} | {"read", "write", "spawn", "truncate", "punch_hole"}
    advice = {kind.split()[1] for kind in kinds if " " in kind}
    assert advice == {*FLAG_ADVICE, *PAGE_ADVICE, *POPULATE_ADVICE} == set(MADVICE) - NOT_MODELLED


@pytest.mark.parametrize("most", [2, 5, 8])
def test_there_are_never_more_processes_than_asked_for(most: int) -> None:
    fullest = 0
    for seed in range(150):
        alive: set[int] = set()
        for step in scenario(seed, processes=most).steps:
            alive |= {step.makes} if step.makes is not None else set()
            alive -= {step.process} if step.call == "exit" else set()
            fullest = max(fullest, len(alive))
    assert fullest == most


def test_only_those_act_that_live_and_do_not_wait() -> None:
    waits = 0
    for seed in range(300):
        alive: set[int] = set()
        parent_of: dict[int, int] = {}
        for step in scenario(seed).steps:
            if step.call != "spawn" and step.process >= 0:
                assert step.process in alive - set(parent_of.values())
            if step.makes is not None:
                alive.add(step.makes)
            if step.call == "vfork" and step.makes is not None:
                parent_of[step.makes] = step.process
                waits += 1
            if step.call == "exit":
                alive.remove(step.process)
                parent_of.pop(step.process, None)
    assert waits > 50


def test_a_scenario_has_the_length_it_should() -> None:
    lengths = [len(scenario(seed).steps) for seed in range(200)]
    # A call that cannot be drawn (nobody is left to exit) is left out; two or three come before the first.
    assert min(lengths) >= FEWEST_STEPS * 0.7
    assert max(lengths) <= MOST_STEPS + 3
    assert not any(scenario(seed).swap for seed in range(50))
    assert 20 < sum(scenario(seed, swap=True).swap for seed in range(100)) < 80


def test_shrinking_keeps_only_what_matters() -> None:
    """Told that a scenario diverges iff it unmaps after it forked, it leaves these two steps."""
    steps = [
        ScenarioStep(0, "spawn", makes=0),
        ScenarioStep(0, "read", (1, 1)),
        ScenarioStep(0, "fork", makes=1),
        ScenarioStep(1, "write", (1, 1)),
        ScenarioStep(1, "munmap", (1, 1)),
        ScenarioStep(0, "exit"),
    ]

    def diverges(candidate: Sequence[ScenarioStep]) -> bool:
        calls = [step.call for step in candidate]
        return "fork" in calls and "munmap" in calls[calls.index("fork") :]

    assert [step.call for step in shrink(steps, diverges)] == ["fork", "munmap"]


def test_shrinking_makes_arguments_plain() -> None:
    how = {"prot": "rwx", "addr": 0x1000, "file": "shm", "offset": PAGE, "locked": True}
    steps = [ScenarioStep(0, "mmap", (6 * PAGE,), how)]
    (left,) = shrink(steps, lambda candidate: candidate[0].args[0] >= 2 * PAGE)
    assert left == ScenarioStep(0, "mmap", (2 * PAGE,), {"addr": 0x1000})
    (left,) = shrink(steps, lambda candidate: candidate[0].how.get("file") == "shm")
    assert left.how == {"addr": 0x1000, "file": "shm", "offset": 0}


def test_shrinking_ends_after_so_many_tries() -> None:
    asked = 0

    def diverges(candidate: Sequence[ScenarioStep]) -> bool:
        nonlocal asked
        asked += 1
        return False

    shrink(scenario(1).steps, diverges, plays=5)
    assert asked == 5
