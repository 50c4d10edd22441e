"""Bits and codes of a picture: VMA flags, the kinds of a PTE extent, page flags, kinds of files and holders.

VMA flags and page flags have the kernel's own numbers (``include/linux/mm.h``,
``include/uapi/linux/kernel-page-flags.h``), so that what /proc shows is stored as it is. ``docs/data-model.md``
restates all of them. Kinds of frames: :mod:`rmap.snapshot.kinds`.
"""

from __future__ import annotations

from rmap.uapi.kpageflags import (
    KPF_ANON,
    KPF_DIRTY,
    KPF_HUGE,
    KPF_HWPOISON,
    KPF_KSM,
    KPF_LRU,
    KPF_MLOCKED,
    KPF_NOPAGE,
    KPF_PGTABLE,
    KPF_RESERVED,
    KPF_SLAB,
    KPF_SWAPBACKED,
    KPF_SWAPCACHE,
    KPF_THP,
    KPF_UNEVICTABLE,
    KPF_WRITEBACK,
    KPF_ZERO_PAGE,
)
from rmap.uapi.vm_flags import (
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
)

# vmas.flags: VM_* bits of rmap.uapi.vm_flags. /proc/PID/maps tells the first five; the rest needs smaps.
VM_ALL = (
    VM_READ | VM_WRITE | VM_EXEC | VM_SHARED | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_MAYSHARE | VM_GROWSDOWN
    | VM_PFNMAP | VM_LOCKED | VM_IO | VM_SEQ_READ | VM_RAND_READ | VM_DONTCOPY | VM_DONTEXPAND | VM_LOCKONFAULT
    | VM_ACCOUNT | VM_NORESERVE | VM_HUGETLB | VM_WIPEONFORK | VM_DONTDUMP | VM_MIXEDMAP | VM_HUGEPAGE
    | VM_NOHUGEPAGE | VM_MERGEABLE
)  # fmt: skip
"""What a picture keeps of a VMA's flags."""

# ptes.flags. Exactly one of the first four is set.
PTE_PRESENT = 0x001
"""A frame is mapped: ``pfn`` is its number, and goes up by 1 per page."""
PTE_SWAP = 0x002
"""The content is in swap: ``pfn`` is the entry, ``type | offset << 5``, and goes up by 32 per page."""
PTE_GUARD = 0x004
"""A guard marker (MADV_GUARD_INSTALL): ``pfn`` is -1."""
PTE_OTHER = 0x008
"""Another entry that is not present (a migration entry, a marker): ``pfn`` is -1."""
PTE_EXCLUSIVE = 0x010
"""Present: the frame's mapcount was 1 (pagemap bit 56; this is *not* PG_anon_exclusive, rule 8.2).
Swap: the exclusive marker, meaningful only where ``about["pte_write"]`` is true."""
PTE_FILE = 0x020
"""The page is a file's, or shared anonymous memory (pagemap bit 61)."""
PTE_SPECIAL = 0x040
"""No reverse map tracks this entry: the zero page, a page the kernel owns, device memory (rules 1.4, 4.1, 4.17)."""
PTE_WRITE = 0x080
"""Writable. /proc does not tell, BPF does; meaningful only where ``about["pte_write"]`` is true."""
PTE_DIRTY = 0x100
"""Dirty. As above."""
PTE_UFFD_WP = 0x200
"""Write-protected by userfaultfd (pagemap bit 57)."""

PTE_KINDS = PTE_PRESENT | PTE_SWAP | PTE_GUARD | PTE_OTHER
SWAP_TYPE_BITS = 5
SWAP_STEP = 1 << SWAP_TYPE_BITS

# frames.flags: bits of rmap.uapi.kpageflags, and one that /proc does not have.
KPF_ANON_EXCLUSIVE = 1 << 47
"""PG_anon_exclusive. /proc does not export it; meaningful only where ``about["anon_exclusive"]`` is true."""

KPF_KEPT = (
    KPF_DIRTY
    | KPF_LRU
    | KPF_SLAB
    | KPF_WRITEBACK
    | KPF_ANON
    | KPF_SWAPCACHE
    | KPF_SWAPBACKED
    | KPF_HUGE
    | KPF_UNEVICTABLE
    | KPF_HWPOISON
    | KPF_NOPAGE
    | KPF_KSM
    | KPF_THP
    | KPF_ZERO_PAGE
    | KPF_PGTABLE
    | KPF_RESERVED
    | KPF_MLOCKED
    | KPF_ANON_EXCLUSIVE
)
"""What a picture keeps. Left out: flags that flicker (locked, referenced, active, reclaim) and those another column
says (the folio's head and tails: ``head_offset`` and ``order``; mapped: ``mapcount``)."""

# frames.mapping: the tag of folio->mapping (rule 1.1).
MAPPING_UNKNOWN = -1
MAPPING_FILE = 0
MAPPING_ANON = 1
MAPPING_KSM = 3

# files.kind.
FILE_REGULAR = 0
FILE_SHMEM = 1
FILE_DEVICE = 2
FILE_KINDS = ("file", "shmem", "device")

# holders.kind.
HOLDER_FD = 0
HOLDER_SYSV = 1
HOLDER_PATH = 2
HOLDER_KINDS = ("fd", "sysv", "path")


def swap_entry(area: int, slot: int) -> int:
    """A swap entry as ``ptes.pfn`` and pagemap have it (rule 8.2): the area in the low bits, the slot above them."""
    return area | slot << SWAP_TYPE_BITS


def swap_place(entry: int) -> tuple[int, int]:
    """The area and slot that a swap entry names; the inverse of :func:`swap_entry`."""
    return entry & (SWAP_STEP - 1), entry >> SWAP_TYPE_BITS
