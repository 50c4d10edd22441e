"""The folder of a recording that did not come to its end: whatever was written whole can be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rmap.errors import TraceError, UsageError
from rmap.trace import Trace, TraceBuilder
from rmap.trace import tables as t
from rmap.trace.spool import NOT_ENDED, Spool, part_of
from tests.support.trace_worlds import AT, snapshot


def event(kind: int, pid: int, *arguments: int, time: int, file: int = -1) -> np.ndarray:
    padded = [*arguments, *[0] * (6 - len(arguments))]
    return np.array([[time, kind, pid, pid, 9, *padded, 0, file]], np.int64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven events, two pictures, one file; the recorder is gone."""
    spool = Spool(part_of(tmp_path / "x.trace"), TraceBuilder(command=["prog"], recorder="bpf").about)
    spool.add_events(event(t.EXEC, 7, spool.add_snapshot(snapshot(7), t.AT_EXEC, 7), time=1))
    opened = spool.add_open(
        spool.add_file(dev=1, inode=2, path="/x y", size=5, shmem=False, device=False), writable=True
    )
    spool.add_events(event(t.SYSCALL, 7, time=2, file=opened))
    spool.add_events(np.concatenate([event(t.FAULT, 7, AT + 4096 * n, 6, time=3 + n) for n in range(4)]))
    spool.add_events(event(t.CHECKPOINT, -1, spool.add_snapshot(snapshot(7, 8), t.AT_CHECKPOINT, -1), time=9))
    spool.close()
    return spool.folder


def test_it_is_read_as_an_incomplete_trace(folder: Path) -> None:
    trace = Trace.load(folder)
    assert trace.about["complete"] is False and trace.about["why_incomplete"] == NOT_ENDED
    assert trace.events.kind.tolist() == [t.EXEC, t.SYSCALL, *[t.FAULT] * 4, t.CHECKPOINT]
    assert trace.files.path == ["/x y"] and trace.opens.writable.tolist() == [1]
    assert [(p.cause, p.pid) for p in trace.moments] == [("exec", 7), ("checkpoint", -1)]


def test_it_can_be_packed(folder: Path, tmp_path: Path) -> None:
    Trace.load(folder).save(tmp_path / "x.trace")
    assert len(Trace.load(tmp_path / "x.trace").events) == 7


def test_every_cut_of_the_events_is_read(folder: Path) -> None:
    """A kill can come within any write: the last event may be cut off anywhere."""
    whole = (folder / "events.i64").read_bytes()
    for length in range(0, len(whole), 8):
        (folder / "events.i64").write_bytes(whole[:length])
        trace = Trace.load(folder)
        assert len(trace.events) == length // (13 * 8)
        assert len(trace.moments) == (length >= 13 * 8) + (length == len(whole))


@pytest.mark.parametrize(("name", "left"), [("opens.jsonl", 1), ("pictures.jsonl", 6)])
def test_a_row_that_was_not_written_ends_the_events(folder: Path, name: str, left: int) -> None:
    text = (folder / name).read_bytes()
    (folder / name).write_bytes(text[:-4])
    assert len(Trace.load(folder).events) == left


def test_a_picture_without_its_event_is_left_out(folder: Path, tmp_path: Path) -> None:
    with (folder / "pictures.jsonl").open("a") as stream:
        stream.write(json.dumps({"cause": 1, "pid": -1}) + "\n")
    shutil.copy(folder / "pictures/0001.rmap", folder / "pictures/0002.rmap")
    assert len(Trace.load(folder).moments) == 2


def test_what_no_recorder_writes_is_refused(folder: Path) -> None:
    with (folder / "opens.jsonl").open("a") as stream:
        stream.write('{"file": "zero", "writable": 1}\n')
    with pytest.raises(TraceError, match=r"line 2 is no row of opens \(T3"):
        Trace.load(folder)


DEEP = [b"[" * 200_000, b"[" * 400 + b"]" * 400, b'{"a":' * 200_000]


@pytest.mark.parametrize("text", [*DEEP, b"{", b"\xff\xfe\xfd", b'"' + b"\\" * 9], ids=range(6))
@pytest.mark.parametrize("name", ["about.json", "opens.jsonl", "files.jsonl", "pictures.jsonl"])
def test_what_is_no_json_is_refused(folder: Path, name: str, text: bytes) -> None:
    (folder / name).write_bytes(text + b"\n")
    with pytest.raises(TraceError, match=rf"{name}.* is not readable JSON \({'T1' if name == 'about.json' else 'T3'}:"):
        Trace.load(folder)


def test_a_newer_folder_is_refused(folder: Path) -> None:
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({**about, "format": 9}))
    with pytest.raises(TraceError, match=r"has format 9; .*\(T2\)"):
        Trace.load(folder)


def test_events_can_be_replaced_as_a_whole(tmp_path: Path) -> None:
    spool = Spool(part_of(tmp_path / "y.trace"), TraceBuilder(recorder="perf").about)
    spool.add_events(event(t.FAULT, 7, AT, 6, time=50))
    spool.replace_events(np.concatenate([event(t.FAULT, 7, AT, 6, time=n) for n in (1, 2)]))
    spool.add_events(event(t.EXIT, 7, time=60))
    spool.close()
    assert Trace.load(spool.folder).events.time.tolist() == [1, 2, 60]


def test_one_folder_one_recorder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did not come to its end, or still runs"):
        Spool(folder, {})
    with pytest.raises(UsageError, match="there is no directory"):
        Spool(tmp_path / "no" / "x.part", {})
