"""From entries found to what is told of them: whose, in which area; whether they still are; why others are missing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from rmap.live import procfs
from rmap.live.entry import entry_of
from rmap.live.place import area_at
from rmap.live.search import Hit, Search
from rmap.snapshot import flags as f
from rmap.snapshot.answer import Mapping

_INIT_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_NAMED = 4


class Told(NamedTuple):
    """A mapping, and when its process began: a pid may be given away."""

    mapping: Mapping
    start_time: int


def told(hits: Iterable[Hit]) -> tuple[list[Told], bool]:
    """What there is to tell of these entries; and whether some process or area has gone since they were found."""
    known: list[Told] = []
    gone = False
    stats: dict[int, procfs.Stat] = {}
    for hit in hits:
        try:
            who = stats.get(hit.pid) or stats.setdefault(hit.pid, procfs.read_stat(hit.pid))
            area = area_at(hit.pid, hit.address)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            area = None
        if area is None:
            gone = True
            continue
        path, offset = (area.path, area.offset + hit.address - area.start) if area.inode else (None, None)
        mapping = Mapping(
            hit.pid, who.comm, hit.address, area.start, area.end, f.perms(area.flags), path, offset
        )  # fmt: skip
        known.append(Told(mapping, who.start_time))
    return known, gone


def changed(looked: Search, known: Iterable[Told]) -> bool:
    """Whether one of these is not any more what it was: another page, another process of that pid."""
    for mapping, start_time in known:
        try:
            if not looked.matches(entry_of(mapping.pid, mapping.address)):
                return True
            if procfs.read_stat(mapping.pid).start_time != start_time:
                return True
        except OSError:
            return True
    return False


def reasons(looked: Search, missing: int) -> list[str]:
    """Why entries that the kernel counts were not found.

    Args:
        missing: how many.
    """
    if missing <= 0:
        return []
    found = []
    if looked.refused:
        found.append(_refused(sorted(looked.refused)))
    if _inside_a_namespace():
        n = f"{missing:,} {'mapper' if missing == 1 else 'mappers'}" if not looked.refused else "mappers"
        found.append(f"{n} outside this PID namespace: rmap sees only the processes within")
    if ended := looked.ended():
        found.append(f"{ended:,} {'process' if ended == 1 else 'processes'} ended while the page was looked for")
    if not found:
        found.append("no process that is visible here has them: the kernel itself, or one that /proc does not show")
    return found


def _refused(pids: list[int]) -> str:
    named = ", ".join(map(_name, pids[:_NAMED])) + (", ..." if len(pids) > _NAMED else "")
    whom = "anybody, not even to root" if os.geteuid() == 0 else "this user"
    if len(pids) == 1:
        return f"process {named} does not show its memory to {whom}"
    return f"{len(pids):,} processes do not show their memory to {whom}: {named}"


# ``1 (init, uid 0)``: what can be told of a process that shows no more.
def _name(pid: int) -> str:
    try:
        return f"{pid} ({procfs.read_stat(pid).comm}, uid {os.stat(f'/proc/{pid}').st_uid})"
    except OSError:
        return str(pid)


def _inside_a_namespace() -> bool:
    number = procfs.read_link("/proc/self/ns/pid").strip("pid:[]")
    return number.isdigit() and int(number) != _INIT_PIDNS
