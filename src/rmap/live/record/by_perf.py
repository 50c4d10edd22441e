"""The recorder that is ``perf record``, for where BPF programs cannot be loaded.

It costs more, and knows less: which ``struct file`` is behind a descriptor is not told, so mappings of the same inode
through the same descriptor of the same process count as one open; whether an open may write shows only where a shared
mapping does. Faults that execve takes cannot be told apart by their mm, so all of a thread between the entry of
execve and the exec itself are left out. perf writes while the program runs; its file is read at the end.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from rmap.columns import I64
from rmap.errors import NotPermitted, SourceError
from rmap.live.record import raw
from rmap.live.sources import procfs
from rmap.trace import tables as t
from rmap.uapi.mman import MAP_ANONYMOUS, MAP_SHARED, PROT_WRITE
from rmap.uapi.unistd import NR

_MEMORY_CALLS = tuple(
    NR[name]
    for name in (
        "mmap", "mprotect", "munmap", "brk", "mremap", "madvise", "shmat", "shmdt", "truncate", "ftruncate", "mlock",
        "munlock", "mlockall", "munlockall", "io_setup", "io_destroy", "remap_file_pages", "mbind", "fallocate",
        "process_vm_writev", "mlock2", "pkey_mprotect", "process_madvise", "set_mempolicy_home_node",
        "map_shadow_stack", "mseal",
    )
)  # fmt: skip
_CLONES = (NR["clone"], NR["fork"], NR["vfork"], NR["clone3"])
_EXECS = (NR["execve"], NR["execveat"])
_READY_SECONDS = 20.0
_ARGUMENTS = "di,si,dx,r10,r8,r9"
_IN_ORDER = _ARGUMENTS.upper().split(",")

_LINE = re.compile(r"\s*(-?\d+)/(-?\d+)\s+(\d+)\.(\d{9}):\s+([A-Za-z_0-9:]+?):?\s*(?=[ (]|$)(.*)")
_ENTER = re.compile(r"NR (\d+) \((.*)\)")
_EXIT = re.compile(r"NR (\d+) = (-?\d+)(.*)")
_REGISTER = re.compile(r"\b([A-Z][A-Z0-9]+):0x([0-9a-f]+)")
_FAULT = re.compile(r"address=0x([0-9a-f]+) .* error_code=0x([0-9a-f]+)")
_FORK = re.compile(r"\((\d+):(\d+)\):\((\d+):(\d+)\)")
_MMAP2 = re.compile(
    r"\d+/\d+: \[0x([0-9a-f]+)\(0x([0-9a-f]+)\) @ (\S+) ([0-9a-f]+):([0-9a-f]+) (\d+) (\d+)\]: (\S+) (.*)"
)
_LOST = re.compile(r"lost (\d+)")


class PerfRecorder:
    """Runs ``perf record`` on one process and its descendants.

    Args:
        data: where perf writes; its folder must exist when recording begins.

    Raises:
        NotPermitted: perf is not installed, or not permitted to this user.
    """

    name = "perf"
    late = True

    def __init__(self, data: Path) -> None:
        self._perf = shutil.which("perf") or ""
        if not self._perf:
            raise NotPermitted(
                "programs cannot be recorded by perf here", needed="the program perf (Debian: linux-perf)"
            )
        if os.geteuid() != 0:
            with suppress(OSError, ValueError):
                if int(procfs.sysctl("kernel/perf_event_paranoid")) > -1:
                    raise NotPermitted(
                        "programs cannot be recorded by perf here",
                        needed="CAP_PERFMON, or kernel.perf_event_paranoid -1 (tracepoints)",
                    )
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None
        self._control: tuple[int, ...] = ()
        self._root = -1
        self._hints: dict[int, tuple[int, bool]] = {}
        self._lost = 0

    def follow(self, pid: int) -> None:
        """Start perf, and wait until it records."""
        self._root = pid
        control_read, control = os.pipe()
        answer, answer_write = os.pipe()
        returns, entries = (
            "||".join(f"id=={nr}" for nr in calls)
            for calls in ((*_MEMORY_CALLS, *_CLONES, *_EXECS), (*_CLONES, *_EXECS))
        )
        command = [
            *(self._perf, "record", "-q", "-d", "-m", "8192", "-k", "CLOCK_MONOTONIC", "-D", "-1"),
            *("-e", "raw_syscalls:sys_enter", "--filter", entries),
            *("-e", "raw_syscalls:sys_exit", "--filter", returns, f"--user-regs={_ARGUMENTS}"),
            *("-e", "exceptions:page_fault_user", "-e", "exceptions:page_fault_kernel"),
            *("-e", "sched:sched_process_exec", "-e", "sched:sched_process_exit"),
            *("-p", str(pid), f"--control=fd:{control_read},{answer_write}", "-o", str(self._data)),
        ]
        errors = self._data.with_suffix(".err")
        with errors.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                pass_fds=(control_read, answer_write),
                start_new_session=True,
            )
        os.close(control_read)
        os.close(answer_write)
        try:
            os.write(control, b"enable\n")
            in_time = bool(select.select([answer], [], [], _READY_SECONDS)[0])
            said = os.read(answer, 16) if in_time else b""  # "ack\n", or nothing if perf has ended
        except BrokenPipeError:
            in_time, said = True, b""
        self._control = (control, answer)  # closed when perf has ended: it does not bear to lose them before
        if not said.startswith(b"ack"):
            if not in_time:
                self._process.kill()
            self.close()
            words = errors.read_text(errors="replace").strip()
            late = "" if in_time else f"it was not ready within {_READY_SECONDS:g} s. "
            raise SourceError(f"perf does not record here: {late}{words}".rstrip(" .:"))

    def hint(self, child: int, flags: int, shared: bool) -> None:
        """How a new process was made, as its tracer saw it: perf does not tell."""
        self._hints[child] = (flags, shared)

    def take(self) -> I64:
        """Nothing: perf's file is read at the end."""
        return raw.empty()

    def take_until_now(self) -> I64:
        """Nothing."""
        return raw.empty()

    def finish(self) -> I64:
        """Stop perf and read what it wrote."""
        self._stop()
        reader = _Reader(self._hints, self._root)
        with self._script() as lines:
            rows = reader.read(lines)
        self._lost = reader.lost
        self._data.unlink(missing_ok=True)
        return rows

    def lost(self) -> int:
        """Events that perf lost."""
        return self._lost

    def unseen(self) -> str:
        """Nothing that perf knows of."""
        return ""

    def close(self) -> None:
        """Stop perf."""
        self._stop()

    def _stop(self) -> None:
        # It may be at its end already, if the program is; a signal would then keep it from completing its file.
        if self._control:
            with suppress(OSError):
                os.write(self._control[0], b"stop\n")
        if self._process is not None:
            try:
                self._process.wait(_READY_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        for end in self._control:
            os.close(end)
        self._control = ()

    def _script(self) -> _Script:
        return _Script(
            [
                *(self._perf, "script", "-i", str(self._data), "--ns", "-F", "pid,tid,time,event,trace"),
                *("-F", "trace:+uregs"),
                *("--show-mmap-events", "--show-task-events", "--show-lost-events"),
            ]
        )


class _Script:
    def __init__(self, command: list[str]) -> None:
        # The lines of `perf script`, while it runs.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def __exit__(self, *stopped_by: object) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.wait() and stopped_by == (None, None, None):
            raise SourceError("what perf recorded cannot be read: its file is not complete")


@dataclass
class _Call:
    nr: int
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class _Mapped:
    start: int
    end: int
    device: int
    inode: int
    generation: int
    path: str


@dataclass
class _Reader:
    # From the lines of `perf script` to a recorder's rows.
    hints: dict[int, tuple[int, bool]]
    root: int  # what it does before its first exec is the recorder's own doing
    lost: int = 0
    rows: list[tuple[int, ...]] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)  # by thread: of clone or exec, entered, not returned
    mapped: dict[int, _Mapped] = field(default_factory=dict)  # by thread: the latest file mapped
    files: dict[tuple[int, int, int, int], int] = field(default_factory=dict)  # -> address, made up
    threads: dict[int, int] = field(default_factory=dict)  # living threads, by process

    def read(self, lines: Iterator[bytes] | IO[bytes]) -> I64:
        for line in lines:
            match = _LINE.match(line.decode(errors="replace"))
            if match is None:
                continue
            pid, tid, seconds, fraction, event, rest = match.groups()
            self.one(int(pid), int(tid), int(seconds) * 10**9 + int(fraction), event, rest)
        return np.array(self.rows, np.int64).reshape(-1, raw.WIDTH)

    def one(self, pid: int, tid: int, time: int, event: str, rest: str) -> None:
        if event == "PERF_RECORD_LOST" and (lost := _LOST.search(rest)):
            self.lost += int(lost[1])
        elif event == "PERF_RECORD_MMAP2" and (mapped := _MMAP2.search(rest)):
            start, length, _, major, minor, inode, generation, _, path = mapped.groups()
            if int(inode):
                begin = int(start, 16)
                device = int(major, 16) << 20 | int(minor, 16)
                self.mapped[tid] = _Mapped(
                    begin, begin + int(length, 16), device, int(inode), int(generation), path.rstrip()
                )
        elif event == "PERF_RECORD_FORK" and (fork := _FORK.search(rest)):
            self.fork(time, *map(int, fork.groups()))
        elif event == "raw_syscalls:sys_enter" and (enter := _ENTER.search(rest)):
            arguments = tuple(_signed(int(word, 16)) for word in enter[2].split(", "))
            self.calls[tid] = _Call(int(enter[1]), arguments)
        elif event == "raw_syscalls:sys_exit" and (left := _EXIT.search(rest)):
            self.returned(pid, tid, time, int(left[1]), int(left[2]), left[3])
        elif event.startswith("exceptions:page_fault") and (fault := _FAULT.search(rest)):
            self.fault(pid, tid, time, _signed(int(fault[1], 16)), int(fault[2], 16), event.endswith("kernel"))
        elif event == "sched:sched_process_exec":
            self.root = -1 if pid == self.root else self.root
            self.calls.pop(tid, None)
            self.threads[pid] = 1
            self.add(time, t.EXEC, 0, pid, tid)
        elif event == "sched:sched_process_exit":
            self.threads[pid] = self.threads.get(pid, 1) - 1
            has_group_dead = "group_dead=" in rest  # since Linux 6.16
            if "group_dead=true" in rest if has_group_dead else not self.threads[pid]:
                self.add(time, t.EXIT, 0, pid, tid)

    def add(
        self, time: int, kind: int, nr: int, pid: int, tid: int, *arguments: int, result: int = 0, file: int = 0
    ) -> None:
        if pid == self.root:
            return
        padded = (*arguments, *[0] * (6 - len(arguments)))
        self.rows.append((time, kind | nr << 32, pid | tid << 32, *padded, result, file))

    def fork(self, time: int, child: int, child_tid: int, pid: int, tid: int) -> None:
        thread = child == pid
        call = self.calls.get(tid)
        flags = -1
        if call is not None and call.nr in (NR["clone"], NR["fork"], NR["vfork"]):
            flags_of = {NR["clone"]: call.arguments[0], NR["fork"]: 0, NR["vfork"]: t.CLONE_VM | t.CLONE_VFORK}
            flags = flags_of[call.nr]
        hinted, shared = self.hints.get(child_tid, (-1, thread))
        self.threads[child] = self.threads.get(child, 0 if not thread else 1) + 1
        flags, shared = (flags, bool(flags & t.CLONE_VM)) if flags != -1 else (hinted, shared)
        self.add(time, t.FORK, 0, pid, tid, child, child_tid, flags, int(thread), int(thread or shared))

    def fault(self, pid: int, tid: int, time: int, address: int, error: int, in_kernel: bool) -> None:
        call = self.calls.get(tid)
        if address < 0 or (call is not None and call.nr in _EXECS):
            return
        self.add(time, t.FAULT, 0, pid, tid, address, error, int(in_kernel))

    def returned(self, pid: int, tid: int, time: int, nr: int, result: int, registers: str) -> None:
        # No call changes the registers that hold its arguments, but execve and rt_sigreturn.
        if nr not in _MEMORY_CALLS:
            self.calls.pop(tid, None)
            return
        values = {name: _signed(int(value, 16)) for name, value in _REGISTER.findall(registers)}
        if len(values) < len(_IN_ORDER):  # not from user space
            return
        arguments = tuple(values[name] for name in _IN_ORDER)
        file = 0
        if nr == NR["mmap"] and result >= 0 and not (arguments[3] & MAP_ANONYMOUS):
            file = self.file(pid, tid, time, arguments, result)
        self.add(time, t.SYSCALL, nr, pid, tid, *arguments, result=result, file=file)

    def file(self, pid: int, tid: int, time: int, arguments: tuple[int, ...], result: int) -> int:
        # The open behind an mmap, reported the first time it is met. Its address is made up.
        mapped = self.mapped.get(tid)
        if mapped is None or not mapped.start <= result < mapped.end:
            return 0
        fd = arguments[4] & 0xFFFFFFFF
        key = (pid, fd, mapped.device, mapped.inode)
        if key not in self.files:
            address = self.files[key] = len(self.files) + 1
            bits = int(bool(arguments[3] & MAP_SHARED and arguments[2] & PROT_WRITE))
            size, shmem, device = -1, mapped.path.startswith(("/memfd:", "/SYSV", "/dev/shm/")), False
            with suppress(OSError):
                status = os.stat(mapped.path)
                if status.st_ino == mapped.inode:
                    size = status.st_size
            device = mapped.path.startswith("/dev/") and not shmem
            path = mapped.path.encode()
            for start in range(0, len(path), 48):
                words = np.frombuffer(path[start : start + 48].ljust(48, b"\0"), np.int64).tolist()
                self.add(time, raw.NAME, 0, pid, tid, *words, file=address)
            kinds = bits | shmem << 1 | device << 2
            generation = mapped.generation
            self.add(
                time, raw.FILE, 0, pid, tid, mapped.device, mapped.inode, size, kinds, fd, generation, file=address
            )
        return self.files[key]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
