"""Where puppets live: the real counterpart of a ``Kernel``, with its processes and files."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path

from rmap.errors import NotPermitted
from rmap.lab.conform.program import puppet_program
from rmap.lab.conform.puppets import PAGE, PATIENCE, Puppet, PuppetDied, RealFile, greeting
from rmap.live.sources.procfs import file_systems, own_descriptor
from rmap.mm.mm_types import START_BRK

BACKLOG = 64
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_CREDENTIALS = struct.Struct("3i")


class Stage:
    """Real processes, and the files that they map. Close it, and every process is gone.

    Args:
        cpu: where all of them run; the last of this process's if None.

    Attributes:
        puppets: the living ones, in the order they were made.
        names: what the story calls a file, by device and inode.
    """

    LOW, HIGH = 0x10000000, 0x7FFFF9000000
    """The addresses looked at: above a puppet's own program, below its stack."""

    def __init__(self, cpu: int | None = None) -> None:
        program = puppet_program()
        self.puppets: list[Puppet] = []
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
        self.puppets.clear()

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
            greeted = greeting(connection)
        except TimeoutError:
            raise PuppetDied(f"puppet {pid or ''} did not come within {PATIENCE:.0f} seconds") from None
        if not greeted or (pid is not None and greeted != pid):
            connection.close()
            raise PuppetDied(f"expected puppet {pid}, but {greeted or 'nobody'} came")
        puppet = Puppet(self, connection, greeted, mm)
        self.puppets.append(puppet)
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
        self.puppets.remove(puppet)
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
        for puppet in self.puppets:
            if not puppet.is_alive:
                raise PuppetDied(f"puppet {puppet.pid} is gone")

    # -- the end

    def clear(self) -> None:
        """Kill every process except the stage itself, and forget every file: the next scenario finds it as new."""
        self.close_puppets()
        for fd in (*self._made.values(), *(file.fd for file in self._files)):
            os.close(fd)
        self._made.clear()
        self._files.clear()
        self.names.clear()

    def close_puppets(self) -> None:
        """Kill every process except the stage itself."""
        for puppet in self.puppets:
            puppet.kill()
        self.puppets.clear()

    def close(self) -> None:
        """Kill every process, by pid, and remove what they left."""
        self.clear()
        self._master.kill()
        self._leave()

    def _leave(self) -> None:
        self._process.wait()
        self._listener.close()


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
