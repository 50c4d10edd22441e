"""A load of real processes that has every shape a reverse map must get right; for live tests and benchmarks.

Many workers are forked from one server and share its memory; each then rewrites some of it, takes pages of its own,
maps a file and a memfd at offsets of its own (privately and shared), splits areas by mprotect, moves ranges by mremap.
Some have children; some lines of forks lose a generation in the middle, so that the kernel takes up an old anon_vma
again (rule 2.7). What each does follows from the seed. All hold still then, but for the busy ones, which go on.

It goes away whatever happens: every process dies with the one that stands above it.

    python tests/support/load.py workers=50 pages=100000 vmas=6000      runs until its standard input ends

Few modules are imported: every library is five areas in each of the processes.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple

PAGE = mmap.PAGESIZE
ANON = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MADV_HUGEPAGE = 14
HUGE = 2 << 20
FILE_PAGES = 96
HEAP_PAGES = 512  # what the server has written before it forks
CLOSED_PAGES = 16
LINES = 3
EVERY_CHILD = 8  # every so many workers, one with a child
PATIENCE = 120  # seconds that the setting up may take

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def checked(result: int | None) -> int:
    """The result of a call of the C library; OSError if it failed."""
    if result is None or result in (-1, (1 << 64) - 1):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def area(pages: int, flags: int = ANON, fd: int = -1, offset: int = 0, prot: int = READ | WRITE) -> int:
    """Map so many pages; ``offset`` in pages. Returns the address."""
    return checked(libc.mmap(None, pages * PAGE, prot, flags, fd, offset * PAGE))


def write(address: int, pages: int) -> None:
    """Write a byte to each page."""
    memory = memoryview((ctypes.c_char * (pages * PAGE)).from_address(address)).cast("B")
    memory[::PAGE] = b"x" * pages


def read(address: int, pages: int) -> None:
    """Read a byte of each page."""
    memory = memoryview((ctypes.c_char * (pages * PAGE)).from_address(address)).cast("B")
    bytes(memory[::PAGE])


def move(address: int, pages: int, flags: int = 0) -> int:
    """Move pages to a new place. Returns the address."""
    place = area(pages + 2) + PAGE  # a page free on both sides, so that nothing merges
    checked(libc.munmap(place - PAGE, (pages + 2) * PAGE))
    return checked(libc.mremap(address, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | flags, place))


def protect(address: int, pages: int, prot: int) -> None:
    """mprotect."""
    checked(libc.mprotect(address, pages * PAGE, prot))


# ---- the processes ---------------------------------------------------------------------------------------------------


class Common(NamedTuple):
    """What the server set up before it forked: addresses, descriptors."""

    heap: int
    huge: int
    private: int
    file: int
    memfd: int


def set_up(file: int) -> Common:
    """The memory of the server."""
    os.pwrite(file, os.urandom(FILE_PAGES * PAGE), 0)
    memfd = os.memfd_create("load")
    os.ftruncate(memfd, FILE_PAGES * PAGE)
    heap = area(HEAP_PAGES)
    write(heap, HEAP_PAGES)
    private = area(16, mmap.MAP_PRIVATE, file, 7)
    read(private, 16)
    write(private + 4 * PAGE, 5)
    huge = (area(2 * HUGE // PAGE) + HUGE - 1) // HUGE * HUGE
    libc.madvise(huge, HUGE, MADV_HUGEPAGE)  # where there are none, small pages do
    write(huge, HUGE // PAGE)
    return Common(heap, huge, private, file, memfd)


def own_memory(rng: random.Random, pages: int) -> None:
    """Pages of the worker's own: written, moved, split, some only read (the zero page), some that nobody may use."""
    closed = area(CLOSED_PAGES)
    write(closed, CLOSED_PAGES)
    protect(closed, CLOSED_PAGES, 0)  # PROT_NONE: entries that the processor must not follow
    start = area(pages + 8)
    write(start, pages)
    read(start + pages * PAGE, 8)
    if pages >= 64:
        protect(start + rng.randrange(8, 16) * PAGE, 3, READ)
        move(start + rng.randrange(20, 30) * PAGE, rng.randrange(1, 9))
        move(start + rng.randrange(40, 44) * PAGE, 4, MREMAP_DONTUNMAP)  # two areas of the same index (rule 2.14)
        write(start + 44 * PAGE, 1)


def inherited_memory(rng: random.Random, common: Common) -> None:
    """What a worker does to memory that it shares with its family."""
    first = rng.randrange(0, HEAP_PAGES // 2)
    write(common.heap + first * PAGE, rng.randrange(8, 48))
    if rng.random() < 0.3:
        checked(libc.munmap(common.heap, rng.randrange(1, 4) * PAGE))  # the area begins later here (7a)
    if rng.random() < 0.4:
        moved = move(common.heap + (HEAP_PAGES - 16) * PAGE, 16)  # its tail is elsewhere here (7d)
        write(moved, rng.randrange(1, 8))
    if rng.random() < 0.4:
        protect(common.heap + rng.randrange(300, 400) * PAGE, 8, READ)
    if rng.random() < 0.3:
        write(common.private, rng.randrange(1, 8))
    if rng.random() < 0.1:
        protect(common.huge + rng.randrange(1, 100) * PAGE, 5, READ)  # its huge page is mapped page by page now
    if rng.random() < 0.1:
        write(common.huge + 300 * PAGE, 2)


def files(rng: random.Random, common: Common) -> None:
    """A file and a memfd, at offsets of the worker's own."""
    for fd in (common.file, common.memfd):
        offset = rng.randrange(0, FILE_PAGES - 24)
        shared = area(rng.randrange(8, 24), mmap.MAP_SHARED, fd, offset)
        read(shared, 8)
        if fd == common.memfd:
            write(shared, rng.randrange(1, 8))
        private = area(rng.randrange(8, 24), mmap.MAP_PRIVATE, fd, rng.randrange(0, FILE_PAGES - 24))
        read(private, 8)
        write(private + 3 * PAGE, rng.randrange(1, 4))
        if rng.random() < 0.3:
            protect(private + 4 * PAGE, 2, READ)


def split_until(vmas: int) -> None:
    """Take areas that cannot merge, until there are so many in all."""
    with open("/proc/self/maps", "rb") as maps:
        missing = vmas - maps.read().count(b"\n")
    if missing > 2:
        start = area(missing)
        write(start, missing)
        for page in range(0, missing - 1, 2):
            protect(start + page * PAGE, 1, READ)


class Server:
    """Forks, and learns of every process that is ready."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.pid = os.getpid()
        checked(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))

    def report(self, kind: str) -> None:
        """Say that this process is ready: one line, written at once."""
        os.write(self.writer, f"{os.getpid()} {kind}\n".encode())

    def fork(self, work: Callable[[], None]) -> int:
        """A child that dies with its parent, does its work, and never returns."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with(parent)
                work()
            except BaseException as error:
                os.write(2, f"load: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        return pid

    def line(self, address: int) -> None:
        """Three generations; the middle one goes; the last forks, and the kernel takes up an anon_vma again."""
        gone_reader, gone_writer = os.pipe()

        def middle() -> None:
            if os.fork() == 0:
                os.close(gone_writer)
                os.read(gone_reader, 1)  # the end of the pipe: the middle one is gone
                while os.getppid() != self.pid:
                    if os.getppid() == 1:
                        os._exit(1)
                    time.sleep(0.001)
                die_with(self.pid)
                write(address + 8 * PAGE, 8)
                self.fork(lambda: self.last(address))
                self.report("line")
                rest()
            write(address, 4)
            os._exit(0)

        pid = self.fork(middle)
        os.close(gone_writer)
        os.close(gone_reader)
        os.waitpid(pid, 0)

    def last(self, address: int) -> None:
        """The end of a line."""
        write(address + 20 * PAGE, 4)
        self.report("last")
        rest()

    def wait_for(self, count: int) -> dict[int, str]:
        """The pids of so many processes that are ready."""
        told = b""
        while told.count(b"\n") < count:
            piece = os.read(self.reader, 1 << 16)
            if not piece:
                raise RuntimeError("a process of the load ended")
            told += piece
        return {int(pid): kind for pid, kind in (line.split() for line in told.decode().splitlines())}


def die_with(parent: int) -> None:
    """Be killed when the parent ends; end now if it has ended already."""
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def rest() -> None:
    """Hold still for good."""
    while True:
        signal.pause()


def worker(server: Server, common: Common, number: int, options: SimpleNamespace) -> None:
    """One worker."""
    rng = random.Random(options.seed * 1_000_003 + number)
    inherited_memory(rng, common)
    files(rng, common)
    own_memory(rng, options.pages // options.workers)
    split_until(options.vmas // options.workers)
    if number % EVERY_CHILD == 0:
        child = server.fork(lambda: grandchild(server, common, rng))
        assert child
    server.report("worker")
    if number < options.busy:
        busy(rng, common)
    rest()


def grandchild(server: Server, common: Common, rng: random.Random) -> None:
    """A child of a worker."""
    write(common.heap + (HEAP_PAGES // 2) * PAGE, rng.randrange(1, 32))
    server.report("grandchild")
    rest()


def busy(rng: random.Random, common: Common) -> None:
    """Map, write, split, fork, unmap for ever, never idle for long."""
    while True:
        start = area(64)
        write(start, 64)
        protect(start + rng.randrange(1, 32) * PAGE, 4, READ)
        write(common.heap + rng.randrange(260, 290) * PAGE, 4)  # where nothing was protected or moved
        pid = os.fork()
        if pid == 0:
            write(start + 40 * PAGE, 8)
            os._exit(0)
        os.waitpid(pid, 0)
        checked(libc.munmap(start, 64 * PAGE))
        time.sleep(0.002)


def expected(workers: int) -> int:
    """How many processes report."""
    return workers + len(range(0, workers, EVERY_CHILD)) + 2 * LINES


def serve(options: SimpleNamespace) -> None:
    """Be the server: set up, fork, say who is there, wait for the end of standard input."""
    if options.parent:
        die_with(options.parent)
    signal.alarm(PATIENCE)
    server = Server()
    common = set_up(options.file)
    for _ in range(LINES):
        server.line(common.heap)
    for number in range(options.workers):
        server.fork(lambda number=number: worker(server, common, number, options))  # type: ignore[misc]
    kinds = server.wait_for(expected(options.workers))
    signal.alarm(0)
    print(json.dumps({"server": server.pid, "kinds": kinds, "heap": common.heap}), flush=True)
    sys.stdin.read()
    os._exit(0)


# ---- whoever uses it -------------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """A load that is up.

    Attributes:
        server: pid of the server.
        kinds: what each of the others is: worker, grandchild, line, last.
        heap: address of the memory that all share.
    """

    server: int
    kinds: dict[int, str]
    heap: int

    @property
    def pids(self) -> list[int]:
        """All of them."""
        return sorted([self.server, *self.kinds])


@contextmanager
def load(*, workers: int = 50, pages: int = 5000, vmas: int = 2500, seed: int = 1, busy: int = 0) -> Iterator[Load]:
    """Have a load.

    Args:
        workers: how many are forked from the server.
        pages: pages of their own that they write, all together.
        vmas: areas that they have at least, all together.
        busy: how many of them never hold still.
    """
    import subprocess
    import tempfile

    numbers = {"workers": workers, "pages": pages, "vmas": vmas, "seed": seed, "busy": busy, "parent": os.getpid()}
    with tempfile.TemporaryFile() as file:
        words = [f"{name}={value}" for name, value in {**numbers, "file": file.fileno()}.items()]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[file.fileno()],
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the load did not start")
        told = json.loads(line)
        yield Load(told["server"], {int(pid): kind for pid, kind in told["kinds"].items()}, told["heap"])
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=PATIENCE)


def main(words: list[str]) -> None:
    """Run until standard input ends."""
    options = {"workers": 50, "pages": 5000, "vmas": 2500, "seed": 1, "busy": 0, "parent": 0, "file": -1}
    for word in words:
        name, _, value = word.partition("=")
        if name not in options or not value.isdigit():
            raise SystemExit(f"not an option: {word}; options: {', '.join(f'{name}=N' for name in options)}")
        options[name] = int(value)
    if options["file"] < 0:
        import tempfile

        with tempfile.TemporaryFile() as made:
            options["file"] = os.dup(made.fileno())
    serve(SimpleNamespace(**options))


if __name__ == "__main__":
    main(sys.argv[1:])
