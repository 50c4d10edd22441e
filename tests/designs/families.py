"""Small machines and events for the tests of what each design costs."""

from __future__ import annotations

from typing import Any

from rmap import Kernel, Process
from rmap.lab.compare.figures import Meter
from rmap.mm.walk import walk1
from tests.support import PAGE


def machine(design: Any, nr_pages: int = 1 << 12, **more: Any) -> Kernel:
    return Kernel(design, nr_pages=nr_pages, nr_tables=1 << 10, nr_swap=256, **more)


def family(design: Any, children: int, pages: int = 1) -> tuple[Kernel, list[Process], int]:
    """A parent that wrote its pages, and its children."""
    k = machine(design)
    parent = k.spawn()
    heap = parent.mmap(pages * PAGE)
    parent.write(heap, pages * PAGE)
    return k, [parent, *(parent.fork() for _ in range(children))], heap


def walk_costs(k: Kernel, process: Process, address: int) -> dict[str, int]:
    """What a walk of the page at an address counts."""
    pfn = k.pfn(process, address)
    assert pfn is not None
    meter = Meter(k.costs)
    walk1(k.core, pfn)
    names = ("nodes_visited", "blocks_visited", "ptes_checked", "ptes_in_vain", "descents")
    return {name: meter.get("walk", name) for name in names}


def counted(k: Kernel, operation: str, *counters: str) -> tuple[int, ...]:
    """Counters of an operation, from the beginning."""
    row = k.costs[operation]
    return tuple(row[counter] for counter in counters)
