"""Truncation and hole punching: ``unmap_mapping_range`` (``mm/memory.c``), ``truncate_pagecache`` (``mm/truncate.c``).

Not a reverse-map walk of pages: the file's index of VMAs is asked for a range, and the entries are zapped there
(rule 5.8).
"""

from __future__ import annotations

import errno

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import LOCKS_I_MMAP, TRUNCATE
from rmap.mm.mm_types import AddressSpace
from rmap.mm.nonlinear import zap_nonlinear
from rmap.mm.page_cache import remove_from_page_cache
from rmap.mm.zap import unmap_page_range
from rmap.uapi.vm_flags import VM_NONLINEAR
from rmap.units import PAGE_SHIFT, page_align


def unmap_mapping_range(core: Core, mapping: AddressSpace, first: int, last: int, even_cows: bool) -> None:
    """Zap the pages ``first`` to ``last`` of a file wherever they are mapped.

    Args:
        even_cows: private copies go too (truncation: the file has no such page any more). A hole punch leaves them.
    """
    core.costs.current[LOCKS_I_MMAP] += 1
    for vma in list(mapping.i_mmap.stab(first, last)):
        if vma.flags & VM_NONLINEAR:
            zap_nonlinear(core, vma, first, last)
            continue
        low, high = max(first, vma.pgoff), min(last, vma.last)
        start = vma.start + ((low - vma.pgoff) << PAGE_SHIFT)
        end = vma.start + ((high + 1 - vma.pgoff) << PAGE_SHIFT)
        unmap_page_range(core, vma, start, end, "truncate", even_cows)


def truncate(core: Core, mapping: AddressSpace, size: int) -> None:
    """Set a file's size in bytes (``ftruncate``).

    Raises:
        SyscallError: EINVAL for a negative size.
    """
    core.costs.enter(TRUNCATE)
    if size < 0:
        raise SyscallError(errno.EINVAL, "ftruncate", f"size {size}")
    shrinks = size < mapping.size
    mapping.resize(size)
    if shrinks:
        first, last = page_align(size) >> PAGE_SHIFT, len(mapping.pages) - 1
        if first <= last:
            unmap_mapping_range(core, mapping, first, last, even_cows=True)
            remove_from_page_cache(core, mapping, first, last)


def punch_hole(core: Core, mapping: AddressSpace, start: int, length: int) -> None:
    """Drop the whole pages of ``[start, start + length)`` bytes (``fallocate(PUNCH_HOLE)``); the size stays.

    Raises:
        SyscallError: EINVAL for an empty or negative range.
    """
    core.costs.enter(TRUNCATE)
    if start < 0 or length <= 0:
        raise SyscallError(errno.EINVAL, "fallocate", f"offset {start}, length {length}")
    first = page_align(start) >> PAGE_SHIFT
    last = ((start + length) >> PAGE_SHIFT) - 1
    if first <= last:
        unmap_mapping_range(core, mapping, first, last, even_cows=False)
        remove_from_page_cache(core, mapping, first, last)
