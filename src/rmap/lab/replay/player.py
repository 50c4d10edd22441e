"""Playing a trace: events become calls of the model, under any design.

Threads share their process's mm. A process's first address space, and every other that exec makes, comes from a
picture. At each checkpoint the model is held against the picture first, and put right afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmap.errors import SyscallError
from rmap.kernel import Kernel, Process
from rmap.lab.replay import calls
from rmap.lab.replay.checkpoint import hold_against
from rmap.lab.replay.results import NOT_JUDGED, NOTED, Checkpoint, TracePlayed
from rmap.lab.replay.state import ReplayState
from rmap.mm import fault
from rmap.mm.costs import FAULT
from rmap.mm.mm_types import TASK_SIZE
from rmap.mm.shared_anonymous import NAME as NAMELESS
from rmap.trace import EventTable, Trace
from rmap.trace import tables as t
from rmap.uapi.unistd import NAMES
from rmap.units import PAGE_MASK, PAGE_SHIFT

Watch = Callable[[Kernel, Checkpoint], None]
"""Told of a checkpoint, and the machine as it is then."""
STRANGER = "events of a process that the trace does not introduce"


def no_watch(kernel: Kernel, checkpoint: Checkpoint) -> None:
    """A ``Watch`` for who only wants the end."""


@dataclass
class _Events:
    # The columns as lists, which Python reads ten times faster one by one.
    kind: list[int]
    pid: list[int]
    nr: list[int]
    a: tuple[list[int], ...]
    result: list[int]
    file: list[int]
    time: list[int]
    run: list[int]  # of a fault that begins one: how many follow each other page by page, itself included


class TracePlayer:
    """Plays a trace, once.

    Args:
        trace: what happened.
        design: the reverse map.
        profile: the kernel release whose rules hold.
        watch: told of every checkpoint, when the model has been held against it and put right.

    Attributes:
        state: the machine on which it is played, and what is known of the play so far.
        kernel: that machine.
        checkpoints: those passed so far.

    Raises:
        LimitError: the trace needs more memory than a machine of the model has.
        UsageError: no such design or profile.
    """

    def __init__(
        self,
        trace: Trace,
        design: str = "anon_vma_chain",
        profile: str = "6.18",
        *,
        watch: Watch = no_watch,
    ) -> None:
        self.state = ReplayState(trace, design, profile)
        self.kernel = self.state.kernel
        self.checkpoints: list[Checkpoint] = []
        self._watch = watch
        self._calls: Counter[int] = Counter()
        self._processes = 0
        self._execs = 0

    def play(self) -> TracePlayed:
        """Play every event.

        Raises:
            LimitError: the trace needs more memory than a machine of the model has.
        """
        events = self._columns()
        handlers: dict[int, Callable[[_Events, int], None]] = {
            t.SYSCALL: self._syscall,
            t.FORK: self._fork,
            t.EXEC: self._exec,
            t.EXIT: self._exit,
            t.CHECKPOINT: self._checkpoint,
            t.RESIZED: self._resized,
            t.GONE_ON: self._gone_on,
        }
        n = len(events.kind)
        at = 0
        while at < n:
            kind = events.kind[at]
            if kind == t.FAULT:
                at += self._faults(events, at)
                continue
            if kind in handlers:
                self.state.pid = events.pid[at]
                handlers[kind](events, at)
            at += 1
        return self._played()

    def _columns(self) -> _Events:
        e = without_unfinished(self.state.trace.events)
        a = tuple(column.tolist() for column in (e.a0, e.a1, e.a2, e.a3, e.a4, e.a5))
        time = (e.time - e.time[0]).tolist() if len(e) else []
        columns = (e.kind.tolist(), e.pid.tolist(), e.nr.tolist(), a, e.result.tolist(), e.file.tolist(), time)
        return _Events(*columns, runs_of_faults(e))

    def _faults(self, events: _Events, at: int) -> int:
        # A run of faults of one kind, each a page above the one before: one access. Nothing happened in between, and
        # the order is the same (first faults of neighbouring VMAs would not commute). Returns how many were played.
        state = self.state
        process = self.kernel.processes.get(events.pid[at])
        address, run = events.a[0][at], events.run[at]
        if process is None or not 0 <= address < TASK_SIZE:
            self._stray(events.pid[at], address)
            return 1
        mm, write = process.mm, events.a[1][at] & t.WRITE
        try:
            fault.touch(state.core, mm, address & PAGE_MASK, run << PAGE_SHIFT, bool(write))
        except SyscallError as refusal:
            if run > 1:
                # It changed nothing. One by one, up to the one that is refused.
                state.core.costs.calls[FAULT] -= 1
                for one in range(at, at + run):
                    events.run[one] = 1
                return self._faults(events, at)
            self._refused_fault(process, address, bool(write), refusal)
            return 1
        seen = state.seen_of_mm.get(mm.id) or state.seen(mm)
        seen.fault(address >> PAGE_SHIFT, run, bool(write))
        state.core.costs.calls[FAULT] += run - 1
        return run

    def _stray(self, pid: int, address: int) -> None:
        if pid not in self.kernel.processes:
            self.state.finding(STRANGER, f"process {pid}", NOT_JUDGED)
        else:
            self.state.finding("faults outside the address space of programs", f"{calls.unsigned(address):#x}", NOTED)

    def _refused_fault(self, process: Process, address: int, write: bool, refusal: SyscallError) -> None:
        # A file may have grown by writes, which no event shows: the kernel did not refuse, so it has.
        state = self.state
        vma = process.mm.find(address)
        beyond = vma is not None and fault.refusal(vma, write) == "" and vma.mapping is not None
        if vma is None or vma.mapping is None or not beyond or vma.mapping.name == NAMELESS:
            # The kernel may have sent that signal too. If it did not, the page is in its next picture.
            state.seen(process.mm).refuse(address >> PAGE_SHIFT)
            state.finding("faults that end in a signal here", f"process {process.pid}: {refusal}", NOTED)
            return
        index = vma.linear_page_index(address & PAGE_MASK)
        state.inodes.grow(vma.mapping, (index + 1) << PAGE_SHIFT)
        state.finding("files that grew unseen", f"{vma.mapping.name}, page {index:#x}", NOTED)
        fault.touch(state.core, process.mm, address, 1, write)
        state.seen(process.mm).fault(address >> PAGE_SHIFT, 1, write)

    def _process(self) -> Process | None:
        process = self.kernel.processes.get(self.state.pid)
        if process is None:
            self.state.finding(STRANGER, f"process {self.state.pid}", NOT_JUDGED)
        return process

    def _syscall(self, events: _Events, at: int) -> None:
        process = self._process()
        if process is None:
            return
        nr = events.nr[at]
        self._calls[nr] += 1
        a = events.a
        args = (a[0][at], a[1][at], a[2][at], a[3][at], a[4][at], a[5][at])
        calls.play(self.state, process.mm, nr, args, events.result[at], events.file[at])

    def _fork(self, events: _Events, at: int) -> None:
        if events.a[3][at]:
            return  # a thread: the same process, the same mm
        parent, child = self._process(), events.a[0][at]
        if parent is None:
            return
        if child in self.kernel.processes:
            self.state.finding("a pid used again before its process ended", f"process {child}", NOT_JUDGED)
            self.kernel.exit(self.kernel.processes[child])
        self._processes += 1
        if events.a[4][at]:
            self.kernel.clone_vm(parent, pid=child)
            return
        inherited = self.state.seen(parent.mm).child()
        made = self.kernel.fork(parent, pid=child)
        self.state.seen_of_mm[made.mm.id] = inherited

    def _exec(self, events: _Events, at: int) -> None:
        state = self.state
        process = self.kernel.processes.get(state.pid)
        if process is None:
            process = self.kernel.spawn(pid=state.pid)
            self._processes += 1
        self._execs += 1
        old = process.mm
        snapshot = state.trace.moments[events.a[0][at]].snapshot
        for reason, n in self.kernel.exec(process, snapshot, state.inodes).items():
            what = f"entries of an exec that were left out: {reason}"
            state.finding(what, f"{n:,} in process {state.pid}", NOT_JUDGED)
        state.let_go(old)
        state.seen(process.mm).add_present(state.core, process.mm, 0, TASK_SIZE)

    def _exit(self, events: _Events, at: int) -> None:
        process = self._process()
        if process is None:
            return
        self.kernel.exit(process)
        self.state.let_go(process.mm)

    def _checkpoint(self, events: _Events, at: int) -> None:
        state, number = self.state, events.a[0][at]
        checkpoint = hold_against(state, state.trace.moments[number], number, events.time[at])
        self.checkpoints.append(checkpoint)
        state.reclaimed = state.unwatched
        self._watch(self.kernel, checkpoint)

    def _resized(self, events: _Events, at: int) -> None:
        calls.resize(self.state, events.file[at], events.a[0][at])

    def _gone_on(self, events: _Events, at: int) -> None:
        self.state.reclaimed |= events.a[0][at] == t.RECLAIM

    def _played(self) -> TracePlayed:
        every = self.state.trace.events.kind
        kinds = Counter(every.tolist())
        last = np.flatnonzero(every == t.CHECKPOINT)[-1:].sum()
        acts = np.isin(every[last:], (t.SYSCALL, t.FAULT, t.FORK, t.EXEC))
        return TracePlayed(
            events={t.KINDS[kind]: n for kind, n in sorted(kinds.items())},
            calls={NAMES.get(nr, f"system call {nr}"): n for nr, n in self._calls.most_common()},
            findings=self.state.findings(),
            checkpoints=tuple(self.checkpoints),
            processes=self._processes,
            execs=self._execs,
            refused=self.state.refused,
            after_last=int(np.count_nonzero(acts)),
        )


def without_unfinished(events: EventTable) -> EventTable:
    """The events but for faults that a picture interrupted.

    A thread may be stopped while it waits for its page: then the picture is without it, and the thread takes the same
    fault again before it does anything else. Such a fault counts once, where it was finished.
    """
    kind, tid = events.kind.tolist(), events.tid.tolist()
    same = (events.pid, events.a0, events.a1, events.a2)
    unfinished = []
    for at in np.flatnonzero(events.kind == t.CHECKPOINT).tolist():
        after = _first_by_thread(kind, tid, range(at + 1, len(kind)))
        for thread, row in _first_by_thread(kind, tid, range(at - 1, -1, -1)).items():
            again = after.get(thread, row)
            if again != row and kind[row] == kind[again] == t.FAULT and all(c[row] == c[again] for c in same):
                unfinished.append(row)
    return events.take(np.setdiff1d(np.arange(len(kind)), unfinished)) if unfinished else events


def _first_by_thread(kind: list[int], tid: list[int], rows: range) -> dict[int, int]:
    # The first event of each thread in these rows, up to the next picture.
    first: dict[int, int] = {}
    for row in rows:
        if kind[row] == t.CHECKPOINT:
            break
        first.setdefault(tid[row], row)
    return first


def runs_of_faults(events: EventTable) -> list[int]:
    """For each event that begins a run of faults, how many it has: of one process, all writes or none, page by page."""
    kind, pid, page, write = events.kind, events.pid, events.a0 >> PAGE_SHIFT, events.a1 & t.WRITE
    follows = (kind[1:] == t.FAULT) & (kind[:-1] == t.FAULT) & (pid[1:] == pid[:-1])
    follows &= (page[1:] == page[:-1] + 1) & (write[1:] == write[:-1])
    first = np.concatenate((np.zeros(min(1, len(kind)), np.int64), np.flatnonzero(~follows) + 1))
    lengths = np.zeros(len(kind), np.int64)
    lengths[first] = np.diff(np.concatenate((first, [len(kind)])))
    return lengths.tolist()
