"""offset, told by real processes on the running kernel: a fork, an munmap in the child, and what /proc says then.

The child does nothing but unmap a page, say so through a pipe and wait; it ends when the other pipe closes, and so
also when its parent is killed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from rmap.errors import NotPermitted, SourceError
from rmap.lab.results import Story, StoryStep
from rmap.live.doctor.abilities import abilities
from rmap.live.sources.kpage_columns import read_counts
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.procfs import read_maps
from rmap.uapi.mman import PROT_NONE
from rmap.uapi.pagemap import PM_PFRAME_MASK

PRIVATE_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
TRIES = 3

TITLE = "Is a page at the same offset from vm_start in every VMA that maps it? No."
CLOSING = (
    "One frame, two offsets. The kernel finds both places from the page's index and each VMA's vm_pgoff, never from an"
    " offset.",
    "/proc does not show the vm_pgoff of anonymous memory; `rmap explain offset` shows the arithmetic in the model.",
)


def tell_live() -> Story:
    """Fork a real process, let it unmap a page, and read both page tables.

    Raises:
        NotPermitted: the kernel does not show page frames to this user.
        SourceError: the page would not stay in place while it was read (it was being moved).
    """
    missing = abilities().missing("frames", "page_state")
    if missing is not None:
        raise NotPermitted(
            f"page frames of the running kernel cannot be seen here: {missing}",
            needed="CAP_SYS_ADMIN (page frames)",
            works="rmap explain offset, the same in the model",
        )
    with _two_pages() as start:
        second = start + mmap.PAGESIZE
        parent = os.getpid()
        before, vma_before = _look(parent, second)
        with _child_without(start) as child:
            for _ in range(TRIES):
                in_parent, vma_parent = _look(parent, second)
                in_child, vma_child = _look(child, second)
                count = int(read_counts(np.array([in_parent], np.int64))[0])
                if in_parent == _look(parent, second)[0]:
                    break
            else:
                raise SourceError("the page did not stay in place while it was read: try again")
    first = StoryStep(
        f"parent (process {parent}): mmap 2 pages, write both",
        (_vma_line("parent", vma_before), _page_line(before, second - vma_before[0])),
    )
    second_step = StoryStep(
        f"fork; the child (process {child}) unmaps the first page",
        (_vma_line("child", vma_child), _page_line(in_child, second - vma_child[0])),
    )
    third = StoryStep(
        "both page tables, read from /proc/PID/pagemap",
        (
            f"parent  PTE at {second:#x}: pfn {in_parent:#x}   offset {second - vma_parent[0]:#x}",
            f"child   PTE at {second:#x}: pfn {in_child:#x}   offset {second - vma_child[0]:#x}",
            f"the kernel counts {count} mappings of the frame (/proc/kpagecount)",
        ),
    )
    holds = in_parent == in_child and count == 2 and vma_parent[0] != vma_child[0]
    return Story("offset", "", TITLE, (first, second_step, third), CLOSING, holds, live=True)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _checked(result: int, call: str) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")


@contextmanager
def _two_pages() -> Iterator[int]:
    # Two writable pages between two that nobody may touch, so that their VMA is theirs alone.
    libc, page = _libc(), mmap.PAGESIZE
    region = libc.mmap(None, 4 * page, PROT_NONE, PRIVATE_ANONYMOUS, -1, 0)
    if region in (None, ctypes.c_void_p(-1).value):
        _checked(1, "mmap")
    try:
        start = region + page
        _checked(libc.mprotect(start, 2 * page, mmap.PROT_READ | mmap.PROT_WRITE), "mprotect")
        ctypes.memset(start, 1, 2 * page)
        yield start
    finally:
        libc.munmap(region, 4 * page)


@contextmanager
def _child_without(start: int) -> Iterator[int]:
    # A child that has unmapped one page and waits until this block is left.
    libc = _libc()
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(to_child)
        failed = libc.munmap(start, mmap.PAGESIZE)
        os.write(to_parent, b"!" if failed else b".")
        os.read(from_parent, 1)
        os._exit(0)
    try:
        os.close(to_parent)
        if os.read(from_child, 1) != b".":
            raise SourceError("the child could not unmap its page")
        yield pid
    finally:
        os.close(to_child)
        os.close(from_parent)
        os.close(from_child)
        os.waitpid(pid, 0)


def _look(pid: int, address: int) -> tuple[int, tuple[int, int]]:
    # The frame at an address, and the VMA around it.
    with Pagemap(pid) as pagemap:
        frame = pagemap.entry(address) & PM_PFRAME_MASK
    for line in read_maps(pid):
        if line.start <= address < line.end:
            return frame, (line.start, line.end)
    raise SourceError(f"process {pid} has nothing mapped at {address:#x}")


def _vma_line(name: str, vma: tuple[int, int]) -> str:
    return f"{name:<8}VMA {vma[0]:#x}-{vma[1]:#x}"


def _page_line(pfn: int, offset: int) -> str:
    return f"page B: pfn {pfn:#x}   offset {offset:#x}"
