"""Choosing processes of a picture: by pid, cgroup, or as a family. Answers are masks over the table ``processes``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import Bool
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot


def of_pids(snapshot: Snapshot, pids: Iterable[int] | None) -> Bool:
    """The processes with these pids, also as one of several that share an mm; None means all.

    Raises:
        UsageError: a pid that the picture does not have.
    """
    chosen: Bool = np.full(len(snapshot.processes), pids is None, np.bool_)
    for pid in pids or ():
        row = row_of(snapshot, pid)
        if row < 0:
            raise UsageError(f"process {pid} is not in the picture: it has ended, has no memory, or was refused")
        chosen[row] = True
    return chosen


def of_cgroup(snapshot: Snapshot, path: str) -> Bool:
    """The processes of a cgroup and of those below it.

    Args:
        path: as in /proc/PID/cgroup, ``/system.slice/web.service``.

    Raises:
        UsageError: no process of the picture is there.
    """
    top = "/" + path.strip("/")
    inside = [cgroup == top or cgroup.startswith(top.rstrip("/") + "/") for cgroup in snapshot.processes.cgroup]
    chosen: Bool = np.array(inside, np.bool_)
    if not chosen.any():
        some = ", ".join(sorted(set(snapshot.processes.cgroup))[:5])
        raise UsageError(f"no process of the picture is in a cgroup {top} (there are: {some})")
    return chosen


def with_descendants(snapshot: Snapshot, chosen: Bool) -> Bool:
    """These processes and all that they forked, as far as the picture knows: parents of parents."""
    parents = snapshot.parents()
    inside = chosen.copy()
    while True:
        more = (parents >= 0) & inside[parents] & ~inside
        if not more.any():
            return inside
        inside |= more


def row_of(snapshot: Snapshot, pid: int) -> int:
    """The row of a process, also of one that shares another's mm; -1 if the picture does not have it."""
    for pids, rows in (
        (snapshot.processes.pid, np.arange(len(snapshot.processes))),
        (snapshot.sharers.pid, snapshot.sharers.process),
    ):
        at = np.flatnonzero(pids == pid)
        if len(at):
            return int(rows[at[0]])
    return -1
