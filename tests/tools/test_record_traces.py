"""``tools/record_traces.py`` chooses recordings by what they show, never by what the model makes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from rmap.live.record.session import Checkpoints
from rmap.trace import Trace
from rmap.units import PAGE_SIZE
from tests.lab.replay.recorded_model import RecordedModel
from tests.support import ROOT

TOOLS = ROOT / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The tool; what it records would ship in a folder of its own."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.delitem(sys.modules, "record_traces", raising=False)
    import record_traces

    monkeypatch.setattr(record_traces, "FOLDER", tmp_path)
    monkeypatch.setitem(record_traces.PROGRAMS, "build", record_traces.Program(["true"], Checkpoints(), 1))
    return record_traces


def recorded(*, equal: bool) -> Trace:
    """What a recorder made: a program whose copy of a page the model follows, or not."""
    machine = RecordedModel()
    parent = machine.first()
    area = machine.mmap(parent, 4)
    machine.write(parent, area, 4)
    child = machine.fork(parent, 101)
    machine.write(child, area)
    if not equal:
        child.munmap(area + PAGE_SIZE, PAGE_SIZE)
    machine.checkpoint(end=True)
    return machine.build()


def test_a_recording_that_the_model_does_not_follow_is_kept_and_ends_it(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[Path] = []

    def attempt(program: object, folder: Path) -> Trace:
        attempts.append(folder)
        return recorded(equal=len(attempts) > 1)

    monkeypatch.setattr(tool, "attempt", attempt)
    with pytest.raises(SystemExit, match="VMA layout"):
        tool.record_one("build")
    assert len(attempts) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["build.differs.trace"]
    assert len(Trace.load(tmp_path / "build.differs.trace").events)


def test_a_recording_that_does_not_show_what_it_is_for_is_made_again(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = RecordedModel(complete=False, why_incomplete="it was killed")
    cut.first()
    made = [cut.build(), recorded(equal=True)]
    monkeypatch.setattr(tool, "attempt", lambda program, folder: made.pop(0))
    tool.record_one("build")
    assert made == [] and [path.name for path in tmp_path.iterdir()] == ["build.trace"]
    assert "attempt 1: incomplete" in capsys.readouterr().err
