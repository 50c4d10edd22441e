"""A short batch of random scenarios, and the tools that cut a finding down."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from judge import random_runs
from judge.puppets import missing_ability
from judge.random_runs import Step, play, report, scenario, shrink
from needs import need


@pytest.mark.live
@pytest.mark.parametrize("seed", range(1, 13))
def test_the_model_and_the_kernel_agree(seed: int) -> None:
    need(missing_ability())
    steps = scenario(seed, 40)
    why = play(steps)
    assert why is None, report(seed, steps, why)


def test_a_seed_gives_one_scenario() -> None:
    assert scenario(7, 30) == scenario(7, 30)
    assert scenario(7, 30) != scenario(8, 30)


def test_shrinking_keeps_only_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told that a scenario fails iff it unmaps after it forked, it leaves these two steps."""
    steps = [Step(0, "spawn", makes=0), Step(0, "read", (1, 1)), Step(0, "fork", makes=1), Step(1, "write", (1, 1)),
             Step(1, "munmap", (1, 1)), Step(0, "exit")]  # fmt: skip

    def fails(candidate: Sequence[Step]) -> str | None:
        calls = [step.call for step in candidate]
        return "diverged" if "fork" in calls and "munmap" in calls[calls.index("fork") :] else None

    monkeypatch.setattr(random_runs, "play", fails)
    assert [step.call for step in shrink(steps)] == ["fork", "munmap"]
