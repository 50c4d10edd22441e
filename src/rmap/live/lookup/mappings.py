"""From hits to mappings: whose they are, in which area; whether they still are there; why others are missing."""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from rmap.live.lookup.search import Hit, Search, Unread
from rmap.live.sources import procfs
from rmap.live.sources.areas import area_at
from rmap.live.sources.pagemap import PagemapFile
from rmap.snapshot.questions.answer import Mapping
from rmap.uapi.vm_flags import perms

_NAMED = 4
_FEW = 2


class LiveMapping(NamedTuple):
    """A mapping, and when its process began: a pid may be given away."""

    mapping: Mapping
    start_time: int


def mappings_of(hits: Iterable[Hit]) -> tuple[list[LiveMapping], bool]:
    """The mappings that hits (in order) are; and whether any process or area of theirs has gone since."""
    mappings: list[LiveMapping] = []
    gone = False
    for pid, group in groupby(hits, lambda hit: hit.pid):
        addresses = [hit.address for hit in group]
        try:
            who, areas = procfs.read_stat(pid), _areas(pid, addresses)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            gone = True
            continue
        gone = gone or None in areas
        mappings += [
            LiveMapping(_mapping(who, address, area), who.start_time) for address, area in zip(addresses, areas) if area
        ]
    return mappings, gone


def _areas(pid: int, addresses: list[int]) -> list[procfs.MapsLine | None]:
    # The area of each of these addresses (ascending): read one by one, or all at once where they are many.
    if len(addresses) <= _FEW:
        return [area_at(pid, address) for address in addresses]
    lines = procfs.read_maps(pid)
    starts = [line.start for line in lines]
    below = ((bisect(starts, address), address) for address in addresses)
    return [lines[row - 1] if row and address < lines[row - 1].end else None for row, address in below]


def _mapping(who: procfs.Stat, address: int, area: procfs.MapsLine) -> Mapping:
    path, offset = (area.path, area.offset + address - area.start) if area.inode else (None, None)
    return Mapping(who.pid, who.comm, address, area.start, area.end, perms(area.flags), path, offset)


def changed(search: Search, mappings: Iterable[LiveMapping]) -> bool:
    """Whether one of these is not any more what it was: another page, another process of that pid."""
    for pid, group in groupby(mappings, lambda one: one.mapping.pid):
        ours = list(group)
        try:
            with PagemapFile(pid) as entries:
                if not all(search.matches(entries.entry(one.mapping.address)) for one in ours):
                    return True
            if procfs.read_stat(pid).start_time != ours[0].start_time:
                return True
        except OSError:
            return True
    return False


def reasons(unread: Unread, missing: int) -> list[str]:
    """Why entries that the kernel counts were not found.

    Args:
        unread: whom the search could not look at.
        missing: how many.
    """
    if missing <= 0:
        return []
    answer = []
    if unread.refused:
        answer.append(_refused(sorted(unread.refused)))
    if _inside_a_namespace():
        n = f"{missing:,} {'mapper' if missing == 1 else 'mappers'}" if not unread.refused else "mappers"
        answer.append(f"{n} outside this PID namespace: rmap sees only the processes within")
    if ended := unread.ended():
        answer.append(f"{ended:,} {'process' if ended == 1 else 'processes'} ended while the page was looked for")
    if not answer:
        answer.append("no process that is visible here has them: the kernel itself, or one that /proc does not show")
    return answer


def _refused(pids: list[int]) -> str:
    named = ", ".join(map(_name, pids[:_NAMED])) + (", ..." if len(pids) > _NAMED else "")
    whom = "anybody, not even to root" if os.geteuid() == 0 else "this user"
    if len(pids) == 1:
        return f"process {named} does not show its memory to {whom}"
    return f"{len(pids):,} processes do not show their memory to {whom}: {named}"


def _name(pid: int) -> str:
    # ``1 (init, uid 0)``: what can be told of a process that shows no more.
    try:
        return f"{pid} ({procfs.read_stat(pid).comm}, uid {procfs.owner_of(pid)})"
    except OSError:
        return str(pid)


def _inside_a_namespace() -> bool:
    return procfs.namespace(procfs.SELF, "pid") not in (None, procfs.FIRST_NAMESPACES["pid"])
