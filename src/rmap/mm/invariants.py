"""Everything that must be true of the model after every step, checked at once.

The numbers are those of ``docs/rules.md``. What only the design can see (I1 to I13, I16) it checks itself, in
``validate``; here are the facts of the machine, the agreement of the walk with the oracle (I19, I20), and the accounts.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rmap.columns import I32, I64
from rmap.errors import InvariantError
from rmap.mm.core import Core
from rmap.mm.frames import ANON, EXCLUSIVE, KERNEL_OWNED, SWAPCACHE, TAG_FILE, TAG_SHIFT, ZERO_PFN
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.oracle import transpose
from rmap.mm.page_tables import spans
from rmap.mm.pte import PRESENT, RW, SWAP, TRACKED_MASK
from rmap.mm.shared_anonymous import NAME
from rmap.mm.walk import walk_many
from rmap.uapi.vm_flags import VM_LOCKED, VM_NONLINEAR, VM_SHARED
from rmap.units import PAGE_MASK, PAGE_SHIFT, PMD_SHIFT


def check(core: Core) -> dict[str, int]:
    """Check every invariant.

    Returns:
        how much was checked: ``vmas``, ``pages``, ``ptes``, ``files``, ``swap_slots``.

    Raises:
        InvariantError: the first one that does not hold.
    """
    before = core.costs.current
    counters = [list(row) for row in core.costs.by_operation]
    calls = list(core.costs.calls)
    try:
        oracle = transpose(core.tables)
        nr_vmas = sum(_check_vmas(core, mm) for mm in core.mms.values())
        _check_tables(core)
        _check_counts(core, oracle[0])
        _check_walk(core, oracle)
        _check_entries(core)
        nr_files = _check_files(core)
        nr_slots = _check_swap(core)
        core.rmap.validate()
    finally:
        # Checking is not an operation of the machine: it leaves no trace in the costs.
        for row, saved in zip(core.costs.by_operation, counters):
            row[:] = saved
        core.costs.calls[:] = calls
        core.costs.current = before
    pages = int(np.count_nonzero(core.frames.mapcount))
    return {"vmas": nr_vmas, "pages": pages, "ptes": len(oracle[0]), "files": nr_files, "swap_slots": nr_slots}


def _check_vmas(core: Core, mm: Mm) -> int:
    vmas = mm.vmas
    if [vma.start for vma in vmas] != mm.starts:
        raise InvariantError("vma-order", f"the list of start addresses differs from the VMAs: {vmas}")
    for vma in vmas:
        if not vma.start < vma.end or (vma.start | vma.end) & ~PAGE_MASK or vma.pgoff < 0:
            raise InvariantError("vma-range", f"{vma}")
        if vma.faulted and vma.flags & VM_SHARED:
            raise InvariantError("vma-faulted", f"a shared mapping was prepared for anonymous pages: {vma}")
    for low, high in pairwise(vmas):
        if low.end > high.start:
            raise InvariantError("vma-order", f"{low} overlaps {high}")
    if len(vmas) > core.max_map_count + 1:  # mmap and brk refuse only when there are more
        raise InvariantError("map-count", f"{len(vmas)} VMAs, {core.max_map_count} allowed")
    locked = sum(vma.pages for vma in vmas if vma.flags & VM_LOCKED)
    if mm.locked_vm != locked:
        raise InvariantError("locked-vm", f"{mm} counts {mm.locked_vm} locked pages, its VMAs have {locked}")
    return len(vmas)


def _check_tables(core: Core) -> None:
    # Page tables and mms agree about who owns what; every entry lies in a VMA.
    tables = core.tables
    rows = tables.live_rows()
    owned = {row: (mm.id, region) for mm in core.mms.values() for region, row in mm.rows.items()}
    if len(rows) != tables.live or set(rows.tolist()) != set(owned):
        raise InvariantError("page-tables", f"{len(rows)} rows have an owner, {len(owned)} are in use")
    for row, (mm_id, region) in owned.items():
        if tables.row_mm[row] != mm_id or tables.row_addr[row] != region << PMD_SHIFT:
            raise InvariantError("page-tables", f"row {row} does not know that mm {mm_id} uses it at region {region}")
    in_vmas = 0
    for mm in core.mms.values():
        for vma in mm.vmas:
            in_vmas += sum(int(np.count_nonzero(s.entries)) for s in spans(tables, mm, vma.start, vma.end))
    if in_vmas != int(np.count_nonzero(tables.rows[rows])):
        raise InvariantError("page-tables", "there are entries outside every VMA")


def _check_counts(core: Core, mapped: I64) -> None:
    frames = core.frames
    counts = np.bincount(mapped, minlength=frames.nr_pages)
    wrong = np.flatnonzero(counts != frames.mapcount)
    if len(wrong):
        pfn = int(wrong[0])
        raise InvariantError("I20", f"pfn {pfn:#x}: mapcount {frames.mapcount[pfn]}, {counts[pfn]} entries map it")
    free = frames.free_stack[: frames.free_top]
    used = np.ones(frames.nr_pages, np.bool_)
    used[free] = False
    if np.count_nonzero(used) != frames.nr_pages - len(free) or not used[ZERO_PFN]:
        raise InvariantError("frames", "a frame is in the free stack twice")
    if frames.flags[free].any() or frames.mapping[free].any() or frames.extra[free].any():
        raise InvariantError("frames", "a free frame is in use")
    used[ZERO_PFN] = False
    alone = np.flatnonzero(used & (frames.mapcount + frames.extra == 0) & (frames.flags & KERNEL_OWNED == 0))
    alone = alone[frames.order[alone - frames.head_offset[alone]] == 0]
    if len(alone):
        raise InvariantError("frames", f"pfn {int(alone[0]):#x} is neither free nor referenced: leaked")


def _check_walk(core: Core, oracle: tuple[I64, I32, I64]) -> None:
    # I19: the walk finds every entry, and nothing else.
    pages = np.flatnonzero(core.frames.mapcount)
    pfns, mms, addrs = walk_many(core, pages, stop_at_mapcount=False)
    order = np.lexsort((addrs, mms, pfns))
    if len(pfns) == len(oracle[0]):
        differs = (pfns[order] != oracle[0]) | (mms[order] != oracle[1]) | (addrs[order] != oracle[2])
        if not differs.any():
            return
    want = set(zip(oracle[0].tolist(), oracle[1].tolist(), oracle[2].tolist()))
    have = set(zip(pfns.tolist(), mms.tolist(), addrs.tolist()))
    missed, invented = sorted(want - have), sorted(have - want)
    raise InvariantError(
        "I19",
        f"{core.rmap.name}: the walk missed {len(missed)} entries and invented {len(invented)}"
        f" (pfn, mm, address): {[(hex(p), m, hex(a)) for p, m, a in (missed or invented)[:3]]}",
    )


def _check_entries(core: Core) -> None:
    # I14, I15, I17, I21: what an entry says agrees with the page and the VMA.
    frames = core.frames
    linear = core.rmap.index_is == "linear"
    for mm in core.mms.values():
        for vma in mm.vmas:
            for piece in spans(core.tables, mm, vma.start, vma.end):
                pfns, offs = piece.tracked()
                if not len(pfns):
                    continue
                offs = np.arange(piece.n) if offs is None else offs
                flags = frames.flags[pfns]
                anon = (flags & ANON) != 0
                wanted = vma.linear_page_index(piece.addr) + offs
                mapping, index = frames.anchor(pfns)
                if linear and (index[anon] != wanted[anon]).any():
                    raise InvariantError("I14", f"a page index does not fit its address in {vma}")
                if (flags[anon] & EXCLUSIVE).any() and (frames.mapcount[pfns[(flags & EXCLUSIVE) != 0]] != 1).any():
                    raise InvariantError("I15", f"an exclusive page is mapped more than once, seen in {vma}")
                writable = (piece.entries[offs] & RW) != 0
                if not core.profile.anon_exclusive:
                    _check_writable(core, vma, pfns[writable & anon])
                elif (writable & anon & ((flags & EXCLUSIVE) == 0)).any():
                    raise InvariantError("I17", f"a page that is not exclusive is writable in {vma}")
                if anon.any() and not vma.faulted:
                    raise InvariantError("I13", f"an anonymous page in a VMA that was never prepared: {vma}")
                _check_file_pages(vma, mapping[~anon], index[~anon], wanted[~anon])


def _check_writable(core: Core, vma: Vma, pfns: I64) -> None:
    # I17 of 5.1: who may write without a fault is the only one that has the page.
    frames, swap = core.frames, core.swap
    users = frames.mapcount[pfns].astype(np.int64)
    cached = (frames.flags[pfns] & SWAPCACHE) != 0
    users[cached] += swap.count[frames.private[pfns[cached]]]
    if (users != 1).any() and not vma.flags & VM_SHARED:
        raise InvariantError("I17", f"a page that others have too is writable in {vma}")


def _check_file_pages(vma: Vma, mapping: I64, index: I64, wanted: I64) -> None:
    if not len(mapping):
        return
    if vma.mapping is None:
        raise InvariantError("I21", f"a page of a file in an anonymous mapping: {vma}")
    elsewhere = index != wanted
    if vma.flags & VM_NONLINEAR:
        elsewhere = index >= vma.mapping.nr_pages
    if (mapping != vma.mapping.id << TAG_SHIFT | TAG_FILE).any() or elsewhere.any():
        raise InvariantError("I21", f"a page of another file, or at another index, in {vma}")


def _check_files(core: Core) -> int:
    # I21 from the cache's side; I22: i_mmap holds every VMA of the file once.
    frames = core.frames
    users: dict[int, list[Vma]] = {mapping.id: [] for mapping in core.mappings}
    for mm in core.mms.values():
        for vma in mm.vmas:
            if vma.mapping is not None:
                users[vma.mapping.id].append(vma)
    for mapping in core.mappings:
        indexed = [id(vma) for vma in mapping.i_mmap]
        if sorted(indexed) != sorted(id(vma) for vma in users[mapping.id]):
            raise InvariantError("I22", f"i_mmap of {mapping.name} has {len(indexed)} of {len(users[mapping.id])} VMAs")
        at = np.flatnonzero(mapping.pages > 0)
        pfns = mapping.pages[at]
        handle, index = frames.anchor(pfns)
        if (handle != mapping.id << TAG_SHIFT).any() or (index != at).any():
            raise InvariantError("I21", f"the page cache of {mapping.name} and its pages disagree")
        if mapping.name == NAME and not indexed and mapping.pages.any():
            raise InvariantError("page-cache", f"{mapping} outlives its last mapping")
        if len(at) != mapping.nr_cached:
            raise InvariantError("page-cache", f"{mapping.name}: {mapping.nr_cached} pages counted, {len(at)} there")
    return len(core.mappings)


def _check_swap(core: Core) -> int:
    # A slot's count is the number of entries that name it, in page tables and in shmem files.
    swap, frames = core.swap, core.frames
    if not swap.used and not swap.count.any():
        return 0
    entries = core.tables.rows[core.tables.live_rows()]
    named = entries[((entries & (TRACKED_MASK | SWAP)) == SWAP) & ((entries & PRESENT) == 0)] >> PAGE_SHIFT
    in_files = [-m.pages[m.pages < 0] for m in core.mappings if m.shmem]
    count = np.bincount(np.concatenate([named, *in_files]), minlength=swap.nr_slots + 1)
    wrong = np.flatnonzero(count != swap.count)
    if len(wrong):
        slot = int(wrong[0])
        raise InvariantError("swap", f"slot {slot:#x}: count {swap.count[slot]}, {count[slot]} entries name it")
    cached = np.flatnonzero(swap.cached)
    if (frames.private[swap.cached[cached]] != cached).any() or (
        (frames.flags[swap.cached[cached]] & SWAPCACHE) == 0
    ).any():
        raise InvariantError("swap", "the swap cache and its pages disagree")
    if swap.used != np.count_nonzero((swap.count != 0) | (swap.cached != 0)):
        raise InvariantError("swap", f"{swap.used} slots in use, but others are named")
    return int(swap.used)
