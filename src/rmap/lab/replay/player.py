"""Playing a trace: events become calls of the model, under any design.

Threads share their process's mm. A process's first address space, and every other that exec makes, comes from a
picture. At each checkpoint the model is held against the picture first, and put right afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmap.errors import LimitError, SyscallError
from rmap.kernel import Kernel, Process
from rmap.kernel.inodes import MOST_CACHED, Inodes, pages_of_bytes
from rmap.lab.replay import calls
from rmap.lab.replay.checkpoint import hold_against
from rmap.lab.replay.results import DIFFERS, NOT_JUDGED, NOTED, Checkpoint, Finding, TracePlayed
from rmap.lab.replay.seen import Seen
from rmap.mm import fault
from rmap.mm.costs import FAULT
from rmap.mm.mm_types import TASK_SIZE, AddressSpace, File, Mm
from rmap.mm.shared_anonymous import NAME as NAMELESS
from rmap.trace import EventTable, Trace
from rmap.trace import tables as t
from rmap.uapi.unistd import NAMES
from rmap.units import PAGE_MASK, PAGE_SHIFT

SPARE_FRAMES = 1 << 16
MOST_FRAMES = 1 << 24
Watch = Callable[["TracePlayer", Checkpoint], None]


def no_watch(player: TracePlayer, checkpoint: Checkpoint) -> None:
    """A ``Watch`` for who only wants the end."""


@dataclass
class _Found:
    first: str
    meaning: str
    count: int = 0


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
    """A machine on which a trace is played.

    Args:
        trace: what happened.
        design: the reverse map.
        profile: the kernel release whose rules hold.
        watch: told of every checkpoint, when the model has been held against it and put right.

    Attributes:
        kernel, core: the machine.
        inodes: its files. files: the open that each row of the trace's ``opens`` is.
        pid: whose event is being played.
        reclaimed: whether reclaim was at work since the last picture, or nobody watched for it.
        refused: calls that the kernel refused and that changed nothing.
    """

    def __init__(
        self,
        trace: Trace,
        design: str = "anon_vma_chain",
        profile: str = "6.18",
        *,
        watch: Watch = no_watch,
    ) -> None:
        self.trace = trace
        frames = frames_needed(trace)
        # A machine without swap keeps its anonymous pages, whatever MADV_PAGEOUT asks for.
        swaps = any(picture.snapshot.nr_swap_ptes for picture in trace.pictures)
        self.kernel = Kernel(design, profile, nr_pages=frames, nr_swap=frames if swaps else 0)
        self.core = self.kernel.core
        self.inodes = Inodes(self.core)
        self.files = self._open_files()
        self.pid = 0
        self.reclaimed = self._unwatched = not trace.about.get("actors", False)
        self.refused = 0
        self.checkpoints: list[Checkpoint] = []
        self._watch = watch
        self._seen: dict[int, Seen] = {}
        self._findings: dict[str, _Found] = {}
        self._calls: Counter[int] = Counter()
        self._processes = 0
        self._execs = 0

    def _open_files(self) -> list[File]:
        files, opens = self.trace.files, self.trace.opens
        mappings: dict[int, AddressSpace] = {}
        numbers: set[tuple[int, int]] = set()
        made = []
        for row, writable in zip(opens.file.tolist(), opens.writable.tolist()):
            dev, inode, path = int(files.dev[row]), int(files.inode[row]), files.path[row]
            if files.device[row]:
                made.append(self.inodes.device(dev, inode, path))
                continue
            if row not in mappings:
                # Numbers of inodes are used again.
                find = self.inodes.later if (dev, inode) in numbers else self.inodes.mapping
                mappings[row] = find(dev, inode, path, int(files.size[row]), bool(files.shmem[row]))
                numbers.add((dev, inode))
            made.append(File(mappings[row], path, bool(writable)))
        return made

    # -- what calls and checkpoints ask and tell ------------------------------------------------------------------
    def seen(self, mm: Mm) -> Seen:
        """What events have shown of an address space."""
        found = self._seen.get(mm.id)
        if found is None:
            found = self._seen[mm.id] = Seen()
        return found

    def finding(self, what: str, first: str, meaning: str = DIFFERS) -> None:
        """Something went otherwise than on the kernel, or cannot be told.

        Args:
            meaning: for the verdict: ``DIFFERS``, ``NOT_JUDGED`` or ``NOTED``.
        """
        self._findings.setdefault(what, _Found(first, meaning)).count += 1

    def not_modelled(self, what: str, mm: Mm | None, start: int = 0, length: int = TASK_SIZE) -> None:
        """A call that the model does not have: what it did comes with the next picture.

        Args:
            mm: what it may have changed; None if that is nothing that needs an excuse.
            start, length: where, in bytes.
        """
        self.finding(what, f"process {self.pid}", NOT_JUDGED)
        if mm is not None:
            self.seen(mm).not_modelled(start, length)

    def dropped(self, mapping: AddressSpace, first: int, last: int) -> None:
        """The pages ``first`` to ``last`` of a file went away: what was mapped of them is not accounted for."""
        for vma in list(mapping.i_mmap.stab(first, last)):
            low, high = max(first, vma.pgoff), min(last, vma.last)
            start = vma.start + ((low - vma.pgoff) << PAGE_SHIFT)
            self.seen(vma.mm).forget(start, (high + 1 - low) << PAGE_SHIFT)

    # -- playing --------------------------------------------------------------------------------------------------
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
                self.pid = events.pid[at]
                handlers[kind](events, at)
            at += 1
        return self._played()

    def _columns(self) -> _Events:
        e = without_unfinished(self.trace.events)
        a = tuple(column.tolist() for column in (e.a0, e.a1, e.a2, e.a3, e.a4, e.a5))
        time = (e.time - e.time[0]).tolist() if len(e) else []
        columns = (e.kind.tolist(), e.pid.tolist(), e.nr.tolist(), a, e.result.tolist(), e.file.tolist(), time)
        return _Events(*columns, runs_of_faults(e))

    def _faults(self, events: _Events, at: int) -> int:
        # A run of faults of one kind, each a page above the one before: one access. Nothing happened in between, and
        # the order is the same (first faults of neighbouring VMAs would not commute). Returns how many were played.
        process = self.kernel.processes.get(events.pid[at])
        address, run = events.a[0][at], events.run[at]
        if process is None or not 0 <= address < TASK_SIZE:
            self._stray(events.pid[at], address)
            return 1
        mm, write = process.mm, events.a[1][at] & t.WRITE
        try:
            fault.touch(self.core, mm, address & PAGE_MASK, run << PAGE_SHIFT, bool(write))
        except SyscallError as refusal:
            if run > 1:
                # It changed nothing. One by one, up to the one that is refused.
                self.core.costs.calls[FAULT] -= 1
                for one in range(at, at + run):
                    events.run[one] = 1
                return self._faults(events, at)
            self._refused_fault(process, address, bool(write), refusal)
            return 1
        seen = self._seen.get(mm.id) or self.seen(mm)
        seen.fault(address >> PAGE_SHIFT, run, bool(write))
        self.core.costs.calls[FAULT] += run - 1
        return run

    def _stray(self, pid: int, address: int) -> None:
        if pid not in self.kernel.processes:
            self.finding("events of a process that the trace does not introduce", f"process {pid}", NOT_JUDGED)
        else:
            self.finding("faults outside the address space of programs", f"{calls.unsigned(address):#x}", NOTED)

    def _refused_fault(self, process: Process, address: int, write: bool, refusal: SyscallError) -> None:
        # A file may have grown by writes, which no event shows: the kernel did not refuse, so it has.
        vma = process.mm.find(address)
        beyond = vma is not None and fault.refusal(vma, write) == "" and vma.mapping is not None
        if vma is None or vma.mapping is None or not beyond or vma.mapping.name == NAMELESS:
            # The kernel may have sent that signal too. If it did not, the page is in its next picture.
            self.seen(process.mm).refuse(address >> PAGE_SHIFT)
            self.finding("faults that end in a signal here", f"process {process.pid}: {refusal}", NOTED)
            return
        index = vma.linear_page_index(address & PAGE_MASK)
        self.inodes.grow(vma.mapping, (index + 1) << PAGE_SHIFT)
        self.finding("files that grew unseen", f"{vma.mapping.name}, page {index:#x}", NOTED)
        fault.touch(self.core, process.mm, address, 1, write)
        self.seen(process.mm).fault(address >> PAGE_SHIFT, 1, write)

    def _process(self) -> Process | None:
        process = self.kernel.processes.get(self.pid)
        if process is None:
            self.finding("events of a process that the trace does not introduce", f"process {self.pid}", NOT_JUDGED)
        return process

    def _syscall(self, events: _Events, at: int) -> None:
        process = self._process()
        if process is None:
            return
        nr = events.nr[at]
        self._calls[nr] += 1
        a = events.a
        args = (a[0][at], a[1][at], a[2][at], a[3][at], a[4][at], a[5][at])
        calls.play(self, process.mm, nr, args, events.result[at], events.file[at])

    def _fork(self, events: _Events, at: int) -> None:
        if events.a[3][at]:
            return  # a thread: the same process, the same mm
        parent, child = self._process(), events.a[0][at]
        if parent is None:
            return
        if child in self.kernel.processes:
            self.finding("a pid used again before its process ended", f"process {child}", NOT_JUDGED)
            self.kernel.exit(self.kernel.processes[child])
        self._processes += 1
        if events.a[4][at]:
            self.kernel.clone_vm(parent, pid=child)
            return
        inherited = self.seen(parent.mm).child()
        made = self.kernel.fork(parent, pid=child)
        self._seen[made.mm.id] = inherited

    def _exec(self, events: _Events, at: int) -> None:
        process = self.kernel.processes.get(self.pid)
        if process is None:
            process = self.kernel.spawn(pid=self.pid)
            self._processes += 1
        self._execs += 1
        old = process.mm
        picture = self.trace.pictures[events.a[0][at]].snapshot
        for reason, n in self.kernel.exec(process, picture, self.inodes).items():
            what = f"entries of an exec that were left out: {reason}"
            self.finding(what, f"{n:,} in process {self.pid}", NOT_JUDGED)
        if not old.users:
            self._seen.pop(old.id, None)
        self.seen(process.mm).add_present(self.core, process.mm, 0, TASK_SIZE)

    def _exit(self, events: _Events, at: int) -> None:
        process = self._process()
        if process is None:
            return
        self.kernel.exit(process)
        if not process.mm.users:
            self._seen.pop(process.mm.id, None)

    def _checkpoint(self, events: _Events, at: int) -> None:
        number = events.a[0][at]
        found = hold_against(self, self.trace.pictures[number], number, events.time[at])
        self.checkpoints.append(found)
        self.reclaimed = self._unwatched
        self._watch(self, found)

    def _resized(self, events: _Events, at: int) -> None:
        calls.resize(self, events.file[at], events.a[0][at])

    def _gone_on(self, events: _Events, at: int) -> None:
        self.reclaimed |= events.a[0][at] == t.RECLAIM

    def _played(self) -> TracePlayed:
        every = self.trace.events.kind
        kinds = Counter(every.tolist())
        last = np.flatnonzero(every == t.CHECKPOINT)[-1:].sum()
        acts = np.isin(every[last:], (t.SYSCALL, t.FAULT, t.FORK, t.EXEC))
        return TracePlayed(
            events={t.KINDS[kind]: n for kind, n in sorted(kinds.items())},
            calls={NAMES.get(nr, f"system call {nr}"): n for nr, n in self._calls.most_common()},
            findings=tuple(Finding(what, f.count, f.first, f.meaning) for what, f in self._findings.items()),
            checkpoints=tuple(self.checkpoints),
            processes=self._processes,
            execs=self._execs,
            refused=self.refused,
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
    found: dict[int, int] = {}
    for row in rows:
        if kind[row] == t.CHECKPOINT:
            break
        found.setdefault(tid[row], row)
    return found


def runs_of_faults(events: EventTable) -> list[int]:
    """For each event that begins a run of faults, how many it has: of one process, all writes or none, page by page."""
    kind, pid, page, write = events.kind, events.pid, events.a0 >> PAGE_SHIFT, events.a1 & t.WRITE
    follows = (kind[1:] == t.FAULT) & (kind[:-1] == t.FAULT) & (pid[1:] == pid[:-1])
    follows &= (page[1:] == page[:-1] + 1) & (write[1:] == write[:-1])
    first = np.concatenate((np.zeros(min(1, len(kind)), np.int64), np.flatnonzero(~follows) + 1))
    lengths = np.zeros(len(kind), np.int64)
    lengths[first] = np.diff(np.concatenate((first, [len(kind)])))
    return lengths.tolist()


def frames_needed(trace: Trace) -> int:
    """An upper bound of the frames that a replay takes: files whole, a page for every fault, what pictures show.

    Raises:
        LimitError: more than a machine of the model is given.
    """
    sizes: dict[tuple[int, int], int] = {}
    tables: list[Any] = [trace.files, *(picture.snapshot.files for picture in trace.pictures)]
    for files in tables:
        for dev, inode, size in zip(files.dev.tolist(), files.inode.tolist(), files.size.tolist()):
            sizes[dev, inode] = max(size, sizes.get((dev, inode), 0))
    events = trace.events
    resized = events.kind == t.RESIZED
    for row, size in zip(events.file[resized].tolist(), events.a0[resized].tolist()):
        file = int(trace.opens.file[row])
        key = int(trace.files.dev[file]), int(trace.files.inode[file])
        sizes[key] = max(size, sizes[key])
    known = [*sizes.values(), *trace.files.size.tolist()]  # twice what one number stands for: it may be used again
    cached = sum(pages_of_bytes(size) for size in known if 0 < size <= MOST_CACHED)
    pictured = max((int(p.snapshot.frames.count.sum()) for p in trace.pictures), default=0)
    execs = sum(int(p.snapshot.frames.count.sum()) for p in trace.pictures if p.cause == t.CAUSES[t.AT_EXEC])
    calls_ahead = (events.kind == t.SYSCALL) & np.isin(events.nr, (9, 12, 28, 149, 151, 325))
    lengths = np.minimum(events.a1[calls_ahead].clip(0), 1 << 30) >> PAGE_SHIFT
    ahead = min(int(lengths.sum()), 1 << 20) if len(lengths) else 0
    wanted = cached + pictured + execs + int(np.count_nonzero(events.kind == t.FAULT)) + ahead + SPARE_FRAMES
    if wanted > MOST_FRAMES:
        raise LimitError(f"the trace would need {wanted:,} frames: the limit is {MOST_FRAMES:,}")
    return wanted
