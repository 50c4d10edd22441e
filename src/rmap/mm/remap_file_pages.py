"""``remap_file_pages``: by nonlinear areas where the design's release had them, else by new mappings (since 4.0)."""

from __future__ import annotations

from rmap.mm.core import Core
from rmap.mm.mm_types import Mm
from rmap.mm.mmap import mmap
from rmap.mm.nonlinear import checked_range, remap_nonlinear
from rmap.uapi.vm_flags import VM_ACCESS, VM_LOCKED
from rmap.units import PAGE_SHIFT


def remap_file_pages(core: Core, mm: Mm, addr: int, length: int, pgoff: int) -> None:
    """Let a part of a shared file mapping show other pages of its file.

    Args:
        addr, length: in bytes; ``addr`` page aligned.
        pgoff: the first page of the file to be seen there, in pages.

    Raises:
        SyscallError: EINVAL (see :func:`rmap.mm.nonlinear.checked_range`); ENOMEM: too many areas, where each range
            becomes one.
    """
    vma = checked_range(mm, addr, length, pgoff)
    if core.rmap.nonlinear:
        remap_nonlinear(core, vma, addr, length, pgoff)
        return
    mmap(
        core,
        mm,
        length,
        prot=vma.flags & VM_ACCESS,
        shared=True,
        file=vma.file,
        offset=pgoff << PAGE_SHIFT,
        addr=addr,
        fixed=True,
        populate=True,
        locked=bool(vma.flags & VM_LOCKED),
    )
