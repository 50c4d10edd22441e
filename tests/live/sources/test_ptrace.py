"""Stopping processes for a moment: all of each, and nothing stays stopped, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmap.errors import NotPermitted, SourceError
from rmap.live.sources.ptrace import frozen, state_of, threads_of, vfork_children
from tests.support.recording import end, pid_in, python
from tests.support.waiting import until

pytestmark = pytest.mark.live

COUNTER = """
import os, signal, sys, threading, time
hits = 0
def hit(number, frame):
    global hits
    hits += 1
signal.signal(signal.SIGUSR1, hit)
def work():
    while True:
        time.sleep(0.001)
for _ in range(5):
    threading.Thread(target=work, daemon=True).start()
while True:
    with open(sys.argv[1] + ".new", "w") as out:
        out.write(f"{time.monotonic_ns()} {hits}\\n")
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.001)
"""


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A process of six threads that writes the time, and how often it was signalled, again and again."""
    path = tmp_path / "count"
    process = subprocess.Popen([*python(COUNTER), str(path)])
    until(path.exists)
    yield process.pid, path
    process.kill()
    process.wait()


def moves(path: Path) -> bool:
    before = path.read_text()
    time.sleep(0.1)  # that nothing happens shows only in time: a hundred turns of the counter
    return path.read_text() != before


def test_all_threads_stop_and_go_on(counter: tuple[int, Path]) -> None:
    pid, path = counter
    with frozen([pid]) as threads:
        assert threads == threads_of(pid) and len(threads) == 6
        assert {state_of(tid) for tid in threads} == {"t"}
        assert not moves(path)
    until(lambda: moves(path))
    assert "t" not in {state_of(tid) for tid in threads}


def test_an_error_in_the_body_releases_them(counter: tuple[int, Path]) -> None:
    pid, path = counter
    with pytest.raises(ZeroDivisionError), frozen([pid]):
        _ = 1 // 0
    until(lambda: moves(path))


def test_it_can_be_done_again_and_again(counter: tuple[int, Path]) -> None:
    pid, path = counter
    for _ in range(50):
        with frozen([pid]):
            pass
    until(lambda: moves(path))


def test_a_signal_that_comes_meanwhile_is_delivered_afterwards(counter: tuple[int, Path]) -> None:
    pid, path = counter
    with frozen([pid]):
        os.kill(pid, signal.SIGUSR1)
        assert not moves(path)
    until(lambda: path.read_text().split()[1] == "1")


def test_a_stopped_process_stays_stopped(counter: tuple[int, Path]) -> None:
    pid, path = counter
    os.kill(pid, signal.SIGSTOP)
    until(lambda: {state_of(tid) for tid in threads_of(pid)} == {"T"})
    with frozen([pid]) as threads:
        assert len(threads) == 6
    time.sleep(0.1)  # that nothing wakes it shows only in time
    assert {state_of(tid) for tid in threads_of(pid)} == {"T"}
    os.kill(pid, signal.SIGCONT)
    until(lambda: moves(path))


def test_a_process_that_is_killed_meanwhile_ends(counter: tuple[int, Path]) -> None:
    pid, _ = counter
    with frozen([pid]):
        os.kill(pid, signal.SIGKILL)
    until(lambda: state_of(pid) in "ZX")


def test_whoever_stops_it_may_be_killed(counter: tuple[int, Path]) -> None:
    pid, path = counter
    text = "import sys,time;from rmap.live.sources.ptrace import frozen\nwith frozen([int(sys.argv[1])]):time.sleep(99)"
    stopper = subprocess.Popen([sys.executable, "-c", text, str(pid)])
    until(lambda: {state_of(tid) for tid in threads_of(pid)} == {"t"})
    assert not moves(path)
    stopper.kill()
    stopper.wait()
    until(lambda: moves(path))


def test_what_cannot_be_stopped_is_told_and_the_rest_released(counter: tuple[int, Path]) -> None:
    pid, path = counter
    dead = subprocess.Popen(["true"])
    until(lambda: state_of(dead.pid) == "Z")
    thread = threads_of(pid)[1]
    for other, message in (
        (os.getpid(), "it cannot stop itself"),
        (2, r"\(kthreadd\) is a thread of the kernel"),
        (2**22 + 1, "there is no process"),
        (thread, f"{thread} is a thread of process {pid}"),
        (dead.pid, "has ended"),
    ):
        with pytest.raises(SourceError, match=message), frozen([pid, other]):
            pass
    dead.wait()
    until(lambda: moves(path))


def test_one_tracer_at_a_time(counter: tuple[int, Path]) -> None:
    pid, path = counter
    with frozen([pid]), pytest.raises(SourceError, match="is being stopped by this rmap already"), frozen([pid]):
        pass
    until(lambda: moves(path))


def test_a_vfork_parent_is_stopped_with_its_child(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    text = f"""
import ctypes, os, time
libc = ctypes.CDLL(None)
if libc.vfork() == 0:
    open({str(ready)!r}, "w").write(f"{{os.getpid()}}\\n")
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    parent = subprocess.Popen(python(text))
    try:
        child = pid_in(ready)
        assert vfork_children(parent.pid) == [child]
        with (
            pytest.raises(SourceError, match=f"waits for its vfork child {child}.*name both"),
            frozen([parent.pid], timeout=0.3),
        ):
            pass
        with frozen([parent.pid, child]) as threads:
            assert threads == [child] and state_of(child) == "t" and state_of(parent.pid) == "D"
        until(lambda: state_of(child) == "S")
        os.kill(child, signal.SIGKILL)
        until(lambda: state_of(parent.pid) not in "Dt")  # what a vfork child left on its stack is another matter
    finally:
        parent.kill()
        parent.wait()
        end(child)


@pytest.mark.needs("setpriv")
def test_another_users_process_is_refused(counter: tuple[int, Path]) -> None:
    pid, path = counter
    text = "import sys;from rmap.live.sources.ptrace import frozen\nwith frozen([int(sys.argv[1])]):pass"
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    done = subprocess.run([*nobody, sys.executable, "-c", text, str(pid)], capture_output=True, text=True, check=False)
    assert f"{NotPermitted.__name__}: process {pid} may not be stopped by this user" in done.stderr
    assert moves(path)
