"""What a recording meets seldom, made to happen: no kernel is asked."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from rmap.errors import SourceError, TraceError
from rmap.live.record import by_perf, session
from rmap.live.record.by_perf import PerfRecorder
from rmap.live.record.raw import empty
from rmap.live.record.run import pack
from rmap.live.record.session import Checkpoints, Session
from rmap.live.record.tracer import Tracer
from rmap.live.sources import ptrace
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.trace import Trace, TraceBuilder
from rmap.trace.spool import Spool, part_of

PID = 7


def snapshot() -> Snapshot:
    """One process with one VMA."""
    builder = SnapshotBuilder("kernel")
    builder.add_vma(builder.add_process(PID, comm="prog"), 0x7F00_0000_0000, 0x7F00_0000_2000, 0x73, label="[stack]")
    return builder.build()


class Ending:
    """A tracer whose last process comes to its end just while everything is being stopped."""

    stuck = False

    def __init__(self, root: int, watcher: Session) -> None:
        self.root_status: int | None = None
        self.ended = False
        self._watcher = watcher
        self._tried = False

    def wait(self, seconds: float) -> None:
        """What could not be stopped ends."""
        if self._tried:
            self._end()

    def pause(self) -> None:
        """The exit is met here."""
        self._tried = True
        self._watcher.at_exit(PID, last=True)
        if self.stuck:
            raise SourceError("it did not stop")

    def pids(self) -> list[int]:
        """The one."""
        return [] if self.ended else [PID]

    def go_on(self) -> None:
        """It ends."""
        self._end()

    def _end(self) -> None:
        self.ended, self.root_status = True, 0


class Nothing:
    """A recorder and actors that see nothing."""

    name, late = "bpf", False

    def __getattr__(self, name: str) -> Any:
        return {"news": dict, "follow": lambda pid: None}.get(name, empty)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty recording."""
    return Spool(part_of(tmp_path / "x.trace"), TraceBuilder(command=["prog"], recorder="bpf").about)


def play(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session with one checkpoint, during which the program ends."""
    monkeypatch.setattr(session, "Tracer", Ending)
    monkeypatch.setattr(session, "capture", lambda pids, **kwargs: snapshot())
    nothing: Any = Nothing()
    played = Session(PID, nothing, spool, Checkpoints(at=(0.0,)), nothing, None, lambda: None)
    played.run()
    spool.close()
    assert played.outcome.failure is None and played.outcome.ended
    return played


def test_an_end_that_comes_while_a_checkpoint_stops_everything_has_its_picture(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = play(spool, monkeypatch).outcome
    assert [shown.cause for shown in Trace.load(spool.folder).moments] == ["end"]
    assert outcome.end_snapshot and outcome.missed == []


def test_an_end_that_could_not_be_stopped_says_why(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ending, "stuck", True)
    outcome = play(spool, monkeypatch).outcome
    assert Trace.load(spool.folder).moments == []
    assert not outcome.end_snapshot and outcome.no_end == "it did not stop" and outcome.missed == []


def test_the_status_is_the_programs_not_that_of_a_later_process_of_its_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([(PID, 3 << 8), (PID, 9), (0, 0)])
    monkeypatch.setattr(ptrace, "seize", lambda pid, options: None)
    monkeypatch.setattr(os, "waitpid", lambda pid, options: next(ends))
    watcher: Any = None
    traced = Tracer(PID, watcher)
    traced.wait(0)
    assert next(ends, None) is None and traced.ended and traced.root_status == 3 << 8


@pytest.mark.parametrize(("does", "words"), [("exec sleep 60", "not ready within 0.3 s"), ("echo no >&2", "here: no")])
def test_a_perf_that_does_not_answer_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, words: str
) -> None:
    program = tmp_path / "perf"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    monkeypatch.setattr(by_perf, "_READY_SECONDS", 0.3)
    recorder = PerfRecorder(tmp_path / "perf.data")
    began = time.monotonic()
    with pytest.raises(SourceError, match=words):
        recorder.follow(1)
    assert time.monotonic() - began < 5
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_what_is_packed_is_checked_as_it_will_be_read(spool: Spool, tmp_path: Path) -> None:
    spool.close()
    with pytest.raises(TraceError, match=r"T4"):
        pack(spool.folder, tmp_path / "x.trace", {"complete": True})  # and yet a reason why not
    assert not (tmp_path / "x.trace").exists()
    pack(spool.folder, tmp_path / "x.trace", {"complete": True, "why_incomplete": ""})
    assert Trace.load(tmp_path / "x.trace").about["complete"]
