"""The bits of an entry of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h, and from bit 32 on
include/linux/kernel-page-flags.h; Linux 6.18)."""

from __future__ import annotations

KPF_DIRTY = 1 << 4
KPF_LRU = 1 << 5
KPF_SLAB = 1 << 7
KPF_WRITEBACK = 1 << 8
KPF_BUDDY = 1 << 10
KPF_ANON = 1 << 12
KPF_SWAPCACHE = 1 << 13
KPF_SWAPBACKED = 1 << 14
KPF_COMPOUND_HEAD = 1 << 15
KPF_COMPOUND_TAIL = 1 << 16
KPF_HUGE = 1 << 17
KPF_UNEVICTABLE = 1 << 18
KPF_HWPOISON = 1 << 19
KPF_NOPAGE = 1 << 20
KPF_KSM = 1 << 21
KPF_THP = 1 << 22
KPF_ZERO_PAGE = 1 << 24
KPF_PGTABLE = 1 << 26
KPF_RESERVED = 1 << 32
KPF_MLOCKED = 1 << 33
