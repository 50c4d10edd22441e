"""What a trace must be to be used: requirements T4 to T9 of ``docs/trace.md``, checked on every load and build.

A trace that passes is consistent in itself: events are in order, every number leads to something. Whether the model
can do again what it tells is another question, which a replay answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmap.columns import I64, Bool
from rmap.errors import TraceError
from rmap.snapshot import Snapshot
from rmap.trace.tables import (
    ACTORS,
    CAUSES,
    CHECKPOINT,
    EXEC,
    FAULT,
    FORK,
    GONE_ON,
    KINDS,
    RESIZED,
    SYSCALL,
    EventTable,
    InodeTable,
    OpenTable,
)

_ABOUT_TYPES: dict[str, type] = {
    "tool": str,
    "host": str,
    "release": str,
    "machine": str,
    "time": str,
    "command": list,
    "recorder": str,
    "complete": bool,
    "why_incomplete": str,
    "lost": int,
}
RECORDERS = ("bpf", "perf", "model")
"""Who may have seen the events. ``model``: written by hand or by a program, not recorded."""
_FAULT_BITS = 0xFFFF

MomentRow = tuple[Snapshot, str, int]


def validate(
    about: dict[str, Any], events: EventTable, opens: OpenTable, files: InodeTable, moments: list[MomentRow]
) -> None:
    """Check requirements T4 to T9.

    Raises:
        TraceError: the first requirement that does not hold, with table and row.
    """
    _about(about)
    _files(events, opens, files)
    _order(events)
    _details(events)
    _moments(events, moments)


def _refuse(number: str, text: str) -> TraceError:
    return TraceError(f"the trace is contradictory: {text} ({number})")


def _first(wrong: Bool) -> int | None:
    return int(np.argmax(wrong)) if wrong.any() else None


def _about(about: dict[str, Any]) -> None:
    for key, kind in _ABOUT_TYPES.items():
        if type(about.get(key)) is not kind:
            raise _refuse("T4", f"about.{key} is {about.get(key)!r}, not of type {kind.__name__}")
    if not all(isinstance(word, str) for word in about["command"]):
        raise _refuse("T4", "about.command is not a list of words")
    if about["recorder"] not in RECORDERS:
        raise _refuse("T4", f"about.recorder is {about['recorder']!r}, not one of {', '.join(RECORDERS)}")
    if about["lost"] < 0:
        raise _refuse("T4", f"about.lost is {about['lost']}")
    if about["complete"] == bool(about["why_incomplete"]):
        raise _refuse("T4", "about.why_incomplete is given if, and only if, about.complete is false")
    status = about.get("exit_status")
    if status is not None and type(status) is not int:
        raise _refuse("T4", f"about.exit_status is {status!r}, not a number or null")


def _files(events: EventTable, opens: OpenTable, files: InodeTable) -> None:
    # T5: ids of files and opens.
    row = _first((opens.file < 0) | (opens.file >= len(files)))
    if row is not None:
        raise _refuse("T5", f"opens.file of row {row} is {opens.file[row]}, and files has no such row")
    row = _first((events.file < -1) | (events.file >= len(opens)))
    if row is not None:
        raise _refuse("T5", f"event {row} names the open {events.file[row]}, and opens has no such row")
    for table, name in ((opens, "writable"), (files, "shmem"), (files, "device")):
        values: I64 = getattr(table, name)
        row = _first((values != 0) & (values != 1))
        if row is not None:
            raise _refuse("T5", f"{table.name}.{name} of row {row} is {values[row]}, not 0 or 1")
    row = _first(files.size < -1)
    if row is not None:
        raise _refuse("T5", f"files.size of row {row} is {files.size[row]}")


def _order(events: EventTable) -> None:
    # T6: kinds, order, who.
    row = _first(~np.isin(events.kind, list(KINDS)))
    if row is not None:
        raise _refuse("T6", f"event {row} is of the unknown kind {events.kind[row]}")
    row = _first(np.diff(events.time) < 0)
    if row is not None:
        raise _refuse("T6", f"event {row + 1} happened before event {row}")
    nobody = np.isin(events.kind, (GONE_ON, CHECKPOINT, RESIZED))
    row = _first(~nobody & ((events.pid < 1) | (events.tid < 1)))
    if row is not None:
        raise _refuse("T6", f"event {row} is of process {events.pid[row]}, thread {events.tid[row]}")


def _details(events: EventTable) -> None:
    # T7: what each kind must say.
    wrong = {
        SYSCALL: (events.nr < 0, "has a negative number"),
        FAULT: ((events.a1 & ~_FAULT_BITS != 0) | ((events.a2 | 1) != 1), "has an impossible error code or mode"),
        FORK: ((events.a0 < 1) | (events.a1 < 1) | ((events.a3 | events.a4 | 1) != 1), "names no child"),
        GONE_ON: (~np.isin(events.a0, list(ACTORS)), "names an unknown actor"),
        RESIZED: ((events.file < 0) | (events.a0 < 0), "names no open, or a negative size"),
    }
    for kind, (condition, text) in wrong.items():
        row = _first((events.kind == kind) & condition)
        if row is not None:
            raise _refuse("T7", f"event {row} ({KINDS[kind]}) {text}")


def _moments(events: EventTable, moments: list[MomentRow]) -> None:
    # T8: every picture is named by exactly one event, of the kind of its cause and of its process.
    rows = np.flatnonzero(np.isin(events.kind, (EXEC, CHECKPOINT)))
    named = events.a0[rows].tolist()
    if sorted(named) != list(range(len(moments))):
        raise _refuse("T8", f"the events name pictures {_few(named)}, not each of {len(moments)} once")
    for row, shown in zip(rows.tolist(), named):
        snapshot, cause, pid = moments[shown]
        number, is_exec = int(events.a0[row]), int(events.kind[row]) == EXEC
        if cause not in CAUSES or is_exec != (cause == CAUSES[0]):
            raise _refuse("T8", f"picture {number} is of cause {cause!r}, but event {row} is of another kind")
        if pid != (int(events.pid[row]) if is_exec else -1):
            raise _refuse("T8", f"picture {number} is of process {pid}, event {row} of {events.pid[row]}")
        pids = {*snapshot.processes.pid.tolist(), *snapshot.sharers.pid.tolist()}
        if is_exec and pids != {pid}:
            raise _refuse("T8", f"picture {number}, of the exec of process {pid}, shows processes {_few(sorted(pids))}")
    ends = [cause for _, cause, _ in moments if cause == CAUSES[-1]]
    if len(ends) > 1:
        raise _refuse("T9", f"there are {len(ends)} pictures of the end")


def _few(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return f"{shown}, ..." if len(numbers) > 5 else shown or "none"
