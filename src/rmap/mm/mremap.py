"""mremap (``mm/mremap.c`` of 6.17 and later; rules 2.13 to 2.16, 3.6, 3.7)."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import MREMAP
from rmap.mm.frames import MLOCK_KEPT, MLOCK_MISSED
from rmap.mm.merge import copy_vma, vma_merge_extend
from rmap.mm.mm_types import TASK_SIZE, Mm, Vma
from rmap.mm.mmap import do_munmap
from rmap.mm.move import copies_needed, move_page_tables, tables_needed
from rmap.mm.placement import get_unmapped_area
from rmap.mm.populate import mm_populate
from rmap.uapi.vm_flags import VM_DONTEXPAND, VM_LOCKED, VM_LOCKED_MASK, VM_MAYSHARE, VM_PFNMAP, VM_SHARED
from rmap.units import PAGE_MASK, PAGE_SHIFT, page_align

SPARE_AREAS = 3
"""A move may split areas up to this often, so it begins only if that many are left."""
MAX_WORD = (1 << 64) - 1


@dataclass(slots=True)
class _Remap:
    """What is asked for, or a piece of it (``struct vma_remap_struct``). Addresses and lengths in bytes."""

    core: Core
    mm: Mm
    addr: int
    old_len: int
    new_len: int
    new_addr: int
    fixed: bool
    dontunmap: bool

    @property
    def implies_new_addr(self) -> bool:
        return self.fixed or self.dontunmap

    def vma(self) -> Vma:
        vma = self.mm.find(self.addr)
        if vma is None:
            raise self.refusal(errno.EFAULT, f"{self.addr:#x} is not mapped in process {self.mm.id}")
        return vma

    def refusal(self, error: int, detail: str) -> SyscallError:
        return SyscallError(error, "mremap", detail)


def mremap(
    core: Core,
    mm: Mm,
    addr: int,
    old_len: int,
    new_len: int,
    *,
    maymove: bool = True,
    new_addr: int | None = None,
    dontunmap: bool = False,
) -> int:
    """Resize or move a mapping; returns its address.

    Args:
        addr: in bytes, page aligned.
        old_len, new_len: in bytes; rounded up to pages. An ``old_len`` of 0 duplicates a shared mapping (rule 2.15).
            With ``new_addr`` and equal lengths the range may span several areas, which are moved one by one and keep
            their gaps; one that fails leaves those before it moved.
        maymove: MREMAP_MAYMOVE.
        new_addr: move exactly there, in place of what is there (MREMAP_FIXED).
        dontunmap: the old area stays, empty (MREMAP_DONTUNMAP, rule 2.14).

    Raises:
        SyscallError: EINVAL: unaligned, empty, overlapping, or an impossible combination; EFAULT: not mapped, or
            across the end of an area; ENOMEM: no room, or too many areas.
        LimitError: no page tables are left. Nothing was moved, but what was at the target may be gone.
    """
    core.costs.enter(MREMAP)
    # Lengths are rounded up in 64 bits: the largest become 0.
    old_len, new_len = page_align(old_len) & MAX_WORD, page_align(new_len) & MAX_WORD
    remap = _Remap(core, mm, addr, old_len, new_len, new_addr or 0, new_addr is not None, dontunmap)
    _check_arguments(remap, maymove)
    if core.profile.moves_many and remap.fixed and remap.old_len == remap.new_len:
        return _remap_move(remap)
    vma = remap.vma()
    _check_vma(remap, vma)
    grown = remap.new_len - remap.old_len
    locked = vma.flags & VM_LOCKED
    at = _mremap_to(remap) if remap.implies_new_addr else _mremap_at(remap, maymove)
    if locked and grown > 0:
        mm_populate(core, mm, at + remap.new_len - grown, at + remap.new_len)
    return at


def _check_arguments(remap: _Remap, maymove: bool) -> None:
    # check_mremap_params: all that is wrong whatever is mapped.
    new_addr, new_len = remap.new_addr, remap.new_len
    if remap.dontunmap and not remap.core.profile.dontunmap:
        raise remap.refusal(errno.EINVAL, "there is no MREMAP_DONTUNMAP yet")
    if remap.addr & ~PAGE_MASK or remap.addr < 0:
        raise remap.refusal(errno.EINVAL, f"address {remap.addr:#x}, length {remap.old_len:#x}")
    if not 0 < new_len <= TASK_SIZE:
        raise remap.refusal(errno.EINVAL, f"new length {new_len:#x}")
    if not remap.implies_new_addr:
        return
    if not 0 <= new_addr <= TASK_SIZE - new_len or new_addr & ~PAGE_MASK:
        raise remap.refusal(errno.EINVAL, f"new address {new_addr:#x}")
    if not maymove:
        raise remap.refusal(errno.EINVAL, "a new address, but no leave to move")
    if remap.dontunmap and remap.old_len != new_len:
        raise remap.refusal(errno.EINVAL, "MREMAP_DONTUNMAP does not resize")
    if (remap.addr + remap.old_len) & MAX_WORD > new_addr and new_addr + new_len > remap.addr:
        raise remap.refusal(errno.EINVAL, "the old and the new range overlap")
    if len(remap.mm.vmas) + 2 >= remap.core.max_map_count - SPARE_AREAS:
        raise remap.refusal(errno.ENOMEM, f"process {remap.mm.id} has {len(remap.mm.vmas):,} areas")


def _check_vma(remap: _Remap, vma: Vma) -> None:
    # check_prep_vma: what the area has to allow. A shrink in place is a munmap, and may reach over anything.
    old_len, new_len = remap.old_len, remap.new_len
    if not remap.implies_new_addr and new_len <= old_len:
        return
    if not old_len and not vma.flags & (VM_SHARED | VM_MAYSHARE):
        raise remap.refusal(errno.EINVAL, "a private mapping cannot be duplicated")
    if remap.dontunmap and vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise remap.refusal(errno.EINVAL, f"{vma} cannot be left behind")
    if min(old_len, new_len) > vma.end - remap.addr:
        raise remap.refusal(errno.EFAULT, f"the range reaches beyond {vma}")
    if new_len > old_len and vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise remap.refusal(errno.EFAULT, f"{vma} does not grow")


# -- without a new address --------------------------------------------------------------------------------------------
def _mremap_at(remap: _Remap, maymove: bool) -> int:
    core, mm, addr = remap.core, remap.mm, remap.addr
    if remap.new_len == remap.old_len:
        return addr
    if remap.new_len < remap.old_len:  # rule 2.16: to shrink is to unmap the end
        do_munmap(core, mm, addr + remap.new_len, addr + remap.old_len, "mremap")
        return addr
    vma, delta = remap.vma(), remap.new_len - remap.old_len
    end = vma.end + delta
    if vma.end - addr == remap.old_len and end <= TASK_SIZE and not mm.overlapping(vma.end, end):
        if not vma_merge_extend(core, vma, delta):
            raise remap.refusal(errno.ENOMEM, f"{vma} does not grow")
        if vma.flags & VM_LOCKED:
            mm.locked_vm += delta >> PAGE_SHIFT
        return addr
    if not maymove:
        raise remap.refusal(errno.ENOMEM, "no room to grow, and no leave to move")
    return _move_vma(remap, vma)


# -- to a new address -------------------------------------------------------------------------------------------------
def _remap_move(remap: _Remap) -> int:
    # Area after area, each to the place that keeps its distance from the one before.
    core, mm = remap.core, remap.mm
    start, end = remap.addr, remap.addr + remap.old_len
    target = remap.new_addr
    remap.vma()
    moved_to = -1
    at, last_end = start, start
    # Asked again each time: what was moved may have become one area with its source.
    while at < end and (pieces := mm.overlapping(at, end)):
        vma = pieces[0]
        if vma.file is not None and vma.file.zero_device and (moved_to >= 0 or vma.end < end):
            # vma_multi_allowed: a device that places its mappings itself is moved alone or not at all.
            raise remap.refusal(errno.EFAULT, f"{vma} cannot be moved along with others")
        low, high = max(vma.start, start), min(vma.end, end)
        target += low - last_end
        piece = _Remap(core, mm, low, high - low, high - low, target, True, remap.dontunmap)
        last_end = high
        at = vma.end
        _check_vma(piece, vma)
        landed = _mremap_to(piece)
        if moved_to < 0:
            moved_to = landed
        target = landed + piece.new_len
    return moved_to


def _mremap_to(remap: _Remap) -> int:
    core, mm, addr = remap.core, remap.mm, remap.addr
    if remap.fixed:
        do_munmap(core, mm, remap.new_addr, remap.new_addr + remap.new_len, "mremap")
    if remap.new_len < remap.old_len:
        do_munmap(core, mm, addr + remap.new_len, addr + remap.old_len, "mremap")
        remap.old_len = remap.new_len
    return _move_vma(remap, remap.vma())


def _move_vma(remap: _Remap, vma: Vma) -> int:
    core, mm, addr = remap.core, remap.mm, remap.addr
    pgoff = vma.linear_page_index(addr)
    target = get_unmapped_area(
        mm,
        remap.new_len,
        hint=remap.new_addr,
        fixed=remap.fixed,
        shared=bool(vma.flags & VM_MAYSHARE),
        file=vma.file,
        pgoff=pgoff,
        call="mremap",
    )
    if len(mm.vmas) >= core.max_map_count - SPARE_AREAS:
        raise remap.refusal(errno.ENOMEM, f"process {mm.id} has {len(mm.vmas):,} areas")
    if vma.is_indivisible and (addr, addr + remap.old_len) != (vma.start, vma.end):
        raise remap.refusal(errno.EINVAL, f"{vma} is a special mapping: it moves whole, or not at all")
    if remap.old_len:
        core.tables.need(tables_needed(mm, addr, target, remap.old_len))
        core.reserve(copies_needed(core, vma, addr, target, remap.old_len))
    whole = addr == vma.start and addr + remap.old_len == vma.end
    if vma.flags & VM_LOCKED:
        mm.locked_vm += remap.new_len >> PAGE_SHIFT
    new, old = copy_vma(core, vma, target, remap.new_len, pgoff)
    if remap.old_len:
        move_page_tables(core, old, addr, new, target, remap.old_len)
    if remap.dontunmap:
        _leave_behind(core, old, new, whole)
    elif remap.old_len:
        do_munmap(core, mm, addr, addr + remap.old_len, "mremap")
    return target


def _leave_behind(core: Core, old: Vma, new: Vma, whole: bool) -> None:
    # dontunmap_complete (rule 2.14): nothing is locked any more, and if all of the area was moved, none of its pages
    # is here. What was not moved is not unlocked: those pages stay marked until they are freed.
    if old.flags & VM_LOCKED:
        for piece in core.spans(old, old.start, old.end):
            pfns = piece.tracked()[0]
            core.frames.flags[pfns[(core.frames.flags[pfns] & MLOCK_MISSED) == 0]] |= np.int32(MLOCK_KEPT)
        old.mm.locked_vm -= old.pages
        old.flags &= ~VM_LOCKED_MASK
    if whole and new is not old and old.faulted:
        core.rmap.vma_unlink(old, None)
        old.faulted = False
