"""Record the programs that ship with rmap, ``src/rmap/traces/NAME.trace``. Needs root.

Runs what lies in ``tools/recorded``: a shell with pipelines, a Python server that forks its workers, make with a C
compiler, and redis-server saving in the background. A recording must be complete, be no larger than it may, and show
what it is for; otherwise it is made again, a few times. Whether the model did the same is no reason to choose another:
the first recording that will do is held against the model, and if that is not equal it is kept beside the place where
it would have shipped, as ``NAME.differs.trace``, for whoever finds out why, and nothing is replaced.

Paths of programs and libraries of the system are kept; of any other path only the last part. No contents, no
environment, no host name, no addresses of the kernel's.

    sudo .venv/bin/python tools/record_traces.py [NAME ...]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from record_picture import anonymous, plain

from rmap.errors import NotPermitted
from rmap.lab.replay.results import EQUAL
from rmap.lab.replay.run import replay
from rmap.lab.replay.shipped import FOLDER, SUMMARIES
from rmap.live.record.run import record
from rmap.live.record.session import Checkpoints
from rmap.snapshot import Snapshot
from rmap.trace import Moment, Trace

SOURCES = Path(__file__).resolve().parent / "recorded"
MAX_BYTES = 400 << 10
ATTEMPTS = 5
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "HOME": "/"}


@dataclass(frozen=True)
class Program:
    """A program to record.

    Attributes:
        command: run in a folder that has what lies in ``tools/recorded``.
        checkpoints: when pictures are taken.
        processes: how many a picture must show at once.
        shows: what else must be there.
    """

    command: list[str]
    checkpoints: Checkpoints
    processes: int
    shows: Callable[[Snapshot], bool] = lambda snapshot: True


def saves(snapshot: Snapshot) -> bool:
    """Whether redis-server and its saving child are both there."""
    return sum(comm.startswith("redis-") for comm in snapshot.processes.comm) >= 2


PROGRAMS = {
    "shell-pipeline": Program(["/bin/bash", "shell-pipeline.sh"], Checkpoints(every=0.1), 2),
    "prefork": Program(["/usr/bin/python3", "-I", "prefork.py"], Checkpoints(at=(1.2,)), 7),
    "build": Program(["make", "-C", "build", "-j2"], Checkpoints(every=0.3), 4),
    "redis-save": Program(["/bin/sh", "redis-save.sh"], Checkpoints(at=(0.9, 1.4)), 3, saves),
}


def without_machine(trace: Trace) -> Trace:
    """The same trace, without anything that tells about the machine it was recorded on."""
    moments = []
    for moment in trace.moments:
        snapshot = anonymous(moment.snapshot)
        tables = dict(snapshot.tables)
        tables["anon_vmas"] = replace(snapshot.anon_vmas, address=np.zeros_like(snapshot.anon_vmas.address))
        moments.append(Moment(Snapshot(tables, snapshot.about), moment.cause, moment.pid))
    files = replace(trace.files, path=[plain(path) for path in trace.files.path])
    return Trace({**trace.about, "host": ""}, trace.events, trace.opens, files, moments)


def attempt(program: Program, folder: Path) -> Trace:
    """Run it once, in a folder of its own."""
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    before = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    try:
        return record(program.command, folder / "it.trace", checkpoints=program.checkpoints).trace
    finally:
        os.chdir(before[0])
        os.environ.update(before[1])


def objection(program: Program, trace: Trace, size: int) -> str:
    """Why a recording will not do, whatever the model makes of it; empty if it will."""
    if not trace.about["complete"] or trace.about["exit_status"] or trace.about["lost"]:
        return f"incomplete: {trace.about}"
    snapshots = [moment.snapshot for moment in trace.moments if moment.pid < 0]
    most = max(len(snapshot.processes) for snapshot in snapshots)
    if most < program.processes or not any(map(program.shows, snapshots)):
        return f"no picture of it at work: {most} processes at most"
    return f"{size:,} bytes are too many" if size > MAX_BYTES else ""


def difference(trace: Trace) -> str:
    """What of it the model did otherwise, or could not be judged; empty if it is equal."""
    played = replay(trace).played
    if played.verdict == EQUAL:
        return ""
    rows = [row for row in played.totals.values() if row.wrong or row.not_judged]
    return f"{played.verdict}: {rows}, {played.findings}"


def record_one(name: str) -> None:
    """Record a program, as often as it takes until one will do, and hold that one against the model."""
    target = FOLDER / f"{name}.trace"
    for number in range(1, ATTEMPTS + 1):
        with tempfile.TemporaryDirectory() as folder:
            trace = without_machine(attempt(PROGRAMS[name], Path(folder)))
            made = Path(folder) / f"{name}.trace"
            trace.save(made)
            why = objection(PROGRAMS[name], trace, made.stat().st_size)
            if not why:
                FOLDER.mkdir(exist_ok=True)
                if differs := difference(trace):
                    kept = target.with_suffix(".differs.trace")
                    shutil.copyfile(made, kept)
                    raise SystemExit(f"{name}: {differs}\nkept as {kept}")
                shutil.copyfile(made, target)
                print(f"{target.name}: {trace}, {target.stat().st_size:,} bytes")
                return
            print(f"{name}, attempt {number}: {why}", file=sys.stderr)
    raise SystemExit(f"{name}: no recording will do")


def main() -> None:
    """Record those named, or all."""
    names = sys.argv[1:] or list(PROGRAMS)
    if unknown := set(names) - set(PROGRAMS):
        raise SystemExit(f"no such program: {', '.join(sorted(unknown))}; have {', '.join(PROGRAMS)}")
    assert set(PROGRAMS) == set(SUMMARIES)
    try:
        for name in names:
            record_one(name)
    except NotPermitted as error:
        raise SystemExit(f"{error}\nneeded: {error.needed}") from None


if __name__ == "__main__":
    main()
