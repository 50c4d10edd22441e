"""Recording in the tests: what it needs, and short ways to do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rmap.trace import Trace
from rmap.trace import tables as t
from rmap.trace.spool import part_of
from tests.support.waiting import until


def rmap(*words: str | Path) -> list[str]:
    """The command line of an rmap command."""
    return [sys.executable, "-m", "rmap", *map(str, words)]


def recorded(target: Path, command: list[str], *options: str, status: int = 0) -> tuple[Trace, str]:
    """Run ``rmap record`` and load the trace; what it said on stderr comes second."""
    done = subprocess.run(
        rmap("record", "-o", target, *options, "--", *command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return Trace.load(target), done.stderr


@contextmanager
def recording(target: Path, command: list[str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """``rmap record`` while it runs, in a session of its own; killed at the end if it still runs.

    What it says goes to a file, see :func:`said`: a recorded program may outlive it, and would hold a pipe open.
    """
    with target.with_suffix(".err").open("wb") as errors:
        process = subprocess.Popen(
            rmap("record", "-o", target, *options, "--", *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(target: Path) -> str:
    """What a :func:`recording` said."""
    return target.with_suffix(".err").read_text()


def pictures_so_far(target: Path) -> int:
    """How many pictures a :func:`recording` has taken, while it runs."""
    rows = part_of(target) / "pictures.jsonl"
    return rows.read_bytes().count(b"\n") if rows.exists() else 0


def events_so_far(target: Path) -> int:
    """How many events it has written."""
    events = part_of(target) / "events.i64"
    return events.stat().st_size // (8 * len(t.EventTable.columns())) if events.exists() else 0


def pid_in(path: Path) -> int:
    """The pid that a program has written into a file, as soon as it is there."""
    return int(until(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text()))


def python(text: str) -> list[str]:
    """A Python program: the interpreter itself, no wrapper."""
    return [os.path.realpath(sys.executable), "-S", "-c", text]


def end(pid: int) -> None:
    """Kill a process that no test waits for."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def rows(trace: Trace, kind: int, pid: int | None = None) -> np.ndarray:
    """The numbers of the events of a kind, of one process or of all."""
    events = trace.events
    chosen = events.kind == kind
    if pid is not None:
        chosen &= events.pid == pid
    return np.flatnonzero(chosen)


def calls(trace: Trace, nr: int) -> list[dict[str, int]]:
    """The system calls of a number, each as its columns."""
    events = trace.events
    found = [row for row in rows(trace, t.SYSCALL).tolist() if events.nr[row] == nr]
    return [{name: int(getattr(events, name)[row]) for name in t.EventTable.columns()} for row in found]
