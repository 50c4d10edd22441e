"""From counters to the figures of a table: which count, divided by what, under which name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rmap.kernel import Kernel
from rmap.lab.results import Figure, Structure
from rmap.mm.costs import COUNTERS, OPERATIONS, Costs

IN_STRUCT_PAGE = "in each struct page"
CHAIN_BLOCKS = "chain blocks"
OBJECTS = "VMA fields, anon_vmas, links"

LABELS = {
    "page.pte": IN_STRUCT_PAGE,
    "page.mapcount": IN_STRUCT_PAGE,
    "pte_chain": CHAIN_BLOCKS,
    "vma.anon_vma": OBJECTS,
    "vma.shared": OBJECTS,
    "anon_vma": OBJECTS,
    "anon_vma_chain": OBJECTS,
}
"""The row of the table for each structure of ``metadata_bytes``; one that is not named here is a row of its own."""

BLOCK_BYTES = 64

Counts = Mapping[str, Mapping[str, int]]
"""Counters by operation and name, ``calls`` among them; see ``Costs.as_dict``."""


class Rule(NamedTuple):
    """One row: a counter of an operation, by another.

    Attributes:
        label: what a reader sees.
        counters: their sum is divided ...
        per: ... by this counter, or by ``calls``.
    """

    label: str
    counters: tuple[str, ...]
    per: str


LOCKS = ("locks_anon_vma", "locks_i_mmap", "locks_chain")

RULES: dict[str, tuple[tuple[str, ...], tuple[Rule, ...]]] = {
    "fault": (
        ("fault",),
        (
            Rule("entries written per page", ("entries_written",), "ptes_added"),
            Rule("objects made per page", ("objects_made",), "ptes_added"),
        ),
    ),
    "fork": (
        ("fork",),
        (
            Rule("entries written per child", ("entries_written",), "calls"),
            Rule("records searched per child", ("blocks_visited",), "calls"),
            Rule("objects made per child", ("objects_made",), "calls"),
        ),
    ),
    "COW": (("cow",), (Rule("blocks searched per page", ("blocks_visited",), "pages_copied"),)),
    "exit": (
        ("exit",),
        (
            Rule("blocks searched per PTE", ("blocks_visited",), "ptes_removed"),
            Rule("objects freed per process", ("objects_freed",), "calls"),
        ),
    ),
    "unmap": (("munmap",), (Rule("blocks searched per PTE", ("blocks_visited",), "ptes_removed"),)),
    "mremap": (
        ("mremap",),
        (
            Rule("pages copied per call", ("copies_asked",), "calls"),
            Rule("entries written per call", ("entries_written",), "calls"),
            Rule("objects made per call", ("objects_made",), "calls"),
        ),
    ),
    "evict": (
        ("unmap_walk", "referenced"),
        (
            Rule("nodes and blocks visited per page", ("nodes_visited", "blocks_visited"), "pages_walked"),
            Rule("PTEs looked at per page", ("ptes_checked",), "pages_walked"),
            Rule("of them in vain", ("ptes_in_vain",), "pages_walked"),
        ),
    ),
    "mprotect": (
        ("mprotect",),
        (
            Rule("entries written per call", ("entries_written",), "calls"),
            Rule("objects made per call", ("objects_made",), "calls"),
            Rule("reverse-map locks taken per call", LOCKS, "calls"),
        ),
    ),
}
"""By the operation a workload shows: the operations of the model it sums, and its rows."""


def figures_of(counts: Counts, shows: Sequence[str]) -> Iterator[Figure]:
    """The rows of these operations, as far as they happened."""
    for operation in shows:
        names, rules = RULES[operation]
        for rule in rules:
            n = total(counts, names, rule.per)
            if n:
                yield Figure(operation, rule.label, sum(total(counts, names, c) for c in rule.counters) / n)


def total(counts: Counts, operations: Sequence[str], counter: str) -> int:
    """One counter, summed over operations."""
    return sum(counts.get(operation, {}).get(counter, 0) for operation in operations)


def memory_of(structures: Mapping[str, int]) -> tuple[Structure, ...]:
    """A design's metadata by row of the table."""
    by_label: dict[str, int] = {}
    for name, size in structures.items():
        label = LABELS.get(name, name)
        by_label[label] = by_label.get(label, 0) + size
    return tuple(
        Structure(label, size, size // BLOCK_BYTES, BLOCK_BYTES) if label == CHAIN_BLOCKS else Structure(label, size)
        for label, size in by_label.items()
    )


def follows_entries(kernel: Kernel) -> bool:
    """Whether the design keeps a record for every entry: its objects are then counted by entry, else by VMA."""
    return kernel.core.hooks.added is not None


class Meter:
    """Counters of one stretch of work: what they rose by since the meter was made.

    Args:
        costs: of the kernel at work.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._calls = list(costs.calls)
        self._before = [list(row) for row in costs.by_operation]

    def get(self, operation: str, counter: str) -> int:
        """How much one counter rose (``calls``: how often the operation was entered)."""
        i = OPERATIONS.index(operation)
        if counter == "calls":
            return self._costs.calls[i] - self._calls[i]
        j = COUNTERS.index(counter)
        return self._costs.by_operation[i][j] - self._before[i][j]
