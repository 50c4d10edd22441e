"""An entry of /proc/PID/pagemap, and PAGEMAP_SCAN (fs/proc/task_mmu.c, include/uapi/linux/fs.h; Linux 6.18)."""

from __future__ import annotations

PM_PFRAME_MASK = (1 << 55) - 1
"""The frame; of a swap entry, type and offset."""
PM_SOFT_DIRTY = 1 << 55
PM_MMAP_EXCLUSIVE = 1 << 56
"""The page is mapped once: not PG_anon_exclusive (rule 8.2)."""
PM_UFFD_WP = 1 << 57
PM_GUARD_REGION = 1 << 58
PM_FILE = 1 << 61
"""The page is a file's, or shared anonymous memory."""
PM_SWAP = 1 << 62
PM_PRESENT = 1 << 63

FIRST_SPECIAL_TYPE = 23
"""Swap types from here on are not areas but migration entries, markers and the like (include/linux/swap.h)."""

PAGEMAP_SCAN = 0xC0606610
"""``_IOWR('f', 16, struct pm_scan_arg)``, Linux 6.7."""
PAGE_IS_PRESENT, PAGE_IS_SWAPPED = 1 << 3, 1 << 4
