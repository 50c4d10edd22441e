"""Virtual memory areas: ``struct vm_area_struct`` and its flags.

Fields have the kernel's names without the ``vm_`` prefix. An anonymous VMA is one without ``mapping``
(the kernel's ``vm_ops == NULL``, rule 1.8), not one without ``file``: a private mapping of /dev/zero has a file and is
anonymous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.mm.address_space import AddressSpace, File
    from rmap.mm.mm_struct import Mm

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
VM_NONLINEAR = 0x800000
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


class Vma:
    """One area of one mm.

    Attributes:
        mm: whose it is.
        start, end: addresses in bytes, page aligned, end exclusive. Together with ``pgoff`` they change only
            inside the bracket ``pre_update`` / ``post_update`` of the reverse map.
        flags: ``VM_*`` bits.
        pgoff: the page index of ``start``: in the file, or in the anonymous index space (rule 2.10).
        file: the open file, or None. Compared by identity, as ``vm_file`` is (rule 3.1).
        mapping: the address_space whose pages are mapped, None for an anonymous VMA.
        faulted: prepared for anonymous pages (``anon_vma != NULL``, rule 2.1). A fact of the VMA, under every design.
        anon, chain: two slots that belong to the design.
        shared: the node in ``mapping.i_mmap``, owned by the index.

    Invariants: ``start < end``; a shared VMA is never faulted.
    """

    __slots__ = ("anon", "chain", "end", "faulted", "file", "flags", "mapping", "mm", "pgoff", "shared", "start")

    def __init__(
        self,
        mm: Mm,
        start: int,
        end: int,
        flags: int,
        pgoff: int,
        file: File | None = None,
        mapping: AddressSpace | None = None,
    ) -> None:
        self.mm = mm
        self.start = start
        self.end = end
        self.flags = flags
        self.pgoff = pgoff
        self.file = file
        self.mapping = mapping
        self.faulted = False
        self.anon: Any = None
        self.chain: Any = None
        self.shared: Any = None

    @property
    def last(self) -> int:
        """The page index of the last page."""
        return self.pgoff + ((self.end - self.start) >> PAGE_SHIFT) - 1

    @property
    def pages(self) -> int:
        """How many pages the area covers."""
        return (self.end - self.start) >> PAGE_SHIFT

    @property
    def is_cow_mapping(self) -> bool:
        """Private and possibly writable: fork write-protects its pages (rule 4.5)."""
        return self.flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE

    @property
    def is_indivisible(self) -> bool:
        """A special mapping of the kernel's (the vDSO): it goes and moves whole or not at all (``may_split``)."""
        if self.file is not None:
            return self.file.special is not None
        return self.flags & (VM_MIXEDMAP | VM_PFNMAP) == VM_MIXEDMAP

    def linear_page_index(self, addr: int) -> int:
        """The page index of an address (rule 1.3)."""
        return self.pgoff + ((addr - self.start) >> PAGE_SHIFT)

    def prot(self) -> str:
        """The permission column of /proc/PID/maps."""
        flags = self.flags
        return "".join(
            letter if flags & bit else "-" for letter, bit in (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC))
        ) + ("s" if flags & VM_MAYSHARE else "p")

    def __repr__(self) -> str:
        return f"Vma({self.start:#x}-{self.end:#x} {self.prot()} pgoff={self.pgoff:#x} mm={self.mm.id})"


def vma_address(vma: Vma, index: int) -> int | None:
    """Where a page with this page index lies in the VMA, None if outside (rule 5.3, for one page)."""
    if index < vma.pgoff:
        return None
    addr = vma.start + ((index - vma.pgoff) << PAGE_SHIFT)
    return addr if addr < vma.end else None
