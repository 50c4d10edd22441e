"""What can be seen of a group of processes from outside, in a form in which two machines can be compared.

Frame numbers and inode numbers differ between any two machines. What must agree is which areas there are, which
entries name the same page (a partition of all entries), and how often each page is mapped. So pages are named in the
order in which a reader meets them: ``page 0`` is the one behind the first present entry of the first process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAGE = 4096
PFN_BITS = (1 << 55) - 1
PM_GUARD, PM_SWAP, PM_PRESENT = 1 << 58, 1 << 62, 1 << 63
SHARED_MEMORY = "shared memory"
"""The name of a file that no story opened: what a shared anonymous mapping maps."""

MARKS = {
    "gd": 0x100, "lo": 0x2000, "sr": 0x8000, "rr": 0x10000, "dc": 0x20000, "lf": 0x80000, "ac": 0x100000,
    "nr": 0x200000, "wf": 0x2000000,
}  # fmt: skip
"""VmFlags of smaps that take part in merging and that both machines tell, with their bits."""


@dataclass(frozen=True)
class Area:
    """One line of /proc/PID/maps, with those of smaps' VmFlags that are in :data:`MARKS`."""

    start: int
    end: int
    perms: str = ""
    offset: int = 0
    file: str = ""
    marks: frozenset[str] = frozenset()

    @property
    def pages(self) -> int:
        return (self.end - self.start) // PAGE

    def __str__(self) -> str:
        file = f" {self.file}+{self.offset:#x}" if self.file else ""
        marks = " " + " ".join(sorted(self.marks)) if self.marks else ""
        return f"{self.start:#x}-{self.end:#x} {self.perms}{file}{marks}"


Entry = tuple[str, int] | None
"""One page-table entry: None, ``("page", pfn)``, ``("swap", slot)`` or ``("zero", 0)``."""


@dataclass(frozen=True)
class ProcessPicture:
    """One process: its areas, and a name for every page of them, in address order (``-`` where there is none)."""

    areas: tuple[Area, ...]
    pages: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """All processes at one moment, and how often each named page is mapped."""

    processes: tuple[ProcessPicture, ...]
    mapcounts: tuple[tuple[str, int], ...]


def picture(seen: Sequence[tuple[Sequence[Area], Sequence[Entry]]], mapcount: Callable[[int], int]) -> Picture:
    """Name the pages of what was seen of each process."""
    names: dict[tuple[str, int], str] = {}
    made: dict[str, int] = {"page": 0, "swap": 0}

    def name_of(entry: Entry) -> str:
        if entry is None:
            return "-"
        kind = entry[0]
        if kind == "zero":
            return kind
        if entry not in names:
            names[entry] = f"{kind} {made[kind]}"
            made[kind] += 1
        return names[entry]

    processes = tuple(ProcessPicture(tuple(areas), tuple(map(name_of, entries))) for areas, entries in seen)
    counts = tuple((name, mapcount(number)) for (kind, number), name in names.items() if kind == "page")
    return Picture(processes, counts)


def differences(kernel: Picture, model: Picture) -> list[str]:
    """In words, how the model departs from the kernel; empty if it does not."""
    found = []
    if len(kernel.processes) != len(model.processes):
        return [f"the kernel has {len(kernel.processes)} processes, the model {len(model.processes)}"]
    for number, (real, modelled) in enumerate(zip(kernel.processes, model.processes, strict=True)):
        if real.areas != modelled.areas:
            found.append(f"process {number}, areas:\n{_sides(real.areas, modelled.areas)}")
        elif real.pages != modelled.pages:
            found.append(f"process {number}, pages:\n{_sides(_spell(real), _spell(modelled))}")
    if not found and kernel.mapcounts != model.mapcounts:
        real_counts, model_counts = dict(kernel.mapcounts), dict(model.mapcounts)
        for name in real_counts:
            if real_counts[name] != model_counts[name]:
                found.append(f"{name}: mapcount {real_counts[name]} in the kernel, {model_counts[name]} in the model")
    return found


def _spell(process: ProcessPicture) -> list[str]:
    # Runs of pages, one a line: "0x100000003000 x2: page 4, page 5".
    lines, at = [], 0
    for area in process.areas:
        lines.append(f"{area.start:#x}: {', '.join(process.pages[at : at + area.pages])}")
        at += area.pages
    return lines


def _sides(kernel: Sequence[object], model: Sequence[object]) -> str:
    lines = []
    for side, items, other in (("kernel", kernel, model), ("model", model, kernel)):
        lines += [f"  {side:6} {'  ' if item in other else '* '}{item}" for item in items] or [f"  {side:6} nothing"]
    return "\n".join(lines)


def read_areas(pid: int, low: int, high: int, names: dict[tuple[int, int], str] | None = None) -> list[Area]:
    """The areas of a real process between two addresses.

    Args:
        names: ``(device, inode)`` of the files that have a name in this story.
    """
    areas: list[Area] = []
    with open(f"/proc/{pid}/smaps") as lines:
        for line in lines:
            fields = line.split()
            if fields[0] == "VmFlags:":
                last = areas[-1]
                marks = frozenset(fields[1:]).intersection(MARKS)
                areas[-1] = Area(last.start, last.end, last.perms, last.offset, last.file, marks)
            elif not fields[0].endswith(":"):
                areas.append(_area(fields, names or {}))
    return [area for area in areas if low <= area.start < high]


def _area(fields: list[str], names: dict[tuple[int, int], str]) -> Area:
    start, end = (int(bound, 16) for bound in fields[0].split("-"))
    inode = int(fields[4])
    if not inode:
        return Area(start, end, fields[1])
    major, minor = (int(part, 16) for part in fields[3].split(":"))
    file = names.get((os.makedev(major, minor), inode), SHARED_MEMORY)
    return Area(start, end, fields[1], int(fields[2], 16), file)


def read_pages(pid: int, areas: Sequence[Area]) -> list[int]:
    """The raw pagemap entries of every page of these areas, in order."""
    entries: list[int] = []
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for area in areas:
            data = os.pread(pagemap.fileno(), area.pages * 8, area.start // PAGE * 8)
            entries += memoryview(data).cast("Q").tolist()
    return entries


def entry_of(raw: int, is_zero_page: Callable[[int], bool]) -> Entry:
    """What a raw pagemap entry says."""
    if raw & PM_PRESENT:
        pfn = raw & PFN_BITS
        return ("zero", 0) if is_zero_page(pfn) else ("page", pfn)
    if raw & PM_SWAP and not raw & PM_GUARD:
        return ("swap", raw & PFN_BITS)
    return None
