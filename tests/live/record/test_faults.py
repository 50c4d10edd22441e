"""What goes wrong while recording: nothing is lost silently, nothing stays stopped, what was seen is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rmap.errors import NotPermitted, SourceError, UsageError
from rmap.live.record import record, session
from rmap.live.record.run import keep_leftover
from rmap.live.sources.ptrace import state_of
from rmap.snapshot import Snapshot
from rmap.trace import Trace
from rmap.trace import tables as t
from rmap.trace.spool import part_of
from tests.support.recording import (
    end,
    events_so_far,
    pictures_so_far,
    pid_in,
    python,
    recorded,
    recording,
    rmap,
    rows,
    said,
)
from tests.support.waiting import until

pytestmark = pytest.mark.live


def worker(ready: Path, seconds: float = 60) -> list[str]:
    """A program that writes its pid, then maps and unmaps memory for a while."""
    return python(f"""
import mmap, os, time
open({str(ready)!r}, "w").write(f"{{os.getpid()}}\\n")
stop = time.monotonic() + {seconds}
while time.monotonic() < stop:
    with mmap.mmap(-1, 65536) as area:
        area[0] = 1
    time.sleep(0.002)
""")


@pytest.mark.needs("recording")
def test_a_full_ring_loses_events_and_says_so(tmp_path: Path) -> None:
    busy = python("import mmap\nfor _ in range(20000):\n    with mmap.mmap(-1, 4096) as area: area[0] = 1\n")
    trace, told = recorded(tmp_path / "o.trace", busy, "--ring-size", "4096", status=1)
    lost = trace.about["lost"]
    assert lost > 1000 and not trace.about["complete"]
    assert f"{lost:,} events were lost: the ring buffer was full" in trace.about["why_incomplete"]
    assert f"INCOMPLETE: {lost:,} events were lost" in told and "ended with status 0" in told
    assert lost + len(trace.events) > 60000, "every event is either there or counted"


@pytest.mark.needs("recording")
@pytest.mark.parametrize("size", ["5000", "64", "0", "3M"])
def test_a_ring_that_is_none_is_refused(tmp_path: Path, size: str) -> None:
    words = rmap("record", "-o", tmp_path / "x.trace", "--ring-size", size, "--", "true")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "power of two" in done.stderr


@pytest.mark.needs("setpriv")
@pytest.mark.parametrize("recorder", ["auto", "bpf", "perf"])
def test_without_privileges_it_is_refused(recorder: str) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with TemporaryDirectory() as name:  # tmp_path is root's alone
        folder = Path(name)
        folder.chmod(0o777)
        words = [*nobody, *rmap("record", "-o", folder / "x.trace", "--recorder", recorder, "--", "true")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        assert "needed    CAP_SYS_ADMIN" in done.stderr and "run       sudo" in done.stderr
        assert list(folder.iterdir()) == []


@pytest.mark.needs("recording", "setpriv", "perf")
def test_bpf_alone_may_be_refused(tmp_path: Path) -> None:
    """Root without the capabilities that BPF needs, but with those for page frames."""
    # CAP_SYS_ADMIN includes CAP_BPF: what is left is a kernel or an installation without it.
    code = (
        "import sys; from pathlib import Path; import rmap.live.bpf.libbpf as l\n"
        "l.BTF = Path('/nonexistent')\nfrom rmap.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    target = tmp_path / "x.trace"
    words = [sys.executable, "-c", code, "record", "-o", str(target), "--recorder"]
    done = subprocess.run([*words, "bpf", "--", "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "cannot be recorded by BPF here" in done.stderr and "type information" in done.stderr
    done = subprocess.run([*words, "auto", "--", "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "perf is tried" in done.stderr
    trace = Trace.load(target)
    assert trace.about["recorder"] == "perf" and len(rows(trace, t.FAULT)) > 20
    assert trace.moments[0].snapshot.about["topology"] == "none"


@pytest.mark.needs("recording")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_recording_and_not_the_program(tmp_path: Path, number: signal.Signals) -> None:
    ready, target = tmp_path / "ready", tmp_path / "i.trace"
    with recording(target, worker(ready), "--checkpoint", "0.1") as process:
        pid = pid_in(ready)
        until(lambda: pictures_so_far(target) >= 3 and events_so_far(target) > 100)
        process.send_signal(number)
        assert process.wait(30) == 130
    try:
        assert state_of(pid) in "SR", "it runs on, untraced"
        assert "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text()
    finally:
        end(pid)
    trace = Trace.load(target)
    assert trace.about["why_incomplete"] == f"the recording was stopped by {number.name}"
    assert trace.about["exit_status"] is None and "runs on" in said(target)
    assert len(trace.events) > 100 and len(trace.moments) >= 3
    assert not part_of(target).exists()


@pytest.mark.needs("recording")
def test_a_killed_recorder_leaves_what_it_had(tmp_path: Path) -> None:
    ready, target = tmp_path / "ready", tmp_path / "k.trace"
    with recording(target, worker(ready), "--checkpoint", "0.1") as process:
        pid = pid_in(ready)
        until(lambda: len(list((part_of(target) / "pictures").iterdir())) > 4)
        process.kill()
        process.wait()
    try:
        until(lambda: "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text())
        assert state_of(pid) in "SR", "nothing stays stopped"
    finally:
        end(pid)
    left = Trace.load(part_of(target))
    assert not left.about["complete"] and "killed" in left.about["why_incomplete"]
    assert len(left.events) > 100 and len(left.moments) >= 4
    trace, told = recorded(target, ["true"])
    kept = tmp_path / "k.unfinished-1.trace"
    assert trace.about["complete"] and f"{len(left.events):,} events are kept in {kept}" in told
    assert len(Trace.load(kept).events) == len(left.events)
    assert not part_of(target).exists()


@pytest.mark.needs("recording")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Whenever the kill comes: the folder is readable or not there, and the program is not stopped."""
    for turn in range(6):
        target = tmp_path / f"r{turn}.trace"
        script = f": {target}; for turn in $(seq 400); do ls / > /dev/null; done"  # ends by itself, whatever happens
        try:
            with recording(target, ["sh", "-c", script], "--checkpoint", "0.05") as run:
                time.sleep(0.35 + 0.11 * turn)  # any moment will do: that is what is tested
                run.kill()
                run.wait()
            for pid in running(script):
                until(lambda pid=pid: state_of(pid) in "SRXZ")
            if part_of(target).exists():
                assert not Trace.load(part_of(target)).about["complete"]
        finally:
            for pid in running(script):
                end(pid)


def running(script: str) -> list[int]:
    """The shells that run a script."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and script.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@pytest.mark.needs("recording")
def test_one_recording_of_a_name_at_a_time(tmp_path: Path) -> None:
    ready, target = tmp_path / "ready", tmp_path / "b.trace"
    with recording(target, worker(ready)) as process:
        pid = pid_in(ready)
        second = subprocess.run(rmap("record", "-o", target, "--", "true"), capture_output=True, text=True, check=False)
        assert second.returncode == 2 and "by another rmap" in second.stderr
        process.terminate()
        assert process.wait(30) == 130
    end(pid)


@pytest.mark.needs("recording")
def test_a_trace_is_not_replaced_unasked(tmp_path: Path) -> None:
    target, mark = tmp_path / "x.trace", tmp_path / "mark"
    recorded(target, ["true"])
    before = target.read_bytes()
    words = rmap("record", "-o", target, "--", "touch", mark)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--force" in done.stderr
    assert target.read_bytes() == before and not mark.exists(), "asked before the program was run"
    recorded(target, ["touch", str(mark)], "--force")
    assert mark.exists()


def test_a_foreign_folder_in_the_way_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "f.trace"
    part_of(target).mkdir()
    (part_of(target) / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="is in the way, and is no recording"):
        keep_leftover(target, print)
    assert (part_of(target) / "letter.txt").read_text() == "dear"


@pytest.mark.needs("recording")
def test_a_terminals_interrupt_reaches_the_program_and_is_recorded(tmp_path: Path) -> None:
    """Ctrl-C is how many a server is ended: the recording goes on to its end, and is complete."""
    ready, target = tmp_path / "ready", tmp_path / "c.trace"
    code = (
        "import os, signal, time\n"
        "def bye(n, f):\n    time.sleep(0.3); raise SystemExit(5)\n"
        f"signal.signal(signal.SIGINT, bye)\nopen({str(ready)!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "while True: time.sleep(0.05)"
    )
    master, slave = os.openpty()
    with target.with_suffix(".err").open("wb") as errors:
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *rmap("record", "-o", target, "--", *python(code))],
            stdin=slave,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    os.close(slave)
    pid = pid_in(ready)
    try:
        os.write(master, b"\x03")
        status = process.wait(30)
    finally:
        process.kill()
        os.close(master)
        end(pid)
    assert status == 0, said(target)
    assert "recording until it ends" in said(target)
    trace = Trace.load(target)
    assert trace.about["complete"] and trace.about["exit_status"] == 5


@pytest.mark.needs("recording")
def test_an_installation_without_perf_is_told(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    words = rmap("record", "-o", tmp_path / "x.trace", "--recorder", "perf", "--", "/bin/true")
    environment = {**os.environ, "PATH": str(tmp_path / "bin")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3 and "the program perf" in done.stderr
    assert shutil.which("perf", path=environment["PATH"]) is None


@pytest.mark.needs("recording")
def test_a_recorder_that_fails_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captures = 0
    real = session.capture

    def fails_the_second_time(*arguments: Any, **options: Any) -> Snapshot:
        nonlocal captures
        captures += 1
        if captures == 2:
            raise SourceError("the moon is in the way")
        return real(*arguments, **options)

    monkeypatch.setattr(session, "capture", fails_the_second_time)
    mark = tmp_path / "mark"
    done = record(["sh", "-c", f"ls / > /dev/null; sleep 0.3; echo > {mark}"], tmp_path / "x.trace")
    until(mark.exists)
    about = done.trace.about
    assert about["why_incomplete"].startswith("the recorder failed: the moon is in the way")
    assert done.exit_status is None and len(done.trace.moments) == 1 and len(done.trace.events) > 10
    assert not part_of(tmp_path / "x.trace").exists()


@pytest.mark.needs("recording")
def test_a_program_that_cannot_be_traced_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def refuse(*arguments: Any) -> None:
        raise NotPermitted("not today", needed="a better day")

    monkeypatch.setattr(session, "Tracer", refuse)
    mark = tmp_path / "mark"
    with pytest.raises(NotPermitted, match="not today"):
        record(["touch", str(mark)], tmp_path / "x.trace")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("recording")
def test_a_full_disk_is_told_and_the_folder_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Trace, "save", full)
    with pytest.raises(OSError, match="No space left"):
        record(["true"], tmp_path / "x.trace")
    assert len(Trace.load(part_of(tmp_path / "x.trace")).events) > 10
