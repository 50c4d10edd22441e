"""``folio_referenced`` (``mm/rmap.c``): through how many VMAs was a page touched since the last time? (rule 5.8)"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.consumers.locked import in_vmas_with, positions, stop_at_locked
from rmap.mm.core import Core
from rmap.mm.costs import REFERENCED
from rmap.mm.interface import Query
from rmap.mm.pte import ACCESSED, NOT_ACCESSED
from rmap.mm.walk import hits
from rmap.uapi.vm_flags import VM_RAND_READ, VM_SEQ_READ


def folio_referenced(core: Core, pfns: I64) -> I64:
    """Count accessed entries of each page and clear their accessed bits.

    A page found in a VM_LOCKED area is marked mlocked and its walk ends. Entries in areas read sequentially or at
    random (MADV_SEQUENTIAL, MADV_RANDOM) are not looked at.

    Args:
        pfns: int64[n], distinct.

    Returns:
        int64[n]: references, in the order of ``pfns``.
    """
    core.costs.enter(REFERENCED)
    query = Query(core.frames, pfns, purpose="referenced")
    counts = np.zeros(len(pfns), np.int64)
    entries = core.tables.ptes
    passed_over = VM_SEQ_READ if core.profile.random_reads_count else VM_SEQ_READ | VM_RAND_READ
    for step in hits(core, query):
        pos, pteps = stop_at_locked(core, query, step)
        if not len(pos):
            continue
        young = (entries[pteps] & ACCESSED) != 0
        if len(pos) == step.n:
            young &= ~in_vmas_with(core, step, passed_over)
        else:
            kept = np.isin(positions(step), pos)
            young &= ~in_vmas_with(core, step, passed_over)[kept]
        entries[pteps[young]] &= NOT_ACCESSED
        np.add.at(counts, pos[young], 1)
    if query.order is None:
        return counts
    answer = np.zeros(len(pfns), np.int64)
    answer[query.order] = counts
    return answer
