"""A process of the model, and a file it opened: every call a program makes, under its name.

Addresses and lengths are in bytes. A call that Linux would refuse raises ``SyscallError`` with Linux's errno and
changes nothing, except where Linux itself leaves the part before a hole changed (mprotect, mlock, madvise).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import NamedTuple

from rmap.errors import SyscallError, UsageError
from rmap.kernel.inodes import read_in
from rmap.kernel.machine import Machine, Task
from rmap.mm import brk, fault, madvise, mlock, mmap, mprotect, mremap, remap_file_pages, truncate
from rmap.mm.core import Core
from rmap.mm.mm_types import File, Mm, Vma
from rmap.uapi.vm_flags import VM_EXEC, VM_READ, VM_WRITE
from rmap.units import PAGE_SHIFT

PROT_LETTERS = {"r": VM_READ, "w": VM_WRITE, "x": VM_EXEC, "-": 0}


class PteRef(NamedTuple):
    """One answer of a walk: a page-table entry, named by process and address.

    Attributes:
        pid: the process; the lowest pid of those that share the mm.
        address: in bytes.
    """

    pid: int
    address: int

    def __repr__(self) -> str:
        return f"PteRef(pid={self.pid}, address={self.address:#x})"


@dataclass(frozen=True, slots=True)
class MapsRow:
    """One line of /proc/PID/maps.

    Attributes:
        start, end: addresses in bytes, end exclusive.
        prot: as ``rw-p``.
        flags: the ``VM_*`` bits.
        pgoff: the page index of ``start``. /proc shows it for files only; the model knows it for all.
        file: a path, or None.
    """

    start: int
    end: int
    prot: str
    flags: int
    pgoff: int
    file: str | None

    def __repr__(self) -> str:
        return f"MapsRow({self})"

    def __str__(self) -> str:
        name = f"  {self.file}" if self.file else ""
        return f"{self.start:x}-{self.end:x} {self.prot} {self.pgoff << PAGE_SHIFT:08x}{name}"


def parse_prot(prot: str) -> int:
    """``"rw"`` as ``VM_*`` bits.

    Raises:
        UsageError: another letter than r, w, x.
    """
    try:
        return sum(PROT_LETTERS[letter] for letter in set(prot))
    except KeyError:
        raise UsageError(f"prot is made of the letters r, w and x, not {prot!r}") from None


class OpenFile:
    """An open file: what ``Kernel.open`` returns. Two opens of one file do not merge their mappings (rule 3.1)."""

    __slots__ = ("_core", "file")

    def __init__(self, core: Core, file: File) -> None:
        self._core = core
        self.file = file

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.mapping.size if self.file.mapping is not None else 0

    def truncate(self, size: int) -> None:
        """Set the size in bytes; pages beyond it leave every process, private copies included.

        Raises:
            SyscallError: EINVAL: a negative size, a device, or opened for reading only.
            LimitError: larger than the model holds.
        """
        mapping = self.file.mapping
        if size < 0 or mapping is None or not self.file.writable:
            raise SyscallError(errno.EINVAL, "ftruncate", f"{self}, size {size:,}")
        truncate.truncate(self._core, mapping, size)

    def punch_hole(self, offset: int, length: int) -> None:
        """Drop the whole pages of a range in bytes; private copies stay.

        Raises:
            SyscallError: EINVAL: an empty or negative range; EBADF: opened for reading only; ENODEV: a device; EFBIG:
                beyond the largest file.
        """
        mapping = self.file.mapping
        if offset < 0 or length <= 0:
            raise SyscallError(errno.EINVAL, "fallocate", f"offset {offset:,}, length {length:,}")
        if not self.file.writable:
            raise SyscallError(errno.EBADF, "fallocate", f"{self} is open for reading only")
        if mapping is None:
            raise SyscallError(errno.ENODEV, "fallocate", f"{self} is a device")
        if offset + length > mmap.MAX_FILE_OFFSET:
            raise SyscallError(errno.EFBIG, "fallocate", f"offset {offset:,}, length {length:,}")
        truncate.punch_hole(self._core, mapping, offset, length)

    def read_in(self) -> None:
        """Bring the whole file into the page cache, as ``cat`` would."""
        if self.file.mapping is not None:
            read_in(self._core, self.file.mapping)

    def __repr__(self) -> str:
        return f"OpenFile({self.file.name!r}, {self.size:,} bytes)"


class Process(Task):
    """A process. Made by ``Kernel.spawn`` and :meth:`fork`.

    Attributes:
        pid: its number.
        parent: the process that forked it, or None.
        mm: its address space; shared after :meth:`vfork` and :meth:`clone_vm`.
        alive: False after :meth:`exit`.
    """

    __slots__ = ("_core", "_machine")
    parent: Process | None

    def __init__(self, machine: Machine[Process], pid: int, mm: Mm, parent: Process | None) -> None:
        super().__init__(pid, mm, parent)
        self._machine = machine
        self._core = machine.core

    # -- touching memory ------------------------------------------------------------------------------------------
    def write(self, addr: int, length: int = 1) -> None:
        """Write to every page of a range."""
        if not self.alive:
            self.must_be_alive()
        fault.touch(self._core, self.mm, addr, length, True)

    def read(self, addr: int, length: int = 1) -> None:
        """Read from every page of a range."""
        if not self.alive:
            self.must_be_alive()
        fault.touch(self._core, self.mm, addr, length, False)

    # -- address space --------------------------------------------------------------------------------------------
    def mmap(
        self,
        length: int,
        prot: str = "rw",
        flags: str = "private",
        file: OpenFile | None = None,
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
        """Map memory; returns the address.

        Args:
            length: in bytes; rounded up to pages.
            prot: letters of ``rwx``.
            flags: ``"private"`` or ``"shared"``.
            file: what to map; None for anonymous memory.
            offset: into the file, in bytes, page aligned.
            addr: map exactly here (MAP_FIXED; with ``noreplace``, refuse to replace anything: EEXIST).
            hint: map here if it is free.
        """
        if flags not in ("private", "shared"):
            raise UsageError(f"flags is 'private' or 'shared', not {flags!r}")
        return mmap.mmap(
            self._alive(),
            self.mm,
            length,
            prot=parse_prot(prot),
            shared=flags == "shared",
            file=file.file if file is not None else None,
            offset=offset,
            addr=hint if addr is None else addr,
            fixed=addr is not None,
            noreplace=noreplace and addr is not None,
            growsdown=growsdown,
            populate=populate,
            noreserve=noreserve,
            locked=locked,
            stack=stack,
        )

    def map_kernel_pages(self, nr_pages: int, kind: str = "vdso") -> int:
        """Map pages that the kernel owns, and that no reverse map tracks; returns the address.

        Args:
            nr_pages: how many pages. The vDSO's are the same in every process.
            kind: ``"vdso"``, or ``"pfnmap"`` for memory of a device.
        """
        self.must_be_alive()
        return self._machine.map_kernel_pages(self, nr_pages, kind)

    def munmap(self, addr: int, length: int) -> None:
        """Unmap a range; holes in it are fine."""
        mmap.munmap(self._alive(), self.mm, addr, length)

    def mprotect(self, addr: int, length: int, prot: str) -> None:
        """Change the protection of a range: letters of ``rwx``, ``""`` for none."""
        mprotect.mprotect(self._alive(), self.mm, addr, length, parse_prot(prot))

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
        """Resize or move a mapping; returns its address.

        Args:
            start: where it is.
            addr: move it exactly there (MREMAP_FIXED).
        """
        return mremap.mremap(
            self._alive(), self.mm, start, old_size, new_size, maymove=maymove, new_addr=addr, dontunmap=dontunmap
        )

    def madvise(self, addr: int, length: int, advice: str) -> None:
        """``madvise``; the advice in lower case, as ``"dontneed"``."""
        madvise.madvise(self._alive(), self.mm, addr, length, advice)

    def mlock(self, addr: int, length: int, *, onfault: bool = False) -> None:
        """Lock a range into memory; faults it in unless ``onfault``."""
        mlock.mlock(self._alive(), self.mm, addr, length, onfault=onfault)

    def munlock(self, addr: int, length: int) -> None:
        """Undo :meth:`mlock`."""
        mlock.munlock(self._alive(), self.mm, addr, length)

    def mlockall(self, *, current: bool = True, future: bool = False, onfault: bool = False) -> None:
        """Lock everything that is mapped (``current``), everything that will be (``future``), or both."""
        mlock.mlockall(self._alive(), self.mm, current=current, future=future, onfault=onfault)

    def munlockall(self) -> None:
        """Undo :meth:`mlockall`, and every :meth:`mlock`."""
        mlock.munlockall(self._alive(), self.mm)

    def remap_file_pages(self, addr: int, length: int, pgoff: int) -> None:
        """Let a part of a shared file mapping show the file's pages from ``pgoff`` on (``addr``, ``length`` in bytes).

        A nonlinear area under a design whose release had them, else one area per range, as Linux does since 4.0.
        """
        remap_file_pages.remap_file_pages(self._alive(), self.mm, addr, length, pgoff)

    def brk(self, addr: int) -> int:
        """Move the end of the heap; returns where it is then (the old place if the kernel refuses)."""
        return brk.brk(self._alive(), self.mm, addr)

    # -- processes ------------------------------------------------------------------------------------------------
    def fork(self) -> Process:
        """A child with a copy-on-write copy of the address space."""
        return self._machine.fork(self)

    def vfork(self) -> Process:
        """A child that borrows the address space until it exits or execs (``CLONE_VFORK | CLONE_VM``)."""
        return self.clone_vm()

    def clone_vm(self) -> Process:
        """Another process in the same address space (``CLONE_VM`` without ``CLONE_THREAD``)."""
        return self._machine.clone_vm(self)

    def exit(self) -> None:
        """End; the address space goes with its last process."""
        self._machine.exit(self)

    # -- looking --------------------------------------------------------------------------------------------------
    def maps(self) -> list[MapsRow]:
        """The areas, as /proc/PID/maps lists them."""
        return [
            MapsRow(v.start, v.end, v.prot(), v.flags, v.pgoff, v.file.name if v.file is not None else None)
            for v in self.mm.vmas
        ]

    def vma(self, addr: int) -> Vma | None:
        """The area that contains an address."""
        return self.mm.find(addr)

    def _alive(self) -> Core:
        self.must_be_alive()
        return self._core

    def __repr__(self) -> str:
        return f"Process({self.pid}, {len(self.mm.vmas)} VMAs)"
