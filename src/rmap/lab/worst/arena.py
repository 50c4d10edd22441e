"""A small machine and a few strong moves: what a search plays with.

One area of anonymous memory and one file, at most :data:`MOST_PROCESSES` processes. A move is a thing that programs do,
not a single call: it names no addresses, so that any two moves can follow each other. A move that makes no sense is
left out."""

from __future__ import annotations

from collections.abc import Callable

from rmap.errors import LimitError, SyscallError
from rmap.kernel import Kernel, OpenFile, Process
from rmap.units import PAGE_SIZE

PAGES = 16
MOST_PROCESSES = 24
FRAMES = 1 << 12
TABLES = 1 << 10


class Arena:
    """A machine under a design.

    Args:
        design: a name.

    Attributes:
        kernel: the machine.
        processes: the living ones, in the order of their birth.
    """

    def __init__(self, design: str) -> None:
        self.kernel = Kernel(design, nr_pages=FRAMES, nr_tables=TABLES, nr_swap=0)
        self.file: OpenFile = self.kernel.open("/file", 2 * PAGES * PAGE_SIZE)
        self.file.read_in()
        first = self.kernel.spawn()
        self.heap = first.mmap(PAGES * PAGE_SIZE)
        self.window = first.mmap(4 * PAGES * PAGE_SIZE, "") + 2 * PAGES * PAGE_SIZE
        self.processes = [first]

    def play(self, sequence: tuple[str, ...]) -> tuple[str, ...]:
        """Make moves; returns those that made sense."""
        made = []
        for name in sequence:
            try:
                if MOVES[name](self):
                    made.append(name)
            except (SyscallError, LimitError):
                continue
        return tuple(made)

    def fork(self, parent: Process) -> bool:
        """One more process, if there may be one."""
        if len(self.processes) >= MOST_PROCESSES:
            return False
        self.processes.append(parent.fork())
        return True


def _each(action: Callable[[Arena, Process], object]) -> Callable[[Arena], bool]:
    def move(arena: Arena) -> bool:
        # Everybody does it; whoever cannot is passed over.
        done = False
        for process in list(arena.processes):
            done = _tried(arena, process, action) or done
        return done

    return move


def _youngest(action: Callable[[Arena, Process], object]) -> Callable[[Arena], bool]:
    return lambda arena: _tried(arena, arena.processes[-1], action)


def _tried(arena: Arena, process: Process, action: Callable[[Arena, Process], object]) -> bool:
    try:
        action(arena, process)
    except SyscallError:
        return False
    return True


def _write(arena: Arena, process: Process) -> None:
    process.write(arena.heap, PAGES * PAGE_SIZE)


def _write_one(arena: Arena, process: Process) -> None:
    process.write(arena.heap, PAGE_SIZE)


def _split(arena: Arena, process: Process) -> None:
    for page in range(0, PAGES, 2):
        process.mprotect(arena.heap + page * PAGE_SIZE, PAGE_SIZE, "r")


def _merge(arena: Arena, process: Process) -> None:
    process.mprotect(arena.heap, PAGES * PAGE_SIZE, "rw")


def _move(arena: Arena, process: Process) -> None:
    target = arena.heap - 2 * PAGES * PAGE_SIZE
    process.mremap(arena.heap, PAGES * PAGE_SIZE, PAGES * PAGE_SIZE, addr=target)


def _move_back(arena: Arena, process: Process) -> None:
    target = arena.heap - 2 * PAGES * PAGE_SIZE
    process.mremap(target, PAGES * PAGE_SIZE, PAGES * PAGE_SIZE, addr=arena.heap)


def _unmap(arena: Arena, process: Process) -> None:
    if process.vma(arena.heap) is None:
        raise SyscallError(14, "munmap")
    process.munmap(arena.heap, PAGES * PAGE_SIZE)


def _windows(arena: Arena, process: Process) -> None:
    for page in range(0, 2 * PAGES, 2):
        at = arena.window + page * PAGE_SIZE
        process.mmap(PAGE_SIZE, flags="shared", file=arena.file, offset=page * PAGE_SIZE, addr=at)


def _whole_file(arena: Arena, process: Process) -> None:
    process.mmap(2 * PAGES * PAGE_SIZE, flags="shared", file=arena.file, addr=arena.window)


def _read_file(arena: Arena, process: Process) -> None:
    for vma in [vma for vma in process.mm.vmas if vma.mapping is not None]:
        process.read(vma.start, vma.end - vma.start)


def _fork_oldest(arena: Arena) -> bool:
    return arena.fork(arena.processes[0])


def _fork_youngest(arena: Arena) -> bool:
    return arena.fork(arena.processes[-1])


def _fork_four(arena: Arena) -> bool:
    return sum(arena.fork(arena.processes[0]) for _ in range(4)) > 0


def _line_of_four(arena: Arena) -> bool:
    return sum(arena.fork(arena.processes[-1]) for _ in range(4)) > 0


def _exit_oldest(arena: Arena) -> bool:
    if len(arena.processes) < 2:
        return False
    arena.processes.pop(0).exit()
    return True


def _exit_youngest(arena: Arena) -> bool:
    if len(arena.processes) < 2:
        return False
    arena.processes.pop().exit()
    return True


MOVES: dict[str, Callable[[Arena], bool]] = {
    "everybody writes the heap": _each(_write),
    "the youngest writes the heap": _youngest(_write),
    "everybody writes one page": _each(_write_one),
    "the oldest forks": _fork_oldest,
    "the oldest forks four": _fork_four,
    "the youngest forks": _fork_youngest,
    "four forks in a line": _line_of_four,
    "the oldest exits": _exit_oldest,
    "the youngest exits": _exit_youngest,
    "everybody splits the heap": _each(_split),
    "the youngest splits the heap": _youngest(_split),
    "everybody merges the heap": _each(_merge),
    "everybody moves the heap": _each(_move),
    "the youngest moves the heap": _youngest(_move),
    "everybody moves it back": _each(_move_back),
    "the youngest unmaps the heap": _youngest(_unmap),
    "everybody maps single pages of the file": _each(_windows),
    "the youngest maps single pages of the file": _youngest(_windows),
    "everybody maps the whole file": _each(_whole_file),
    "everybody reads the file": _each(_read_file),
    "the youngest reads the file": _youngest(_read_file),
}
"""Every move by its name."""
