"""Random calls to the model and to real processes, compared after every step; what diverges is cut down and printed.

    cd tests && python -m judge.random_runs --seed 1 --runs 100

A seed gives one scenario for ever. Needs root, as all of the judge does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from judge.machines import Both, Diverged, Pair
from judge.puppets import PuppetDied, missing_ability
from judge.swap import machine_state, swap_file
from judge.words import BASE, PAGE
from rmap.errors import RmapError

FIRST, END = 504, 520
"""The pages that the calls are about: few, so that calls meet. A page table ends in the middle."""
START_BRK = 0x555555559000
MMAP_BASE = 0x7FFFF7FFF000
FILE_PAGES = 24
SWAPPING_FILES = ("shm", "zero")  # what pageout does to pages of a disk depends on when they were written back
FILES = ("disk", "disk", "shm", "shm", "disk_again", "disk_read_only", "zero")
MAX_PROCESSES = 5

FINDINGS = (Diverged, RmapError, PuppetDied, AssertionError, ArithmeticError, AttributeError, LookupError,
            NameError, TypeError, ValueError)  # fmt: skip
"""What ends a scenario: a divergence, and whatever else the model should never do."""


@dataclass(frozen=True)
class Step:
    """One call: ``process.call(*args, **how)``. ``process`` numbers the processes in the order they were first made;
    for a call that makes one, ``makes`` is the number of the new one. ``file`` names a file among the arguments."""

    process: int
    call: str
    args: tuple[Any, ...] = ()
    how: dict[str, Any] = field(default_factory=dict)
    makes: int | None = None

    def __str__(self) -> str:
        words = [spell_number(arg) for arg in self.args]
        words += [f"{key}={value if key == 'file' else spell_number(value)}" for key, value in self.how.items()]
        made = f"p{self.makes} = " if self.makes is not None else ""
        subject = "machine" if self.call == "spawn" else "shm" if self.process < 0 else f"p{self.process}"
        return f"{made}{subject}.{self.call}({', '.join(words)})"


def spell_number(value: Any) -> str:
    """A number in the words of the stories: ``at(3)``, ``pages(2)``."""
    if not isinstance(value, int) or isinstance(value, bool):
        return repr(value)
    if BASE <= value < BASE + (1 << 30) and not value % PAGE:
        return f"at({(value - BASE) // PAGE})"
    if value and value < 1 << 30 and not value % PAGE:
        return f"pages({value // PAGE})"
    return f"{value:#x}"


class Generator:
    """Draws calls. It knows which processes live, and nothing else of what the calls do."""

    def __init__(self, seed: int, swap: bool) -> None:
        self.random = Random(seed)
        self.files = SWAPPING_FILES if swap else FILES
        self.advice = SWAPPING_ADVICE if swap else ADVICE
        self.weights = WEIGHTS | {"madvise": 25, "mmap": 8, "fork": 7} if swap else WEIGHTS
        self.alive: list[int] = []
        self.made = 0

    def steps(self, count: int) -> Iterator[Step]:
        yield self._make(0, "spawn")
        yield Step(0, "mmap", ((END - FIRST) * PAGE,), {"addr": BASE + FIRST * PAGE})
        if self.random.random() < 0.5:
            yield Step(0, "write", (BASE + FIRST * PAGE, (END - FIRST) * PAGE))
        for kind in self.random.choices(list(self.weights), list(self.weights.values()), k=count):
            step: Step | None = getattr(self, f"_{kind}")(self.random.choice(self.alive))
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
        first = random.randrange(FIRST, END)
        addr, length = BASE + first * PAGE, min(random.choice((1, 1, 1, 2, 2, 3, 4, 6)), END - first) * PAGE
        if random.random() < 0.02:
            return addr + 1, length
        return addr, length if random.random() > 0.02 else random.choice((0, 1, length - 1))

    def _file(self) -> dict[str, Any]:
        name = self.random.choice(self.files)
        return {"file": name, "offset": self.random.randrange(FILE_PAGES) * PAGE}

    # -- what

    def _make(self, process: int, call: str) -> Step:
        number, self.made = self.made, self.made + 1
        self.alive.append(number)
        return Step(process, call, makes=number)

    def _mmap(self, process: int) -> Step:
        random = self.random
        addr, length = self._range()
        how: dict[str, Any] = {"prot": random.choice(("rw", "rw", "rw", "rw", "r", "rwx", "rx", ""))}
        if random.random() < 0.3:
            how["flags"] = "shared"
        if random.random() < 0.35:
            how |= self._file()
        if random.random() < 0.1:
            how["populate"] = True
        if random.random() < 0.04:
            how["growsdown"] = True
        if random.random() < 0.04:
            how["noreserve"] = True
        if random.random() < 0.03:
            how["locked"] = True
        place = random.random()
        if place < 0.85:
            how["addr"] = addr
            if random.random() < 0.3:
                how["noreplace"] = True
        elif place < 0.92:
            how["hint"] = addr
        return Step(process, "mmap", (length,), how)

    def _munmap(self, process: int) -> Step:
        return Step(process, "munmap", self._range())

    def _mprotect(self, process: int) -> Step:
        return Step(process, "mprotect", (*self._range(), self.random.choice(("rw", "rw", "rw", "r", "r", "rwx", ""))))

    def _madvise(self, process: int) -> Step:
        return Step(process, "madvise", (*self._range(), self.random.choice(self.advice)))

    def _mremap(self, process: int) -> Step:
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
        return Step(process, "mremap", args, how)

    def _mlock(self, process: int) -> Step:
        how = {"onfault": True} if self.random.random() < 0.3 else {}
        return Step(process, "mlock", self._range(), how)

    def _munlock(self, process: int) -> Step:
        return Step(process, "munlock", self._range())

    def _brk(self, process: int) -> Step:
        return Step(process, "brk", (START_BRK + self.random.choice((-PAGE, 0, 1, *(n * PAGE for n in range(1, 7)))),))

    def _read(self, process: int) -> Step:
        return Step(process, "read", self._touched())

    def _write(self, process: int) -> Step:
        return Step(process, "write", self._touched())

    def _touched(self) -> tuple[int, int]:
        addr, length = self._range()
        return addr & -PAGE, max(length & -PAGE, PAGE) if self.random.random() < 0.6 else PAGE

    def _fork(self, process: int) -> Step | None:
        return self._make(process, "fork") if len(self.alive) < MAX_PROCESSES else None

    def _clone_vm(self, process: int) -> Step | None:
        return self._make(process, "clone_vm") if len(self.alive) < MAX_PROCESSES else None

    def _spawn(self, process: int) -> Step | None:
        return self._make(process, "spawn") if len(self.alive) < MAX_PROCESSES else None

    def _exit(self, process: int) -> Step | None:
        if len(self.alive) == 1:
            return None
        self.alive.remove(process)
        return Step(process, "exit")

    def _truncate(self, process: int) -> Step:
        return Step(-1, "truncate", (self.random.randrange(FILE_PAGES + 4) * PAGE,))

    def _punch_hole(self, process: int) -> Step:
        first = self.random.randrange(FILE_PAGES)
        return Step(-1, "punch_hole", (first * PAGE, self.random.randint(1, 6) * PAGE))


WEIGHTS = {
    "mmap": 18, "munmap": 5, "mprotect": 10, "madvise": 9, "mremap": 10, "mlock": 3, "munlock": 2, "brk": 4, "read": 10,
    "write": 18, "fork": 5, "clone_vm": 1, "spawn": 1, "exit": 3, "truncate": 1, "punch_hole": 1,
}  # fmt: skip
ADVICE = (
    *("dontneed", "dontneed", "dontneed", "free", "cold", "dontfork", "dofork", "wipeonfork", "keeponfork"),
    *("populate_read", "populate_write", "normal", "random", "sequential", "willneed"),
)

# Not "free": the page then waits in a batch of its CPU, whose reference makes the next write after a fork copy it.
SWAPPING_ADVICE = (*(advice for advice in ADVICE if advice != "free"), *("pageout",) * 20)


def scenario(seed: int, count: int, *, swap: bool = False) -> list[Step]:
    """The scenario of a seed. With ``swap``, pages also go out to swap."""
    return list(Generator(seed, swap).steps(count))


def play(steps: Sequence[Step]) -> str | None:
    """Tell both machines a scenario; steps of processes that are not there are left out.

    Returns:
        in words, what went wrong; None if the machines agree to the end.
    """
    pair = Pair()
    try:
        files = {
            "disk": pair.open("disk", FILE_PAGES * PAGE),
            "shm": pair.open("shm", FILE_PAGES * PAGE, shmem=True),
            "disk_again": pair.open("disk", FILE_PAGES * PAGE),
            "disk_read_only": pair.open("disk", FILE_PAGES * PAGE, writable=False),
            "zero": pair.open("/dev/zero", 0),
        }
        there: dict[int, Both] = {}
        for step in steps:
            _one(pair, files, there, step)
    except FINDINGS as found:
        return f"{type(found).__name__}: {found}"
    finally:
        pair.stage.close()
    return None


def _one(pair: Pair, files: dict[str, Any], there: dict[int, Both], step: Step) -> None:
    how = {key: files[value] if key == "file" else value for key, value in step.how.items()}
    subject: Any = pair if step.call == "spawn" else files["shm"] if step.process < 0 else there.get(step.process)
    if subject is None:
        return
    try:
        made = getattr(subject, step.call)(*step.args, **how)
    except OSError:
        return  # refused by both alike
    if step.makes is not None:
        there[step.makes] = made
    if step.call == "exit":
        del there[step.process]


def shrink(steps: list[Step]) -> list[Step]:
    """Leave out steps, many at a time and then one by one, while the machines still disagree."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if fewer and play(fewer) is not None:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def report(seed: int, steps: list[Step], why: str) -> str:
    """A finding, with a script that shows it."""
    lines = [f"seed {seed}: {len(steps)} steps", *(f"    {step}" for step in steps), why]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Random calls to the model and to real processes.")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--runs", type=int, default=100, help="how many scenarios (default 100)")
    parser.add_argument("--steps", type=int, default=40, help="calls in each (default 40)")
    parser.add_argument("--findings", type=int, default=5, help="stop after so many findings (default 5)")
    parser.add_argument("--swap", action="store_true", help="with a swap file, and pages going there")
    options = parser.parse_args()
    missing = missing_ability()
    if missing:
        print(f"random_runs: needs {missing}", file=sys.stderr)
        return 3
    if not options.swap:
        return search(options)
    with machine_state(), TemporaryDirectory() as folder, swap_file(Path(folder)):
        return search(options)


def search(options: argparse.Namespace) -> int:
    """Play seed after seed; print what was found. 1 if anything was."""
    found = 0
    for seed in range(options.seed, options.seed + options.runs):
        steps = scenario(seed, options.steps, swap=options.swap)
        if play(steps) is None:
            continue
        found += 1
        fewest = shrink(steps)
        print(report(seed, fewest, play(fewest) or "not seen again: it depends on more than the calls"), flush=True)
        if found == options.findings:
            break
    print(f"{found} findings in seeds {options.seed} to {seed}", file=sys.stderr)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
