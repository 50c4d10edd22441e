"""A machine driven by calls that are plain data: ``("write", 0, 0x200000, 4096)`` writes in the first process.

Calls name processes by their place in the order of birth, and pages by where they are mapped, so that the same
list of calls means the same on two machines whose frames have other numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeAlias

import numpy as np

from rmap.columns import I64
from rmap.designs.conformance.consumers import Evictor, mkclean, move_pages, referenced
from rmap.errors import SyscallError
from rmap.mm.brk import brk
from rmap.mm.core import Core
from rmap.mm.fault import touch
from rmap.mm.fork import exit_mmap, fork
from rmap.mm.interface import ReverseMapFactory
from rmap.mm.madvise import madvise
from rmap.mm.mlock import mlock, munlock
from rmap.mm.mm_types import File, Mm
from rmap.mm.mmap import mmap, munmap
from rmap.mm.mprotect import mprotect
from rmap.mm.mremap import mremap
from rmap.mm.profile import profile_named
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.mm.remap_file_pages import remap_file_pages
from rmap.mm.truncate import punch_hole, truncate
from rmap.units import PAGE_SHIFT, PAGE_SIZE

Call: TypeAlias = "tuple[str, *tuple[int | str, ...]]"
"""A name of ``SmallMachine.CALLS`` and its arguments."""

NR_PAGES = 2048
NR_TABLES = 512
NR_SWAP = 256
FILE_PAGES = 24


class SmallMachine:
    """One machine under the design, with two files and as many processes as the calls make.

    Args:
        factory: the design.
        profile: the rules of which release.
        scalar_twins: see :class:`rmap.mm.core.Core`.

    Attributes:
        core: the model.
        mms: the living address spaces, in order of birth.
        files: a regular file, a second open of it, and a shmem file.
    """

    def __init__(self, factory: ReverseMapFactory, profile: str, scalar_twins: bool) -> None:
        self.core = Core(factory, profile_named(profile), NR_PAGES, NR_TABLES, NR_SWAP, scalar_twins)
        self.evictor = self.core.reclaimer = Evictor(self.core)
        self.mms: list[Mm] = []
        regular = self.core.new_mapping("file", FILE_PAGES * PAGE_SIZE, shmem=False)
        shmem = self.core.new_mapping("shmem", FILE_PAGES * PAGE_SIZE, shmem=True)
        self.files = [File(regular, "file"), File(regular, "file"), File(shmem, "shmem")]

    def apply(self, call: Call) -> int | None:
        """Make a call; returns its answer, or the errno of a refusal, negative."""
        name, *arguments = call
        try:
            return self.CALLS[name](self, *arguments)
        except SyscallError as refusal:
            return -(refusal.errno or 0)

    def spawn(self) -> None:
        """A process with an empty address space."""
        self.mms.append(self.core.new_mm(None))

    def fork(self, process: int) -> None:
        """A child of a process."""
        self.mms.append(fork(self.core, self.mms[process]))

    def exit(self, process: int) -> None:
        """A process ends."""
        exit_mmap(self.core, self.mms.pop(process))

    def mmap(self, process: int, addr: int, length: int, prot: int, shared: int, file: int, page: int) -> int:
        """Map at an address, in place of what is there; ``file`` -1 is anonymous memory."""
        return mmap(
            self.core,
            self.mms[process],
            length,
            prot=prot,
            shared=bool(shared),
            file=None if file < 0 else self.files[file],
            offset=page * PAGE_SIZE,
            addr=addr,
            fixed=True,
        )

    def munmap(self, process: int, addr: int, length: int) -> None:
        """Unmap a range."""
        munmap(self.core, self.mms[process], addr, length)

    def write(self, process: int, addr: int, length: int) -> None:
        """Write to every page of a range."""
        touch(self.core, self.mms[process], addr, length, True)

    def read(self, process: int, addr: int, length: int) -> None:
        """Read every page of a range."""
        touch(self.core, self.mms[process], addr, length, False)

    def mprotect(self, process: int, addr: int, length: int, prot: int) -> None:
        """Change a range's protection."""
        mprotect(self.core, self.mms[process], addr, length, prot)

    def mremap(self, process: int, addr: int, old_len: int, new_len: int, new_addr: int, dontunmap: int) -> int:
        """Resize, or move to ``new_addr`` if that is not 0."""
        mm = self.mms[process]
        return mremap(self.core, mm, addr, old_len, new_len, new_addr=new_addr or None, dontunmap=bool(dontunmap))

    def madvise(self, process: int, addr: int, length: int, advice: str) -> None:
        """Give advice about a range."""
        madvise(self.core, self.mms[process], addr, length, advice)

    def mlock(self, process: int, addr: int, length: int) -> None:
        """Lock a range."""
        mlock(self.core, self.mms[process], addr, length)

    def munlock(self, process: int, addr: int, length: int) -> None:
        """Unlock a range."""
        munlock(self.core, self.mms[process], addr, length)

    def brk(self, process: int, pages: int) -> int:
        """Set the heap's size."""
        mm = self.mms[process]
        return brk(self.core, mm, mm.start_brk + pages * PAGE_SIZE)

    def truncate(self, file: int, pages: int) -> None:
        """Set a file's size."""
        mapping = self.files[file].mapping
        assert mapping is not None
        truncate(self.core, mapping, pages * PAGE_SIZE)

    def punch_hole(self, file: int, page: int, pages: int) -> None:
        """Drop pages of a file."""
        mapping = self.files[file].mapping
        assert mapping is not None
        punch_hole(self.core, mapping, page * PAGE_SIZE, pages * PAGE_SIZE)

    def remap_file_pages(self, process: int, addr: int, length: int, page: int) -> None:
        """Let a range of a shared file mapping show the pages of its file from ``page`` on."""
        remap_file_pages(self.core, self.mms[process], addr, length, page)

    def evict(self, process: int, addr: int, length: int) -> int:
        """Evict the pages that a range maps, from every process."""
        return self.evictor.reclaim(self.pages(process, addr, length))

    def referenced(self, process: int, addr: int, length: int) -> int:
        """``folio_referenced`` of the pages that a range maps; returns the sum."""
        return referenced(self.core, self.pages(process, addr, length))

    def mkclean(self, process: int, addr: int, length: int) -> int:
        """``folio_mkclean`` of the pages that a range maps; returns how many entries changed."""
        return mkclean(self.core, self.pages(process, addr, length))

    def move_pages(self, process: int, addr: int, length: int) -> int:
        """Migrate the pages that a range maps to other frames; returns how many."""
        return move_pages(self.core, self.pages(process, addr, length))

    def pages(self, process: int, addr: int, length: int) -> I64:
        """The frames that a range maps, each once, in the order of the addresses."""
        pages: list[int] = []
        mm = self.mms[process]
        for vma in mm.overlapping(addr, addr + length):
            for piece in self.core.spans(vma, max(addr, vma.start), min(addr + length, vma.end)):
                entries = piece.entries[(piece.entries & TRACKED_MASK) == PRESENT]
                pages += (entries >> PAGE_SHIFT).tolist()
        return np.array(list(dict.fromkeys(pages)), np.int64)

    CALLS: ClassVar[dict[str, Callable[..., int | None]]] = {
        call.__name__: call
        for call in (
            spawn, fork, exit, mmap, munmap, write, read, mprotect, mremap, madvise, mlock, munlock, brk, truncate,
            punch_hole, remap_file_pages, evict, referenced, mkclean, move_pages,
        )
    }  # fmt: skip
    """Every call, by name."""
