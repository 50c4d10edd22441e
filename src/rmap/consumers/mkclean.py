"""``folio_mkclean`` (``mm/rmap.c``): before a page of a file is written back, its shared writable entries are
write-protected, so that the next write is noticed (rule 5.8)."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.consumers.locked import in_vmas_with
from rmap.mm.core import Core
from rmap.mm.costs import MKCLEAN
from rmap.mm.frames import PG_DIRTY
from rmap.mm.interface import Query
from rmap.mm.pte import DIRTY, RW
from rmap.mm.walk import hits
from rmap.uapi.vm_flags import VM_SHARED


def folio_mkclean(core: Core, pfns: I64) -> int:
    """Write-protect and clean every entry of these pages in VM_SHARED areas.

    Args:
        pfns: int64[n], distinct pages of files.

    Returns:
        how many entries were dirty or writable.
    """
    core.costs.enter(MKCLEAN)
    query = Query(core.frames, pfns, skip_vma=lambda vma: not vma.flags & VM_SHARED, purpose="mkclean")
    entries = core.tables.ptes
    cleaned = 0
    for step in hits(core, query):
        pteps = step.pteps[in_vmas_with(core, step, VM_SHARED)]
        pteps = pteps[(entries[pteps] & (DIRTY | RW)) != 0]
        entries[pteps] &= np.int64(~(DIRTY | RW))
        cleaned += len(pteps)
    core.frames.flags[pfns] &= np.int32(~PG_DIRTY)
    return cleaned
