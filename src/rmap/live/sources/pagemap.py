"""/proc/PID/pagemap, one entry at a time (rule 8.2). Plain numbers: whoever asks for one page loads no NumPy."""

from __future__ import annotations

import os

from rmap.live.sources import procfs
from rmap.live.sources.root import root_path
from rmap.snapshot import flags as f
from rmap.uapi.pagemap import FIRST_SPECIAL_TYPE, PM_GUARD_REGION, PM_PFRAME_MASK, PM_SWAP
from rmap.units import PAGE_SHIFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_BITS = (1 << 64) - 1


def open_pagemap(pid: int) -> int:
    """Open the pagemap of a process; the descriptor.

    Raises:
        FileNotFoundError, ProcessLookupError: the process has ended.
        PermissionError: this user may not read it.
    """
    return os.open(root_path(f"/proc/{pid}/pagemap"), os.O_RDONLY | os.O_CLOEXEC)


class PagemapFile:
    """The open pagemap of one process; a context manager.

    Raises (all methods):
        ProcessLookupError: the process has ended, or has no memory of its own.
        PermissionError: this user may not read it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = open_pagemap(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def entry(self, address: int) -> int:
        """The 64 bits of one entry, as a signed number."""
        data = os.pread(self._fd, 8, address >> PAGE_SHIFT << 3)
        if len(data) != 8:
            raise ProcessLookupError(f"process {self.pid} ended")
        return int.from_bytes(data, "little", signed=True)

    def fill(self, view: memoryview, page: int) -> None:
        """Read as many entries as fit into a buffer of bytes, from a page number on."""
        if os.preadv(self._fd, [view], page * 8) != len(view):
            raise ProcessLookupError(f"process {self.pid} ended")


def entry_of(pid: int, address: int) -> int:
    """The 64 bits of one entry of a process, unsigned.

    Raises:
        FileNotFoundError, ProcessLookupError: the process has ended.
        PermissionError: this user may not read it.
    """
    with PagemapFile(pid) as entries:
        return entries.entry(address) & _BITS


def slot_of(entry: int) -> tuple[int, int] | None:
    """The area and slot of swap that an entry names, None for every other entry that is not present."""
    area, slot = f.swap_place(entry & PM_PFRAME_MASK)
    if not entry & PM_SWAP or entry & PM_GUARD_REGION or area >= max(FIRST_SPECIAL_TYPE, procfs.nr_swap_areas()):
        return None
    return area, slot
