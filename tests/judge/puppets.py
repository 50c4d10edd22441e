"""Real processes on strings: they make the memory calls they are told to make, and /proc says what came of it.

A :class:`Stage` mirrors ``rmap.Kernel`` and a :class:`Puppet` mirrors ``rmap.Process`` as far as the stories of this
directory need, so that one story runs on both. The processes themselves are ``puppet.c``, compiled when first needed.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from judge.picture import PFN_BITS, PM_PRESENT, Area, Entry, Picture, entry_of, picture, read_areas, read_pages

PAGE = 4096
PATIENCE = 20.0  # seconds to wait for an answer: a puppet that needs longer is dead or stuck

# Same order as `enum operation` in puppet.c.
OPERATIONS = (
    *("read", "write", "fork", "borrow", "take_file", "exit"),
    *("mmap", "munmap", "mprotect", "mremap", "madvise", "mlock", "mlock2", "munlock", "brk"),
)
PROT = {"r": 0x1, "w": 0x2, "x": 0x4}
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x1, 0x2, 0x10, 0x20
MAP_GROWSDOWN, MAP_LOCKED, MAP_NORESERVE, MAP_POPULATE, MAP_FIXED_NOREPLACE = 0x100, 0x2000, 0x4000, 0x8000, 0x100000
MLOCK_ONFAULT = 1
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
ADVICE = {
    "normal": 0, "random": 1, "sequential": 2, "willneed": 3, "dontneed": 4, "free": 8, "dontfork": 10, "dofork": 11,
    "wipeonfork": 18, "keeponfork": 19, "cold": 20, "pageout": 21, "populate_read": 22, "populate_write": 23,
}  # fmt: skip
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2

_REQUEST = struct.Struct("=q6Q")
_ANSWER = struct.Struct("=qq")


@lru_cache(maxsize=1)
def puppet_program() -> Path | None:
    """The compiled puppet, or None where no C compiler links it statically."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("puppet.c")
    folder = Path(tempfile.mkdtemp(prefix="rmap-puppet-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "puppet"
    command = [compiler, "-O2", "-static", "-no-pie", str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, check=False)
    return program if built.returncode == 0 else None


def missing_ability() -> str | None:
    """What this machine lacks for puppets to be driven and seen, in words; None if nothing."""
    if os.geteuid() != 0:
        return "root (page frames are hidden from others)"
    for path in ("/proc/self/pagemap", "/proc/kpagecount", "/proc/kpageflags"):
        if not os.access(path, os.R_OK):
            return path
    if not _sees_own_frames():
        return "CAP_SYS_ADMIN (pagemap shows PFN 0)"
    if os.uname().machine != "x86_64":
        return "x86-64"
    if puppet_program() is None:
        return "a C compiler that links statically"
    return None


def _sees_own_frames() -> bool:
    # Some page of this program is present; without the right its PFN reads as 0.
    areas = read_areas(os.getpid(), 0, 1 << 47)
    return any(raw & PM_PRESENT and raw & PFN_BITS for raw in read_pages(os.getpid(), areas[:3]))


class PuppetDied(Exception):
    """A puppet went away without being told to: a bug of the scenario or of the puppet, never an answer."""


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
        _fallocate(self.fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


class Puppet:
    """One real process, with the methods of ``rmap.Process``.

    A refused call raises ``OSError`` with Linux's errno; a touch that ends in SIGSEGV or SIGBUS raises EFAULT.
    """

    def __init__(self, stage: Stage, connection: socket.socket, pid: int) -> None:
        self.stage = stage
        self.pid = pid
        self._connection = connection
        self._pidfd = os.pidfd_open(pid)
        self._files: dict[int, int] = {}
        self._blocked = False

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
    ) -> int:
        bits = MAP_SHARED if flags == "shared" else MAP_PRIVATE
        bits |= MAP_ANONYMOUS if file is None else 0
        bits |= MAP_GROWSDOWN if growsdown else 0
        bits |= MAP_POPULATE if populate else 0
        bits |= MAP_NORESERVE if noreserve else 0
        bits |= MAP_LOCKED if locked else 0
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
        self._call("madvise", addr, length, ADVICE[advice])

    def mlock(self, addr: int, length: int, *, onfault: bool = False) -> None:
        if onfault:
            self._call("mlock2", addr, length, MLOCK_ONFAULT)
        else:
            self._call("mlock", addr, length)

    def munlock(self, addr: int, length: int) -> None:
        self._call("munlock", addr, length)

    def brk(self, addr: int) -> int:
        return self._call("brk", addr)

    def read(self, addr: int, length: int) -> None:
        self._touch("read", addr, length)

    def write(self, addr: int, length: int) -> None:
        self._touch("write", addr, length)

    # -- the family

    def fork(self) -> Puppet:
        self._ask("fork")
        return self.stage.admit(self._child_pid())

    def clone_vm(self) -> Puppet:
        self._ask("borrow", 0)
        return self.stage.admit(self._child_pid())

    def vfork(self) -> Puppet:
        """A child in this address space; this puppet answers again when the child has exited."""
        self._ask("borrow", 1)
        self._blocked = True
        return self.stage.admit(None)

    def exit(self) -> None:
        """Exit, and wait until the address space is gone: the kernel drops it before it closes the connection."""
        self._ask("exit")
        if self._connection.recv(_ANSWER.size):
            raise PuppetDied(f"puppet {self.pid} answered instead of exiting")
        self.stage.dismiss(self)

    # -- what /proc says

    def maps(self) -> list[Area]:
        return self.stage.areas_of(self)

    # -- how it is done

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._connection.close()
        os.close(self._pidfd)

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

    def _child_pid(self) -> int:
        pid, error = self._answer()
        if error:
            raise OSError(error, f"fork: {os.strerror(error)}")
        return pid

    def _fd_of(self, file: RealFile) -> int:
        if id(file) not in self._files:
            request = _REQUEST.pack(OPERATIONS.index("take_file"), *[0] * 6)
            socket.send_fds(self._connection, [request], [file.fd])
            self._files[id(file)], _ = self._answer()
        return self._files[id(file)]

    def _ask(self, name: str, *args: int) -> None:
        if self._blocked:
            self._answer()  # the child of vfork has exited: now the call returns
            self._blocked = False
        values = [arg & (1 << 64) - 1 for arg in args] + [0] * (6 - len(args))
        self._connection.send(_REQUEST.pack(OPERATIONS.index(name), *values))

    def _answer(self) -> tuple[int, int]:
        data = self._connection.recv(_ANSWER.size)
        if len(data) != _ANSWER.size:
            raise PuppetDied(f"puppet {self.pid} is gone")
        result, error = _ANSWER.unpack(data)
        return result, error


def _prot(letters: str) -> int:
    return sum(bit for letter, bit in PROT.items() if letter in letters)


class Stage:
    """Where puppets live: the real counterpart of a ``Kernel``. Close it, and every process is gone."""

    LOW, HIGH = 0x10000000, 0x7FFFF9000000
    """The addresses looked at: above a puppet's own program, below its stack."""

    def __init__(self, cpu: int | None = None) -> None:
        program = puppet_program()
        if program is None:
            raise RuntimeError("no puppet program: ask missing_ability() first")
        self.puppets: list[Puppet] = []
        self._files: list[RealFile] = []
        self._paths: dict[str, str] = {}
        self._made: list[int] = []
        self._folder = Path(tempfile.mkdtemp(prefix="rmap-judge-"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.settimeout(PATIENCE)
        self._listener.bind(str(self._folder / "socket"))
        self._listener.listen(64)
        cpu = max(os.sched_getaffinity(0)) if cpu is None else cpu
        self._process = subprocess.Popen([program, str(self._folder / "socket"), str(cpu)])
        self._kpagecount = os.open("/proc/kpagecount", os.O_RDONLY)
        self._kpageflags = os.open("/proc/kpageflags", os.O_RDONLY)
        self._master = self.admit(self._process.pid)
        self.puppets.clear()

    def spawn(self) -> Puppet:
        """A process with nothing mapped in the window."""
        return self._master.fork()

    def open(self, name: str, size: int, *, shmem: bool = False, writable: bool = True) -> RealFile:
        """Open a file; the first time it is made, with ``size`` bytes, all of them in the page cache.

        Written page by page: a file system that writes more at once puts it into large folios, which are mapped,
        and split on truncation, as a whole.

        Args:
            name: of a file on disk, or in memory only (``shmem``); or ``/dev/zero``.
            writable: opened for reading and writing.
        """
        path = self._paths.get(name)
        if path is None:
            path = self._paths[name] = self._make_file(name, size, shmem)
        file = RealFile(name, os.open(path, os.O_RDWR if writable else os.O_RDONLY))
        self._files.append(file)
        return file

    def _make_file(self, name: str, size: int, shmem: bool) -> str:
        if name == "/dev/zero":
            return name
        fd = os.memfd_create(name) if shmem else os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        for offset in range(0, size, PAGE):
            os.pwrite(fd, b"\x01" * min(PAGE, size - offset), offset)
        self._made.append(fd)
        return f"/proc/self/fd/{fd}"

    # -- what the kernel says

    def pfn(self, process: Puppet, addr: int) -> int | None:
        entry = read_pages(process.pid, [Area(addr & -PAGE, (addr & -PAGE) + PAGE, "")])[0]
        return entry & PFN_BITS if entry & PM_PRESENT else None

    def mapcount(self, pfn: int) -> int:
        return _u64(self._kpagecount, pfn)

    def is_zero_page(self, pfn: int) -> bool:
        return bool(_u64(self._kpageflags, pfn) >> 24 & 1)

    def areas_of(self, process: Puppet) -> list[Area]:
        names = {file.key: file.name for file in self._files}
        return read_areas(process.pid, self.LOW, self.HIGH, names)

    def look(self) -> Picture:
        """Every live puppet, in the order they were made."""
        return picture([self._see(puppet) for puppet in self.puppets], self.mapcount)

    def _see(self, process: Puppet) -> tuple[list[Area], list[Entry]]:
        areas = self.areas_of(process)
        return areas, [entry_of(raw, self.is_zero_page) for raw in read_pages(process.pid, areas)]

    # -- who is there

    def admit(self, pid: int | None) -> Puppet:
        """Let the next process in; it must be ``pid``, if that is known."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        greeted, _ = _ANSWER.unpack(connection.recv(_ANSWER.size))
        if pid is not None and greeted != pid:
            raise PuppetDied(f"expected puppet {pid}, but {greeted} came")
        puppet = Puppet(self, connection, greeted)
        self.puppets.append(puppet)
        return puppet

    def dismiss(self, puppet: Puppet) -> None:
        """A puppet has exited."""
        self.puppets.remove(puppet)
        puppet.kill()

    def close_puppets(self) -> None:
        """Kill every process except the stage itself."""
        for puppet in self.puppets:
            puppet.kill()
        self.puppets.clear()

    def close(self) -> None:
        """Kill every process, by pid, and remove what they left."""
        self.close_puppets()
        self._master.kill()
        self._process.wait()
        self._listener.close()
        for fd in (self._kpagecount, self._kpageflags, *self._made, *(file.fd for file in self._files)):
            os.close(fd)
        shutil.rmtree(self._folder)


def _u64(fd: int, number: int) -> int:
    return int.from_bytes(os.pread(fd, 8, number * 8), "little")
