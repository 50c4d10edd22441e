"""What the critics of each design held against it, in the moves of the arena.

One sequence for each design, from the worst cases of docs/designs; it is measured in whatever cost is asked for, so
that the search has something to beat. Where a cost has an adversary of its own, that one is taken."""

from __future__ import annotations

WRITE, FOUR = "everybody writes the heap", "the oldest forks four"
LINE, OLDEST_EXITS = "four forks in a line", "the oldest exits"
SPLIT, MOVE = "everybody splits the heap", "everybody moves the heap"
WINDOWS, WHOLE = "everybody maps single pages of the file", "everybody maps the whole file"
ONE_READS = "the youngest reads the file"

SHARED = (WRITE, FOUR, FOUR, FOUR, FOUR, FOUR)
BY_DESIGN = {
    "virtual_scan": (*SHARED, WRITE),
    "pte_chain": (*SHARED, OLDEST_EXITS, OLDEST_EXITS, OLDEST_EXITS),
    "lego_pcache": SHARED,
    "objrmap": (FOUR, FOUR, FOUR, FOUR, FOUR, WINDOWS, ONE_READS),
    "objrmap_prio": (FOUR, FOUR, FOUR, FOUR, FOUR, WHOLE, ONE_READS),
    "anonmm": (*SHARED, MOVE),
    "anon_vma": (*SHARED, WRITE),
    "anon_vma_chain": (WRITE, SPLIT, "everybody writes one page", LINE, LINE, LINE, LINE, LINE),
    "cow_context": (WRITE, LINE, "the youngest moves the heap", LINE, LINE, LINE, LINE),
    "anon_vma_lazy": (WRITE, SPLIT, "everybody merges the heap", SPLIT, "everybody merges the heap"),
    "pv_chunk": (*SHARED, *("the youngest unmaps the heap", "the youngest exits") * 2),
}
BY_COST = {
    "split": (WRITE, LINE, LINE, LINE, LINE, LINE, SPLIT),
    "move": (*SHARED, MOVE),
    "unmap": (*SHARED, "the youngest unmaps the heap"),
}


def adversary(design: str, cost: str) -> tuple[str, ...]:
    """The known worst case of a design, for a cost."""
    return BY_COST.get(cost) or BY_DESIGN.get(design.partition(":")[0], SHARED)
