"""The journal of machine-wide changes: what is noted, who may undo it, and what is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmap.errors import SourceError
from rmap.live import undo
from rmap.live.sources import procfs


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(undo, "journal_folder", lambda: folder)
    yield folder


@pytest.fixture
def stray(tmp_path: Path) -> Path:
    """A setting that somebody changed and did not set back."""
    file = tmp_path / "stray"
    file.write_text("changed")
    return file


def undone(setting: Path) -> bool:
    return setting.read_text() == "before"


def note(journal: Path, stray: Path, *, pid: int, start_time: int, mode: int = 0o600) -> Path:
    file = journal / "1.undo"
    change = {"kind": "setting", "path": str(stray), "value": "before"}
    file.write_text(json.dumps({"pid": pid, "start_time": start_time, "change": change}))
    file.chmod(mode)
    return file


def test_a_change_is_noted_before_it_is_made_and_undone_at_the_end(journal: Path, stray: Path) -> None:
    with undo.undone_at_last({"kind": "setting", "path": str(stray), "value": "before"}):
        (file,) = journal.glob("*.undo")
        assert json.loads(file.read_text())["pid"] == os.getpid()
        assert not undone(stray)
    assert undone(stray)
    assert not list(journal.glob("*.undo"))


def test_it_is_undone_also_if_something_goes_wrong(journal: Path, stray: Path) -> None:
    with pytest.raises(RuntimeError), undo.undone_at_last({"kind": "setting", "path": str(stray), "value": "before"}):
        raise RuntimeError
    assert undone(stray)


def test_what_a_living_process_made_is_left_alone(journal: Path, stray: Path) -> None:
    note(journal, stray, pid=os.getpid(), start_time=procfs.read_stat(os.getpid()).start_time)
    assert undo.undo_left_behind() == []
    assert not undone(stray)


def test_what_a_dead_process_made_is_undone(journal: Path, stray: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    file = note(journal, stray, pid=child.pid, start_time=1)
    assert undo.undo_left_behind() == [f"{stray} set back to before, left behind by process {child.pid}"]
    assert undone(stray)
    assert not file.exists()


def test_a_pid_that_belongs_to_somebody_else_by_now_is_a_dead_one(journal: Path, stray: Path) -> None:
    note(journal, stray, pid=os.getpid(), start_time=1)
    assert undo.undo_left_behind()
    assert undone(stray)


@pytest.mark.parametrize("mode", [0o602, 0o620])
def test_a_note_that_others_may_write_is_never_believed(journal: Path, stray: Path, mode: int) -> None:
    note(journal, stray, pid=os.getpid(), start_time=1, mode=mode)
    assert undo.undo_left_behind() == []
    assert not undone(stray)


def test_a_note_that_is_a_link_is_never_believed(journal: Path, stray: Path, tmp_path: Path) -> None:
    note(journal, stray, pid=os.getpid(), start_time=1).rename(tmp_path / "elsewhere")
    (journal / "1.undo").symlink_to(tmp_path / "elsewhere")
    assert undo.undo_left_behind() == []
    assert not undone(stray)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"pid": 1}', '{"pid": "1", "change": {"kind": "setting"}}', '{"pid":1,"change":{"kind":"x"}}'],
)
def test_what_is_not_a_note_is_passed_over(journal: Path, text: str) -> None:
    file = journal / "1.undo"
    file.write_text(text)
    file.chmod(0o600)
    assert undo.undo_left_behind() == []


def test_an_unknown_change_is_not_begun(journal: Path) -> None:
    with pytest.raises(SourceError, match="nobody knows how to undo"), undo.undone_at_last({"kind": "magic"}):
        pytest.fail("the block ran")
    assert not list(journal.glob("*.undo"))


def test_a_journal_that_others_may_write_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo.os, "access", lambda path, mode: False)
    monkeypatch.setattr(undo.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = undo.journal_folder()
    assert folder.parent == tmp_path
    folder.chmod(0o777)
    with pytest.raises(SourceError, match="not this user's alone"):
        undo.journal_folder()


def test_a_setting_gets_its_old_value_back(journal: Path, tmp_path: Path) -> None:
    setting = tmp_path / "page-cluster"
    setting.write_text("3")
    with undo.undone_at_last({"kind": "setting", "path": str(setting), "value": "3"}):
        setting.write_text("0")
    assert setting.read_text() == "3"
