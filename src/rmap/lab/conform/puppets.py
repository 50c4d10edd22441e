"""Real processes on strings: each makes, one at a time, the memory calls it is told to make.

A :class:`Puppet` has the methods of ``rmap.Process``, so that one story runs on both. The program that they run is
``puppet.c``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from rmap.live.sources.pagemap import open_pagemap
from rmap.uapi.mman import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    MADVICE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_STACK,
    MCL_CURRENT,
    MCL_FUTURE,
    MCL_ONFAULT,
    MLOCK_ONFAULT,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)

if TYPE_CHECKING:
    from rmap.lab.conform.stage import Stage

T = TypeVar("T")

PAGE = 4096
PATIENCE = 20.0  # seconds to wait for an answer: a puppet that needs longer is dead or stuck

# Same order as `enum operation` in puppet.c.
OPERATIONS = (
    *("read", "write", "fork", "borrow", "take_file", "exit", "drain"),
    *("mmap", "munmap", "mprotect", "mremap", "madvise", "mlock", "mlock2", "munlock", "mlockall", "munlockall"),
    "brk",
)
NUMBER_OF = {name: number for number, name in enumerate(OPERATIONS)}
PROT = {"r": PROT_READ, "w": PROT_WRITE, "x": PROT_EXEC}

_REQUEST = struct.Struct("=q6Q")
_ANSWER = struct.Struct("=qq")
_WORD = (1 << 64) - 1


class PuppetDied(Exception):
    """A puppet went away, or stopped answering, without being told to. Never an answer of the kernel."""


@dataclass(eq=False)
class RealFile:
    """An open file that puppets map. One open for all of them, so that their ``vm_file`` is one pointer."""

    name: str
    fd: int
    key: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        found = os.fstat(self.fd)
        self.key = (found.st_dev, found.st_ino)

    def truncate(self, size: int) -> None:
        """Set the size in bytes; pages beyond it leave every process."""
        os.ftruncate(self.fd, size)

    def punch_hole(self, offset: int, length: int) -> None:
        """Drop a range of bytes from the file."""
        _fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


class Puppet:
    """One real process, with the methods of ``rmap.Process``.

    A refused call raises ``OSError`` with Linux's errno; a touch that ends in SIGSEGV or SIGBUS raises EFAULT.

    Attributes:
        pid: its number.
        mm: a number for its address space, equal for those that share one.
        pagemap: a descriptor of its page map.
    """

    def __init__(self, stage: Stage, connection: socket.socket, pid: int, mm: int) -> None:
        self.stage = stage
        self.pid = pid
        self.mm = mm
        self._connection = connection
        self._files: dict[int, int] = {}
        self._blocked = False
        try:
            self._pidfd = os.pidfd_open(pid)
            self.pagemap = open_pagemap(pid)
        except OSError:
            raise PuppetDied(f"puppet {pid} is gone") from None

    # -- the calls

    def mmap(
        self,
        length: int,
        prot: str = "rw",
        flags: str = "private",
        file: RealFile | None = None,
        offset: int = 0,
        addr: int | None = None,
        *,
        hint: int | None = None,
        noreplace: bool = False,
        growsdown: bool = False,
        populate: bool = False,
        noreserve: bool = False,
        locked: bool = False,
        stack: bool = False,
    ) -> int:
        bits = MAP_SHARED if flags == "shared" else MAP_PRIVATE
        bits |= MAP_ANONYMOUS if file is None else 0
        bits |= MAP_GROWSDOWN if growsdown else 0
        bits |= MAP_POPULATE if populate else 0
        bits |= MAP_NORESERVE if noreserve else 0
        bits |= MAP_LOCKED if locked else 0
        bits |= MAP_STACK if stack else 0
        if addr is not None:
            bits |= MAP_FIXED_NOREPLACE if noreplace else MAP_FIXED
        fd = (1 << 64) - 1 if file is None else self._fd_of(file)
        return self._call("mmap", (hint or 0) if addr is None else addr, length, _prot(prot), bits, fd, offset)

    def munmap(self, addr: int, length: int) -> None:
        self._call("munmap", addr, length)

    def mprotect(self, addr: int, length: int, prot: str) -> None:
        self._call("mprotect", addr, length, _prot(prot))

    def mremap(
        self,
        start: int,
        old_size: int,
        new_size: int,
        addr: int | None = None,
        *,
        maymove: bool = True,
        dontunmap: bool = False,
    ) -> int:
        flags = MREMAP_MAYMOVE if maymove else 0
        flags |= (MREMAP_FIXED if addr is not None else 0) | (MREMAP_DONTUNMAP if dontunmap else 0)
        return self._call("mremap", start, old_size, new_size, flags, addr or 0)

    def madvise(self, addr: int, length: int, advice: str) -> None:
        self._call("madvise", addr, length, MADVICE[advice])

    def mlock(self, addr: int, length: int, *, onfault: bool = False) -> None:
        if onfault:
            self._call("mlock2", addr, length, MLOCK_ONFAULT)
        else:
            self._call("mlock", addr, length)

    def munlock(self, addr: int, length: int) -> None:
        self._call("munlock", addr, length)

    def mlockall(self, *, current: bool = True, future: bool = False, onfault: bool = False) -> None:
        flags = (MCL_CURRENT if current else 0) | (MCL_FUTURE if future else 0) | (MCL_ONFAULT if onfault else 0)
        self._call("mlockall", flags)

    def munlockall(self) -> None:
        self._call("munlockall")

    def brk(self, addr: int) -> int:
        return self._call("brk", addr)

    def read(self, addr: int, length: int) -> None:
        self._touch("read", addr, length)

    def write(self, addr: int, length: int) -> None:
        self._touch("write", addr, length)

    # -- the family

    def fork(self) -> Puppet:
        self._ask("fork")
        return self._admit(self.stage.new_mm())

    def clone_vm(self) -> Puppet:
        self._ask("borrow", 0)
        return self._admit(self.mm)

    def vfork(self) -> Puppet:
        """A child in this address space; this puppet answers again when the child has exited."""
        self._ask("borrow", 1)
        self._blocked = True
        return self.stage.admit(None, self.mm)

    def exit(self) -> None:
        """Exit, and wait until the address space is gone: the kernel drops it before it closes the connection."""
        self._ask("exit")
        if self._received():
            raise PuppetDied(f"puppet {self.pid} answered instead of exiting")
        self.stage.dismiss(self)

    # -- how it is done

    def drain(self) -> None:
        """Empty the batches in which pages wait on this CPU; needs a process without locked memory."""
        self._call("drain")

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        return not ended.poll(0)

    def kill(self) -> None:
        """Make sure that the process is gone, or going, and forget it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._connection.close()
        os.close(self._pidfd)
        os.close(self.pagemap)

    def _touch(self, how: str, addr: int, length: int) -> None:
        first = addr & -PAGE
        self._ask(how, first, (addr + length - first + PAGE - 1) // PAGE)
        _, signal_number = self._answer()
        if signal_number:
            raise OSError(errno.EFAULT, f"{how}: {signal.Signals(signal_number).name}")

    def _call(self, name: str, *args: int) -> int:
        self._ask(name, *args)
        result, error = self._answer()
        if error:
            raise OSError(error, f"{name}: {os.strerror(error)}")
        return result

    def _admit(self, mm: int) -> Puppet:
        pid, error = self._answer()
        if error:
            raise OSError(error, f"fork: {os.strerror(error)}")
        return self.stage.admit(pid, mm)

    def _fd_of(self, file: RealFile) -> int:
        if id(file) not in self._files:
            self._wait_for_vfork()
            request = _REQUEST.pack(NUMBER_OF["take_file"], *[0] * 6)
            self._reaching(lambda: socket.send_fds(self._connection, [request], [file.fd]))
            self._files[id(file)], _ = self._answer()
        return self._files[id(file)]

    def _ask(self, name: str, *args: int) -> None:
        self._wait_for_vfork()
        values = [arg & _WORD for arg in args] + [0] * (6 - len(args))
        request = _REQUEST.pack(NUMBER_OF[name], *values)
        self._reaching(lambda: self._connection.send(request))

    def _wait_for_vfork(self) -> None:
        # Its child has exited, so the call returns now.
        if self._blocked:
            self._answer()
            self._blocked = False

    def _answer(self) -> tuple[int, int]:
        data = self._received()
        if len(data) != _ANSWER.size:
            raise PuppetDied(f"puppet {self.pid} is gone")
        result, error = _ANSWER.unpack(data)
        return result, error

    def _received(self) -> bytes:
        return self._reaching(lambda: self._connection.recv(_ANSWER.size))

    def _reaching(self, exchange: Callable[[], T]) -> T:
        # What a dead or stopped puppet makes of the connection is no errno of a memory call.
        try:
            return exchange()
        except TimeoutError:
            raise PuppetDied(f"puppet {self.pid} has not answered for {PATIENCE:.0f} seconds") from None
        except OSError as error:
            raise PuppetDied(f"puppet {self.pid} is gone ({error.strerror})") from None


def greeting(connection: socket.socket) -> int:
    """The pid with which a new puppet introduces itself; 0 if it went away before it did."""
    data = connection.recv(_ANSWER.size)
    return int(_ANSWER.unpack(data)[0]) if len(data) == _ANSWER.size else 0


def _prot(letters: str) -> int:
    return sum(bit for letter, bit in PROT.items() if letter in letters)
