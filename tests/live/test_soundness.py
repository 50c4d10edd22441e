"""What is said of differences found in several readings: violation, race, or not judged. No machine needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from rmap.live import soundness as module
from rmap.live.capture.settle import AGAIN
from rmap.live.soundness import RACED_MAX, MachineCheck, check_machine
from rmap.snapshot.rules.findings import Checked, Found, Report, Violation

ME, OTHER, BUSY = os.getpid(), 11, 12


def violation(where: object, *pids: int, text: str = "wrong", open: bool = False) -> Violation:
    return Violation("I14", text, (), pids, where, open)


def reading(violations: list[Violation], total: int | None = None) -> module._Reading:
    number = len(violations) if total is None else total
    return module._Reading([Found(Checked("I14", "", 10_000, "entries", violations=number), violations)], None, None)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Judge these readings, the last of them for ever; OTHER holds still, BUSY runs."""
    ran = [0]

    def run_times(pids: list[int]) -> dict[int, tuple[str, ...]]:
        ran[0] += 1
        return {pid: (str(ran[0] if pid == BUSY else 0),) for pid in pids if pid != ME}

    def judge(*readings: module._Reading) -> MachineCheck:
        left = list(readings)
        monkeypatch.setattr(module, "_read", lambda *_: left.pop(0) if len(left) > 1 else left[0])
        return check_machine(None)

    monkeypatch.setattr(module, "_run_times", run_times)
    monkeypatch.setattr(module, "PAUSE", 0)
    yield judge


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (violation(1, OTHER), "broken"),
        (violation(1, OTHER, ME), "broken"),
        (violation(1), "broken"),
        (violation(1, OTHER, open=True), "unsettled"),
        (violation(1, open=True), "unsettled"),
        (violation(1, ME), "unsettled"),
        (violation(1, OTHER, BUSY), "unsettled"),
        (violation(1, BUSY), "unsettled"),
    ],
)
def test_whom_it_takes_to_hold_still(one: Violation, verdict: str, judged: Any) -> None:
    found = judged(reading([one]))
    assert (len(found.report.violations), found.not_judged) == ((1, 0) if verdict == "broken" else (0, 1))
    assert found.races == 0 and found.readings == AGAIN


def test_other_words_are_another_moment(judged: Any) -> None:
    found = judged(reading([violation(1, OTHER)]), reading([violation(1, OTHER, text="otherwise")]))
    assert (found.report.violations, found.not_judged, found.races) == ([], 1, 0)


def test_what_goes_is_a_race(judged: Any) -> None:
    found = judged(reading([violation(1, OTHER), violation(2, OTHER)]), reading([violation(1, OTHER)]))
    assert (len(found.report.violations), found.not_judged, found.races) == (1, 0, 1)


def test_what_was_not_named_is_never_taken_for_a_race(judged: Any) -> None:
    """5 named of 100: as many as there are each time may be violations."""
    named = [violation(where, OTHER) for where in range(5)]
    found = judged(reading(named, 100))
    assert (len(found.report.violations), found.untold, found.races) == (5, 95, 0)
    found = judged(reading(named, 100), reading(named, 80), reading(named, 90))
    assert (found.untold, found.races) == (75, 20)
    found = judged(reading(named, 100), reading([], 0))
    assert (found.report.violations, found.untold, found.races) == ([], 0, 100)


def test_once_all_are_named_only_those_that_stay_count(judged: Any) -> None:
    """Others come and go in the same line: 7 and 8 were there in the first reading perhaps, 9 was not there since."""
    named, more = [violation(1, OTHER)], [violation(where, OTHER) for where in (1, 7, 8, 9)]
    found = judged(reading(named, 50), reading(more), reading([*more[:3], violation(10, OTHER)]))
    assert (len(found.report.violations), found.untold, found.races) == (1, 2, 47)


def test_a_reading_in_which_most_moved_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = iter([0.9, 0.5, RACED_MAX])
    facts = {}
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(module, "_read", lambda *_: reading([]))

    def of(one: module._Reading) -> dict[str, int]:
        if id(one) not in facts:
            facts[id(one)] = (one, {"raced": int(next(parts) * 1000), "pages": 1000})
        return facts[id(one)][1]

    monkeypatch.setattr(module, "_facts", of)
    assert not check_machine(None).too_much_moved
    assert next(parts, None) is None
    moving = MachineCheck(Report([], []), 0, [], 0, {"raced": 300, "pages": 1000}, 0.1)
    assert moving.too_much_moved and moving.not_judged == 0
