"""A model that is recorded: what it does becomes the events of a trace, as a recorder would see them.

So a trace of known content can be made without a recorder, with actors that no event shows wherever a test wants them.
"""

from __future__ import annotations

from collections.abc import Callable

from rmap.errors import SyscallError
from rmap.kernel import Kernel, Process
from rmap.kernel.inodes import Inodes
from rmap.kernel.process import OpenFile
from rmap.mm.mm_types import START_BRK
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import PRESENT, RW
from rmap.trace import Trace, TraceBuilder
from rmap.trace.tables import CLONE_VM
from rmap.uapi import mman
from rmap.uapi.unistd import NR as NUMBER
from rmap.units import PAGE_SIZE

PROTS = {"": 0, "r": 1, "rw": 3, "rx": 5, "rwx": 7}


class RecordedModel:
    """A machine and the trace of it.

    Attributes:
        kernel: the machine that is recorded.
        made: the trace so far.
    """

    def __init__(self, nr_pages: int = 1 << 14, **about: object) -> None:
        self.kernel = Kernel(nr_pages=nr_pages, nr_swap=nr_pages)
        self.made = TraceBuilder(**about)
        self._files: dict[str, tuple[OpenFile, int]] = {}

    # -- processes ------------------------------------------------------------------------------------------------
    def first(self, pid: int = 100) -> Process:
        """The recorded program: its address space begins empty, at an exec."""
        process = self.kernel.spawn(pid=pid)
        self.made.exec(pid, self.kernel.snapshot())
        self.brk(process, 0)
        return process

    def exec(self, process: Process) -> None:
        """A new, empty address space."""
        alone = Kernel(nr_pages=64, nr_swap=0, nr_tables=64)
        alone.spawn(pid=process.pid)
        snapshot = alone.snapshot()
        self.kernel.exec(process, snapshot, Inodes(self.kernel.core))
        process.mm.start_brk = process.mm.brk = START_BRK
        self.made.exec(process.pid, snapshot)
        self.brk(process, 0)

    def fork(self, parent: Process, pid: int) -> Process:
        """Fork."""
        child = self.kernel.fork(parent, pid=pid)
        self.made.fork(parent.pid, pid)
        return child

    def vfork(self, parent: Process, pid: int) -> Process:
        """A process that shares the mm."""
        child = self.kernel.clone_vm(parent, pid=pid)
        self.made.fork(parent.pid, pid, flags=CLONE_VM)
        return child

    def exit(self, process: Process) -> None:
        """Exit."""
        self.made.exit(process.pid)
        process.exit()

    # -- memory ---------------------------------------------------------------------------------------------------
    def file(self, name: str, size: int, *, shmem: bool = False) -> OpenFile:
        """Open a file, in the page cache whole."""
        opened = self.kernel.open(name, size, shmem=shmem)
        if not shmem:
            opened.read_in()
        assert opened.file.mapping is not None
        row = self.made.file(name, dev=0, inode=opened.file.mapping.id, size=size, shmem=shmem)
        self._files[name] = opened, self.made.open(row)
        return opened

    def write(self, process: Process, addr: int, pages: int = 1) -> None:
        """Write pages, each with a fault if the entry does not allow it."""
        for at in range(addr, addr + pages * PAGE_SIZE, PAGE_SIZE):
            entry = self.kernel.core.tables.mv[ptep_of(process.mm, at)]
            if entry & (PRESENT | RW) != PRESENT | RW:
                self.made.fault(process.pid, at, write=True)
            process.write(at)

    def read(self, process: Process, addr: int, pages: int = 1) -> None:
        """Read pages, each with a fault if there is none."""
        for at in range(addr, addr + pages * PAGE_SIZE, PAGE_SIZE):
            if not self.kernel.core.tables.mv[ptep_of(process.mm, at)] & PRESENT:
                self.made.fault(process.pid, at)
            process.read(at)

    def mmap(
        self,
        process: Process,
        pages: int,
        *,
        prot: str = "rw",
        shared: bool = False,
        file: str = "",
        offset: int = 0,
        addr: int | None = None,
        stack: bool = False,
    ) -> int:
        """Map memory; ``addr`` is MAP_FIXED."""
        opened, row = self._files[file] if file else (None, -1)
        kind = "shared" if shared else "private"
        result = process.mmap(pages * PAGE_SIZE, prot, kind, file=opened, offset=offset, addr=addr, stack=stack)
        flags = mman.MAP_SHARED if shared else mman.MAP_PRIVATE
        flags |= (0 if file else mman.MAP_ANONYMOUS) | (mman.MAP_FIXED if addr else 0)
        flags |= mman.MAP_STACK if stack else 0
        fd = 3 if file else -1
        arguments = (addr or 0, pages * PAGE_SIZE, PROTS[prot], flags, fd, offset)
        self.made.syscall(process.pid, NUMBER["mmap"], *arguments, result=result, file=row)
        return result

    def munmap(self, process: Process, addr: int, pages: int) -> None:
        """Unmap."""
        process.munmap(addr, pages * PAGE_SIZE)
        self.made.syscall(process.pid, NUMBER["munmap"], addr, pages * PAGE_SIZE)

    def mprotect(self, process: Process, addr: int, pages: int, prot: str) -> None:
        """Change a protection, with whatever answer."""
        result = _answer(lambda: process.mprotect(addr, pages * PAGE_SIZE, prot))
        self.made.syscall(process.pid, NUMBER["mprotect"], addr, pages * PAGE_SIZE, PROTS[prot], result=result)

    def madvise(self, process: Process, addr: int, pages: int, advice: str) -> None:
        """Give advice, with whatever answer."""
        number = mman.MADVICE[advice]
        result = _answer(lambda: process.madvise(addr, pages * PAGE_SIZE, advice))
        self.made.syscall(process.pid, NUMBER["madvise"], addr, pages * PAGE_SIZE, number, result=result)

    def mremap(self, process: Process, addr: int, old: int, new: int) -> int:
        """Resize, with leave to move."""
        result = process.mremap(addr, old * PAGE_SIZE, new * PAGE_SIZE)
        arguments = (addr, old * PAGE_SIZE, new * PAGE_SIZE, mman.MREMAP_MAYMOVE)
        self.made.syscall(process.pid, NUMBER["mremap"], *arguments, result=result)
        return result

    def brk(self, process: Process, addr: int) -> int:
        """Move the heap's end."""
        result = process.brk(addr)
        self.made.syscall(process.pid, NUMBER["brk"], addr, result=result)
        return result

    # -- pictures -------------------------------------------------------------------------------------------------
    def checkpoint(self, *, end: bool = False) -> None:
        """A picture of every process."""
        self.made.checkpoint(self.kernel.snapshot(), end=end)

    def build(self) -> Trace:
        """The trace so far."""
        return self.made.build()


def _answer(call: Callable[[], None]) -> int:
    try:
        call()
    except SyscallError as refusal:
        return -(refusal.errno or 0)
    return 0
