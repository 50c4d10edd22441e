"""What `rmap record` says at the end, and how it reads its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmap.cli.commands.record import checkpoints
from rmap.errors import UsageError
from rmap.live.record import Checkpoints, Recorded
from rmap.show.record import record_facts, record_lines
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.trace import TraceBuilder


def snapshot(*pids: int) -> Snapshot:
    builder = SnapshotBuilder("kernel")
    for pid in pids:
        builder.add_vma(builder.add_process(pid), 0x1000, 0x2000, 3)
    return builder.build()


def done(tmp_path: Path, status: int | None = 0, notes: list[str] | None = None, **about: object) -> Recorded:
    builder = TraceBuilder(command=["prog"], recorder="bpf", exit_status=status, **about)
    builder.exec(7, snapshot(7))
    for page in range(1200):
        builder.fault(7, 0x1000 + 4096 * page)
    builder.syscall(7, 9)
    builder.fork(7, 8)
    builder.exit(8)
    builder.checkpoint(snapshot(7), end=True)
    builder.exit(7)
    trace = builder.build()
    path = tmp_path / "p.trace"
    trace.save(path)
    return Recorded(path, trace, "bpf", 1.234, status, None, notes or [])


def test_a_whole_recording(tmp_path: Path) -> None:
    facts = {**record_facts(done(tmp_path)), "file": "p.trace", "bytes": 40960}
    assert record_lines(facts) == [
        "rmap: p.trace: 1,206 events of 2 processes in 1.23 s, 40.0 KiB",
        "      complete",
        "      1 system call, 1,200 page faults, 1 fork, 1 exec, 2 exits",
        "      pictures: 1 at execs, 0 at checkpoints, 1 at the end; recorder: bpf",
        "      the program ended with status 0",
    ]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    recorded = done(
        tmp_path,
        -11,
        ["a checkpoint could not be taken: why"],
        complete=False,
        why_incomplete="5 events were lost",
        lost=5,
    )
    lines = record_lines(record_facts(recorded))
    assert lines[1] == "      INCOMPLETE: 5 events were lost"
    assert lines[-2:] == ["      the program was ended by SIGSEGV", "      a checkpoint could not be taken: why"]


def test_a_program_that_runs_on(tmp_path: Path) -> None:
    recorded = done(tmp_path, None, complete=False, why_incomplete="the recording was stopped by SIGTERM")
    assert record_lines(record_facts(recorded))[-1] == "      the program runs on"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (None, Checkpoints()),
        ("2", Checkpoints(every=2)),
        ("0.5,3,10", Checkpoints(at=(0.5, 3, 10))),
        ("exit", Checkpoints(exits=True)),
    ],
)
def test_checkpoints_are_read(text: str | None, meaning: Checkpoints) -> None:
    assert checkpoints(text) == meaning


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1,", "1,x", "nan", "inf", "1e9"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--checkpoint takes seconds"):
        checkpoints(text)
