"""Random calls, most of them legal, from a seed: the same on every machine and with every version of anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rmap.designs.conformance.machine import FILE_PAGES, Call, SmallMachine
from rmap.mm.mm_types import Vma
from rmap.uapi.vm_flags import VM_ACCESS, VM_EXEC, VM_READ, VM_SHARED, VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE

T = TypeVar("T")

WINDOW = 0x40000000 - 24 * PAGE_SIZE
"""Most mappings lie here, close together, across a boundary of page tables."""
WINDOW_PAGES = 64
LENGTHS = (1, 1, 1, 2, 3, 5, 8, 9, 12, 20)
"""In pages: on both sides of what the scalar twins take."""
MOST_PROCESSES = 5

PROTS = (VM_READ | VM_WRITE, VM_READ | VM_WRITE, VM_READ | VM_WRITE, VM_READ, VM_READ | VM_WRITE | VM_EXEC, 0)
ADVICE = (
    "dontneed", "dontneed", "free", "cold", "pageout", "pageout", "willneed", "populate_read", "populate_write",
    "dontfork", "dofork", "wipeonfork", "keeponfork", "sequential", "normal",
)  # fmt: skip

WEIGHTS = {
    "mmap": 9, "munmap": 4, "write": 30, "read": 6, "mprotect": 6, "mremap": 6, "madvise": 8, "mlock": 2, "munlock": 2,
    "brk": 2, "fork": 8, "exit": 5, "spawn": 1, "truncate": 1, "punch_hole": 1, "evict": 5, "referenced": 2,
    "mkclean": 1, "move_pages": 2, "remap_file_pages": 2,
}  # fmt: skip
_DECK = tuple(name for name, weight in WEIGHTS.items() for _ in range(weight))


class Dice:
    """A sequence of numbers that a seed fixes (SplitMix64).

    Args:
        seed: any integer.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed
        # A number of the sequence begins the next one; else neighbouring seeds would be one sequence, shifted.
        self._state = self.below(1 << 64)

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


def next_call(dice: Dice, machine: SmallMachine) -> Call:
    """A call that makes sense in this state of the machine."""
    if not machine.mms:
        return ("spawn",)
    if len(machine.mms[0].vmas) < 3:
        return _mmap(dice, 0, machine.mms[0].vmas)
    name = dice.choice(_DECK)
    process = dice.below(len(machine.mms))
    if name in ("fork", "spawn"):
        if len(machine.mms) >= MOST_PROCESSES:
            return "exit", process
        # Every other fork is of the youngest, so that lines of forks grow long.
        youngest = len(machine.mms) - 1
        return ("fork", dice.choice((process, youngest))) if name == "fork" else ("spawn",)
    if name == "exit":
        return name, process
    vmas = machine.mms[process].vmas
    if name == "mmap":
        return _mmap(dice, process, vmas)
    if name == "brk":
        return name, process, dice.choice((0, 1, 3, 9, 14))
    if name == "truncate":
        return name, dice.choice((0, 2)), dice.choice((0, 3, 10, FILE_PAGES, FILE_PAGES, FILE_PAGES))
    if name == "punch_hole":
        return name, dice.choice((0, 2)), dice.below(FILE_PAGES), dice.choice(LENGTHS)
    if name == "remap_file_pages":
        return _remap_file_pages(dice, process, vmas)
    wanted = {"write": VM_WRITE, "read": VM_READ, "mlock": VM_READ}.get(name, 0)
    fitting = [vma for vma in vmas if vma.flags & wanted == wanted]
    if not fitting:
        return _mmap(dice, process, vmas)
    addr, length = _range(dice, fitting)
    if name == "mprotect":
        return name, process, addr, length, dice.choice(PROTS)
    if name == "madvise":
        return name, process, addr, length, dice.choice(ADVICE)
    if name == "mremap":
        return _mremap(dice, process, addr, length)
    return name, process, addr, length


def _mmap(dice: Dice, process: int, vmas: list[Vma]) -> Call:
    near = [i for i, vma in enumerate(vmas) if WINDOW <= vma.start < WINDOW + 2 * WINDOW_PAGES * PAGE_SIZE]
    if near and dice.chance(50):
        return _mmap_behind(dice, process, vmas, near)
    addr = WINDOW + dice.below(WINDOW_PAGES) * PAGE_SIZE
    pages = dice.choice(LENGTHS)
    file = dice.choice((-1, -1, -1, -1, -1, 0, 1, 2))
    shared = int(dice.chance(30 if file >= 0 else 8))
    first = dice.below(FILE_PAGES + 1 - pages) if file >= 0 else 0
    return "mmap", process, addr, pages * PAGE_SIZE, dice.choice(PROTS[:4]), shared, file, first


def _mmap_behind(dice: Dice, process: int, vmas: list[Vma], near: list[int]) -> Call:
    # Anonymous memory right behind an area, mostly with its protection, and if it can be, up to the next area: that is
    # where areas merge, or may not.
    gaps = [i for i in near if i + 1 < len(vmas) and 0 < vmas[i + 1].start - vmas[i].end <= LENGTHS[-1] * PAGE_SIZE]
    if gaps and dice.chance(80):
        i = dice.choice(gaps)
        length = vmas[i + 1].start - vmas[i].end
    else:
        i = dice.choice(near)
        length = dice.choice(LENGTHS) * PAGE_SIZE
    prot = vmas[i].flags & VM_ACCESS if dice.chance(80) else dice.choice(PROTS)
    return "mmap", process, vmas[i].end, length, prot, 0, -1, 0


def _mremap(dice: Dice, process: int, addr: int, length: int) -> Call:
    new_length = length if dice.chance(60) else dice.choice(LENGTHS) * PAGE_SIZE
    new_addr = 0
    if dice.chance(60):
        new_addr = WINDOW + dice.below(2 * WINDOW_PAGES) * PAGE_SIZE
    dontunmap = int(new_length == length and dice.chance(25))
    return "mremap", process, addr, length, new_length, new_addr, dontunmap


def _remap_file_pages(dice: Dice, process: int, vmas: list[Vma]) -> Call:
    # A part of a shared mapping of a file, if there is one.
    shared = [vma for vma in vmas if vma.flags & VM_SHARED and vma.mapping is not None]
    addr, length = _range(dice, shared or vmas)
    return "remap_file_pages", process, addr, min(length, 4 * PAGE_SIZE), dice.below(FILE_PAGES - 4)


def _range(dice: Dice, vmas: list[Vma]) -> tuple[int, int]:
    # Mostly a part of one area, now and then any range of the window.
    if dice.chance(6):
        return WINDOW + dice.below(WINDOW_PAGES) * PAGE_SIZE, dice.choice(LENGTHS) * PAGE_SIZE
    vma = dice.choice(vmas)
    if dice.chance(50):
        return vma.start, vma.end - vma.start
    first = dice.below(vma.pages)
    pages = min(dice.choice(LENGTHS), vma.pages - first)
    return vma.start + (first << PAGE_SHIFT), pages << PAGE_SHIFT
