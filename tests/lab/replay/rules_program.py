"""A program whose every child does what one rule of memory management is about, and exits.

Recorded by ``test_rules_program.py`` with a picture at each exit. Prints the name of each rule before its child runs.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable

PAGE = 4096
RW, R, NONE = 3, 1, 0
PRIVATE, SHARED, FIXED, ANONYMOUS = 2, 1, 0x10, 0x20
GROWSDOWN, LOCKED, NORESERVE, POPULATE, STACK = 0x100, 0x2000, 0x4000, 0x8000, 0x20000

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = libc.shmat.restype = libc.sbrk.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.sbrk.argtypes = [ctypes.c_long]
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]
for name in ("munmap", "mlock", "munlock"):
    getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
for name in ("mprotect", "madvise"):
    getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def new(pages: int, *, prot: int = RW, flags: int = PRIVATE | ANONYMOUS, at: int = 0, fd: int = -1) -> int:
    """Map; ``at`` is MAP_FIXED."""
    found = libc.mmap(at or None, pages * PAGE, prot, flags | (FIXED if at else 0), fd, 0)
    if not found or found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return int(found)


def write(addr: int, pages: int = 1) -> None:
    """Write to pages."""
    for at in range(addr, addr + pages * PAGE, PAGE):
        ctypes.c_char.from_address(at).value = b"x"


def read(addr: int, pages: int = 1) -> None:
    """Read from pages."""
    for at in range(addr, addr + pages * PAGE, PAGE):
        bytes(ctypes.c_char.from_address(at))


def child(job: Callable[[], None]) -> None:
    """Fork, do a job there, and wait; if that fails, so does this process."""
    pid = os.fork()
    if not pid:
        job()
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{job.__name__} failed")


def scratch(pages: int) -> int:
    """A descriptor of a nameless file of so many pages in the current folder, read in."""
    handle = os.open(".", os.O_TMPFILE | os.O_RDWR)
    os.write(handle, b"x" * pages * PAGE)
    return handle


def stacks_do_not_merge() -> None:
    """MAP_STACK is VM_NOHUGEPAGE."""
    area = new(12, prot=NONE)
    new(4, at=area)
    new(4, at=area + 4 * PAGE, flags=PRIVATE | ANONYMOUS | STACK)
    new(4, at=area + 8 * PAGE, flags=PRIVATE | ANONYMOUS | STACK)
    write(area, 12)


def advice_splits_and_merges() -> None:
    """Flags of advice are flags of areas."""
    area = new(32)
    write(area, 8)
    for first, advice in ((2, 12), (6, 14), (10, 15), (14, 16), (18, 10), (22, 18), (26, 1)):
        libc.madvise(area + first * PAGE, 2 * PAGE, advice)
    libc.madvise(area + 2 * PAGE, 2 * PAGE, 13)
    libc.madvise(area + 14 * PAGE, 2 * PAGE, 17)
    libc.madvise(area + 26 * PAGE, 2 * PAGE, 0)
    libc.madvise(new(4, flags=SHARED | ANONYMOUS), 2 * PAGE, 12)


def everything_is_locked() -> None:
    """mlockall for now and for later; the heap and new areas are locked and faulted in."""
    area = new(4)
    libc.mlockall(3)
    new(4)
    libc.sbrk(8 * PAGE)
    libc.munlock(area, PAGE)
    libc.mlockall(6)
    new(4)
    libc.munlockall()
    libc.mlockall(1)


def reservations_differ() -> None:
    """MAP_NORESERVE is a flag, and so is being charged."""
    area = new(12, prot=R)
    new(4, at=area + 4 * PAGE, flags=PRIVATE | ANONYMOUS | NORESERVE)
    libc.mprotect(area, 2 * PAGE, RW)
    libc.mprotect(area + 8 * PAGE, 2 * PAGE, RW)
    libc.mprotect(area, 2 * PAGE, R)


def mappings_are_moved() -> None:
    """mremap: grown in place, moved, left behind, cut."""
    area = new(8)
    write(area, 8)
    target = new(64, prot=NONE)
    libc.mremap(area, 4 * PAGE, 4 * PAGE, 3, target)
    libc.mremap(area + 4 * PAGE, 2 * PAGE, 2 * PAGE, 1 | 2 | 4, target + 8 * PAGE)
    libc.munmap(target + 16 * PAGE, 16 * PAGE)
    libc.mremap(target + 8 * PAGE, 2 * PAGE, PAGE, 1, 0)
    other = new(2)
    write(other, 2)
    libc.mremap(other, 2 * PAGE, 700 * PAGE, 1, 0)


def heaps_of_children() -> None:
    """A forked child's heap grows into a second area."""
    libc.sbrk(4 * PAGE)

    def grow() -> None:
        write(int(libc.sbrk(8 * PAGE)), 8)
        libc.sbrk(-2 * PAGE)

    child(grow)


def files_are_copied_and_cut() -> None:
    """Private copies of pages of a file, shared writes, truncation, holes."""
    fd = scratch(16)
    private, shared = new(16, flags=PRIVATE, fd=fd), new(16, flags=SHARED, fd=fd)
    read(private, 4)
    write(private + 2 * PAGE, 4)
    write(shared, 12)
    os.ftruncate(fd, 9 * PAGE + 5)
    libc.madvise(shared, 2 * PAGE, 9)
    os.ftruncate(fd, 12 * PAGE)
    write(shared + 11 * PAGE)


def shared_memory_of_all_kinds() -> None:
    """Anonymous, memfd, SysV; written by a child, too."""
    nameless = new(8, flags=SHARED | ANONYMOUS)
    memory = os.memfd_create("m")
    os.ftruncate(memory, 8 * PAGE)
    named = new(8, flags=SHARED, fd=memory)
    segment = libc.shmget(0, 8 * PAGE, 0o1600)
    attached = int(libc.shmat(segment, None, 0))
    libc.shmctl(segment, 0, None)
    write(nameless, 3)

    def more() -> None:
        write(nameless + 2 * PAGE, 3)
        write(named, 2)
        write(attached, 4)

    child(more)
    read(named, 8)
    again = int(libc.shmat(segment, None, 0o10000))
    libc.shmdt(again if again > 0 else attached)


def what_children_inherit() -> None:
    """MADV_DONTFORK, MADV_WIPEONFORK; pages shared, copied, and taken over."""
    area = new(16)
    write(area, 16)
    libc.madvise(area + 4 * PAGE, 2 * PAGE, 10)
    libc.madvise(area + 8 * PAGE, 2 * PAGE, 18)
    pid = os.fork()
    if not pid:
        write(area, 2)
        write(area + 8 * PAGE)
        os._exit(0)
    os.waitpid(pid, 0)
    write(area, 4)
    libc.mprotect(area + 12 * PAGE, 2 * PAGE, R)
    libc.mprotect(area + 12 * PAGE, 2 * PAGE, RW)
    write(area + 12 * PAGE, 2)


def stacks_grow() -> None:
    """A MAP_GROWSDOWN area grows by faults below it."""
    hole = new(1024, prot=NONE)
    libc.munmap(hole, 1024 * PAGE)
    top = new(2, at=hole + 1000 * PAGE, flags=PRIVATE | ANONYMOUS | GROWSDOWN)
    write(top - 5 * PAGE)
    write(top - 3 * PAGE, 2)


def populated_at_once() -> None:
    """MAP_POPULATE, MAP_LOCKED and MADV_POPULATE take no faults."""
    new(4, flags=PRIVATE | ANONYMOUS | POPULATE)
    new(4, flags=PRIVATE | ANONYMOUS | LOCKED)
    libc.madvise(new(4), 3 * PAGE, 23)
    libc.madvise(new(4), 3 * PAGE, 22)
    new(4, flags=SHARED | ANONYMOUS | POPULATE)
    new(8, flags=PRIVATE | POPULATE, fd=scratch(8))


def holes_leave_calls_half_done() -> None:
    """mprotect and madvise over a hole; a call refused."""
    area = new(8)
    write(area, 8)
    libc.munmap(area + 4 * PAGE, PAGE)
    libc.mprotect(area + 2 * PAGE, 5 * PAGE, R)
    libc.madvise(area, 8 * PAGE, 4)
    libc.mremap(area, 3 * PAGE, 5 * PAGE, 1, 0)
    libc.munmap(area + 1, PAGE)


def the_zero_device() -> None:
    """A private mapping of /dev/zero is anonymous and keeps its offset; a shared one has a file of its own."""
    fd = os.open("/dev/zero", os.O_RDWR)
    private = new(8, flags=PRIVATE, fd=fd)
    read(private, 2)
    write(private + PAGE, 3)
    shared = new(8, flags=SHARED, fd=fd)
    write(shared, 2)
    child(lambda: write(private, 8))
    libc.mremap(private, 8 * PAGE, 12 * PAGE, 1, 0)


def advice_about_pages() -> None:
    """MADV_COLD, PAGEOUT, FREE, WILLNEED, DONTNEED: of private memory, of a file, of what a child shares."""
    area = new(24)
    write(area, 24)
    mapped = new(16, flags=PRIVATE, fd=scratch(16))
    libc.madvise(mapped, 16 * PAGE, 3)
    read(mapped, 16)
    for first, advice in ((0, 20), (4, 8), (8, 21), (12, 4)):
        libc.madvise(area + first * PAGE, 3 * PAGE, advice)
    write(area + 4 * PAGE)
    libc.madvise(mapped, 4 * PAGE, 4)

    def drop() -> None:
        write(area + 16 * PAGE, 2)
        libc.madvise(area + 16 * PAGE, 4 * PAGE, 4)
        libc.madvise(area + 20 * PAGE, 4 * PAGE, 21)
        write(area + 17 * PAGE)

    child(drop)


def a_line_of_descendants() -> None:
    """Fork and exit in a line takes up old anon_vmas again."""
    area = new(4)
    write(area, 4)
    # The pids of a line are read at its end: each waits for its child, and the last exits first.
    for depth in range(4):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            write(area + depth * PAGE)
            os._exit(0)
        write(area + depth % 4 * PAGE)
        new(2, at=0)


RULES = (
    stacks_do_not_merge,
    advice_splits_and_merges,
    everything_is_locked,
    reservations_differ,
    mappings_are_moved,
    heaps_of_children,
    files_are_copied_and_cut,
    shared_memory_of_all_kinds,
    what_children_inherit,
    stacks_grow,
    populated_at_once,
    holes_leave_calls_half_done,
    the_zero_device,
    advice_about_pages,
    a_line_of_descendants,
)


def main() -> None:
    """One child for each rule; what rules a child's child is about shows at that child's exit, too."""
    for rule in RULES:
        print(rule.__name__, flush=True)
        child(rule)


if __name__ == "__main__":
    assert mmap.PAGESIZE == PAGE and sys.platform == "linux"
    main()
