"""Real processes on strings: each makes, one at a time, the memory calls it is told to make.

A :class:`Puppet` has the methods of ``rmap.Process``, so that one story runs on both. :class:`Puppets` is the real
counterpart of a ``Kernel``: a group of them, and the files that they map. The program that they run is ``puppet.c``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TypeVar

from rmap.errors import NotPermitted
from rmap.lab.conform.program import puppet_program
from rmap.live.sources.pagemap import open_pagemap
from rmap.live.sources.procfs import file_systems, own_descriptor
from rmap.mm.mm_types import START_BRK
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

T = TypeVar("T")

PAGE = 4096
BACKLOG = 64
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
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
_CREDENTIALS = struct.Struct("3i")
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
        inode = os.fstat(self.fd)
        self.key = (inode.st_dev, inode.st_ino)

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
        puppets: the group that it belongs to.
        pid: its number.
        mm: a number for its address space, equal for those that share one.
        pagemap: a descriptor of its page map.
    """

    def __init__(self, puppets: Puppets, connection: socket.socket, pid: int, mm: int) -> None:
        self.puppets = puppets
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
        return self._admit(self.puppets.new_mm())

    def clone_vm(self) -> Puppet:
        self._ask("borrow", 0)
        return self._admit(self.mm)

    def vfork(self) -> Puppet:
        """A child in this address space; this puppet answers again when the child has exited."""
        self._ask("borrow", 1)
        self._blocked = True
        return self.puppets.admit(None, self.mm)

    def exit(self) -> None:
        """Exit, and wait until the address space is gone: the kernel drops it before it closes the connection."""
        self._ask("exit")
        if self._received():
            raise PuppetDied(f"puppet {self.pid} answered instead of exiting")
        self.puppets.dismiss(self)

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
        return self.puppets.admit(pid, mm)

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


class Puppets:
    """Real processes, and the files that they map. Close it, and every process is gone.

    Args:
        cpu: where all of them run; the last of this process's if None.

    Attributes:
        living: the puppets that have not exited, in the order they were made.
        names: what the story calls a file, by device and inode.
    """

    LOW, HIGH = 0x10000000, 0x7FFFF9000000
    """The addresses looked at: above a puppet's own program, below its stack."""

    def __init__(self, cpu: int | None = None) -> None:
        program = puppet_program()
        self.living: list[Puppet] = []
        self.names: dict[tuple[int, int], str] = {}
        self._files: list[RealFile] = []
        self._made: dict[str, int] = {}
        self._mms = count()
        # Nothing in any file system: whatever happens to us, nothing of it is left.
        address = f"rmap-conform-{os.getpid()}-{secrets.token_hex(8)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.settimeout(PATIENCE)
        self._listener.bind(f"\0{address}")
        self._listener.listen(BACKLOG)
        self._cpu = max(os.sched_getaffinity(0)) if cpu is None else cpu
        # A session of their own: Ctrl-C at a terminal is for whoever drives them.
        command = [str(program), address, str(self._cpu)]
        self._process = subprocess.Popen(command, start_new_session=True)
        try:
            self._master = self.admit(self._process.pid, self.new_mm())
            if self._master.brk(0) != START_BRK:
                raise NotPermitted("a puppet could not place its heap", needed="prctl(PR_SET_MM_MAP)")
        except BaseException:
            self._process.kill()
            self._leave()
            raise
        self.living.clear()

    def spawn(self) -> Puppet:
        """A process with nothing mapped where stories happen."""
        return self._master.fork()

    def open(self, name: str, size: int, *, shmem: bool = False, writable: bool = True) -> RealFile:
        """Open a file; the first time it is made, with ``size`` bytes, all of them in the page cache.

        Written page by page: a file system that writes more at once puts it into large folios, which are mapped,
        and split on truncation, as a whole. And written on the CPU of the puppets: a page that waits in another CPU's
        batch is on no list of the kernel's, so it cannot be paged out.

        Args:
            name: of a file on disk, or in memory only (``shmem``); or ``/dev/zero``.
            writable: opened for reading and writing.
        """
        if name != "/dev/zero" and name not in self._made:
            self._made[name] = self._make_file(name, size, shmem)
        path = name if name == "/dev/zero" else own_descriptor(self._made[name])
        file = RealFile(name, os.open(path, os.O_RDWR if writable else os.O_RDONLY))
        self.names[file.key] = name
        self._files.append(file)
        return file

    def _make_file(self, name: str, size: int, shmem: bool) -> int:
        if shmem:
            fd = os.memfd_create(name)
        else:
            with tempfile.TemporaryFile(dir=disk_folder()) as file:  # it never has a name
                fd = os.dup(file.fileno())
        with _running_on(self._cpu):
            for offset in range(0, size, PAGE):
                os.pwrite(fd, b"\x01" * min(PAGE, size - offset), offset)
        return fd

    def drain(self) -> None:
        """Empty the batches in which the puppets' CPU keeps pages that are on their way to a list of the kernel's.

        A page that waits there has a reference more, so that a write copies it which else would take it over. That is
        true of the kernel, but no rule: what waits, and how long, depends on whatever else runs.
        """
        self._master.drain()

    # -- who is there

    def new_mm(self) -> int:
        """A number for a new address space."""
        return next(self._mms)

    def admit(self, pid: int | None, mm: int) -> Puppet:
        """Let the next process in.

        Args:
            pid: which process it must be, if that is known.
            mm: the number of its address space.
        """
        try:
            connection = self._accept()
            greeted = _greeting(connection)
        except TimeoutError:
            raise PuppetDied(f"puppet {pid or ''} did not come within {PATIENCE:.0f} seconds") from None
        if not greeted or (pid is not None and greeted != pid):
            connection.close()
            raise PuppetDied(f"expected puppet {pid}, but {greeted or 'nobody'} came")
        puppet = Puppet(self, connection, greeted, mm)
        self.living.append(puppet)
        return puppet

    def _accept(self) -> socket.socket:
        # Anybody can find the address; only processes of this user are let in.
        while True:
            connection, _ = self._listener.accept()
            connection.settimeout(PATIENCE)
            _, uid, _ = _CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if uid == os.geteuid():
                return connection
            connection.close()

    def dismiss(self, puppet: Puppet) -> None:
        """A puppet has exited."""
        self.living.remove(puppet)
        puppet.kill()

    @property
    def pid(self) -> int:
        """The process from which all puppets come."""
        return self._process.pid

    def must_be_alive(self) -> None:
        """Make sure that what is seen is seen of living processes.

        Raises:
            PuppetDied: one has ended without being told to.
        """
        for puppet in self.living:
            if not puppet.is_alive:
                raise PuppetDied(f"puppet {puppet.pid} is gone")

    # -- the end

    def clear(self) -> None:
        """Kill every process that stories had, and forget every file: the next scenario finds nothing."""
        self.kill_living()
        for fd in (*self._made.values(), *(file.fd for file in self._files)):
            os.close(fd)
        self._made.clear()
        self._files.clear()
        self.names.clear()

    def kill_living(self) -> None:
        """Kill every process that stories had."""
        for puppet in self.living:
            puppet.kill()
        self.living.clear()

    def close(self) -> None:
        """Kill every process, by pid, and remove what they left."""
        self.clear()
        self._master.kill()
        self._leave()

    def _leave(self) -> None:
        self._process.wait()
        self._listener.close()


def _greeting(connection: socket.socket) -> int:
    # The pid with which a new puppet introduces itself; 0 if it went away before it did.
    data = connection.recv(_ANSWER.size)
    return int(_ANSWER.unpack(data)[0]) if len(data) == _ANSWER.size else 0


def _prot(letters: str) -> int:
    return sum(bit for letter, bit in PROT.items() if letter in letters)


@contextmanager
def _running_on(cpu: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@lru_cache(maxsize=1)
def disk_folder() -> Path:
    """A folder whose files are not memory only: those are faulted in otherwise.

    Raises:
        NotPermitted: none of the usual ones is.
    """
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()]
    for folder in candidates:
        if os.access(folder, os.W_OK) and file_systems().get(folder.stat().st_dev, "") not in IN_MEMORY:
            return folder
    raise NotPermitted(
        "no file on disk can be made here", needed=f"one of {', '.join(map(str, candidates))} on a file system on disk"
    )
