"""/proc/PID/smaps_rollup: what the kernel itself sums up for a process, by walking all its page tables."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from rmap.live.sources import procfs
from rmap.live.sources.root import root_path
from rmap.live.sources.same_mm import groups
from rmap.snapshot.questions.usage import ProcessUsage

_KIB = 1024


@dataclass
class Rollups:
    """What was read, and how many processes could not be: ended meanwhile, or refused to this user."""

    rows: list[ProcessUsage] = field(default_factory=list)
    ended: int = 0
    refused: int = 0


def read_rollups(pids: Iterable[int] | None = None, *, share_of_time: float = 1.0) -> Rollups:
    """Read the sums of every process, each mm once; this process is left out.

    Args:
        pids: only these; None means all.
        share_of_time: read for this share of the time only.
    """
    asked = [pid for pid in (procfs.pids() if pids is None else sorted(pids)) if pid != os.getpid()]
    rollups = Rollups()
    for pid in groups(asked):
        began = time.monotonic()
        try:
            row = _read(pid)
        except (FileNotFoundError, ProcessLookupError):
            rollups.ended += not _without_memory(pid)
            continue
        except PermissionError:
            rollups.refused += 1
            continue
        if row is not None:
            rollups.rows.append(row)
        time.sleep((time.monotonic() - began) * (1 / share_of_time - 1))
    return rollups


def _without_memory(pid: int) -> bool:
    # A kernel thread or a zombie: it is there, and its sums are ESRCH.
    try:
        return not procfs.read_maps(pid)
    except OSError:
        return False


def _read(pid: int) -> ProcessUsage | None:
    # None for what has no memory any more.
    with open(root_path(f"/proc/{pid}/smaps_rollup"), "rb") as file:
        lines = file.read().splitlines()[1:]
    if not lines:
        return None
    sums = {name: int(value.split()[0]) * _KIB for name, _, value in (line.partition(b":") for line in lines)}
    status = procfs.read_status(pid)
    if "VmPTE" not in status:
        return None
    return ProcessUsage(
        pid,
        status["Name"],
        sums[b"Rss"],
        sums[b"Pss"],
        sums[b"Private_Clean"] + sums[b"Private_Dirty"],
        sums[b"Swap"],
        page_tables=int(status["VmPTE"].split()[0]) * _KIB,
        shared_with=None,
    )
