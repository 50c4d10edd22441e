"""In words: how what one machine shows differs from what the other does."""

from __future__ import annotations

from collections.abc import Sequence

from rmap.lab.conform.observed import (
    KIND,
    MARK,
    NO_ENTRY,
    NOT_SEEN,
    NUMBER_SHIFT,
    PAGE,
    SWAP_SLOT,
    ZERO_PAGE,
    AnonVmaFacts,
    Area,
    Observed,
    PageFacts,
    TreeNode,
)
from rmap.uapi.vm_flags import VM_ACCESS, VM_ACCOUNT, VM_EXEC, VM_MAYSHARE, VM_READ, VM_SHARED, VM_WRITE
from rmap.units import PAGE_SHIFT

PLAIN_FLAGS = VM_ACCESS | VM_SHARED | 0xF0  # shown by the letters of /proc/PID/maps, or with nearly every area


def differences(kernel: Observed, model: Observed) -> list[str]:
    """How the model departs from the kernel; empty if it does not. What follows from an earlier one is left out."""
    if kernel == model:
        return []
    if kernel.processes != model.processes:
        return [
            f"address spaces of the processes: {_numbers(kernel.processes)} in the kernel,"
            f" {_numbers(model.processes)} in the model"
        ]
    for say in (_areas, _entries, _pages, _anon_vmas, _trees):
        lines = say(kernel, model)
        if lines:
            return lines
    return []


def _areas(kernel: Observed, model: Observed) -> list[str]:
    return [
        f"mm {number}, areas:\n{_sides(_spell_areas(kernel, number), _spell_areas(model, number))}"
        for number, (real, modelled) in enumerate(zip(kernel.areas, model.areas))
        if real != modelled
    ]


def _entries(kernel: Observed, model: Observed) -> list[str]:
    return [
        f"mm {number}, pages:\n{_sides(_spell_entries(kernel, number), _spell_entries(model, number))}"
        for number, (real, modelled) in enumerate(zip(kernel.entries, model.entries))
        if real != modelled
    ]


def _pages(kernel: Observed, model: Observed) -> list[str]:
    return [
        f"page {name} ({_where(model, name << NUMBER_SHIFT | PAGE)}): {spell_page(real, kernel)} in the kernel,"
        f" {spell_page(modelled, model)} in the model"
        for name, (real, modelled) in enumerate(zip(kernel.pages, model.pages))
        if real != modelled
    ]


def _anon_vmas(kernel: Observed, model: Observed) -> list[str]:
    return [
        f"A{name}: {_spell_anon_vma(real)} in the kernel, {_spell_anon_vma(modelled)} in the model"
        for name, (real, modelled) in enumerate(zip(kernel.anon_vmas, model.anon_vmas))
        if real != modelled
    ]


def _trees(kernel: Observed, model: Observed) -> list[str]:
    return [
        f"{f'A{name}' if name < len(model.anon_vmas) else model.files[name - len(model.anon_vmas)]}, areas in its tree:"
        f" {_spell_tree(real)} in the kernel, {_spell_tree(modelled)} in the model"
        for name, (real, modelled) in enumerate(zip(kernel.trees, model.trees))
        if real != modelled
    ]


def spell_area(area: Area, observed: Observed) -> str:
    """``0x1000-0x4000 rw-p 0x10000 pgoff 0x1 disk open 0 A1: A1 A0``: flags beyond the letters in hex."""
    start, end, flags, pgoff, file, mapping, anon_vma, chain = area
    letters = "".join(c if flags & bit else "-" for c, bit in (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC)))
    words = [f"{start:#x}-{end:#x}", letters + ("s" if flags & VM_MAYSHARE else "p")]
    words += [f"flags {flags:#x}"] if flags & ~(PLAIN_FLAGS | VM_ACCOUNT) else []
    words += ["unaccounted"] if not flags & VM_ACCOUNT else []
    words += [f"pgoff {pgoff:#x}"] if pgoff != NOT_SEEN else []
    words += [f"{observed.files[mapping]} ({mapping})"] if mapping != NOT_SEEN else []
    words += [f"open {file}"] if file != NOT_SEEN else []
    if anon_vma != NOT_SEEN:
        words.append(f"A{anon_vma}: {' '.join(f'A{link}' for link in chain)}")
    return " ".join(words)


def spell_page(page: PageFacts, observed: Observed) -> str:
    """``mapped 2 times, shared, index 0x1f8 of A0``."""
    mapcount, exclusive, is_anon, cached, owner, index = page
    words = [f"mapped {mapcount} {'time' if mapcount == 1 else 'times'}"]
    if is_anon:
        words += ["exclusive" if exclusive else "not exclusive"]
        words += ["in the swap cache"] if cached else []
        words += [f"index {index:#x} of A{owner}"] if owner != NOT_SEEN else []
    elif owner != NOT_SEEN:
        words.append(f"index {index:#x} of {observed.files[owner]}")
    return ", ".join(words)


def _spell_tree(tree: Sequence[TreeNode]) -> str:
    # "3 (depth 1) 5 (depth 0)".
    return " ".join(f"{vma} (depth {depth})" for vma, depth in tree) or "none"


def _spell_areas(observed: Observed, mm: int) -> list[str]:
    return [spell_area(area, observed) for area in observed.areas[mm]]


def _spell_anon_vma(facts: AnonVmaFacts) -> str:
    root, parent, refcount, children, active = facts
    return f"root A{root}, parent A{parent}, {refcount} references, {children} children, {active} active VMAs"


def _spell_entries(observed: Observed, mm: int) -> list[str]:
    # An area a line: "0x100000003000: page 4, page 5".
    lines, at = [], 0
    for start, end, *_ in observed.areas[mm]:
        count = (end - start) >> PAGE_SHIFT
        lines.append(f"{start:#x}: {', '.join(map(_spell_entry, observed.entries[mm][at : at + count]))}")
        at += count
    return lines


def _spell_entry(entry: int) -> str:
    name = entry >> NUMBER_SHIFT
    said = {NO_ENTRY: "-", ZERO_PAGE: "zero", PAGE: f"page {name}", SWAP_SLOT: f"swap {name}"}[entry & KIND]
    return said + {PAGE: " writable", SWAP_SLOT: " exclusive"}[entry & KIND] if entry & MARK else said


def _where(observed: Observed, wanted: int) -> str:
    # The first place of a page: "mm 0, 0x1001f8000".
    for mm, marked in enumerate(observed.entries):
        at, entries = 0, [entry & ~MARK for entry in marked]
        for start, end, *_ in observed.areas[mm]:
            count = (end - start) >> PAGE_SHIFT
            if wanted in entries[at : at + count]:
                return f"mm {mm}, {start + (entries.index(wanted, at) - at << PAGE_SHIFT):#x}"
            at += count
    return "nowhere"


def _numbers(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers)) or "none"


def _sides(kernel: Sequence[str], model: Sequence[str]) -> str:
    lines = []
    for side, items, other in (("kernel", kernel, model), ("model", model, kernel)):
        lines += [f"  {side:6} {'  ' if item in other else '* '}{item}" for item in items] or [f"  {side:6}   nothing"]
    return "\n".join(lines)
