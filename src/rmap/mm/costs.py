"""Costs are counted, not timed: what each operation made the memory manager and its reverse map do.

A counter is a slot of a preallocated list, one list per operation, so that counting costs tens of
nanoseconds: ``costs.current[PTES_CHECKED] += n``, once per batch. The counts are exact, the same for the
scalar and the array twin of every operation, and the same on every machine.
"""

from __future__ import annotations

# What the memory manager did (the denominators of most questions).
FAULTS = 0  # pages that took a fault
PTES_ADDED = 1  # entries that began to map a tracked page
PTES_REMOVED = 2  # entries that ended to map one, not through a walk
VMAS_FORKED = 3  # VMAs copied at fork that carry anonymous memory
PAGES_WALKED = 4  # pages a walk was asked for
PTES_CHECKED = 5  # candidates looked up in page tables
PTES_IN_VAIN = 6  # ... of them: did not map the page
PTES_UNMAPPED = 7  # entries cleared by the consumer of a walk
PAGES_COPIED = 8  # pages copied, by COW or because a design asked for it
# What the design did.
ENTRIES_WRITTEN = 9  # per-mapping records written (a chain slot, a list cell)
BLOCKS_VISITED = 10  # chain blocks or list cells of mappings looked at
NODES_VISITED = 11  # tree nodes entered, or members of a list of VMAs or mms looked at
OBJECTS_MADE = 12
OBJECTS_FREED = 13
COPIES_ASKED = 14  # pages a design wanted copied early
# Locks, by class.
LOCKS_ANON_VMA = 15
LOCKS_I_MMAP = 16
LOCKS_CHAIN = 17
LOCKS_PAGE_TABLE = 18
# What looking costs beside the design's own structures.
DESCENTS = 19  # page tables descended from the top for a candidate; a pte pointer needs none
VMAS_LOOKED_UP = 20  # find_vma, where a design must ask which VMA an entry lies in

COUNTERS = (
    "faults",
    "ptes_added",
    "ptes_removed",
    "vmas_forked",
    "pages_walked",
    "ptes_checked",
    "ptes_in_vain",
    "ptes_unmapped",
    "pages_copied",
    "entries_written",
    "blocks_visited",
    "nodes_visited",
    "objects_made",
    "objects_freed",
    "copies_asked",
    "locks_anon_vma",
    "locks_i_mmap",
    "locks_chain",
    "locks_page_table",
    "descents",
    "vmas_looked_up",
)

OPERATIONS = (
    "setup",
    "fault",
    "cow",
    "swapin",
    "fork",
    "exit",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mlock",
    "brk",
    "truncate",
    "walk",
    "referenced",
    "unmap_walk",
    "mkclean",
    "adopt",
)

(SETUP, FAULT, COW, SWAPIN, FORK, EXIT, MMAP, MUNMAP, MREMAP, MPROTECT, MADVISE, MLOCK, BRK, TRUNCATE) = range(14)
(WALK, REFERENCED, UNMAP_WALK, MKCLEAN, ADOPT) = range(14, 19)


class Costs:
    """Counters by operation.

    Attributes:
        by_operation: one list of counters per operation, in the order of ``OPERATIONS``.
        current: the list of the operation under way; counters are added to it.
        calls: how often each operation was entered.
    """

    __slots__ = ("by_operation", "calls", "current")

    def __init__(self) -> None:
        self.by_operation: list[list[int]] = [[0] * len(COUNTERS) for _ in OPERATIONS]
        self.calls: list[int] = [0] * len(OPERATIONS)
        self.current = self.by_operation[SETUP]

    def enter(self, operation: int) -> list[int]:
        """Count from now on to this operation; returns its counters."""
        self.calls[operation] += 1
        counters = self.current = self.by_operation[operation]
        return counters

    def get(self, operation: str, counter: str) -> int:
        """One count, by names."""
        return self.by_operation[OPERATIONS.index(operation)][COUNTERS.index(counter)]

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Every non-zero count, by operation and counter, with ``calls``."""
        table: dict[str, dict[str, int]] = {}
        for name, calls, counters in zip(OPERATIONS, self.calls, self.by_operation):
            row = {counter: n for counter, n in zip(COUNTERS, counters) if n}
            if row or calls:
                table[name] = {"calls": calls, **row}
        return table

    def __getitem__(self, operation: str) -> dict[str, int]:
        """All counters of one operation, zeros included."""
        return dict(zip(COUNTERS, self.by_operation[OPERATIONS.index(operation)]))

    def __repr__(self) -> str:
        return f"Costs({self.as_dict()!r})"
