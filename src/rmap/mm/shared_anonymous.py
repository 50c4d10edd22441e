"""Shared anonymous memory: a nameless shmem file per mapping (``shmem_zero_setup``, ``mm/shmem.c``; rule 2.10)."""

from __future__ import annotations

import numpy as np

from rmap.mm.core import Core
from rmap.mm.mm_types import AddressSpace, File
from rmap.mm.page_cache import remove_from_page_cache

NAME = "/dev/zero (deleted)"
"""What /proc/PID/maps shows for such a file."""


def shmem_zero_setup(core: Core, size: int) -> File:
    """A file of ``size`` bytes that nothing but its mappings keeps alive."""
    return File(core.new_mapping(NAME, size, shmem=True), NAME)


def release_if_unmapped(core: Core, mapping: AddressSpace | None) -> None:
    """With its last mapping such a file goes, and so do its pages (``shmem_evict_inode``). Files with a name stay."""
    if mapping is None or mapping.name != NAME or len(mapping.i_mmap):
        return
    remove_from_page_cache(core, mapping, 0, len(mapping.pages) - 1)
    mapping.pages = np.zeros(0, np.int64)
    mapping.size = 0
