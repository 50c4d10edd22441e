"""Rules of memory layout and sharing, each done by a real child process on the running kernel, and by the model.

One recording of ``rules_program.py``, with a picture at each exit: by then the child has done what its rule is about.
Everything that is compared is equal, in the areas and pages of every child.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rmap.lab.replay import results as r
from rmap.lab.replay.results import ReplayReport
from rmap.lab.replay.run import replay
from rmap.live.record.run import record
from rmap.live.record.session import Checkpoints
from rmap.trace import Trace
from rmap.trace import tables as t
from tests.lab.replay.rules_program import RULES

pytestmark = [pytest.mark.live, pytest.mark.needs("recording")]
PROGRAM = Path(__file__).with_name("rules_program.py")
NAMES = [rule.__name__ for rule in RULES]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The program, recorded."""
    target = tmp_path_factory.mktemp("rules") / "rules.trace"
    return record([sys.executable, "-I", str(PROGRAM)], target, checkpoints=Checkpoints(exits=True)).trace


@pytest.fixture(scope="module")
def report(trace: Trace) -> ReplayReport:
    """What the model made of it."""
    assert trace.about["complete"] and trace.about["exit_status"] == 0
    return replay(trace)


def child_of(trace: Trace, rule: str) -> int:
    """The process of a rule: the child that the program forked as its so-manieth."""
    events = trace.events
    root = int(events.pid[events.kind == t.EXEC][-1])
    children = events.a0[(events.kind == t.FORK) & (events.pid == root) & (events.a3 == 0)].tolist()
    return int(children[NAMES.index(rule)])


@pytest.mark.parametrize("rule", NAMES)
def test_the_model_does_what_the_kernel_does(rule: str, trace: Trace, report: ReplayReport) -> None:
    child = child_of(trace, rule)
    shown = [c for c in report.played.checkpoints if child in trace.moments[c.number].snapshot.processes.pid.tolist()]
    assert shown, "there is a picture at its exit"
    for checkpoint in shown:
        for row in checkpoint.agreements:
            if row.what not in (r.KINDS_OF_ENTRIES, r.FILE_MAPCOUNTS):
                assert row.complete and not row.excused, row
        assert set(checkpoint.resynchronised) <= {r.FAULT_AROUND}, checkpoint.resynchronised
        assert not checkpoint.areas and not checkpoint.notes


def test_no_call_was_answered_otherwise(report: ReplayReport) -> None:
    assert report.played.findings == ()
