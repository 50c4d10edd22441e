"""Stopping processes with ptrace (x86-64), so that a picture of them shows one moment.

Why ptrace and not SIGSTOP or a cgroup's freezer: a tracer that ends, however it ends, releases its tracees at once, so
nothing stays stopped; nobody else sees a signal; and a stop can be had at an exec or an exit. The kernel ties tracees
to the *thread* that seized them. So whoever stops processes here does it in a thread of its own, and the end of that
thread releases even those that could not be made to stop.

As ptrace(2) describes it for PTRACE_SEIZE. Not handled: processes of another architecture than x86-64's own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rmap.errors import NotPermitted, SourceError
from rmap.live.sources import procfs
from rmap.live.sources.root import root_path
from rmap.live.sources.same_mm import kcmp_vm
from rmap.uapi.unistd import NR

CONT, DETACH = 7, 17
GETEVENTMSG = 0x4201
SEIZE, INTERRUPT, LISTEN = 0x4206, 0x4207, 0x4208
"""Requests."""
O_FORK, O_VFORK, O_CLONE, O_EXEC, O_VFORKDONE, O_EXIT = (1 << n for n in range(1, 7))
"""Options of SEIZE."""
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_VFORK_DONE, EVENT_EXIT = range(1, 7)
EVENT_STOP = 128
"""What a wait status has in bits 16 and up."""
WALL, WNOTHREAD = 0x40000000, 0x20000000
"""Options of waitpid: children of every kind; only those of this thread."""
STOP_SIGNALS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})

_VFORKS = frozenset(str(NR[name]) for name in ("clone", "vfork", "clone3"))
_PAUSE = 0.001

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    """One ptrace call.

    Raises:
        OSError: as the kernel refuses it; ``ProcessLookupError`` if the thread is gone, or is not in a stop that
            the request needs.
    """
    if _libc.ptrace(request, tid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def event_message(tid: int) -> int:
    """What belongs to the event a thread has stopped for: the new task of a fork, the former tid of an exec."""
    value = ctypes.c_ulong()
    ptrace(GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


def resume(tid: int, status: int) -> None:
    """Let a stopped thread go on as if it had not been stopped: its signal is delivered, a group stop goes on.

    Args:
        tid: the thread.
        status: of its stop, as waitpid gave it.
    """
    event, number = status >> 16, os.WSTOPSIG(status)
    with suppress(ProcessLookupError):  # killed meanwhile: its end will be reported
        if event == EVENT_STOP and number in STOP_SIGNALS:
            ptrace(LISTEN, tid)
        else:
            ptrace(CONT, tid, 0, number if event == 0 else 0)


def threads_of(pid: int) -> list[int]:
    """The threads of a process; none if it is gone."""
    try:
        return procfs.threads_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return []


def state_of(tid: int) -> str:
    """The letter of a thread's state (R, S, D, T, t, Z, X); X if it is gone."""
    try:
        return Path(root_path(f"/proc/{tid}/stat")).read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def seize(tid: int, options: int = 0) -> None:
    """Become the tracer of a thread, which runs on.

    Args:
        tid: the thread.
        options: ``O_*`` bits.

    Raises:
        ProcessLookupError: there is no such thread.
        SourceError: it is traced already.
        NotPermitted: the kernel refuses.
    """
    try:
        ptrace(SEIZE, tid, 0, options)
    except PermissionError:
        raise _refused(tid) from None


def _refused(tid: int) -> SourceError:
    try:
        status = procfs.read_status(tid)
    except (FileNotFoundError, ProcessLookupError):
        return SourceError(f"process {tid} has ended")
    tracer = int(status.get("TracerPid", "0"))  # a thread, for those of us that are one
    with suppress(FileNotFoundError, ProcessLookupError):
        tracer = int(procfs.read_status(tracer)["Tgid"]) if tracer else 0
    if tracer == os.getpid():
        return SourceError(f"process {tid} is being stopped by this rmap already")
    if tracer:
        return SourceError(f"process {tid} is traced already, by process {tracer} (a debugger, strace, rmap record)")
    return NotPermitted(
        f"process {tid} may not be stopped by this user",
        needed="CAP_SYS_PTRACE (or the same user, and kernel.yama.ptrace_scope 0)",
        works="without stopping it: a picture of a running process may be raced, and says so",
    )


@contextmanager
def frozen(pids: Iterable[int], *, timeout: float = 5.0) -> Iterator[list[int]]:
    """Stop every thread of some processes while the body runs; they go on afterwards, whatever happens.

    A process that a signal had stopped stays stopped. One that waits for its vfork child counts as stopped if that
    child is stopped too: it executes nothing until then.

    Args:
        pids: process ids (not thread ids).
        timeout: seconds to wait for all of them.

    Yields:
        the threads that are stopped.

    Raises:
        SourceError: there is no such process, it is a kernel thread or this one, traced already, or cannot be stopped
            in time. Nothing is stopped then.
        NotPermitted: the kernel refuses.
    """
    wanted = sorted(set(pids))
    for pid in wanted:
        _refuse_unsuitable(pid)
    freezer = _Freezer(wanted, timeout)
    freezer.start()
    try:
        yield freezer.wait_until_stopped()
    finally:
        freezer.release()


def _refuse_unsuitable(pid: int) -> None:
    if pid == os.getpid():
        raise SourceError(f"process {pid} is this rmap: it cannot stop itself")
    try:
        stat, status = procfs.read_stat(pid), procfs.read_status(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise SourceError(f"there is no process {pid}") from None
    if int(status["Tgid"]) != pid:
        raise SourceError(f"{pid} is a thread of process {status['Tgid']}: name the process")
    if stat.kernel_thread:
        raise SourceError(f"process {pid} ({stat.comm}) is a thread of the kernel: it has no memory of its own")
    if state_of(pid) in "ZX" and threads_of(pid) in ([], [pid]):
        raise SourceError(f"process {pid} ({stat.comm}) has ended")


class _Freezer(threading.Thread):
    """The thread that is the tracer. It ends when told to, or when it fails; its end releases everything."""

    def __init__(self, pids: list[int], timeout: float) -> None:
        super().__init__(name="rmap-freezer", daemon=True)
        self._pids = pids
        self._timeout = timeout
        self._seized: dict[int, int] = {}  # tid -> pid
        self._status: dict[int, int] = {}  # tid -> status of its stop
        self._stopped = threading.Event()
        self._go_on = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._stop_all()
        except BaseException as error:
            self._failure = error
        self._stopped.set()
        if self._failure is None:
            self._go_on.wait()
        for tid, status in self._status.items():
            # Group stops are kept by the kernel; a signal that was about to be delivered is delivered.
            number = os.WSTOPSIG(status) if status >> 16 == 0 else 0
            with suppress(OSError):
                ptrace(DETACH, tid, 0, number)

    def wait_until_stopped(self) -> list[int]:
        """Raises what went wrong."""
        self._stopped.wait()
        if self._failure is not None:
            raise self._failure
        return sorted(self._status)

    def release(self) -> None:
        self._go_on.set()
        self.join()
        wait_for_thread_end(self.native_id)

    def _stop_all(self) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            new = self._seize_new()
            self._collect()
            waiting = sorted(set(self._seized) - set(self._status))
            if not new and all(self._is_held(tid) for tid in waiting):
                return
            if time.monotonic() > deadline:
                raise self._too_late(next(tid for tid in waiting if not self._is_held(tid)) if waiting else new[0])
            time.sleep(_PAUSE)

    def _seize_new(self) -> list[int]:
        # A thread that was being made when the others were listed is found the next time round.
        new = []
        for pid in self._pids:
            for tid in threads_of(pid):
                if tid in self._seized or state_of(tid) in "ZX":
                    continue
                with suppress(ProcessLookupError):
                    seize(tid)
                    self._seized[tid] = pid
                    new.append(tid)
                    ptrace(INTERRUPT, tid)
        if not self._seized:
            raise SourceError(f"process {self._pids[0]} has ended" if self._pids else "no process was named")
        return new

    def _collect(self) -> None:
        for tid in set(self._seized) - set(self._status):
            try:
                pid, status = os.waitpid(tid, WALL | os.WNOHANG)
            except ChildProcessError:
                pid, status = tid, 0
            if not pid:
                continue
            if os.WIFSTOPPED(status):
                self._status[tid] = status
            else:
                del self._seized[tid]

    def _is_held(self, tid: int) -> bool:
        # Nothing of it can run: it waits for a vfork child that is stopped, or it is at its end.
        state = state_of(tid)
        if state in "ZX":
            return True
        children = vfork_children(tid) if state == "D" else []
        return bool(children) and all(
            thread in self._status or self._is_held(thread) for child in children for thread in threads_of(child)
        )

    def _too_late(self, tid: int) -> SourceError:
        pid = self._seized.get(tid, tid)
        children = vfork_children(tid)
        if children:
            return SourceError(
                f"process {pid} waits for its vfork child {children[0]}, which uses the same memory: name both"
            )
        where = procfs.exe(tid)
        return SourceError(
            f"thread {tid} of process {pid} ({where or 'no program'}, state {state_of(tid)}) could not be stopped "
            f"within {self._timeout:g} s; all are released again"
        )


def vfork_children(tid: int) -> list[int]:
    """The children that a thread waits for in vfork: those that use its memory. Empty if it waits for none."""
    with suppress(OSError, IndexError):
        if Path(root_path(f"/proc/{tid}/syscall")).read_text().split()[0] not in _VFORKS:
            return []
        children = Path(root_path(f"/proc/{tid}/task/{tid}/children")).read_text().split()
        return [child for child in map(int, children) if kcmp_vm(tid, child) == 0]
    return []


def wait_for_thread_end(native_id: int | None, timeout: float = 5.0) -> None:
    """Wait until the kernel has ended a thread of this process: Python's ``join`` returns a little earlier."""
    path = Path(root_path(f"/proc/self/task/{native_id}"))
    wait_until(lambda: not path.exists(), timeout)


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Look again and again, up to ``timeout`` seconds; whether it came true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True
