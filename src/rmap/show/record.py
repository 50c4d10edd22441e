"""What a recording came to: some lines on stderr, or one object."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from rmap.show.text import plural
from rmap.trace.tables import CAUSES, CHECKPOINT, EXEC, EXIT, FAULT, FORK, GONE_ON, RESIZED, SYSCALL
from rmap.units import format_bytes

if TYPE_CHECKING:
    from rmap.live.record import Recorded

_NAMES = {
    SYSCALL: "syscalls",
    FAULT: "faults",
    FORK: "forks",
    EXEC: "execs",
    EXIT: "exits",
    CHECKPOINT: "checkpoints",
    GONE_ON: "gone_on",
    RESIZED: "resized",
}

_COUNTED = {"syscalls": "system call", "faults": "page fault", "forks": "fork", "execs": "exec", "exits": "exit"}


def record_facts(recorded: Recorded) -> dict[str, Any]:
    """Everything a program may want to know, for ``--json``."""
    trace = recorded.trace
    events = trace.events
    return {
        "file": str(recorded.path),
        "bytes": recorded.path.stat().st_size,
        "command": trace.about["command"],
        "recorder": recorded.recorder,
        "seconds": round(recorded.seconds, 3),
        "complete": trace.about["complete"],
        "why_incomplete": trace.about["why_incomplete"],
        "lost": trace.about["lost"],
        "exit_status": recorded.exit_status,
        "events": {name: int((events.kind == kind).sum()) for kind, name in _NAMES.items()},
        "processes": len(set(events.pid[events.kind != GONE_ON].tolist()) - {-1}),
        "pictures": {cause: sum(moment.cause == cause for moment in trace.moments) for cause in CAUSES},
        "notes": recorded.notes,
    }


def record_lines(facts: dict[str, Any]) -> list[str]:
    """The same for a person."""
    events = facts["events"]
    whole = "complete" if facts["complete"] else f"INCOMPLETE: {facts['why_incomplete']}"
    snapshots = facts["pictures"]
    of_what = plural(sum(events.values()), "event")
    by_whom = plural(facts["processes"], "process", "processes")
    counted = ", ".join(plural(events[name], one) for name, one in _COUNTED.items())
    lines = [
        f"rmap: {facts['file']}: {of_what} of {by_whom} in {facts['seconds']:.2f} s, {format_bytes(facts['bytes'])}",
        f"      {whole}",
        f"      {counted}",
        f"      pictures: {snapshots['exec']} at execs, {snapshots['checkpoint']} at checkpoints, {snapshots['end']} "
        f"at the end; recorder: {facts['recorder']}",
        f"      the program {_ended(facts['exit_status'])}",
    ]
    return [*lines, *(f"      {note}" for note in facts["notes"])]


def _ended(status: int | None) -> str:
    if status is None:
        return "runs on"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
