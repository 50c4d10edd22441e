"""What a reverse map had to do, in one number: steps, whatever kind of structure they were made in."""

from __future__ import annotations

from collections.abc import Mapping

STEPS = (
    "entries_written",
    "blocks_visited",
    "nodes_visited",
    "descents",
    "vmas_looked_up",
    "objects_made",
    "objects_freed",
    "copies_asked",
)
"""Counters that are steps of the reverse map. Entries that a walk looks at are not: they are the page tables'."""

OPERATIONS_SHOWN = (
    ("fault", ("fault",), "page"),
    ("COW", ("cow",), "page"),
    ("fork", ("fork",), "child"),
    ("exit", ("exit",), "process"),
    ("unmap", ("munmap", "madvise"), "PTE"),
    ("mremap", ("mremap",), "call"),
    ("split", ("mprotect",), "call"),
    ("evict", ("unmap_walk", "referenced"), "page"),
)
"""Operations as a reader calls them: the model's own, and what their steps are divided by."""

_PER = {"page": "ptes_added", "child": "calls", "process": "calls", "PTE": "ptes_removed", "call": "calls"}


def steps_per_unit(costs: Mapping[str, Mapping[str, int]], name: str) -> float | None:
    """Steps of an operation by page, child, call or whatever it is counted by; None if it did not happen."""
    for shown, operations, unit in OPERATIONS_SHOWN:
        if shown != name:
            continue
        per = {"evict": "pages_walked", "COW": "pages_copied"}.get(name, _PER[unit])
        times = sum(costs.get(operation, {}).get(per, 0) for operation in operations)
        steps = sum(costs.get(operation, {}).get(counter, 0) for operation in operations for counter in STEPS)
        return steps / times if times else None
    raise KeyError(name)
