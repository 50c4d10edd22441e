"""Are two pictures the same, but for the names of their frames, slots, files, anon_vmas and processes?

That is how the model is compared with the running kernel. Processes are paired by their place in the fork tree
(siblings in order of start), VMAs by address, files, frames, swap slots and anon_vmas in the order in which they are
first met. Whatever one side does not know (marked -1, or by its ``about``) is not compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rmap.columns import I64
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, single_pages
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.uapi.vm_flags import VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

COMPARED_FLAGS = VM_READ | VM_WRITE | VM_EXEC | VM_MAYSHARE
"""The VMA flags that /proc/PID/maps shows, and that are compared unless others are asked for."""

_Fact: TypeAlias = tuple[str, Any]


def isomorphic(a: Snapshot, b: Snapshot, *, vma_flags: int = COMPARED_FLAGS, mapcount: bool = True) -> str | None:
    """Compare two pictures up to renaming.

    Args:
        a, b: the pictures.
        vma_flags: the ``VM_*`` bits that must agree.
        mapcount: whether the kernel's counts must agree; false where mappers outside the pictures differ.

    Returns:
        None if they are the same, else the first difference, in words.
    """
    one, two = _Canonical(a, vma_flags), _Canonical(b, vma_flags)
    for number, (left, right) in enumerate(zip(one.facts(), two.facts())):
        if left != right:
            return f"{left[0]}: {left[1]!r} against {right[1]!r} (fact {number})"
    pages = _compare_pages(one, two)
    if pages is not None:
        return pages
    difference = _compare_frames(one, two, mapcount)
    if difference is None and a.about["topology"] != "none" and b.about["topology"] != "none":
        difference = _compare_topology(one, two)
    return difference


class _Canonical:
    """One picture, with its processes and VMAs in canonical order."""

    def __init__(self, snapshot: Snapshot, vma_flags: int) -> None:
        self.snapshot = snapshot
        self.vma_flags = vma_flags
        self.processes = _fork_order(snapshot)
        self.place = {process: i for i, process in enumerate(self.processes)}
        vmas = snapshot.vmas
        bounds = np.searchsorted(vmas.process, np.arange(len(self.processes) + 1)).tolist()
        self.vmas = [vma for process in self.processes for vma in range(bounds[process], bounds[process + 1])]
        self.vma_name = [
            f"process {i} VMA {vmas.start[vma]:x}-{vmas.end[vma]:x}"
            for i, process in enumerate(self.processes)
            for vma in range(bounds[process], bounds[process + 1])
        ]
        self.pages = _Pages(snapshot, self.vmas)
        self.first_frames = _first_met(self.pages.value[self.pages.present])

    def facts(self) -> Iterable[_Fact]:
        # Everything but pages: lists of the same length on both sides iff the worlds have the same shape.
        snapshot = self.snapshot
        yield "number of processes", len(self.processes)
        parents = snapshot.parents()
        for i, process in enumerate(self.processes):
            yield f"parent of process {i}", self.place.get(int(parents[process]), -1)
        yield "number of VMAs", len(self.vmas)
        vmas, names = snapshot.vmas, _Names()
        for i, vma in enumerate(self.vmas):
            yield "process of a VMA", self.place[int(vmas.process[vma])]
            yield "VMA", self.vma_name[i]
            yield f"flags of {self.vma_name[i]}", int(vmas.flags[vma]) & self.vma_flags
            file = int(vmas.file[vma])
            yield f"file of {self.vma_name[i]}", names.of(file) if file >= 0 else -1
            yield f"file offset of {self.vma_name[i]}", int(vmas.pgoff[vma]) if file >= 0 else -1


class _Names:
    """Numbers things in the order in which they are first met."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def of(self, thing: int) -> int:
        return self._known.setdefault(thing, len(self._known))


def _fork_order(snapshot: Snapshot) -> list[int]:
    # Parents before children, siblings in order of start: the order in which the processes came to be, by family.
    parents = snapshot.parents().tolist()
    age = list(zip(snapshot.processes.start_time.tolist(), snapshot.processes.pid.tolist()))
    children: dict[int, list[int]] = {}
    for process in sorted(range(len(parents)), key=lambda row: age[row]):
        children.setdefault(parents[process], []).append(process)
    order: list[int] = []
    stack = children.get(-1, [])[::-1]
    while stack:
        process = stack.pop()
        order.append(process)
        stack.extend(children.get(process, [])[::-1])
    return order


class _Pages:
    """Every page-table entry, in canonical order: VMA, address, what kind, and the frame or swap slot."""

    def __init__(self, snapshot: Snapshot, order: list[int]) -> None:
        ptes = snapshot.ptes
        place = np.empty(len(snapshot.vmas), np.int64)
        place[order] = np.arange(len(order))
        rows = np.lexsort((ptes.address, place[ptes.vma]))
        pages = single_pages(Extents.of(ptes, rows))
        self.vma: I64 = place[pages.vma]
        self.address: I64 = pages.address
        self.kind: I64 = pages.flags & (f.PTE_KINDS | f.PTE_SPECIAL)
        self.write: I64 = pages.flags & f.PTE_WRITE
        self.value: I64 = pages.pfn
        self.present = (self.kind & f.PTE_PRESENT) != 0


def _first_met(values: I64) -> I64:
    # For each distinct value, in the order in which they are first met: the value.
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]


def _renamed(values: I64) -> I64:
    # Each value replaced by the number of its first meeting.
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _compare_pages(one: _Canonical, two: _Canonical) -> str | None:
    def name(i: int) -> str:
        return f"{one.vma_name[one.pages.vma[i]]} page {one.pages.address[i]:#x}"

    a, b = one.pages, two.pages
    n = min(len(a.vma), len(b.vma))
    differs = (a.vma[:n] != b.vma[:n]) | (a.address[:n] != b.address[:n])
    if differs.any() or len(a.vma) != len(b.vma):
        at = int(np.argmax(differs)) if differs.any() else n
        left = f"{one.vma_name[a.vma[at]]} page {a.address[at]:#x}" if at < len(a.vma) else "no further page"
        right = f"{two.vma_name[b.vma[at]]} page {b.address[at]:#x}" if at < len(b.vma) else "no further page"
        return f"next page in a page table: {left} against {right}"
    both_tell = one.snapshot.about["pte_write"] and two.snapshot.about["pte_write"]
    columns = [("kind of entry", a.kind, b.kind)] + ([("writable", a.write, b.write)] if both_tell else [])
    for what, left_column, right_column in columns:
        wrong = left_column != right_column
        if wrong.any():
            i = int(np.argmax(wrong))
            return f"{what} at {name(i)}: {left_column[i]:#x} against {right_column[i]:#x}"
    for mask, what in ((a.present, "frame"), ((a.kind & f.PTE_SWAP) != 0, "swap slot")):
        left_name, right_name = _renamed(a.value[mask]), _renamed(b.value[mask])
        wrong = left_name != right_name
        if wrong.any():
            i = int(np.argmax(wrong))
            where = int(np.flatnonzero(mask)[i])
            return f"which {what} is at {name(where)}, by order of meeting: {left_name[i]} against {right_name[i]}"
    return None


def _compare_frames(one: _Canonical, two: _Canonical, mapcount: bool) -> str | None:
    columns = ["kind", "order"] + (["mapcount"] if mapcount else [])
    pairs = [(name, _of_frames(one, name), _of_frames(two, name)) for name in columns]
    head_a = one.first_frames - _of_frames(one, "head_offset")
    head_b = two.first_frames - _of_frames(two, "head_offset")
    pairs.append(("folio", _renamed(head_a), _renamed(head_b)))
    index_a, index_b = _of_frames(one, "index"), _of_frames(two, "index")
    both = (index_a >= 0) & (index_b >= 0)
    pairs.append(("index", np.where(both, index_a, -1), np.where(both, index_b, -1)))
    if one.snapshot.about["anon_exclusive"] and two.snapshot.about["anon_exclusive"]:
        bit = f.KPF_ANON_EXCLUSIVE
        pairs.append(("PG_anon_exclusive", _of_frames(one, "flags") & bit, _of_frames(two, "flags") & bit))
    for name, left, right in pairs:
        wrong = left != right
        if name == "mapcount":  # of the zero page and the kernel's own pages every process of the machine is a mapper
            wrong &= ~among(_of_frames(one, "kind"), KINDS.untracked)
        if wrong.any():
            i = int(np.argmax(wrong))
            frames = f"frame number {i} (pfn {one.first_frames[i]:#x}, {two.first_frames[i]:#x})"
            return f"{name} of {frames}: {left[i]} against {right[i]}"
    return None


def _of_frames(world: _Canonical, name: str) -> I64:
    spread: I64 = world.snapshot.per_frame(name).astype(np.int64)
    return spread[world.snapshot.numbering.dense(world.first_frames)]


def _compare_topology(one: _Canonical, two: _Canonical) -> str | None:
    # anon_vmas by the order in which the chains name them; then each one's root, parent and counters.
    sides = []
    for world in (one, two):
        snapshot, names, facts = world.snapshot, _Names(), list[_Fact]()
        links = snapshot.anon_vma_chains
        bounds = np.searchsorted(links.vma, np.arange(len(snapshot.vmas) + 1)).tolist()
        for name, vma in zip(world.vma_name, world.vmas):
            chain = links.anon_vma[bounds[vma] : bounds[vma + 1]].tolist()
            facts.append((f"chain of {name}", [names.of(a) for a in chain]))
            active = int(snapshot.vmas.anon_vma[vma])
            facts.append((f"active anon_vma of {name}", names.of(active) if active >= 0 else -1))
        anon = snapshot.anon_vmas
        for anon_vma, number in list(names._known.items()):
            facts.append((f"root of anon_vma {number}", names.of(int(anon.root[anon_vma]))))
            facts.append((f"parent of anon_vma {number}", names.of(int(anon.parent[anon_vma]))))
            counters = (anon.refcount, anon.num_children, anon.num_active_vmas)
            facts.append((f"counters of anon_vma {number}", [int(column[anon_vma]) for column in counters]))
        anchor = _of_frames(world, "anon_vma").tolist()
        facts += [(f"anon_vma of frame number {i}", names.of(a) if a >= 0 else -1) for i, a in enumerate(anchor)]
        sides.append(facts)
    for left, right in zip(*sides):
        if left != right:
            return f"{left[0]}: {left[1]} against {right[1]}"
    return None
