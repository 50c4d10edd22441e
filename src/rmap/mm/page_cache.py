"""The page cache: which pages of a file are in memory (``mm/filemap.c``, ``mm/shmem.c``).

A cached page holds one reference (``extra``) besides its mappings. Pages of a shmem file that were swapped out are
remembered in the file, not in page tables (rule 4.11).
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.frames import SWAPBACKED, TAG_FILE, TAG_SHIFT
from rmap.mm.mm_types import AddressSpace, Vma
from rmap.uapi.vm_flags import VM_EXEC, VM_RAND_READ, VM_SEQ_READ

READAHEAD_PAGES = 32
"""128 KiB, the default ``read_ahead_kb`` of a disk."""


def add_to_page_cache(core: Core, mapping: AddressSpace, indexes: I64) -> None:
    """Bring pages of a file into memory that are not there (``filemap_add_folio``, ``shmem_get_folio``).

    The caller has reserved the frames. A swapped page of a shmem file gives up its slot.
    """
    frames = core.frames
    n = len(indexes)
    if not n:
        return
    before = mapping.pages[indexes]
    pfns = frames.alloc(n)
    frames.flags[pfns] = SWAPBACKED if mapping.shmem else 0
    frames.mapping[pfns] = mapping.id << TAG_SHIFT | TAG_FILE
    frames.index[pfns] = indexes
    frames.extra[pfns] = 1
    mapping.pages[indexes] = pfns
    mapping.nr_cached += n
    if mapping.shmem and (before < 0).any():
        core.swap_put((-before[before < 0]).tolist())


def missing(mapping: AddressSpace, first: int, last: int) -> I64:
    """The page indexes from ``first`` to ``last`` that are not in memory."""
    return np.flatnonzero(mapping.pages[first : last + 1] <= 0) + first


def readahead_window(mapping: AddressSpace, vma: Vma, index: int) -> tuple[int, int]:
    """What a fault on a page that is not in memory reads: ``(first, last)`` (``do_sync_mmap_readahead``).

    Read-around of 128 KiB; only forwards under MADV_SEQUENTIAL and in executable areas; only the page itself under
    MADV_RANDOM, and for shmem, which allocates. Not modelled: the mark that starts the next window while this one is
    still being used, and giving up after a hundred misses.
    """
    if mapping.shmem or vma.flags & (VM_RAND_READ | VM_EXEC) == VM_RAND_READ:
        return index, index
    end = mapping.nr_pages
    if vma.flags & VM_EXEC and not vma.flags & VM_SEQ_READ:
        end = min(end, vma.last + 1)
    first = index if vma.flags & (VM_SEQ_READ | VM_EXEC) else max(0, index - READAHEAD_PAGES // 2)
    return first, min(first + READAHEAD_PAGES, end) - 1


def page_for_fault(core: Core, vma: Vma, index: int) -> int:
    """The frame of a page that took a fault (``__do_fault``), read in with its neighbourhood if need be."""
    mapping = vma.mapping
    assert mapping is not None
    if mapping.pages[index] <= 0:
        first, last = readahead_window(mapping, vma, index)
        add_to_page_cache(core, mapping, missing(mapping, first, last))
    return int(mapping.pages[index])


def remove_from_page_cache(core: Core, mapping: AddressSpace, first: int, last: int) -> None:
    """Forget the pages from ``first`` to ``last`` (``truncate_inode_pages_range``); unmapped ones are freed.

    Swapped pages of a shmem file give up their slots.
    """
    frames = core.frames
    last = min(last, len(mapping.pages) - 1)
    if last < first:
        return
    held = mapping.pages[first : last + 1]
    pfns = held[held > 0]
    slots = -held[held < 0]
    held[:] = 0
    mapping.nr_cached -= len(pfns)
    frames.extra[pfns] -= 1
    dead = frames.unreferenced(pfns)
    if len(dead):
        core.free_pages(dead)
    if len(slots):
        core.swap_put(slots.tolist())
