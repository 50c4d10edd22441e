"""Entries of nonlinear areas, cleared by the cluster (``try_to_unmap_cluster``, ``mm/rmap.c`` of 2.6.7; 2a6053ea95).

Where a page lies in a nonlinear area cannot be computed, so ``try_to_unmap`` of 2.6.7 did not look for it: it aged and
unmapped whatever came, 32 entries at a time, until it had cleared as many as the page had mappings left. Its own
may be among them or not.
"""

from __future__ import annotations

import numpy as np

from rmap.mm.core import Core
from rmap.mm.costs import PTES_UNMAPPED
from rmap.mm.frames import MINUS_ONE, PG_DIRTY
from rmap.mm.interface import Query
from rmap.mm.nonlinear import keep_in_mind
from rmap.mm.pte import ACCESSED, DIRTY


def clear_clusters(core: Core, query: Query) -> None:
    """Age and clear what the design proposes in the place of entries that it cannot find."""
    assert core.hooks.collateral is not None
    entries, frames = core.tables.ptes, core.frames
    clusters = core.hooks.collateral(query)
    pteps = next(clusters, None)
    while pteps is not None:
        young = (entries[pteps] & ACCESSED) != 0
        entries[pteps[young]] &= np.int64(~ACCESSED)
        old = pteps[~young]
        pfns = entries[old] >> 12
        frames.flags[pfns[(entries[old] & DIRTY) != 0]] |= np.int32(PG_DIRTY)
        entries[old] = 0
        keep_in_mind(core, old.tolist(), pfns.tolist())
        np.add.at(frames.mapcount, pfns, MINUS_ONE)
        core.costs.current[PTES_UNMAPPED] += len(old)
        try:
            pteps = clusters.send(len(old))
        except StopIteration:
            return
