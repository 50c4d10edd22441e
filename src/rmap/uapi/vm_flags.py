"""``vm_area_struct.vm_flags`` (include/linux/mm.h, Linux 6.18), and the permission column made of them."""

from __future__ import annotations

VM_READ = 0x1
VM_WRITE = 0x2
VM_EXEC = 0x4
VM_SHARED = 0x8
VM_MAYREAD = 0x10
VM_MAYWRITE = 0x20
VM_MAYEXEC = 0x40
VM_MAYSHARE = 0x80
VM_GROWSDOWN = 0x100
VM_PFNMAP = 0x400
VM_LOCKED = 0x2000
VM_IO = 0x4000
VM_SEQ_READ = 0x8000
VM_RAND_READ = 0x10000
VM_DONTCOPY = 0x20000
VM_DONTEXPAND = 0x40000
VM_LOCKONFAULT = 0x80000
VM_ACCOUNT = 0x100000
VM_NORESERVE = 0x200000
VM_HUGETLB = 0x400000
VM_NONLINEAR = 0x800000
"""Until Linux 4.0: the pages of the area lie in any order (remap_file_pages)."""
VM_WIPEONFORK = 0x2000000
VM_DONTDUMP = 0x4000000
VM_MIXEDMAP = 0x10000000
VM_HUGEPAGE = 0x20000000
VM_NOHUGEPAGE = 0x40000000
VM_MERGEABLE = 0x80000000

VM_ACCESS = VM_READ | VM_WRITE | VM_EXEC
VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP
VM_LOCKED_MASK = VM_LOCKED | VM_LOCKONFAULT
VM_IGNORE_MERGE = 0
"""Flags a merge ignores (rule 3.1): soft-dirty and guard, neither of which is modelled."""

_LETTERS = ((VM_READ, "r"), (VM_WRITE, "w"), (VM_EXEC, "x"))


def perms(flags: int) -> str:
    """VMA flags as the permission column of /proc/PID/maps: ``rw-p``."""
    access = "".join(letter if flags & bit else "-" for bit, letter in _LETTERS)
    return access + ("s" if flags & VM_MAYSHARE else "p")
