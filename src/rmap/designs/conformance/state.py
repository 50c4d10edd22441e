"""What must hold of one machine, and the state of a machine up to the names of its frames, slots and anchors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rmap.designs.conformance.machine import SmallMachine
from rmap.errors import InvariantError
from rmap.mm.core import Core
from rmap.mm.costs import COUNTERS, WALK
from rmap.mm.frames import TAG_BITS, TAG_FILE
from rmap.mm.invariants import check
from rmap.mm.mm_types import Vma
from rmap.mm.pte import FLAG_BITS, PRESENT, SPECIAL, SWAP
from rmap.mm.walk import walk1, walk_many
from rmap.units import PAGE_SHIFT, PAGE_SIZE


@contextmanager
def at_no_cost(core: Core) -> Iterator[None]:
    """Whatever is counted inside the block is forgotten behind it."""
    costs = core.costs
    saved, calls, current = [list(row) for row in costs.by_operation], list(costs.calls), costs.current
    try:
        yield
    finally:
        for row, counters in zip(costs.by_operation, saved):
            row[:] = counters
        costs.calls[:] = calls
        costs.current = current


def check_machine(core: Core) -> dict[int, list[tuple[int, int]]]:
    """Every invariant, and that walks in batch and one by one find the same in the same order at the same cost.

    Returns:
        the walk of every mapped page: ``(mm id, address)`` in the order found, by frame.

    Raises:
        InvariantError: with the number of the invariant, or ``visits``, ``order``.
    """
    check(core)
    pages = np.flatnonzero(core.frames.mapcount)
    with at_no_cost(core):
        counters = core.costs.by_operation[WALK]
        counters[:] = [0] * len(counters)
        pfns, mms, addrs = walk_many(core, pages)
        batch = list(counters)
        counters[:] = [0] * len(counters)
        walks = {pfn: walk1(core, pfn) for pfn in pages.tolist()}
        singles = list(counters)
    in_batch: dict[int, list[tuple[int, int]]] = {pfn: [] for pfn in walks}
    for pfn, mm, addr in zip(pfns.tolist(), mms.tolist(), addrs.tolist()):
        in_batch[pfn].append((mm, addr))
    for pfn, walk in walks.items():
        if in_batch[pfn] != walk:
            raise InvariantError("order", f"frame {pfn:#x}: a batch finds {in_batch[pfn]}, a walk of the page {walk}")
    if batch != singles:
        raise InvariantError("visits", f"a batch and single walks differ: {differences(batch, singles)}")
    return walks


def differences(ours: list[int], theirs: list[int]) -> str:
    """The counters that differ, in words."""
    return ", ".join(f"{name} {a} and {b}" for name, a, b in zip(COUNTERS, ours, theirs) if a != b)


class Names:
    """Numbers in the order in which things are first met."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}

    def of(self, thing: int) -> int:
        """Its number."""
        return self.known.setdefault(thing, len(self.known))


def canonical(machine: SmallMachine, walks: dict[int, list[tuple[int, int]]]) -> dict[str, Any]:
    """Everything that two machines must agree about.

    Args:
        walks: what :func:`check_machine` returned.
    """
    core = machine.core
    frames, swap, design = core.frames, core.swap, core.rmap
    pages, slots, anchors = Names(), Names(), Names()
    state: dict[str, Any] = {}
    for mm in machine.mms:
        state[f"mm {mm.id}"] = (mm.brk, mm.locked_vm)
        for vma in mm.vmas:
            facts = (vma.end, vma.flags, vma.pgoff, vma.faulted, vma.file.name if vma.file else None)
            state[f"mm {mm.id} area {vma.start:#x}"] = (*facts, _entries(core, vma, pages, slots))
    for mapping in core.mappings:
        held = [pages.of(p) if p > 0 else ~slots.of(-p) if p else None for p in mapping.pages.tolist()]
        state[f"file {mapping.id}"] = (mapping.size, mapping.nr_cached, held)
    for slot, name in slots.known.items():
        cached = int(swap.cached[slot])
        state[f"slot {name}"] = (int(swap.count[slot]), pages.of(cached) if cached else None)
    for pfn, name in list(pages.known.items()):
        anchor, index = frames.anchor1(pfn)
        named = anchor if anchor & TAG_BITS == TAG_FILE else (anchor & TAG_BITS, anchors.of(anchor))
        counts = [int(column[pfn]) for column in (frames.flags, frames.mapcount, frames.extra)]
        state[f"page {name}"] = (*counts, named, index, walks.get(pfn, []))
    state["free frames"] = frames.free_top
    state["swap slots"] = swap.used
    state["metadata"] = design.metadata_bytes()
    topology = design.topology()
    state["topology"] = {} if topology is None else {name: column.tolist() for name, column in topology.items()}
    return state


def _entries(core: Core, vma: Vma, pages: Names, slots: Names) -> list[tuple[int, ...]]:
    # (offset in pages, bits, name of the page or of the slot) of every entry that is not empty.
    entries: list[tuple[int, ...]] = []
    for piece in core.spans(vma, vma.start, vma.end):
        for offset, entry in enumerate(piece.entries.tolist(), (piece.addr - vma.start) // PAGE_SIZE):
            bits, number = entry & FLAG_BITS, entry >> PAGE_SHIFT
            if entry & (PRESENT | SPECIAL) == PRESENT:
                entries.append((offset, bits, pages.of(number)))
            elif entry & (PRESENT | SWAP) == SWAP:
                entries.append((offset, bits, ~slots.of(number)))
            elif entry:
                entries.append((offset, bits))
    return entries
