"""VM_LOCKED areas end a walk: a page that one of them maps is kept (``folio_referenced_one``, ``try_to_unmap_one``)."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.core import Core
from rmap.mm.frames import MLOCK_MISSED, PG_MLOCKED
from rmap.mm.interface import Query
from rmap.mm.walk import Hits
from rmap.uapi.vm_flags import VM_LOCKED


def positions(step: Hits) -> I64:
    """The positions of a step of the walk as an array."""
    pos = step.pos
    return np.arange(pos.start, pos.stop) if isinstance(pos, slice) else pos


def in_vmas_with(core: Core, step: Hits, flag: int) -> Bool:
    """Which entries of a step lie in VMAs that have a flag, bool[n]."""
    if step.vma is not None:
        return np.full(step.n, bool(step.vma.flags & flag))
    mms = (core.mm_by_id(mm_id) for mm_id in step.mm_ids.tolist())
    vmas = (mm.find(addr) for mm, addr in zip(mms, step.addrs.tolist()))
    return np.array([vma is not None and bool(vma.flags & flag) for vma in vmas], np.bool_)


def mark_locked(core: Core, pfns: I64) -> None:
    """Mark those of these pages that a VM_LOCKED area maps, and no others (``mlock_vma_folio``, ``munlock_vma_folio``).

    The kernel marks a page when it is mapped there, so that reclaim does not even begin to unmap it elsewhere.
    """
    flags = core.frames.flags
    flags[pfns] &= np.int32(~PG_MLOCKED)
    for mm in core.mms.values():
        for vma in mm.vmas if mm.locked_vm else ():
            if vma.flags & VM_LOCKED:
                for piece in core.spans(vma, vma.start, vma.end):
                    flags[piece.tracked()[0]] |= np.int32(PG_MLOCKED)
    flags[pfns[(flags[pfns] & PG_MLOCKED) != 0]] &= np.int32(~MLOCK_MISSED)


def stop_at_locked(core: Core, query: Query, step: Hits) -> tuple[I64, I64]:
    """Take the entries in VM_LOCKED areas out of a step: their pages are marked, and searched no further.

    Returns:
        ``(positions, pte pointers)`` of the entries that may be cleared.
    """
    pos, pteps = positions(step), step.pteps
    if not any(mm.locked_vm for mm in core.mms.values()):
        return pos, pteps
    locked = in_vmas_with(core, step, VM_LOCKED)
    if locked.any():
        core.frames.flags[query.pfns[pos[locked]]] |= np.int32(PG_MLOCKED)
        query.left[pos[locked]] = 0
    return pos[~locked], pteps[~locked]
