"""From a recorder's rows to events of a trace, written to the spool as they come.

Two things have to be put together. Files: a row names a ``struct file`` by its address, which the kernel uses again
once that file is closed and unmapped; what is behind an address is told anew whenever it has changed, so the order of
rows says which open is meant. (Used again for the same inode, it stands for the same open: no VMA of the former one
can be left, so nobody can tell.) Pictures: the picture of an exec is taken by whoever stopped the process; until it
is there, rows from that exec on wait.
"""

from __future__ import annotations

import os
import time as clock
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from rmap.columns import I64
from rmap.live.record import raw
from rmap.live.sources import procfs
from rmap.snapshot import Snapshot
from rmap.trace import tables as t
from rmap.trace.spool import Spool

_COLUMNS = list(t.EventTable.columns())
_NR, _A5, _FILE = (_COLUMNS.index(name) for name in ("nr", "a5", "file"))
_SIZING = (2, 77, 85, 257, 285, 437)  # open, ftruncate, creat, openat, fallocate, openat2: a5 is the size afterwards
_WRITABLE, _SHMEM, _DEVICE = 1, 2, 4
_MINOR_BITS = 20


@dataclass
class _Inode:
    row: int
    size: int


class Assembler:
    """Writes a spool from a recorder's rows.

    Args:
        spool: where to.

    Attributes:
        unseen_execs: execs that the recorder has not seen, though their pictures were taken.
    """

    def __init__(self, spool: Spool) -> None:
        self.unseen_execs = 0
        self._spool = spool
        self._waiting = raw.empty()
        self._at_execs: dict[int, deque[Snapshot | None]] = defaultdict(deque)  # taken, not yet placed, by pid
        self._inodes: dict[tuple[int, int, int], _Inode] = {}
        self._opens: dict[tuple[int, int, bool], int] = {}  # (address, row of the file, writable) -> row
        self._inode_of: dict[int, _Inode] = {}  # by row of the open
        self._open_at: dict[int, int] = {}  # address -> row of the open it stands for now
        self._names: dict[int, bytes] = {}
        self._time = 0

    def add(self, rows: I64) -> None:
        """Add a recorder's rows (``rmap.live.record.raw``)."""
        self._waiting = np.concatenate((self._waiting, rows)) if len(self._waiting) else rows
        self._flush()

    def exec_snapshot(self, pid: int, snapshot: Snapshot | None) -> None:
        """The picture of the latest exec of a process; None if it died before one could be taken.

        Everything that was recorded before must have been added.
        """
        if not self._has_exec_of(pid):  # lost, or hidden from the recorder: its place is here
            if snapshot is None:
                return
            self.unseen_execs += 1
            self._waiting = np.concatenate((self._waiting, _exec_row(pid)))
        self._at_execs[pid].append(snapshot)
        self._flush()

    def checkpoint(self, snapshot: Snapshot, cause: int, time: int) -> None:
        """A picture of every process, all stopped, after everything that was added. ``time`` in ns."""
        self._give_up_waiting()
        number = self._spool.add_snapshot(snapshot, cause, -1)
        self._write(_event(time, t.CHECKPOINT, -1, -1, number))

    def gone_on(self, actor: int, pages: int, time: int) -> None:
        """Somebody else changed memory: ``actor`` of ``rmap.trace.tables.ACTORS``; ``time`` in ns."""
        self._keep_now(_event(time, t.GONE_ON, -1, -1, actor, pages))

    def finish(self, rows: I64) -> None:
        """Add the last rows; then write what waits for pictures that will not come."""
        self.add(rows)
        self._give_up_waiting()

    def _has_exec_of(self, pid: int) -> bool:
        rows = self._waiting
        execs = (raw.low(rows[:, raw.KIND_NR]) == t.EXEC) & (raw.low(rows[:, raw.TGID_TID]) == pid)
        return int(np.count_nonzero(execs)) > len(self._at_execs[pid])

    def _flush(self) -> None:
        # The rows up to the first exec whose picture is not there yet.
        rows = self._waiting
        start = 0
        for row in np.flatnonzero(raw.low(rows[:, raw.KIND_NR]) == t.EXEC).tolist():
            pid = int(raw.low(rows[row, raw.TGID_TID]))
            if not self._at_execs[pid] and not _ends_after(rows, row, pid):
                self._convert(rows[start:row])
                self._waiting = rows[row:]
                return
            self._convert(rows[start:row])
            snapshot = self._at_execs[pid].popleft() if self._at_execs[pid] else None
            if snapshot is not None:
                tid = int(raw.high(rows[row, raw.TGID_TID]))
                number = self._spool.add_snapshot(snapshot, t.AT_EXEC, pid)
                self._write(_event(int(rows[row, raw.TIME]), t.EXEC, pid, tid, number))
            start = row + 1
        self._convert(rows[start:])
        self._waiting = raw.empty()

    def _give_up_waiting(self) -> None:
        # A process without a picture was killed before one could be taken: it has done nothing since.
        while len(self._waiting):
            self._at_execs[int(raw.low(self._waiting[0, raw.TGID_TID]))].append(None)
            self._flush()

    def _convert(self, rows: I64) -> None:
        # Between two introductions of files, an address stands for one open.
        if not len(rows):
            return
        kind = raw.low(rows[:, raw.KIND_NR])
        start = 0
        for row in np.flatnonzero(kind >= raw.NAME).tolist():
            self._write(self._events(rows[start:row]))
            self._introduce(rows[row], int(kind[row]))
            start = row + 1
        self._write(self._events(rows[start:]))

    def _events(self, rows: I64) -> I64:
        made = np.empty((len(rows), len(_COLUMNS)), np.int64)
        made[:, 0] = rows[:, raw.TIME]
        made[:, 1] = raw.low(rows[:, raw.KIND_NR])
        made[:, 2] = raw.low(rows[:, raw.TGID_TID])
        made[:, 3] = raw.high(rows[:, raw.TGID_TID])
        made[:, 4] = raw.high(rows[:, raw.KIND_NR])
        made[:, 5:12] = rows[:, raw.A0 : raw.RESULT + 1]
        made[:, _FILE] = -1
        named = np.flatnonzero(rows[:, raw.FILE_PTR])
        if len(named):
            addresses, which = np.unique(rows[named, raw.FILE_PTR], return_inverse=True)
            opens = np.array([self._open_at.get(address, -1) for address in addresses.tolist()], np.int64)
            made[named, _FILE] = opens[which]
            sizing = named[np.isin(made[named, _NR], _SIZING) & (made[named, _FILE] >= 0)]
            for opened, size in zip(made[sizing, _FILE].tolist(), made[sizing, _A5].tolist()):
                self._inode_of[opened].size = size
        return made

    def _write(self, events: I64) -> None:
        # Clocks of two processors may differ by less than it takes to write a record; the order of rows is right.
        if not len(events):
            return
        events[0, 0] = max(int(events[0, 0]), self._time)
        events[:, 0] = np.maximum.accumulate(events[:, 0])
        self._time = int(events[-1, 0])
        self._keep(events)

    def _keep(self, events: I64) -> None:
        self._spool.add_events(events)

    def _keep_now(self, events: I64) -> None:
        self._write(events)

    def _introduce(self, row: I64, kind: int) -> None:
        address = int(row[raw.FILE_PTR])
        words = row[raw.A0 : raw.A0 + 6]
        if kind == raw.NAME:
            self._names[address] = self._names.get(address, b"") + words.tobytes().partition(b"\0")[0]
            return
        device, number, size, bits, fd, generation = words.tolist()
        name = self._names.pop(address, b"").decode(errors="replace")
        key = (device, number, generation)
        inode = self._inodes.get(key)
        if inode is None:
            dev = os.makedev(device >> _MINOR_BITS, device & ((1 << _MINOR_BITS) - 1))
            path = _path_of(int(raw.low(row[raw.TGID_TID])), fd, dev, number) or name
            added = self._spool.add_file(
                dev=dev, inode=number, path=path, size=size, shmem=bool(bits & _SHMEM), device=bool(bits & _DEVICE)
            )
            inode = self._inodes[key] = _Inode(added, size)
        open_key = (address, inode.row, bool(bits & _WRITABLE))
        if open_key not in self._opens:
            self._opens[open_key] = self._spool.add_open(inode.row, writable=open_key[2])
            self._inode_of[self._opens[open_key]] = inode
        self._open_at[address] = self._opens[open_key]
        if size != inode.size:
            inode.size = size
            if not raw.high(row[raw.KIND_NR]):  # else the call that follows tells
                pid, tid = int(raw.low(row[raw.TGID_TID])), int(raw.high(row[raw.TGID_TID]))
                event = _event(int(row[raw.TIME]), t.RESIZED, pid, tid, size)
                event[0, _FILE] = self._open_at[address]
                self._write(event)


class LateAssembler(Assembler):
    """For a recorder that hands over everything at the end: pictures are written at once, and placed by their time.

    Until then the spool holds pictures and the events that show them, nothing else.

    Args:
        spool: where to.
    """

    def __init__(self, spool: Spool) -> None:
        super().__init__(spool)
        self._marks: list[I64] = []
        self._execs: dict[int, deque[int]] = defaultdict(deque)  # by pid: their marks, -1 if there is no picture
        self._late: list[I64] = []

    def exec_snapshot(self, pid: int, snapshot: Snapshot | None) -> None:
        """The picture of the latest exec of a process; None if it died before one could be taken."""
        self._execs[pid].append(-1 if snapshot is None else len(self._marks))
        if snapshot is not None:
            number = self._spool.add_snapshot(snapshot, t.AT_EXEC, pid)
            self._mark(_event(clock.monotonic_ns(), t.EXEC, pid, pid, number))

    def checkpoint(self, snapshot: Snapshot, cause: int, time: int) -> None:
        """A picture of every process, all stopped."""
        number = self._spool.add_snapshot(snapshot, cause, -1)
        self._mark(_event(time, t.CHECKPOINT, -1, -1, number))

    def finish(self, rows: I64) -> None:
        """Put events and pictures in order of time."""
        rows = rows[np.argsort(rows[:, raw.TIME], kind="stable")]
        is_exec = raw.low(rows[:, raw.KIND_NR]) == t.EXEC
        for row in rows[is_exec]:
            waiting = self._execs[int(raw.low(row[raw.TGID_TID]))]
            mark = waiting.popleft() if waiting else -1
            if mark >= 0:  # the exec itself was a little earlier than the stop in which its picture was taken
                self._marks[mark][0, 0] = row[raw.TIME]
        self.unseen_execs = sum(mark >= 0 for waiting in self._execs.values() for mark in waiting)
        self._convert(rows[~is_exec])
        events = np.concatenate((np.empty((0, len(_COLUMNS)), np.int64), *self._marks, *self._late))
        self._spool.replace_events(events[np.argsort(events[:, 0], kind="stable")])

    def _keep_now(self, events: I64) -> None:
        self._mark(events)

    def _mark(self, event: I64) -> None:
        self._marks.append(event)
        self._spool.add_events(event)

    def _keep(self, events: I64) -> None:
        self._late.append(events)


def _ends_after(rows: I64, row: int, pid: int) -> bool:
    # Killed between its exec and the stop that was to follow: it has done nothing in the new memory.
    later = rows[row + 1 :]
    return bool(((raw.low(later[:, raw.KIND_NR]) == t.EXIT) & (raw.low(later[:, raw.TGID_TID]) == pid)).any())


def _exec_row(pid: int) -> I64:
    row = np.zeros((1, raw.WIDTH), np.int64)
    row[0, raw.TIME], row[0, raw.KIND_NR], row[0, raw.TGID_TID] = clock.monotonic_ns(), t.EXEC, pid | pid << 32
    return row


def _event(time: int, kind: int, pid: int, tid: int, a0: int, a1: int = 0) -> I64:
    return np.array([[time, kind, pid, tid, 0, a0, a1, 0, 0, 0, 0, 0, -1]], np.int64)


def _path_of(pid: int, fd: int, dev: int, inode: int) -> str:
    # The path behind a descriptor, if it is still open and still the same file.
    link = procfs.descriptor(pid, fd)
    if fd >= 0:
        with suppress(OSError):
            status = os.stat(link)
            if (status.st_dev, status.st_ino) == (dev, inode):
                return procfs.read_link(link)
    return ""
