"""Splitting and merging areas (``mm/vma.c`` of 6.18; rules 2.4, 2.11, 2.13, 3.1 to 3.10).

Neighbours merge when their attributes are equal, addresses and page indexes both continue, and the design agrees
(``is_mergeable_anon_vma``). Every change of an area's range is a bracket of ``pre_update`` and ``post_update``; where
two areas shift their common boundary, one bracket holds both.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from rmap.errors import SyscallError
from rmap.mm.core import Core
from rmap.mm.costs import LOCKS_I_MMAP
from rmap.mm.mm_types import File, Vma
from rmap.uapi.vm_flags import VM_IGNORE_MERGE, VM_SPECIAL
from rmap.units import PAGE_SHIFT


@dataclass(slots=True)
class Proposal:
    """A range that might become part of its neighbours (``struct vma_merge_struct``).

    Attributes:
        start, end: addresses in bytes.
        pgoff, flags, file: what an area of its own would have.
        source: the area whose pages the range will hold: the one being changed, or the one copied from; None for a
            range without pages.
    """

    start: int
    end: int
    pgoff: int
    flags: int
    file: File | None
    source: Vma | None = None

    def continues(self, prev: Vma) -> bool:
        """Whether the range is the continuation of ``prev`` in address, page index and attributes (rules 3.1, 3.2)."""
        return prev.end == self.start and self._has_attributes_of(prev) and prev.last + 1 == self.pgoff

    def leads_to(self, next: Vma) -> bool:
        """Whether ``next`` is the continuation of the range."""
        pages = (self.end - self.start) >> PAGE_SHIFT
        return self.end == next.start and self._has_attributes_of(next) and self.pgoff + pages == next.pgoff

    def _has_attributes_of(self, vma: Vma) -> bool:
        return not (vma.flags ^ self.flags) & ~VM_IGNORE_MERGE and vma.file is self.file


# -- ranges of areas --------------------------------------------------------------------------------------------------
def set_range(core: Core, vma: Vma, start: int, end: int, pgoff: int) -> None:
    """Give an area another range, inside its bracket. Its place in the order of areas must stay the same."""
    mapping = vma.mapping
    core.rmap.pre_update(vma)
    if mapping is not None:
        core.costs.current[LOCKS_I_MMAP] += 1
        mapping.i_mmap.remove(vma)
    if start != vma.start:
        vma.mm.set_start(vma, start)
    vma.end = end
    vma.pgoff = pgoff
    if mapping is not None:
        mapping.i_mmap.insert(vma)
    core.rmap.post_update(vma)


def shift_boundary(core: Core, low: Vma, high: Vma, addr: int) -> None:
    """Let two neighbours meet at another address. Both leave all trees before either comes back (``vma_prepare``).

    They come back in the order of ``vma_complete``, which decides the shape of the trees: into the file's the higher
    one first, into those of anon_vmas the lower.
    """
    mapping = low.mapping
    core.rmap.pre_update(low)
    core.rmap.pre_update(high)
    if mapping is not None:
        core.costs.current[LOCKS_I_MMAP] += 1
        mapping.i_mmap.remove(low)
        mapping.i_mmap.remove(high)
    pgoff = high.pgoff + ((addr - high.start) >> PAGE_SHIFT)
    low.mm.set_start(high, addr)
    high.pgoff = pgoff
    low.end = addr
    if mapping is not None:
        mapping.i_mmap.insert(high)
        mapping.i_mmap.insert(low)
    core.rmap.post_update(low)
    core.rmap.post_update(high)


def split_vma(core: Core, vma: Vma, addr: int, new_below: bool) -> Vma:
    """Cut an area in two at ``addr`` (``__split_vma``, rule 2.11).

    Args:
        new_below: the new area is the lower part, else the upper one. The old object keeps the other part.

    Returns:
        the new area.

    Raises:
        SyscallError: EINVAL: a special mapping of the kernel's.
    """
    if vma.is_indivisible:
        raise SyscallError(errno.EINVAL, "split", f"{vma} is a special mapping: whole, or not at all")
    pgoff = vma.linear_page_index(addr)
    if new_below:
        new = Vma(vma.mm, vma.start, addr, vma.flags, vma.pgoff, vma.file, vma.mapping)
    else:
        new = Vma(vma.mm, addr, vma.end, vma.flags, pgoff, vma.file, vma.mapping)
    if vma.faulted:
        core.rmap.vma_clone(new, vma, "split")
        new.faulted = True
    core.link_file(new)
    if new_below:
        set_range(core, vma, addr, vma.end, pgoff)
    else:
        set_range(core, vma, vma.start, addr, vma.pgoff)
    vma.mm.insert(new)
    return new


def unlink_vma(core: Core, vma: Vma, heir: Vma | None = None) -> None:
    """Take an area without entries out of its mm, its file and the reverse map."""
    vma.mm.remove(vma)
    core.unlink_file(vma)
    _unlink_anon(core, vma, heir)


def _unlink_anon(core: Core, vma: Vma, heir: Vma | None) -> None:
    if vma.faulted:
        core.rmap.vma_unlink(vma, heir)
        vma.faulted = False


def _take_over(core: Core, survivor: Vma, donor: Vma) -> None:
    # dup_anon_vma: an unfaulted survivor gets the pages of a faulted donor (rule 3.5).
    if donor.faulted and not survivor.faulted:
        core.rmap.vma_clone(survivor, donor, "merge")
        survivor.faulted = True


def _absorb(core: Core, survivor: Vma, gone: list[Vma], start: int, end: int, pgoff: int) -> None:
    # The survivor grows over areas that vanish: from the trees after it has come back into them (vma_complete).
    for vma in gone:
        vma.mm.remove(vma)
    set_range(core, survivor, start, end, pgoff)
    for vma in gone:
        core.unlink_file(vma)
        _unlink_anon(core, vma, survivor)


# -- may they merge? --------------------------------------------------------------------------------------------------
def _fits_left(core: Core, proposal: Proposal, prev: Vma | None) -> bool:
    return prev is not None and proposal.continues(prev) and core.rmap.is_mergeable_anon_vma(prev, proposal.source)


def _fits_right(core: Core, proposal: Proposal, next: Vma | None) -> bool:
    return next is not None and proposal.leads_to(next) and core.rmap.is_mergeable_anon_vma(next, proposal.source)


def _all_three(core: Core, prev: Vma | None, next: Vma | None) -> bool:
    # Rule 3.4: that both fit what lies between them does not mean that they fit each other.
    return prev is not None and next is not None and core.rmap.are_anon_vmas_compatible(prev, next)


# -- new ranges -------------------------------------------------------------------------------------------------------
def vma_merge_new_range(core: Core, proposal: Proposal, prev: Vma | None, next: Vma | None) -> Vma | None:
    """Make an empty range part of its neighbours (rules 3.6, 3.8).

    Args:
        prev, next: the areas before and behind the range. The heap (rule 3.9) passes no ``next``.

    Returns:
        the area that covers it now, None if nothing fits.
    """
    if proposal.flags & VM_SPECIAL:
        return None
    left = _fits_left(core, proposal, prev)
    right = _fits_right(core, proposal, next) and (not left or _all_three(core, prev, next))
    if left:
        assert prev is not None
        gone = []
        if right:
            assert next is not None
            _take_over(core, prev, next)
            gone = [next]
        if proposal.source is not None:
            _take_over(core, prev, proposal.source)
        _absorb(core, prev, gone, prev.start, gone[0].end if gone else proposal.end, prev.pgoff)
        return prev
    if right:
        assert next is not None
        if proposal.source is not None:
            _take_over(core, next, proposal.source)
        set_range(core, next, proposal.start, next.end, proposal.pgoff)
        return next
    return None


def vma_merge_extend(core: Core, vma: Vma, delta: int) -> bool:
    """Let an area grow upwards by ``delta`` bytes of free room, over a successor that fits (rule 3.7).

    The new pages have the area's own anon_vma, so it does not matter whether it came through fork.

    Returns:
        False for special mappings, which do not grow.
    """
    if vma.flags & VM_SPECIAL:
        return False
    end = vma.end + delta
    next = core.neighbours(vma)[1]
    proposal = Proposal(vma.end, end, vma.last + 1, vma.flags, vma.file)
    if (
        core.profile.growth_merges
        and next is not None
        and proposal.leads_to(next)
        and (vma.faulted or core.rmap.is_mergeable_anon_vma(next, None))
        and core.rmap.are_anon_vmas_compatible(vma, next)
    ):
        _take_over(core, vma, next)
        _absorb(core, vma, [next], vma.start, next.end, vma.pgoff)
    else:
        set_range(core, vma, vma.start, end, vma.pgoff)
    return True


def copy_vma(core: Core, vma: Vma, addr: int, length: int, pgoff: int) -> tuple[Vma, Vma]:
    """An area at ``addr`` for the pages of ``vma`` that have index ``pgoff`` and above (rules 2.13, 3.6).

    An anonymous area that was never faulted is based anew, at its new address.

    Returns:
        ``(new, old)``: the area that covers the target, and the one that covers the source: ``vma``, unless that was
        merged into the new one.
    """
    mm, source_start = vma.mm, vma.start
    if vma.mapping is None and not vma.faulted and not vma.is_indivisible:
        pgoff = addr >> PAGE_SHIFT
    proposal = Proposal(addr, addr + length, pgoff, vma.flags, vma.file, vma)
    merged = vma_merge_new_range(core, proposal, *mm.neighbours(addr, addr + length))
    if merged is not None:
        return merged, merged if merged.start <= source_start < merged.end else vma
    new = Vma(mm, addr, addr + length, vma.flags, pgoff, vma.file, vma.mapping)
    if vma.faulted:
        core.rmap.vma_clone(new, vma, "mremap")
        new.faulted = True
    mm.insert(new)
    core.link_file(new)
    return new, vma


# -- changed ranges ---------------------------------------------------------------------------------------------------
def vma_modify_flags(core: Core, vma: Vma, start: int, end: int, flags: int, call: str) -> Vma:
    """Prepare ``[start, end)`` of an area for other flags: merge it with neighbours that have them, or cut it out.

    Returns:
        the area that covers the range. The caller sets its flags.

    Raises:
        SyscallError: ENOMEM: too many areas; EINVAL: a part of a special mapping. A first cut may have been made.
    """
    merged = vma_merge_existing_range(core, vma, start, end, flags)
    if merged is not None:
        return merged
    for addr, new_below in ((start, True), (end, False)):
        if vma.start < addr < vma.end:
            if len(vma.mm.vmas) >= core.max_map_count:
                raise SyscallError(errno.ENOMEM, call, f"process {vma.mm.id} has {len(vma.mm.vmas):,} areas")
            split_vma(core, vma, addr, new_below)
    return vma


def vma_merge_existing_range(core: Core, middle: Vma, start: int, end: int, flags: int) -> Vma | None:
    """Merge a range of an area, whose flags are about to change, with the area before or behind it (rule 3.10).

    Only a range that begins or ends with the area has neighbours to merge with.

    Returns:
        the area that covers the range now, None if nothing fits.
    """
    first, last = start == middle.start, end == middle.end
    if flags & VM_SPECIAL or not (first or last):
        return None
    prev, next = core.neighbours(middle)
    proposal = Proposal(start, end, middle.linear_page_index(start), flags, middle.file, middle)
    left = first and _fits_left(core, proposal, prev)
    right = last and _fits_right(core, proposal, next) and (not left or _all_three(core, prev, next))
    if left and right:
        assert prev is not None and next is not None
        _take_over(core, prev, next if next.faulted else middle)
        _absorb(core, prev, [middle, next], prev.start, next.end, prev.pgoff)
        return prev
    if left:
        assert prev is not None
        _take_over(core, prev, middle)
        if last:
            _absorb(core, prev, [middle], prev.start, end, prev.pgoff)
        else:
            shift_boundary(core, prev, middle, end)
        return prev
    if right:
        assert next is not None
        _take_over(core, next, middle)
        if first:
            _absorb(core, next, [middle], start, next.end, proposal.pgoff)
        else:
            shift_boundary(core, middle, next, start)
        return next
    return None
