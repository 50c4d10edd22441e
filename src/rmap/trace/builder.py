"""Writing a trace by hand: what tests and generators use. A recorder uses :class:`rmap.trace.spool.Spool`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmap.snapshot import Snapshot
from rmap.trace import tables as t
from rmap.trace.trace import Moment, Trace


class TraceBuilder:
    """Collects events one by one. The clock goes on by ``step`` nanoseconds per event.

    Args:
        step: nanoseconds from one event to the next.
        about: entries of ``about`` that differ from a complete trace written by hand.
    """

    def __init__(self, *, step: int = 1000, **about: Any) -> None:
        self.about: dict[str, Any] = {
            "tool": "rmap",
            "host": "",
            "release": "6.18",
            "machine": "x86_64",
            "time": "",
            "command": [],
            "recorder": "model",
            "complete": True,
            "why_incomplete": "",
            "lost": 0,
            "exit_status": 0,
            **about,
        }
        self._step = step
        self._rows: list[tuple[int, ...]] = []
        self._files: list[dict[str, Any]] = []
        self._opens: list[dict[str, int]] = []
        self._moments: list[Moment] = []

    def file(
        self, path: str, *, dev: int = 1, inode: int = 0, size: int = 0, shmem: bool = False, device: bool = False
    ) -> int:
        """Add an inode; its number is made up if not given. Returns its id."""
        number = len(self._files)
        kinds = {"shmem": int(shmem), "device": int(device)}
        self._files.append({"dev": dev, "inode": inode or number + 1, "path": path, "size": size, **kinds})
        return number

    def open(self, file: int, *, writable: bool = True) -> int:
        """Add an open of a file. Returns its id."""
        self._opens.append({"file": file, "writable": int(writable)})
        return len(self._opens) - 1

    def event(
        self,
        kind: int,
        pid: int,
        *arguments: int,
        tid: int = 0,
        nr: int = 0,
        result: int = 0,
        file: int = -1,
    ) -> None:
        """Add an event; ``arguments`` are a0, a1, ... and those not given are 0, ``tid`` is the pid if not given."""
        padded = (*arguments, *[0] * (6 - len(arguments)))
        time = (len(self._rows) + 1) * self._step
        self._rows.append((time, kind, pid, tid or pid, nr, *padded, result, file))

    def syscall(self, pid: int, nr: int, *arguments: int, result: int = 0, file: int = -1, tid: int = 0) -> None:
        """Add a completed system call."""
        self.event(t.SYSCALL, pid, *arguments, nr=nr, result=result, file=file, tid=tid)

    def fault(self, pid: int, address: int, *, write: bool = False, kernel: bool = False, error: int = 0) -> None:
        """Add a page fault; ``error`` has further bits of the error code."""
        code = error | (t.WRITE if write else 0) | (0 if kernel else t.USER)
        self.event(t.FAULT, pid, address, code, int(kernel))

    def fork(self, pid: int, child: int, *, flags: int = 0, tid: int = 0, thread: bool = False) -> None:
        """Add a fork, vfork (``flags``), or a new thread ``tid``."""
        shared = thread or bool(flags & t.CLONE_VM)
        self.event(t.FORK, pid, child, tid or child, flags, int(thread), int(shared))

    def exec(self, pid: int, snapshot: Snapshot) -> None:
        """Add an exec, with the picture of the new address space."""
        self.event(t.EXEC, pid, self._snapshot(snapshot, t.AT_EXEC, pid))

    def exit(self, pid: int) -> None:
        """Add an exit."""
        self.event(t.EXIT, pid)

    def checkpoint(self, snapshot: Snapshot, *, end: bool = False) -> None:
        """Add a picture of every recorded process."""
        self.event(t.CHECKPOINT, -1, self._snapshot(snapshot, t.AT_END if end else t.AT_CHECKPOINT, -1))

    def build(self) -> Trace:
        """Make the trace.

        Raises:
            TraceError: what was added is contradictory (requirements T4 to T9).
        """
        rows = np.array(self._rows, np.int64).reshape(-1, len(t.EventTable.columns()))
        return Trace(
            self.about,
            t.EventTable.of(dict(zip(t.EventTable.columns(), rows.T.copy()))),
            t.OpenTable.of(_by_column(self._opens, t.OpenTable)),
            t.InodeTable.of(_by_column(self._files, t.InodeTable)),
            list(self._moments),
        )

    def _snapshot(self, snapshot: Snapshot, cause: int, pid: int) -> int:
        self._moments.append(Moment(snapshot, t.CAUSES[cause], pid))
        return len(self._moments) - 1


def _by_column(rows: Sequence[dict[str, Any]], table: type[t.OpenTable] | type[t.InodeTable]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in table.columns()}
