"""Why an entry of the recorded kernel differs from the model's, as far as the events can tell.

Every write that a program makes to a page it may not write yet is a fault, and every fault is an event, unless events
were lost. So what changed without one was changed by the kernel itself: by an access through get_user_pages, reclaim,
huge pages, or by what it maps around a fault. Those are counted, not held against the model.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.kernel.entries import ANON, FILE, KERNEL, NONE, OTHER, SHMEM, SWAPPED, ZERO
from rmap.lab.replay import results as r
from rmap.lab.replay.agreement import PAGE_BITS, Entry
from rmap.lab.replay.seen import Seen
from rmap.units import PAGE_SHIFT

PAGE_MASK = (1 << PAGE_BITS) - 1


def causes(entries: Entry, seen_of: dict[int, Seen], lost: int) -> list[str]:
    """Why each entry differs; empty for those that do not.

    Args:
        seen_of: by pid, what events have shown of its mm.
        lost: events that the recorder lost.
    """
    kind, own = entries.kind, entries.my_kind
    alike = np.where((kind == ANON) | (kind == SWAPPED), entries.shared_alike, True) & (kind == own)
    cause = [""] * len(kind)
    differing = np.flatnonzero(~alike)
    if not len(differing):
        return cause
    raced, huge = np.zeros(len(kind), np.bool_), np.zeros(len(kind), np.bool_)
    there = differing[entries.row[differing] >= 0]
    raced[there] = entries.of("raced", there)
    huge[there] = (entries.of("order", there) > 0) & (kind[there] == ANON)
    pid = entries.key[differing] >> PAGE_BITS
    for process in np.unique(pid).tolist():
        rows = differing[pid == process]
        pages = entries.key[rows] & PAGE_MASK
        seen = seen_of.get(process) or Seen()
        written, present = seen.written(pages), seen.present(pages)
        given_up = seen.given_up(pages << PAGE_SHIFT)
        for i, at in enumerate(rows.tolist()):
            said = _why(int(kind[at]), int(own[at]), bool(written[i]), bool(present[i]), bool(given_up[i]))
            if said in (r.WRONG, r.UNSEEN) and seen.unmodelled:
                said = r.UNMODELLED
            if said in (r.WRONG, r.UNSEEN) and huge[at]:
                said = r.HUGE
            if said == r.WRONG and raced[at]:
                said = r.RACED
            cause[at] = r.LOST if lost and said in (r.WRONG, r.UNSEEN) else said
    return cause


def _why(kind: int, own: int, written: bool, present: bool, given_up: bool) -> str:
    if kind == OTHER:
        return r.FOREIGN
    mapped = (FILE, SHMEM, NONE)
    if kind in mapped and own in mapped:
        return r.FAULT_AROUND
    if kind == KERNEL or (own == KERNEL and kind == NONE):
        return r.KERNELS_OWN
    if kind == SWAPPED or (kind == ANON and own == SWAPPED) or (kind == NONE and given_up):
        return r.RECLAIM
    if kind == ZERO:
        return r.UNSEEN if own == NONE else r.WRONG
    if kind == ANON and own == ANON:
        return r.WRONG if written else r.UNSEEN
    if kind == ANON:
        return r.WRONG if written or present else r.UNSEEN
    return r.WRONG


def by_cause(cause: list[str], rows: I64) -> dict[str, int]:
    """How many of these entries have each cause."""
    found: dict[str, int] = {}
    for at in rows.tolist():
        if cause[at]:
            found[cause[at]] = found.get(cause[at], 0) + 1
    return dict(sorted(found.items()))
