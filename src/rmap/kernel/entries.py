"""A picture's entries page by page, and how they are written into a machine.

:func:`spread` is for whoever compares two pictures or loads one. The functions below it change the entries of one VMA
of a living machine to what a picture shows; :class:`EntryWriter` writes those of a whole picture into a new machine.
All of them call the hooks a running kernel would, so every design follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from rmap.columns import I32, I64, Bool
from rmap.kernel.families import Inferred
from rmap.kernel.pages import MISPLACED, DenseFrames, PagesToLoad
from rmap.mm.core import Core
from rmap.mm.costs import PTES_ADDED, PTES_REMOVED
from rmap.mm.file_fault import map_pages, page_bits
from rmap.mm.frames import ANON as ANON_PAGE
from rmap.mm.frames import EXCLUSIVE, KEPT_ANCHOR, NEW_ANON, ONE, SWAPBACKED, TAG_SHIFT, ZERO_PFN
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Vma
from rmap.mm.page_cache import add_to_page_cache
from rmap.mm.page_tables import Span, ensure, ptep_of
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SPECIAL, SWAP, SWP_EXCLUSIVE, TRACKED_MASK
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, single_pages
from rmap.snapshot.kind_columns import among, of_each
from rmap.snapshot.kinds import KINDS as FRAME_KINDS
from rmap.uapi.vm_flags import VM_MAYSHARE, VM_SHARED, VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE

NONE, ANON, FILE, SHMEM, ZERO, KERNEL, SWAPPED, OTHER = range(8)
KINDS = ("none", "anonymous", "file", "shared memory", "zero page", "kernel page", "swap", "other")
"""What an entry can be, as far as a replay tells kinds apart. ``other``: guard markers, KSM, hugetlb, migration."""


_UNTRACKED = PRESENT | SPECIAL | ACCESSED
"""The bits of an entry that no reverse map tracks."""
_NO_INDEX = np.iinfo(np.int64).min


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


def spread(snapshot: Snapshot) -> SnapshotEntries:
    """A picture's entries, one row each."""
    pages = single_pages(Extents.of(snapshot.ptes))
    frame, flags = pages.pfn, pages.flags
    present, swapped = (flags & f.PTE_PRESENT) != 0, (flags & f.PTE_SWAP) != 0
    at = np.where(present, snapshot.numbering.dense(frame), -1)
    described = at >= 0

    def of_frame(name: str, default: int) -> I64:
        if not described.any():
            return np.full(len(at), default, np.int64)
        column = snapshot.per_frame(name).astype(np.int64)
        return np.where(described, column[at], default)

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


def by_vma(vma: I64) -> Iterator[tuple[int, slice]]:
    """Cut entries in the order of VMAs into those of each: ``(VMA, which entries)``.

    Args:
        vma: int64, by entry: the row of its VMA.
    """
    if not len(vma):
        return
    starts = np.flatnonzero(np.concatenate(([True], vma[1:] != vma[:-1]))).tolist()
    for first, stop in zip(starts, [*starts[1:], len(vma)]):
        yield int(vma[first]), slice(first, stop)


# -- writing entries of one VMA ---------------------------------------------------------------------------------------
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
        piece.entries[offs] = ZERO_PFN << PAGE_SHIFT | _UNTRACKED
        piece.commit()


def map_kernel(core: Core, vma: Vma, addrs: I64) -> None:
    """Map the pages of a special mapping where no entries are (rule 4.17)."""
    assert vma.file is not None and vma.file.special is not None
    frames = vma.file.special
    for piece, offs, _ in pieces(core, vma, addrs):
        pfns = frames[(vma.linear_page_index(piece.addr) + offs) % len(frames)]
        piece.entries[offs] = pfns << PAGE_SHIFT | _UNTRACKED
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


def write_entries(core: Core, vma: Vma, addrs: I64, kind: int) -> bool:
    """Write entries of one kind where there are none; new pages for anonymous ones. False: this VMA cannot have any."""
    private = not vma.flags & VM_SHARED
    if kind in (FILE, SHMEM) and vma.mapping is not None:
        map_file(core, vma, addrs)
    elif kind in (ANON, SWAPPED) and private and not is_untracked(vma):
        map_new_anon(core, vma, addrs)
    elif kind == KERNEL and is_untracked(vma):
        map_kernel(core, vma, addrs)
    elif kind == ZERO and vma.mapping is None and private:
        map_zero(core, vma, addrs)
    else:
        return False
    return True


def is_untracked(vma: Vma) -> bool:
    """Whether a VMA is a special mapping of the kernel's."""
    return vma.file is not None and vma.file.special is not None


# -- writing entries of many VMAs -------------------------------------------------------------------------------------
def load_entries(core: Core, vmas: list[Vma], entries: SnapshotEntries) -> dict[str, int]:
    """Write the entries of a picture into VMAs that have none; anonymous pages become pages of their VMA alone.

    Returns:
        how many entries could not be written, by reason.
    """
    left_out: dict[str, int] = {}
    for row, where in by_vma(entries.vma):
        vma = vmas[row]
        for kind in np.unique(entries.kind[where]).tolist():
            addrs = entries.address[where][entries.kind[where] == kind]
            if not write_entries(core, vma, addrs, kind):
                left_out[KINDS[kind]] = left_out.get(KINDS[kind], 0) + len(addrs)
    return left_out


class EntryWriter:
    """Writes the entries of a whole picture, which share pages and swap slots as they do there.

    Where :func:`load_entries` gives every VMA new pages of its own, these are the picture's frames themselves, by their
    dense numbers. What an entry cannot map as it was seen becomes a private copy, or is left out, and is counted.

    Args:
        core: a machine that has the picture's frames, files and VMAs, and no entries.
        pages: the entries. A slot that entries name at several indexes is parted here: ``pages.pfn`` changes.

    Attributes:
        head_index: int64 by dense frame: the page index of each folio's head; the least int64 where none is known.
        anchored: bool by dense frame, of heads: hangs on what several VMAs share, and needs no anchor of its own.
        left_out: entries that were not written, by reason.
        copied: entries whose page became a private copy.
    """

    def __init__(
        self, core: Core, snapshot: Snapshot, frames: DenseFrames, pages: PagesToLoad, inferred: Inferred
    ) -> None:
        self.core = core
        self.snapshot = snapshot
        self.frames = frames
        self.pages = pages
        self.inferred = inferred
        self.head_index = self._head_indexes()
        self.anchored = np.zeros(len(frames.snapshot_pfn), np.bool_)
        self.left_out: dict[str, int] = {}
        self.copied = self._part_slots()
        self._hangs_here = self._hang_in_their_chains()
        slots = pages.pfn[pages.swapped]
        self._slot_users = np.bincount(slots, minlength=1)
        if len(slots):
            core.swap.alloc(int(slots.max()))

    def hang_on(self, handles: I64) -> None:
        """Hang pages on the anon_vmas that the picture says they hang on.

        Args:
            handles: of each, as :func:`rmap.kernel.structure.adopt_anon_vmas` returns them.
        """
        frames, columns = self.frames, self.core.frames
        anonymous = among(frames.kind, FRAME_KINDS.on_anon_vmas)
        pfns = np.flatnonzero(anonymous & (frames.anon_vma >= 0) & (frames.index >= 0))
        heads = frames.head[pfns]
        columns.flags[pfns] |= np.int32(ANON_PAGE | SWAPBACKED)
        columns.mapping[heads] = handles[frames.anon_vma[pfns]]
        columns.index[heads] = self.head_index[heads] = frames.index[pfns] - (pfns - heads)
        self.anchored[heads] = True
        self._settle_exclusive()

    def write(self, vmas: list[Vma]) -> None:
        """Write all entries.

        Args:
            vmas: the picture's rows in order; what several of them share hangs on its anchor already.
        """
        for row, where in by_vma(self.pages.vma):
            vma = vmas[row]
            addrs = vma.start + (self.pages.off[where] << PAGE_SHIFT)
            for piece, offs, rows in pieces(self.core, vma, addrs):
                self._write_span(vma, piece, offs, slice(where.start + rows.start, where.start + rows.stop))
                piece.commit()

    def _head_indexes(self) -> I64:
        # The first entry that maps one of a folio's pages decides.
        pages, frames = self.pages, self.frames
        tracked = np.flatnonzero(pages.tracked)[::-1]
        head = frames.head[pages.pfn[tracked]]
        index = np.full(len(frames.snapshot_pfn), _NO_INDEX)
        index[head] = self._linear_indexes(tracked) - (pages.pfn[tracked] - head)
        return index

    def _linear_indexes(self, rows: I64) -> I64:
        # The page index that each entry's place has (rule 1.3).
        return self.inferred.pgoff[self.pages.vma[rows]] + self.pages.off[rows]

    def _hang_in_their_chains(self) -> Bool:
        # Which entries map what can hang where they are: where the picture has chains, an anonymous page's anon_vma is
        # in the chain of the VMA (I13). If not, the page or the VMA changed while the picture was taken.
        snapshot, pages, chains = self.snapshot, self.pages, self.snapshot.anon_vma_chains
        hangs = np.ones(len(pages.pfn), np.bool_)
        if snapshot.about["topology"] == "none":
            return hangs
        mapped = np.flatnonzero(pages.tracked)
        anon = mapped[among(self.frames.kind[pages.pfn[mapped]], FRAME_KINDS.on_anon_vmas)]
        link = pages.vma[anon].astype(np.int64) << 32 | self.frames.anon_vma[pages.pfn[anon]]
        hangs[anon] = np.isin(link, chains.vma.astype(np.int64) << 32 | chains.anon_vma)
        return hangs

    def _part_slots(self) -> int:
        # A slot holds the page of one index. Where entries at others name it too, each gets a slot of its own.
        pages = self.pages
        swapped = np.flatnonzero(pages.swapped)[::-1]
        slots = pages.pfn[swapped]
        linear = self._linear_indexes(swapped)
        last = int(slots.max(initial=0))
        index = np.zeros(last + 1, np.int64)
        index[slots] = linear
        misplaced = swapped[index[slots] != linear]
        pages.pfn[misplaced] = last + 1 + np.arange(len(misplaced))
        return len(misplaced)

    def _settle_exclusive(self) -> None:
        # Exclusive pages that hang above the active anon_vma of their VMA: if the picture says that they are exclusive,
        # they came back from swap so (rule 4.12); if that was only concluded from their mapcounts, they are not (4.8).
        present = self.pages.tracked
        pfns, vmas = self.pages.pfn[present], self.pages.vma[present]
        hangs_on, flags = self.frames.anon_vma[pfns], self.core.frames.flags
        above = (hangs_on >= 0) & (hangs_on != self.snapshot.vmas.anon_vma[vmas]) & ((flags[pfns] & EXCLUSIVE) != 0)
        if self.frames.exclusive_known:
            flags[pfns[above]] |= np.int32(KEPT_ANCHOR)
        else:
            flags[pfns[above]] &= np.int32(~EXCLUSIVE)

    def _write_span(self, vma: Vma, piece: Span, offs: I64, where: slice) -> None:
        pages, frames, core = self.pages, self.core.frames, self.core
        pfns, swapped, special = pages.pfn[where].copy(), pages.swapped[where], pages.special[where]
        flags, tracked = pages.flags[where], ~(swapped | special)
        # Which page of the kernel's it is does not matter: the zero page stands for all of them.
        entries = np.where(special, ZERO_PFN << PAGE_SHIFT | _UNTRACKED, 0)
        if swapped.any():
            entries[swapped] = self._swap_entries(pfns[swapped], flags[swapped])
            if not vma.faulted:
                core.prepare(vma)
        anon = np.zeros(len(pfns), np.bool_)
        anon[tracked] = among(self.frames.kind[pfns[tracked]], FRAME_KINDS.on_anon_vmas)
        fits = self._fits(vma, piece, pfns, offs, tracked, anon) & self._hangs_here[where]
        if vma.flags & (VM_SHARED | VM_MAYSHARE) and not fits.all():
            # Where nothing is private, a page that does not belong there cannot become a copy.
            self.left_out[MISPLACED] = self.left_out.get(MISPLACED, 0) + int(np.count_nonzero(~fits))
            tracked &= fits
        copies = np.flatnonzero(tracked & ~fits)
        if len(copies):
            core.reserve(len(copies))
            pfns[copies] = core.frames.alloc(len(copies))
            anon[copies] = True
            self.copied += len(copies)
        if anon.any() and not vma.faulted:
            core.prepare(vma)
        np.add.at(frames.mapcount, pfns[tracked], ONE)
        frames.flags[pfns[anon]] |= np.int32(ANON_PAGE | SWAPBACKED)
        frames.flags[pfns[copies]] |= np.int32(EXCLUSIVE)
        self._anchor_own(vma, piece, pfns, offs, anon, copies)
        entries[tracked] = (pfns[tracked] << PAGE_SHIFT) | PRESENT | ACCESSED
        entries[tracked] |= self._write_bits(vma, pfns[tracked], anon[tracked], flags[tracked])
        piece.entries[offs] = entries
        if core.hooks.added:
            for part in (anon, tracked & ~anon):
                if part.any():
                    core.hooks.added(PteBatch(vma, piece, pfns[part], offs[part], bool(part is anon)), "adopt")

    def _fits(self, vma: Vma, piece: Span, pfns: I64, offs: I64, tracked: Bool, anon: Bool) -> Bool:
        # Whether an entry can stand as it is: a page of the VMA's file at its index, an anonymous page at its index.
        frames = self.core.frames
        mapping, index = frames.anchor(pfns)
        linear = vma.linear_page_index(piece.addr) + offs
        fits = np.ones(len(pfns), np.bool_)
        # In every design, so that a picture gives one machine, whoever keeps its reverse map.
        head = self.frames.head[pfns[anon]]
        fits[anon] = self.head_index[head] == linear[anon] - (pfns[anon] - head)
        of_file = tracked & ~anon
        if vma.mapping is None:
            fits[of_file] = False
        else:
            fits[of_file] = (mapping[of_file] == vma.mapping.id << TAG_SHIFT) & (index[of_file] == linear[of_file])
        return fits

    def _anchor_own(self, vma: Vma, piece: Span, pfns: I64, offs: I64, anon: Bool, copies: I64) -> None:
        # Pages of this VMA alone hang on its own anchor.
        own = anon.copy()
        described = own & (pfns < len(self.frames.head))
        own[described] = ~self.anchored[self.frames.head[pfns[described]]]
        own[copies] = True
        if not own.any():
            return
        where = np.flatnonzero(own)
        self.core.rmap.set_anon(PteBatch(vma, piece, pfns[where], offs[where], True), "adopt")

    def _write_bits(self, vma: Vma, pfns: I64, anon: Bool, flags: I32) -> I64:
        exclusive = (self.core.frames.flags[pfns] & EXCLUSIVE) != 0
        if self.snapshot.about.get("pte_write"):
            bits = np.where(flags & f.PTE_WRITE, RW, 0) | np.where(flags & f.PTE_DIRTY, DIRTY, 0)
            return np.where(~anon | exclusive, bits, bits & ~RW)
        if not vma.flags & VM_WRITE:
            return np.zeros(len(pfns), np.int64)
        if vma.flags & VM_SHARED:
            return np.full(len(pfns), RW | DIRTY if page_bits(vma) & RW else 0, np.int64)
        return np.where(anon & exclusive, RW | DIRTY, 0)

    def _swap_entries(self, slots: I64, flags: I32) -> I64:
        np.add.at(self.core.swap.count, slots, ONE)
        if self.frames.exclusive_known:
            exclusive = (flags & f.PTE_EXCLUSIVE) != 0
        else:
            exclusive = self._slot_users[slots] == 1
        exclusive &= self.core.profile.anon_exclusive
        return (slots << PAGE_SHIFT) | SWAP | np.where(exclusive, SWP_EXCLUSIVE, 0)
