"""Fixed sequences of calls: situations in which reverse maps went wrong, and which random calls meet too seldom."""

from __future__ import annotations

from rmap.designs.conformance.machine import Call
from rmap.uapi.vm_flags import VM_READ, VM_WRITE
from rmap.units import PAGE_SIZE

RW = VM_READ | VM_WRITE
BASE = 0x40000000 - 16 * PAGE_SIZE
FILE, OTHER_OPEN, SHMEM = 0, 1, 2


def at(page: int) -> int:
    """The address of a page of the scenario; page 16 begins another page table."""
    return BASE + page * PAGE_SIZE


def on(call: str, process: int, page: int, pages: int, *more: int | str) -> Call:
    """A call on a range of pages."""
    arguments: tuple[int | str, ...] = (process, at(page), pages * PAGE_SIZE, *more)
    return (call, *arguments)


def anon(process: int, page: int, pages: int, prot: int = RW, shared: int = 0) -> Call:
    """Map anonymous memory."""
    return on("mmap", process, page, pages, prot, shared, -1, 0)


def file(process: int, page: int, pages: int, shared: int = 0, which: int = FILE, first: int = 0) -> Call:
    """Map a file for reading and writing."""
    return on("mmap", process, page, pages, RW, shared, which, first)


def move(process: int, page: int, pages: int, to: int, dontunmap: int = 0) -> Call:
    """Move a range."""
    return on("mremap", process, page, pages, pages * PAGE_SIZE, at(to), dontunmap)


def resize(process: int, page: int, pages: int, new_pages: int) -> Call:
    """Grow or shrink, in place if that can be."""
    return on("mremap", process, page, pages, new_pages * PAGE_SIZE, 0, 0)


SCENARIOS: dict[str, list[Call]] = {
    "two faulted areas, and the gap between them is filled (rule 3.11)": [
        ("spawn",), anon(0, 0, 2), on("write", 0, 0, 2), anon(0, 4, 2), on("write", 0, 4, 2), anon(0, 2, 2),
        on("write", 0, 0, 6), ("fork", 0), on("write", 1, 1, 4), on("munmap", 0, 2, 2), anon(0, 2, 2),
        on("write", 0, 0, 6), on("evict", 1, 0, 6), on("read", 0, 0, 6),
    ],
    "pieces that could not merge when they were faulted (rule 3.11)": [
        ("spawn",), anon(0, 0, 4), on("madvise", 0, 0, 2, "dontfork"), on("write", 0, 0, 4), ("fork", 0),
        on("madvise", 0, 0, 2, "dofork"), on("mprotect", 0, 1, 2, VM_READ), on("mprotect", 0, 1, 2, RW),
        ("fork", 0), on("write", 2, 0, 4), on("write", 0, 0, 4),
    ],
    "an area without pages takes in one that has some (rule 3.5)": [
        ("spawn",), anon(0, 0, 4), on("madvise", 0, 2, 2, "dontfork"), on("write", 0, 2, 2),
        on("madvise", 0, 2, 2, "dofork"), on("write", 0, 0, 1), ("fork", 0), on("write", 1, 0, 4),
        anon(0, 12, 2), anon(0, 16, 2), on("write", 0, 16, 2), anon(0, 14, 2), on("write", 0, 12, 6),
        on("evict", 0, 0, 18), on("read", 0, 12, 6), on("munmap", 0, 2, 1),
    ],
    "new areas beside inherited ones (rules 2.3, 3.8)": [
        ("spawn",), anon(0, 2, 2), on("write", 0, 2, 2), ("fork", 0), anon(1, 4, 2), anon(1, 0, 2),
        on("write", 1, 0, 6), anon(0, 4, 2), on("write", 0, 4, 2), ("fork", 1), on("munmap", 1, 2, 2), anon(1, 2, 2),
        on("write", 1, 1, 4), on("write", 2, 0, 6),
    ],
    "a line of forks whose middle dies (rules 2.5 to 2.7)": [
        ("spawn",), anon(0, 0, 12), on("write", 0, 0, 12), ("fork", 0), on("write", 1, 0, 3), ("fork", 1),
        on("write", 2, 2, 3), ("exit", 1), ("fork", 1), on("write", 1, 4, 8), on("write", 2, 4, 1), ("exit", 1),
        ("fork", 1), on("write", 2, 0, 12), ("exit", 0), on("write", 0, 0, 12), on("write", 1, 0, 12),
    ],
    "the last owner writes: the page changes its anchor (rules 4.7, 4.8)": [
        ("spawn",), anon(0, 0, 12), on("write", 0, 0, 12), ("fork", 0), ("exit", 0), on("write", 0, 0, 1),
        on("write", 0, 1, 11), ("fork", 0), on("munmap", 1, 0, 6), on("write", 0, 0, 12), on("write", 1, 6, 6),
    ],
    "a hole in the child only (rule 2.12)": [
        ("spawn",), anon(0, 0, 12), on("write", 0, 0, 12), ("fork", 0), on("munmap", 1, 0, 1), on("munmap", 1, 5, 2),
        on("munmap", 0, 11, 1), on("evict", 0, 0, 12), on("write", 1, 1, 4), on("read", 0, 0, 11),
    ],
    "splits that merge again, with long chains (rule 3.10)": [
        ("spawn",), anon(0, 10, 12), on("write", 0, 10, 12), ("fork", 0), ("fork", 1),
        on("mprotect", 2, 12, 3, VM_READ), on("mlock", 2, 18, 2), on("mprotect", 2, 12, 3, RW),
        on("munlock", 2, 18, 2), on("write", 2, 10, 12),
        on("mprotect", 0, 10, 1, 0), on("mprotect", 0, 10, 12, RW),
    ],
    "moves: to another place, over a boundary, and back (rules 2.13, 3.6)": [
        ("spawn",), anon(0, 0, 10), on("write", 0, 0, 10), ("fork", 0), move(0, 0, 10, 30), move(1, 3, 2, 50),
        on("write", 0, 30, 10), on("write", 1, 50, 2), move(0, 30, 10, 0), move(1, 50, 2, 3), resize(0, 0, 10, 14),
        on("write", 0, 0, 14), resize(0, 0, 14, 2), ("fork", 0), move(2, 0, 1, 40), on("evict", 0, 0, 2),
    ],
    "one interval of one anon_vma twice (rule 2.14)": [
        ("spawn",), anon(0, 0, 12), on("write", 0, 0, 12), move(0, 2, 6, 40, 1), on("write", 0, 2, 6),
        on("referenced", 0, 0, 12), ("fork", 0), on("evict", 0, 0, 12), on("read", 1, 0, 12), on("write", 1, 40, 6),
        move(0, 0, 1, 60), anon(0, 0, 1), on("write", 0, 0, 1),
    ],
    "whole tables move (rule 2.13)": [
        ("spawn",), anon(0, 16, 600), on("write", 0, 16, 600), ("fork", 0), move(0, 16, 600, 16 + 2048),
        on("write", 0, 16 + 2048, 3), on("read", 1, 16, 600), move(1, 16, 512, 16 + 1024),
        on("munmap", 1, 16 + 1030, 4), on("referenced", 1, 16 + 1024, 512),
    ],
    "shared pages swapped out and in (rules 4.3, 4.6, 4.12)": [
        ("spawn",), anon(0, 0, 12), on("write", 0, 0, 12), on("evict", 0, 0, 3), ("fork", 0), on("evict", 0, 3, 9),
        on("read", 1, 0, 6), on("read", 0, 0, 12), on("write", 1, 4, 8), ("exit", 0), on("write", 0, 0, 12),
        on("evict", 0, 0, 12), on("write", 0, 0, 12), on("madvise", 0, 0, 6, "pageout"), on("read", 0, 0, 2),
    ],
    "locked memory keeps its pages (rule 5.8)": [
        ("spawn",), anon(0, 0, 10), on("write", 0, 0, 10), ("fork", 0), ("fork", 0), on("mlock", 1, 2, 4),
        on("evict", 0, 0, 10), on("referenced", 1, 0, 10), on("munlock", 1, 2, 4), on("evict", 1, 0, 10),
        on("write", 2, 0, 10),
    ],
    "files: shared, private, copied, truncated, punched (rules 4.10, 5.8)": [
        ("spawn",), file(0, 0, 12), on("read", 0, 0, 12), on("write", 0, 2, 4), file(0, 20, 6, 1, OTHER_OPEN, 3),
        on("write", 0, 20, 6), ("fork", 0), on("read", 1, 0, 12), on("write", 1, 4, 4), on("mkclean", 0, 20, 6),
        ("punch_hole", FILE, 4, 3), on("write", 0, 20, 6), ("truncate", FILE, 6), on("munmap", 1, 3, 2),
        on("move_pages", 0, 0, 6), ("fork", 1), on("evict", 1, 0, 6), on("read", 2, 0, 3),
    ],
    "shmem and shared anonymous memory (rules 2.10, 4.11)": [
        ("spawn",), file(0, 0, 10, 1, SHMEM), anon(0, 20, 10, RW, 1), on("write", 0, 0, 10), on("write", 0, 20, 10),
        ("fork", 0), on("write", 1, 0, 10), on("read", 1, 20, 10), on("mprotect", 1, 22, 3, VM_READ),
        move(1, 24, 3, 40), ("punch_hole", SHMEM, 2, 3), on("write", 0, 0, 10), ("exit", 0), on("read", 0, 20, 4),
    ],
    "pages of a file in any order (remap_file_pages)": [
        ("spawn",), file(0, 0, 12, 1), on("write", 0, 0, 12), on("remap_file_pages", 0, 2, 3, 8),
        on("remap_file_pages", 0, 8, 1, 0), ("fork", 0), on("read", 1, 0, 12), on("write", 1, 2, 1),
        on("remap_file_pages", 1, 0, 1, 0), on("referenced", 0, 0, 12), on("evict", 0, 8, 2), on("read", 0, 8, 4),
        on("mprotect", 0, 4, 2, VM_READ), ("punch_hole", FILE, 8, 2), on("read", 1, 0, 12), move(1, 2, 4, 40),
        on("madvise", 0, 2, 4, "dontneed"), on("read", 0, 0, 12), on("move_pages", 0, 0, 4), on("munmap", 0, 3, 2),
    ],
    "chains grow over several blocks, and shrink from either end": [
        ("spawn",), anon(0, 0, 10), on("write", 0, 0, 10), *[("fork", 0)] * 15, ("exit", 15), ("exit", 1), ("exit", 7),
        on("write", 3, 0, 10), on("write", 0, 0, 1), on("evict", 5, 0, 2), on("move_pages", 4, 0, 10),
        *[("exit", 1)] * 12, on("referenced", 0, 0, 10), on("write", 0, 0, 10),
    ],
    "wiped and withheld from the child (rule 2.20)": [
        ("spawn",), anon(0, 0, 9), on("write", 0, 0, 9), on("madvise", 0, 0, 3, "wipeonfork"),
        on("madvise", 0, 6, 3, "dontfork"), ("fork", 0), on("write", 1, 0, 6), on("madvise", 0, 0, 3, "keeponfork"),
        ("fork", 1), on("write", 2, 0, 6), on("madvise", 0, 0, 9, "free"), on("evict", 0, 0, 9),
    ],
}  # fmt: skip
"""Calls by the name of the situation."""
