"""Random calls, most of them legal, from a seed: the same on every machine and with every version of anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rmap.designs.conformance.machine import FILE_PAGES, Call, Machine
from rmap.mm.vma import VM_EXEC, VM_READ, VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE

T = TypeVar("T")

WINDOW = 0x40000000 - 24 * PAGE_SIZE
"""Most mappings lie here, close together, across a boundary of page tables."""
WINDOW_PAGES = 64
LENGTHS = (1, 1, 1, 2, 3, 5, 8, 9, 12, 20)
"""In pages: on both sides of what the scalar twins take."""
MOST_PROCESSES = 5

PROTS = (VM_READ | VM_WRITE, VM_READ | VM_WRITE, VM_READ, VM_READ | VM_WRITE | VM_EXEC, 0)
ADVICE = (
    "dontneed", "dontneed", "free", "cold", "pageout", "pageout", "willneed", "populate_read", "populate_write",
    "dontfork", "dofork", "wipeonfork", "keeponfork", "sequential", "normal",
)  # fmt: skip

WEIGHTS = {
    "mmap": 14, "munmap": 7, "write": 22, "read": 7, "mprotect": 7, "mremap": 9, "madvise": 9, "mlock": 2, "munlock": 2,
    "brk": 4, "fork": 7, "exit": 4, "spawn": 1, "truncate": 1, "punch_hole": 1, "evict": 5, "referenced": 3,
    "mkclean": 1, "move_pages": 3,
}  # fmt: skip
_DECK = tuple(name for name, weight in WEIGHTS.items() for _ in range(weight))


class Dice:
    """A sequence of numbers that a seed fixes (SplitMix64).

    Args:
        seed: any integer.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return (z ^ (z >> 31)) % n

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """True so often."""
        return self.below(100) < percent


def next_call(dice: Dice, machine: Machine) -> Call:
    """A call that makes sense in this state of the machine."""
    if not machine.mms:
        return ("spawn",)
    name = dice.choice(_DECK)
    process = dice.below(len(machine.mms))
    if name in ("fork", "spawn"):
        if len(machine.mms) >= MOST_PROCESSES:
            return "exit", dice.below(len(machine.mms))
        return ("fork", process) if name == "fork" else ("spawn",)
    if name == "exit":
        return name, process
    if name == "mmap":
        return _mmap(dice, process)
    if name == "brk":
        return name, process, dice.choice((0, 1, 3, 9, 14))
    if name == "truncate":
        return name, dice.choice((0, 2)), dice.choice((0, 3, 10, FILE_PAGES, FILE_PAGES, FILE_PAGES))
    if name == "punch_hole":
        return name, dice.choice((0, 2)), dice.below(FILE_PAGES), dice.choice(LENGTHS)
    addr, length = _range(dice, machine, process)
    if name == "mprotect":
        return name, process, addr, length, dice.choice(PROTS)
    if name == "madvise":
        return name, process, addr, length, dice.choice(ADVICE)
    if name == "mremap":
        return _mremap(dice, process, addr, length)
    return name, process, addr, length


def _mmap(dice: Dice, process: int) -> Call:
    addr = WINDOW + dice.below(WINDOW_PAGES) * PAGE_SIZE
    length = dice.choice(LENGTHS) * PAGE_SIZE
    file = dice.choice((-1, -1, -1, -1, 0, 1, 2))
    shared = int(dice.chance(30 if file >= 0 else 8))
    page = dice.below(FILE_PAGES) if file >= 0 else 0
    return "mmap", process, addr, length, dice.choice(PROTS[:3]), shared, file, page


def _mremap(dice: Dice, process: int, addr: int, length: int) -> Call:
    new_length = length if dice.chance(60) else dice.choice(LENGTHS) * PAGE_SIZE
    new_addr = 0
    if dice.chance(60):
        new_addr = WINDOW + dice.below(2 * WINDOW_PAGES) * PAGE_SIZE
    dontunmap = int(new_length == length and dice.chance(25))
    return "mremap", process, addr, length, new_length, new_addr, dontunmap


def _range(dice: Dice, machine: Machine, process: int) -> tuple[int, int]:
    # Mostly a part of one area, now and then any range of the window.
    vmas = machine.mms[process].vmas
    if not vmas or dice.chance(12):
        return WINDOW + dice.below(WINDOW_PAGES) * PAGE_SIZE, dice.choice(LENGTHS) * PAGE_SIZE
    vma = dice.choice(vmas)
    if dice.chance(30):
        return vma.start, vma.end - vma.start
    first = dice.below(vma.pages)
    pages = min(dice.choice(LENGTHS), vma.pages - first)
    return vma.start + (first << PAGE_SHIFT), pages << PAGE_SHIFT
