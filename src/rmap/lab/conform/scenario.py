"""Scenarios: random calls of a few processes on a few pages, drawn from a seed.

A seed gives one scenario for ever. The draw knows which processes live, and nothing else of what the calls do; so many
are refused, which is compared like everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from rmap.mm.mm_types import MMAP_BASE, START_BRK

PAGE = 4096
BASE = 0x100000000000
"""Where stories happen: far from everything a process has of its own, and aligned to what a page table covers."""
NARROW = range(504, 520)
"""The pages that the calls of most scenarios are about: few, so that calls meet. A page table ends in the middle."""
WIDE = range(1536)
"""The pages of the others: three page tables, which mremap moves as a whole where it can."""
SHARE_OF_WIDE = 0.06
FILE_PAGES = 24
TABLE = 512  # pages that one page table maps
FEWEST_PROCESSES, MOST_PROCESSES = 2, 8
FEWEST_STEPS, MOST_STEPS = 40, 100
MOST_BORROWERS = 12  # of one address space: a puppet has room for 16

FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "disk": ("disk", {}),
    "disk_again": ("disk", {}),
    "disk_read_only": ("disk", {"writable": False}),
    "shm": ("shm", {"shmem": True}),
    "zero": ("/dev/zero", {}),
}
"""The open files of every scenario: what is opened, and how. Two of one file do not merge their mappings (rule 3.1)."""

SUBJECTS = {-1: "shm", -2: "disk", -3: "disk_read_only", -4: "zero"}
"""The files that calls are about which no process makes: truncate and punch_hole."""

DRAWN_FILES = ("disk", "disk", "shm", "shm", "disk_again", "disk_read_only", "zero")
SWAPPING_FILES = ("shm", "zero")  # what pageout does to pages of a disk depends on when they were written back


def at(page: int) -> int:
    """The address of a page of the story."""
    return BASE + page * PAGE


def pages(count: int) -> int:
    """So many pages, in bytes."""
    return count * PAGE


@dataclass(frozen=True)
class ScenarioStep:
    """One call.

    Attributes:
        process: who calls, by its number in the order of first appearance; below 0: a file of :data:`SUBJECTS`.
        call: the method.
        args, how: its arguments. ``file`` names one of :data:`FILES`.
        makes: the number of the process that it makes, if it makes one.
    """

    process: int
    call: str
    args: tuple[Any, ...] = ()
    how: dict[str, Any] = field(default_factory=dict)
    makes: int | None = None

    def __str__(self) -> str:
        words = [spell_number(arg) for arg in self.args]
        words += [f"{key}={value if key == 'file' else spell_number(value)}" for key, value in self.how.items()]
        made = f"p{self.makes} = " if self.makes is not None else ""
        subject = "machine" if self.call == "spawn" else SUBJECTS.get(self.process, f"p{self.process}")
        return f"{made}{subject}.{self.call}({', '.join(words)})"

    @property
    def kind(self) -> str:
        """The call, with the advice of an madvise: ``madvise dontneed``."""
        return f"madvise {self.args[2]}" if self.call == "madvise" else self.call


@dataclass(frozen=True)
class Scenario:
    """What a seed gives.

    Attributes:
        seed: the number it was drawn from.
        processes: how many live at once, at most.
        swap: pages also go out to swap.
        wide: it is about :data:`WIDE`.
        steps: the calls, in order.
    """

    seed: int
    processes: int
    swap: bool
    wide: bool
    steps: tuple[ScenarioStep, ...]


def scenario(seed: int, *, processes: int = MOST_PROCESSES, swap: bool = False) -> Scenario:
    """The scenario of a seed.

    Args:
        processes: at most so many at once, 2 to 8; how many there may be in this one is drawn.
        swap: whether there is swap; half of the scenarios use it then.
    """
    random = Random(seed)
    most = random.randint(FEWEST_PROCESSES, processes)
    count = random.randint(FEWEST_STEPS, MOST_STEPS)
    swaps = swap and random.random() < 0.5
    wide = not swaps and random.random() < SHARE_OF_WIDE
    return Scenario(seed, most, swaps, wide, tuple(_Draw(random, most, swaps, wide).steps(count)))


def spell_number(value: Any) -> str:
    """A number in the words of the stories: ``at(3)``, ``pages(2)``."""
    if not isinstance(value, int) or isinstance(value, bool):
        return repr(value)
    if BASE <= value < BASE + (1 << 30) and not value % PAGE:
        return f"at({(value - BASE) // PAGE})"
    if value and value < 1 << 30 and not value % PAGE:
        return f"pages({value // PAGE})"
    return f"{value:#x}"


class _Draw:
    def __init__(self, random: Random, most: int, swap: bool, wide: bool) -> None:
        # Draws calls for processes that live.
        self.random = random
        self.most = most
        self.wide = wide
        self.window = WIDE if wide else NARROW
        self.files = SWAPPING_FILES if swap else DRAWN_FILES
        self.advice = SWAPPING_ADVICE if swap else ADVICE
        self.weights = WEIGHTS | {"madvise": 25, "mmap": 8, "fork": 7} if swap else WEIGHTS
        self.alive: list[int] = []
        self.made = 0
        self.borrowed = 0
        self.disk_pages = FILE_PAGES
        self.waits_for: dict[int, int] = {}  # the child of a vfork -> its parent, which waits

    def steps(self, count: int) -> Iterator[ScenarioStep]:
        yield self._make(0, "spawn")
        everything = at(self.window.start), pages(len(self.window))
        yield ScenarioStep(0, "mmap", everything[1:], {"addr": everything[0]})
        if self.random.random() < 0.5:
            yield ScenarioStep(0, "write", everything)
        for kind in self.random.choices(list(self.weights), list(self.weights.values()), k=count):
            waiting = set(self.waits_for.values())
            step: ScenarioStep | None = getattr(self, f"_{kind}")(
                self.random.choice([process for process in self.alive if process not in waiting])
            )
            if step is not None:
                yield step

    # -- where

    def _range(self) -> tuple[int, int]:
        random = self.random
        if random.random() < 0.06:  # among the areas that mmap placed
            page = random.randint(1, 12)
            return MMAP_BASE - page * PAGE, random.randint(1, page) * PAGE
        if random.random() < 0.05:
            return START_BRK + random.randint(0, 3) * PAGE, random.randint(1, 3) * PAGE
        first, count = self._pages()
        addr, length = at(first), pages(min(count, self.window.stop - first))
        if random.random() < 0.02:
            return addr + 1, length
        return addr, length if random.random() > 0.02 else random.choice((0, 1, length - 1))

    def _pages(self) -> tuple[int, int]:
        # The first, and how many, perhaps beyond the window.
        random = self.random
        first = random.choice(self.window)
        if not self.wide:
            return first, random.choice((1, 1, 1, 2, 2, 3, 4, 6))
        if random.random() < 0.6:
            first -= first % TABLE
        return first, random.choice((1, 2, 17, TABLE - 1, TABLE, TABLE, TABLE + 1, 2 * TABLE))

    def _file(self) -> dict[str, Any]:
        name = self.random.choice(self.files)
        return {"file": name, "offset": self.random.randrange(FILE_PAGES) * PAGE}

    # -- calls about memory

    def _mmap(self, process: int) -> ScenarioStep:
        random = self.random
        addr, length = self._range()
        how: dict[str, Any] = {"prot": random.choice(("rw", "rw", "rw", "rw", "r", "rwx", "rx", ""))}
        if random.random() < 0.3:
            how["flags"] = "shared"
        if random.random() < 0.35:
            how |= self._file()
        for option, share in OPTIONS.items():
            if random.random() < share:
                how[option] = True
        place = random.random()
        if place < 0.85:
            how["addr"] = addr
            if random.random() < 0.3:
                how["noreplace"] = True
        elif place < 0.92:
            how["hint"] = addr
        return ScenarioStep(process, "mmap", (length,), how)

    def _munmap(self, process: int) -> ScenarioStep:
        return ScenarioStep(process, "munmap", self._range())

    def _mprotect(self, process: int) -> ScenarioStep:
        where, prot = self._range(), self.random.choice(("rw", "rw", "rw", "r", "r", "rwx", ""))
        return ScenarioStep(process, "mprotect", (*where, prot))

    def _madvise(self, process: int) -> ScenarioStep:
        return ScenarioStep(process, "madvise", (*self._range(), self.random.choice(self.advice)))

    def _mremap(self, process: int) -> ScenarioStep:
        random = self.random
        addr, old = self._range()
        new = random.choice((old, old, old, old + PAGE, old + 2 * PAGE, max(old - PAGE, 0), PAGE))
        args: tuple[int, ...] = (addr, old, new)
        how: dict[str, Any] = {}
        if random.random() < 0.6:
            args += (self._range()[0],)
        elif random.random() < 0.3:
            how["maymove"] = False
        if random.random() < 0.15:
            how["dontunmap"] = True
        if random.random() < 0.05:
            args = (args[0], 0, *args[2:])
        return ScenarioStep(process, "mremap", args, how)

    def _mlock(self, process: int) -> ScenarioStep:
        how = {"onfault": True} if self.random.random() < 0.3 else {}
        return ScenarioStep(process, "mlock", self._range(), how)

    def _munlock(self, process: int) -> ScenarioStep:
        return ScenarioStep(process, "munlock", self._range())

    def _mlockall(self, process: int) -> ScenarioStep:
        options = ("current", "future", "onfault")
        return ScenarioStep(process, "mlockall", (), {option: True for option in options if self.random.random() < 0.5})

    def _munlockall(self, process: int) -> ScenarioStep:
        return ScenarioStep(process, "munlockall")

    def _brk(self, process: int) -> ScenarioStep:
        beyond = self.random.choice((-PAGE, 0, 1, *(n * PAGE for n in range(1, 7))))
        return ScenarioStep(process, "brk", (START_BRK + beyond,))

    def _read(self, process: int) -> ScenarioStep:
        return ScenarioStep(process, "read", self._touched())

    def _write(self, process: int) -> ScenarioStep:
        return ScenarioStep(process, "write", self._touched())

    def _touched(self) -> tuple[int, int]:
        addr, length = self._range()
        return addr & -PAGE, max(length & -PAGE, PAGE) if self.random.random() < 0.6 else PAGE

    # -- calls about processes

    def _make(self, process: int, call: str) -> ScenarioStep:
        number, self.made = self.made, self.made + 1
        self.alive.append(number)
        return ScenarioStep(process, call, makes=number)

    def _fork(self, process: int) -> ScenarioStep | None:
        return self._make(process, "fork") if len(self.alive) < self.most else None

    def _spawn(self, process: int) -> ScenarioStep | None:
        return self._make(process, "spawn") if len(self.alive) < self.most else None

    def _clone_vm(self, process: int) -> ScenarioStep | None:
        if len(self.alive) == self.most or self.borrowed == MOST_BORROWERS:
            return None
        self.borrowed += 1
        return self._make(process, "clone_vm")

    def _vfork(self, process: int) -> ScenarioStep | None:
        if len(self.alive) == self.most or self.borrowed == MOST_BORROWERS:
            return None
        self.borrowed += 1
        step = self._make(process, "vfork")
        self.waits_for[self.made - 1] = process
        return step

    def _exit(self, process: int) -> ScenarioStep | None:
        if len(self.alive) == 1:
            return None
        self.alive.remove(process)
        self.waits_for.pop(process, None)
        return ScenarioStep(process, "exit")

    # -- calls about a file

    def _truncate(self, process: int) -> ScenarioStep:
        subject = self.random.choices(list(SUBJECTS), (14, 4, 1, 1))[0]
        if subject != -2:
            return ScenarioStep(subject, "truncate", (self.random.randrange(FILE_PAGES + 4) * PAGE,))
        # A file on disk only shrinks: what is read into holes, in which folios, is the file system's affair.
        self.disk_pages = self.random.randint(0, self.disk_pages)
        return ScenarioStep(subject, "truncate", (self.disk_pages * PAGE,))

    def _punch_hole(self, process: int) -> ScenarioStep:
        subject = self.random.choices((-1, -3, -4), (14, 1, 1))[0]
        first = self.random.randrange(FILE_PAGES)
        return ScenarioStep(subject, "punch_hole", (first * PAGE, self.random.randint(1, 6) * PAGE))


OPTIONS = {"populate": 0.1, "growsdown": 0.04, "noreserve": 0.04, "locked": 0.03, "stack": 0.03}
"""Further arguments of mmap, and how often they are given."""

WEIGHTS = {
    "mmap": 18, "munmap": 5, "mprotect": 10, "madvise": 11, "mremap": 10, "mlock": 3, "munlock": 2, "mlockall": 0.5,
    "munlockall": 0.5, "brk": 4, "read": 10, "write": 18, "fork": 5, "clone_vm": 1, "vfork": 1, "spawn": 1, "exit": 3,
    "truncate": 1, "punch_hole": 1,
}  # fmt: skip
ADVICE = (
    *("dontneed", "dontneed", "dontneed", "free", "cold", "dontfork", "dofork", "wipeonfork", "keeponfork"),
    *("populate_read", "populate_write", "normal", "random", "sequential", "willneed", "dontneed_locked", "remove"),
    *("dontdump", "dodump", "hugepage", "nohugepage", "mergeable", "unmergeable"),
)

SWAPPING_ADVICE = (*ADVICE, *("pageout",) * 24)
