"""Splitting large folios (``split_folio``, ``mm/huge_memory.c``; rule 4.14)."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.frames import LARGE, WAS_LARGE


def split_folios(core: Core, heads: I64) -> None:
    """Make every page of these folios a folio of its own: the head's mapping, and the index it had all along.

    The kernel replaces the entries by migration entries while it does so, and restores them; nothing of that is left
    afterwards, so it is not done here. Pages that nobody references are freed.

    Args:
        heads: int64[n], distinct; first pages of folios of order 1 or more, with no references but mappings and caches.
    """
    frames = core.frames
    for head in heads.tolist():
        pages = frames.folio_of(head)
        frames.mapping[pages] = frames.mapping[head]
        frames.index[pages] = frames.index[head] + np.arange(pages.stop - pages.start)
        frames.dissolve_folio(head)
        frames.flags[pages] &= np.int32(~LARGE)
        frames.flags[pages] |= np.int32(WAS_LARGE)
        idle = (frames.mapcount[pages] | frames.extra[pages]) == 0
        if idle.any():
            core.free_pages(np.flatnonzero(idle) + head)
