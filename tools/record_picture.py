"""Record the picture that ships with rmap, ``src/rmap/pictures/web.rmap``. Needs root.

Starts a real load (``picture_load.py``: a prefork web server that has served requests, and shells), takes a picture of
the processes of that load and of no others, and ends them. Kept are command names, and paths of programs and libraries
of the system; of any other path only the last part. No environment, no arguments, no host name. Mappers outside the
load (of libc, say) show as a mapcount above the entries found.

    sudo .venv/bin/python tools/record_picture.py [FILE]
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from rmap.errors import NotPermitted
from rmap.live.capture.capture import capture
from rmap.live.sources.procfs import pids, read_stat
from rmap.snapshot import Snapshot

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src/rmap/pictures/web.rmap"
MIN_PROCESSES = 30
MIN_PAGES = 100_000
MAX_BYTES = 1 << 20
SYSTEM = ("/usr/", "/lib", "/bin/", "/sbin/", "/etc/", "/dev/zero")


def family(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        try:
            children.setdefault(read_stat(pid).ppid, []).append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return sorted(found)


def record() -> Snapshot:
    """Run the load, and take its picture while it rests."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    load = subprocess.Popen(
        [sys.executable, "-I", str(HERE / "picture_load.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert load.stdin is not None and load.stdout is not None
    try:
        if load.stdout.readline().strip() != "ready":
            raise SystemExit("the load did not start")
        return capture(family(load.pid), vm_flags=True)
    finally:
        _end(load)


def _end(load: subprocess.Popen[str]) -> None:
    # Closing its input tells the load to end what it started. If it does not, its processes are ended from here.
    assert load.stdin is not None
    everything = family(load.pid)
    load.stdin.close()
    try:
        load.wait(timeout=30)
    except subprocess.TimeoutExpired:
        for pid in everything:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        load.wait()


def plain(path: str) -> str:
    """A path as it may be published."""
    return path if not path.startswith("/") or path.startswith(SYSTEM) else os.path.basename(path)


def anonymous(snapshot: Snapshot) -> Snapshot:
    """The same picture, without anything that tells about the machine it was taken on."""
    processes, files = snapshot.processes, snapshot.files
    known = set(processes.pid.tolist())
    ppids = [ppid if ppid in known else 0 for ppid in processes.ppid.tolist()]
    tables = dict(snapshot.tables)
    tables["processes"] = replace(
        processes,
        ppid=np.array(ppids, np.int32),
        exe=[plain(path) for path in processes.exe],
        cgroup=["/"] * len(processes),
    )
    tables["files"] = replace(files, path=[plain(path) for path in files.path])
    return Snapshot(tables, {**snapshot.about, "host": ""})


def main() -> None:
    """Record, check, save."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    try:
        snapshot = anonymous(record())
    except NotPermitted as error:
        raise SystemExit(f"{error}\nneeded: {error.needed}") from None
    for line in snapshot.check():
        if not line.reason:
            print(f"{line.invariant:>4}  {line.what}: {line.checked:,} {line.unit}", file=sys.stderr)
    if len(snapshot.processes) < MIN_PROCESSES or snapshot.nr_mapped < MIN_PAGES:
        raise SystemExit(f"too small a load: {len(snapshot.processes)} processes, {snapshot.nr_mapped:,} pages")
    snapshot.save(target, force=True)
    size = target.stat().st_size
    if size >= MAX_BYTES:
        target.unlink()
        raise SystemExit(f"{size:,} bytes are too many: record on a machine whose memory is less fragmented")
    print(f"{target}: {snapshot}, {snapshot.nr_mapped:,} mapped pages, {size:,} bytes")


if __name__ == "__main__":
    main()
