"""The smallest world in which everything happens: two processes and four pages, and an alphabet of concrete calls.

The pages lie where the heap of a fresh process begins, so that brk works on the same pages as mmap. A file of four
pages can be mapped over them at two different offsets. Every letter is one call with its process and its arguments;
a letter whose process does not live in a state has no meaning there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmap import Kernel, LimitError, Process, SyscallError
from rmap.mm.mm_types import START_BRK
from tests.support import PAGE

BASE = START_BRK
PAGES = 4
"""Pages of the world; addresses beyond are used as the target of a growth only."""


def at(page: int) -> int:
    """The address of a page of the world."""
    return BASE + page * PAGE


class World:
    """A machine, two places for processes, and a file.

    Args:
        design: the reverse map.
        scalar_twins: as of :class:`rmap.Kernel`.

    Attributes:
        first, second: the processes, None where there is none.
        file: four pages, all in memory.
    """

    def __init__(self, design: str, *, scalar_twins: bool = True, profile: str = "6.18") -> None:
        self.kernel = Kernel(design, profile, 160, nr_swap=32, nr_tables=24, scalar_twins=scalar_twins)
        self.first: Process | None = self.kernel.spawn()
        self.second: Process | None = None
        self.file = self.kernel.open("file", PAGES * PAGE)
        self.file.read_in()

    def mapped_pages(self) -> np.ndarray:
        """The frames that something maps."""
        return np.flatnonzero(self.kernel.core.frames.mapcount)

    def play(self, letter: Letter) -> str:
        """Make one call.

        Returns:
            ``""``, or what the call was refused with.
        """
        try:
            letter.call(self)
        except SyscallError as refusal:
            return refusal.strerror or "refused"
        except LimitError:
            return "out of memory"
        return ""


@dataclass(frozen=True)
class Letter:
    """One call.

    Attributes:
        name: for a reader.
        needs: whose turn it is: ``first``, ``second``, ``both``, ``fork`` (the first lives, the second does not),
            ``refork`` (the other way round), or ``any``.
        call: makes it.
        partial: Linux itself leaves a part done when it refuses this call (a hole in the range).
    """

    name: str
    needs: str
    call: Callable[[World], object]
    partial: bool = False

    def applies(self, world: World) -> bool:
        """Whether the letter has a meaning in this state."""
        first, second = world.first is not None, world.second is not None
        return {
            "first": first,
            "second": second,
            "both": first and second,
            "fork": first and not second,
            "refork": second and not first,
            "any": True,
        }[self.needs]


def _first(name: str, call: Callable[[Process], object], partial: bool = False) -> Letter:
    return Letter(f"first {name}", "first", lambda world: call(_of(world.first)), partial)


def _second(name: str, call: Callable[[Process], object], partial: bool = False) -> Letter:
    return Letter(f"second {name}", "second", lambda world: call(_of(world.second)), partial)


def _of(process: Process | None) -> Process:
    if process is None:
        raise LookupError("a letter was played whose process does not live")
    return process


def _fork(world: World) -> None:
    world.second = _of(world.first).fork()


def _refork(world: World) -> None:
    world.first = _of(world.second).fork()


def _clone(world: World) -> None:
    world.second = _of(world.first).clone_vm()


def _end_first(world: World) -> None:
    _of(world.first).exit()
    world.first = None


def _end_second(world: World) -> None:
    _of(world.second).exit()
    world.second = None


def _map_file(world: World, prot: str, flags: str, first: int, count: int, offset: int) -> None:
    _of(world.first).mmap(count * PAGE, prot, flags, world.file, offset * PAGE, at(first))


def _evict(world: World, process: Process | None, page: int) -> None:
    pfn = world.kernel.pfn(_of(process), at(page))
    if pfn:
        world.kernel.reclaim([pfn])


def _unmap(world: World, process: Process | None, page: int) -> None:
    pfn = world.kernel.pfn(_of(process), at(page))
    if pfn:
        world.kernel.try_to_unmap(pfn)


ALPHABET: tuple[Letter, ...] = (
    # mmap: private anonymous, stack, shared anonymous, the file private and shared at different offsets.
    _first("mmap 0-4", lambda p: p.mmap(4 * PAGE, addr=at(0))),
    _first("mmap 1-3 shared", lambda p: p.mmap(2 * PAGE, "rw", "shared", addr=at(1))),
    _second("mmap 2-3", lambda p: p.mmap(PAGE, addr=at(2))),
    _first("mmap 3-4 growsdown", lambda p: p.mmap(PAGE, addr=at(3), growsdown=True)),
    Letter("first mmap 0-2 of file+1", "first", lambda w: _map_file(w, "rw", "private", 0, 2, 1)),
    Letter("first mmap 2-4 of file shared", "first", lambda w: _map_file(w, "rw", "shared", 2, 2, 0)),
    _first("munmap 1-2", lambda p: p.munmap(at(1), PAGE)),
    _second("munmap 0-2", lambda p: p.munmap(at(0), 2 * PAGE)),
    # Touching.
    _first("write 0-4", lambda p: p.write(at(0), 4 * PAGE)),
    _first("write 1-2", lambda p: p.write(at(1), PAGE)),
    _second("write 1-3", lambda p: p.write(at(1), 2 * PAGE)),
    _first("read 2-4", lambda p: p.read(at(2), 2 * PAGE)),
    _second("read 0-1", lambda p: p.read(at(0), PAGE)),
    # Processes.
    Letter("first fork", "fork", _fork),
    Letter("second fork", "refork", _refork),
    Letter("first clone_vm", "fork", _clone),
    Letter("first exit", "both", _end_first),
    Letter("second exit", "both", _end_second),
    # mremap: a move, a growth in place, old memory kept, a shrink.
    _first("mremap 0-1 to 3", lambda p: p.mremap(at(0), PAGE, PAGE, at(3))),
    _first("mremap 1-2 to 1-3", lambda p: p.mremap(at(1), PAGE, 2 * PAGE)),
    _first("mremap 2-3 to 0 dontunmap", lambda p: p.mremap(at(2), PAGE, PAGE, at(0), dontunmap=True)),
    _second("mremap 0-2 to 2", lambda p: p.mremap(at(0), 2 * PAGE, 2 * PAGE, at(2))),
    _second("mremap 2-4 to 2-3", lambda p: p.mremap(at(2), 2 * PAGE, PAGE)),
    # Flags.
    _first("mprotect 1-2 r", lambda p: p.mprotect(at(1), PAGE, "r"), partial=True),
    _first("mprotect 0-4 rw", lambda p: p.mprotect(at(0), 4 * PAGE, "rw"), partial=True),
    _second("mprotect 0-3 none", lambda p: p.mprotect(at(0), 3 * PAGE, ""), partial=True),
    _first("mlock 1-2", lambda p: p.mlock(at(1), PAGE), partial=True),
    _second("mlock 0-4 onfault", lambda p: p.mlock(at(0), 4 * PAGE, onfault=True), partial=True),
    _first("munlock 0-4", lambda p: p.munlock(at(0), 4 * PAGE), partial=True),
    # madvise.
    _first("dontneed 1-3", lambda p: p.madvise(at(1), 2 * PAGE, "dontneed"), partial=True),
    _second("dontneed 0-1", lambda p: p.madvise(at(0), PAGE, "dontneed"), partial=True),
    _first("free 0-4", lambda p: p.madvise(at(0), 4 * PAGE, "free"), partial=True),
    _first("dontfork 1-2", lambda p: p.madvise(at(1), PAGE, "dontfork"), partial=True),
    _first("dofork 0-4", lambda p: p.madvise(at(0), 4 * PAGE, "dofork"), partial=True),
    _first("wipeonfork 2-3", lambda p: p.madvise(at(2), PAGE, "wipeonfork"), partial=True),
    _first("pageout 0-4", lambda p: p.madvise(at(0), 4 * PAGE, "pageout"), partial=True),
    _second("populate_write 0-4", lambda p: p.madvise(at(0), 4 * PAGE, "populate_write"), partial=True),
    # The heap.
    _first("brk 2", lambda p: p.brk(at(2))),
    _second("brk 3", lambda p: p.brk(at(3))),
    _first("brk 0", lambda p: p.brk(at(0))),
    # The file.
    Letter("truncate 1", "any", lambda w: w.file.truncate(PAGE)),
    Letter("truncate 4", "any", lambda w: w.file.truncate(4 * PAGE)),
    Letter("punch 1-3", "any", lambda w: w.file.punch_hole(PAGE, 2 * PAGE)),
    # Memory pressure.
    Letter("reclaim all", "any", lambda w: w.kernel.reclaim(w.mapped_pages())),
    Letter("reclaim first's 1", "first", lambda w: _evict(w, w.first, 1)),
    Letter("unmap first's 0", "first", lambda w: _unmap(w, w.first, 0)),
    Letter("unmap second's 2", "second", lambda w: _unmap(w, w.second, 2)),
    Letter("referenced all", "any", lambda w: w.kernel.folio_referenced(w.mapped_pages())),
    Letter("mkclean all", "any", lambda w: w.kernel.folio_mkclean(_file_pages(w))),
)

BY_NAME = {letter.name: letter for letter in ALPHABET}


def _file_pages(world: World) -> np.ndarray:
    frames = world.kernel.core.frames
    mapped = world.mapped_pages()
    return mapped[(frames.flags[mapped] & 1) == 0]


OPENINGS: dict[str, tuple[str, ...]] = {
    "empty": (),
    "written": ("first mmap 0-4", "first write 0-4"),
    "family": ("first mmap 0-4", "first write 0-4", "first fork", "second write 1-3"),
    "file": ("first mmap 0-2 of file+1", "first mmap 2-4 of file shared", "first write 1-2", "first fork"),
    "shared": ("first mmap 0-4", "first write 1-2", "first mmap 1-3 shared", "first write 0-4", "first fork"),
    "swapped": ("first mmap 0-4", "first write 0-4", "first fork", "reclaim all", "second read 0-1"),
    "locked": ("first mmap 0-4", "first mlock 1-2", "first write 0-4", "first fork"),
}
"""Where the search begins: each is a few calls of the alphabet. ``empty`` alone reaches everything in the end."""
