"""A picture's entries page by page, and how entries are written into a machine that runs.

:func:`spread` is for whoever compares two pictures or loads one. The functions below it change the entries of one VMA
of a living machine to what a picture shows: they call the hooks a running kernel would, so every design follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from rmap.columns import I64, Bool
from rmap.mm.core import Core
from rmap.mm.costs import PTES_ADDED, PTES_REMOVED
from rmap.mm.file_fault import map_pages, page_bits
from rmap.mm.frames import EXCLUSIVE, NEW_ANON, ONE, ZERO_PFN
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Vma
from rmap.mm.page_cache import add_to_page_cache
from rmap.mm.page_tables import Span, ensure, ptep_of
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SPECIAL, SWAP, TRACKED_MASK
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, single_pages
from rmap.snapshot.kind_columns import of_each
from rmap.uapi.vm_flags import VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE

NONE, ANON, FILE, SHMEM, ZERO, KERNEL, SWAPPED, OTHER = range(8)
KINDS = ("none", "anonymous", "file", "shared memory", "zero page", "kernel page", "swap", "other")
"""What an entry can be, as far as a replay tells kinds apart. ``other``: guard markers, KSM, hugetlb, migration."""


@dataclass
class SnapshotEntries:
    """Every entry of a picture that is not none, in the order of VMAs and addresses; int64 columns but the last ones.

    Attributes:
        vma: row of the picture's table ``vmas``.
        address: in bytes.
        kind: ``ANON``, ``FILE``, ...
        frame: the PFN; of a swapped entry the slot's number, type included; -1 for others.
        index: the page's index, -1 unknown.
        anon_vma: row of the anon_vma an anonymous page hangs on, -1 unknown.
        mapcount: of the page, by the kernel's count; 0 if it has none.
        order: of the page's folio.
        raced: bool: torn while the picture was taken.
        exclusive, writable: bool: PG_anon_exclusive, and the entry's own permission, where the picture knows them.
    """

    vma: I64
    address: I64
    kind: I64
    frame: I64
    index: I64
    anon_vma: I64
    mapcount: I64
    order: I64
    raced: Bool
    exclusive: Bool
    writable: Bool

    def __len__(self) -> int:
        return len(self.vma)

    def take(self, rows: Bool) -> SnapshotEntries:
        """Only some of the rows."""
        if rows.all():
            return self
        return SnapshotEntries(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})


def spread(picture: Snapshot) -> SnapshotEntries:
    """A picture's entries, one row each."""
    pages = single_pages(Extents.of(picture.ptes))
    frame, flags = pages.pfn, pages.flags
    present, swapped = (flags & f.PTE_PRESENT) != 0, (flags & f.PTE_SWAP) != 0
    at = np.where(present, picture.numbering.dense(frame), -1)
    known = at >= 0

    def of_frame(name: str, default: int) -> I64:
        if not known.any():
            return np.full(len(at), default, np.int64)
        column = picture.per_frame(name).astype(np.int64)
        return np.where(known, column[at], default)

    code = np.append(of_each(lambda kind: KINDS.index(kind.replayed)), OTHER)  # the last is that of no frame
    kind = np.where(present, code[of_frame("kind", -1)], np.where(swapped, SWAPPED, OTHER))
    special = present & ((flags & f.PTE_SPECIAL) != 0) & (kind != ZERO)
    kind[special] = KERNEL
    own = of_frame("own", 0)
    return SnapshotEntries(
        vma=pages.vma,
        address=pages.address,
        kind=kind,
        frame=np.where(present | swapped, frame, -1),
        index=of_frame("index", -1),
        anon_vma=of_frame("anon_vma", -1),
        mapcount=of_frame("mapcount", 0) - own,
        order=of_frame("order", 0),
        raced=of_frame("raced", 0) != 0,
        exclusive=(of_frame("flags", 0) & f.KPF_ANON_EXCLUSIVE) != 0,
        writable=present & ((flags & f.PTE_WRITE) != 0),
    )


# -- writing entries --------------------------------------------------------------------------------------------------
def pieces(core: Core, vma: Vma, addrs: I64) -> Iterator[tuple[Span, I64, slice]]:
    """The spans of page tables that hold these addresses, made where there were none.

    Args:
        addrs: int64, ascending, within the VMA.

    Yields:
        ``(span, offsets of the addresses in it, which of the addresses)``. Whoever changes a span commits it.
    """
    for first, n in zip(*stretches(addrs)):
        ensure(core.tables, vma.mm, int(addrs[first]), int(addrs[first + n - 1]) + PAGE_SIZE)
    for piece in core.spans(vma, vma.start, vma.end):
        low, high = np.searchsorted(addrs, (piece.addr, piece.addr + piece.n * PAGE_SIZE)).tolist()
        if low < high:
            yield piece, (addrs[low:high] - piece.addr) >> PAGE_SHIFT, slice(low, high)


def stretches(addrs: I64) -> tuple[list[int], list[int]]:
    """Runs of addresses with no gap of 2 MiB or more: (index of the first, how many)."""
    if not len(addrs):
        return [], []
    cut = np.flatnonzero(np.diff(addrs) >= 1 << 21) + 1
    first = np.concatenate((np.array([0], np.int64), cut))
    return first.tolist(), np.diff(np.concatenate((first, [len(addrs)]))).tolist()


def drop(core: Core, vma: Vma, addrs: I64) -> None:
    """Clear entries, whatever they are: as a zap of each of them would (rules 1.4, 4.6)."""
    for piece, offs, _ in pieces(core, vma, addrs):
        entries = piece.entries[offs]
        tracked = (entries & TRACKED_MASK) == PRESENT
        slots = entries[(entries & (PRESENT | SWAP)) == SWAP] >> PAGE_SHIFT
        piece.entries[offs] = 0
        piece.commit()
        pfns = entries[tracked] >> PAGE_SHIFT
        core.costs.current[PTES_REMOVED] += len(pfns)
        if core.hooks.removed:
            for part, part_offs, anon in core.by_kind(vma, pfns, offs[tracked]):
                core.hooks.removed(PteBatch(vma, piece, part, part_offs, anon), "zap")
        if len(pfns):
            core.put_pages(pfns)
        if len(slots):
            core.swap_put(slots.tolist())


def map_file(core: Core, vma: Vma, addrs: I64) -> None:
    """Map pages of the VMA's file where no entries are; they come into the page cache if need be."""
    mapping = vma.mapping
    assert mapping is not None
    first = vma.linear_page_index(vma.start)
    index = first + ((addrs - vma.start) >> PAGE_SHIFT)
    if len(index) and int(index.max()) >= mapping.nr_pages:
        mapping.resize((int(index.max()) + 1) << PAGE_SHIFT)
    absent = np.unique(index[mapping.pages[index] <= 0])
    core.reserve(len(absent))
    add_to_page_cache(core, mapping, absent)
    for piece, offs, _ in pieces(core, vma, addrs):
        map_pages(core, vma, piece, offs, vma.linear_page_index(piece.addr), page_bits(vma))
        piece.commit()


def map_zero(core: Core, vma: Vma, addrs: I64) -> None:
    """Map the zero page where no entries are (rule 4.1)."""
    for piece, offs, _ in pieces(core, vma, addrs):
        piece.entries[offs] = ZERO_PFN << PAGE_SHIFT | PRESENT | SPECIAL | ACCESSED
        piece.commit()


def map_kernel(core: Core, vma: Vma, addrs: I64) -> None:
    """Map the pages of a special mapping where no entries are (rule 4.17)."""
    assert vma.file is not None and vma.file.special is not None
    frames = vma.file.special
    for piece, offs, _ in pieces(core, vma, addrs):
        pfns = frames[(vma.linear_page_index(piece.addr) + offs) % len(frames)]
        piece.entries[offs] = pfns << PAGE_SHIFT | PRESENT | SPECIAL | ACCESSED
        piece.commit()


def map_new_anon(core: Core, vma: Vma, addrs: I64) -> None:
    """New exclusive anonymous pages of this VMA alone where no entries are (rule 4.2)."""
    if not vma.faulted:
        core.prepare(vma)
    core.reserve(len(addrs))
    frames = core.frames
    bits = PRESENT | ACCESSED | DIRTY | (RW if vma.flags & VM_WRITE else 0)
    for piece, offs, _ in pieces(core, vma, addrs):
        pfns = frames.alloc(len(offs))
        frames.flags[pfns] = NEW_ANON
        frames.mapcount[pfns] = ONE
        batch = PteBatch(vma, piece, pfns, offs, True)
        core.rmap.set_anon(batch, "new")
        piece.entries[offs] = pfns << PAGE_SHIFT | bits
        piece.commit()
        core.costs.current[PTES_ADDED] += len(pfns)
        if core.hooks.added:
            core.hooks.added(batch, "adopt")


def share_anon(core: Core, vma: Vma, addr: int, source: Vma, source_addr: int) -> None:
    """Map the anonymous page of one entry at another address too, as a fork would have (rule 4.5).

    Args:
        addr: where no entry is, in a VMA that shares the page's anon_vma.
        source, source_addr: where the page is mapped.
    """
    if not vma.faulted:
        core.prepare(vma)
    frames, entries = core.frames, core.tables.mv
    ptep = ptep_of(source.mm, source_addr)
    entries[ptep] &= ~RW
    pfn = entries[ptep] >> PAGE_SHIFT
    frames.mv_flags[pfn] &= ~EXCLUSIVE
    where = np.array([addr], np.int64)
    for piece, offs, _ in pieces(core, vma, where):
        piece.entries[offs] = entries[ptep] & ~ACCESSED
        piece.commit()
        frames.mv_mapcount[pfn] += 1
        core.costs.current[PTES_ADDED] += 1
        if core.hooks.added:
            core.hooks.added(PteBatch(vma, piece, np.array([pfn], np.int64), offs, True), "adopt")
