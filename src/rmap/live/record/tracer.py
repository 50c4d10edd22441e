"""Following a program and its descendants with ptrace: told of every exec and every end, able to stop all at once.

Between these moments the recorded processes run untouched, except that each signal passes through here on its way.
What ptrace(2) warns of is handled: group stops go on (LISTEN), an exec by a thread that is not the leader makes it
the leader, a child may stop before its parent reports it, and a parent that waits in vfork cannot be stopped, but does
nothing either while its child is stopped.

A set-uid program gets its privileges if this process has CAP_SYS_PTRACE, as root does; else the kernel runs it without.
A recorded program cannot trace its own children: each process has one tracer at most.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from rmap.errors import SourceError
from rmap.live.sources import procfs
from rmap.live.sources import ptrace as p

_OPTIONS = p.O_FORK | p.O_VFORK | p.O_CLONE | p.O_EXEC | p.O_VFORKDONE | p.O_EXIT
_WAIT = p.WALL | p.WNOTHREAD | os.WNOHANG
_SIGNALS = {signal.SIGCHLD}
_GRACE = 0.2


@dataclass(slots=True)
class _Thread:
    pid: int
    held: int | None = None  # status of the stop it is kept in
    listening: bool = False  # in a group stop
    in_vfork: bool = False
    exiting: bool = False
    until: float = 0.0  # a leader at its exit is held until then, for its threads: without it /proc shows no memory


class Watcher(Protocol):
    """What is told. The process in question, or all of them, are stopped during each call."""

    def at_exec(self, pid: int) -> None:
        """A process has a new program, of which no instruction was executed yet."""

    def at_fork(self, tid: int, new: int, vfork: bool) -> None:
        """A thread has made a task that has not run yet."""

    def at_exit(self, pid: int, last: bool) -> None:
        """The last thread of a process is about to exit; its memory is still there. ``last``: no other is left."""


class Tracer:
    """The tracer of one program. Every method must be called by the same thread.

    Args:
        root: the process that becomes the program; a child of this process.
        watcher: is told.
    """

    def __init__(self, root: int, watcher: Watcher) -> None:
        self.root = root
        self.root_status: int | None = None  # as waitpid gives it, once it has ended
        self._watcher = watcher
        self._threads: dict[int, _Thread] = {}
        self._pausing = False
        p.seize(root, _OPTIONS)
        self._threads[root] = _Thread(root)
        self._own = str(threading.get_native_id())

    @property
    def ended(self) -> bool:
        """Whether nothing is left to follow."""
        return not self._threads

    def pids(self) -> list[int]:
        """The processes whose memory is there."""
        return sorted({t.pid for t in self._threads.values() if not t.exiting or t.held is not None})

    def wait(self, seconds: float) -> None:
        """Deal with what has happened; if nothing has, wait up to so long for something to happen."""
        if not self._handle_all() and not self.ended:
            signal.sigtimedwait(_SIGNALS, seconds)
            self._handle_all()
        now = time.monotonic()
        for tid, thread in self._threads.items():
            if thread.until and now > thread.until:
                self._let_go(tid, thread)

    def pause(self, timeout: float = 5.0) -> None:
        """Stop everything.

        Raises:
            SourceError: something could not be stopped in time. Everything goes on again.
        """
        self._pausing = True
        deadline = time.monotonic() + timeout
        asked: set[int] = set()
        while True:
            for tid in [tid for tid, thread in self._threads.items() if self._runs(thread) and tid not in asked]:
                asked.add(tid)
                with suppress(ProcessLookupError):
                    p.ptrace(p.INTERRUPT, tid)
            self._handle_all()
            running = [tid for tid, thread in self._threads.items() if not self._is_held(tid, thread)]
            if not running:
                return
            if time.monotonic() > deadline:
                self.go_on()
                tid = running[0]
                raise SourceError(
                    f"thread {tid} of process {self._threads[tid].pid} did not stop within {timeout:g} s "
                    f"(state {p.state_of(tid)})"
                )
            signal.sigtimedwait(_SIGNALS, 0.001)

    def go_on(self) -> None:
        """Let everything run that :meth:`pause` has stopped."""
        self._pausing = False
        for tid, thread in self._threads.items():
            self._let_go(tid, thread)

    @staticmethod
    def _runs(thread: _Thread) -> bool:
        return thread.held is None and not thread.listening and not thread.exiting

    def _is_held(self, tid: int, thread: _Thread) -> bool:
        if not self._runs(thread):
            return not thread.exiting or thread.held is not None or p.state_of(tid) in "ZX"
        return thread.in_vfork and p.state_of(tid) == "D"

    def _handle_all(self) -> bool:
        # Whether anything had happened.
        happened = False
        while True:
            try:
                tid, status = os.waitpid(-1, _WAIT)
            except ChildProcessError:
                self._threads.clear()
                return True
            if not tid:
                return happened
            happened = True
            self._handle(tid, status)

    def _handle(self, tid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._threads.pop(tid, None)
            if tid == self.root and self.root_status is None:  # later it is another's pid
                self.root_status = status
            return
        thread = self._threads.get(tid)
        if thread is None:  # a new one whose maker has not reported it yet
            thread = self._threads[tid] = _Thread(_tgid(tid))
        thread.listening = False
        thread.held = status
        event = status >> 16
        if event in (p.EVENT_FORK, p.EVENT_VFORK, p.EVENT_CLONE):
            self._made(tid, thread, event)
        elif event == p.EVENT_VFORK_DONE:
            thread.in_vfork = False
        elif event == p.EVENT_EXEC:
            thread = self._exec(tid, status)
        elif event == p.EVENT_EXIT:
            self._exit(tid, thread)
        if not self._pausing and not thread.until:
            self._let_go(tid, thread)

    def _made(self, tid: int, thread: _Thread, event: int) -> None:
        thread.in_vfork = event == p.EVENT_VFORK
        with suppress(ProcessLookupError):
            new = p.event_message(tid)
            if new not in self._threads and self._is_ours(new):
                self._threads[new] = _Thread(_tgid(new))
            self._watcher.at_fork(tid, new, thread.in_vfork)

    def _is_ours(self, tid: int) -> bool:
        # A child's whole life may have been seen before its parent's report of it: then it is gone, or nobody's any
        # more.
        try:
            return procfs.read_status(tid)["TracerPid"] == self._own
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _exec(self, tid: int, status: int) -> _Thread:
        # The thread that called exec is the leader from now on, and the only one.
        for other in [other for other, thread in self._threads.items() if thread.pid == tid]:
            del self._threads[other]
        thread = self._threads[tid] = _Thread(tid, held=status)
        self._watcher.at_exec(tid)
        return thread

    def _exit(self, tid: int, thread: _Thread) -> None:
        thread.exiting = True
        left = [other for other in self._threads.values() if not other.exiting]
        if not any(other.pid == thread.pid for other in left):
            self._watcher.at_exit(thread.pid, not left)
            leader = self._threads.get(thread.pid, thread)
            if leader.until and not self._pausing:
                self._let_go(thread.pid, leader)
        elif tid == thread.pid:
            thread.until = time.monotonic() + _GRACE

    def _let_go(self, tid: int, thread: _Thread) -> None:
        thread.until = 0.0
        if thread.held is not None:
            status, thread.held = thread.held, None
            thread.listening = status >> 16 == p.EVENT_STOP and os.WSTOPSIG(status) in p.STOP_SIGNALS
            p.resume(tid, status)


def _tgid(tid: int) -> int:
    try:
        return int(procfs.read_status(tid)["Tgid"])
    except (FileNotFoundError, ProcessLookupError):
        return tid
