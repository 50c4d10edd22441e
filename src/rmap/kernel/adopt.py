"""Loading a picture: a machine whose processes, VMAs, files, folios and entries are as the picture shows them.

Everything goes through the hooks a running machine would call, in the order in which its history would have called
them: files, processes (parents first), VMAs, forks of VMAs that share pages, then entries. What the picture does not
show is inferred (:mod:`rmap.kernel.families`) and said to be so in :attr:`rmap.kernel.machine.Machine.adoption`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from rmap.columns import I32, I64, Bool
from rmap.kernel.entries import pieces
from rmap.kernel.families import NOBODY, Inferred, fork_tree, infer
from rmap.kernel.machine import Adoption, Machine
from rmap.kernel.pages import MISPLACED, DenseFrames, PagesToLoad, dense_frames, pages_of
from rmap.kernel.process import Process
from rmap.kernel.structure import adopt_anon_vmas, fork_families, load_vmas
from rmap.mm.core import Core
from rmap.mm.costs import ADOPT
from rmap.mm.frames import ANON, EXCLUSIVE, KEPT_ANCHOR, ONE, SWAPBACKED, TAG_SHIFT
from rmap.mm.interface import PteBatch, ReverseMapFactory
from rmap.mm.mm_types import File, Vma
from rmap.mm.page_tables import Span
from rmap.mm.profile import PROFILES
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SPECIAL, SWAP, SWP_EXCLUSIVE
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.uapi.vm_flags import VM_MAYSHARE, VM_SHARED, VM_WRITE
from rmap.units import PAGE_SHIFT, PMD_SHIFT

SPARE_PAGES = 1 << 16
TABLE_BITS = PMD_SHIFT - PAGE_SHIFT
REGION_BITS = 28
"""More than the regions of an address space take."""
LARGEST_FILE = 1 << 40
"""In bytes. A file of the model has a column of all its pages; of a larger one, what is mapped of it is loaded."""
NO_INDEX = np.iinfo(np.int64).min


AnyMachine = TypeVar("AnyMachine", bound=Machine[Process])


def adopt(
    make: type[AnyMachine],
    picture: Snapshot,
    design: str | ReverseMapFactory,
    *,
    profile: str | None = None,
    nr_pages: int | None = None,
    nr_swap: int | None = None,
    scalar_twins: bool = True,
) -> AnyMachine:
    """Build a machine from a picture.

    Args:
        make: the class of the machine.
        picture: what it shows.
        design: the reverse map.
        profile: the rules of which release; by default the picture's, or 6.18's if its release is not modelled.
        nr_pages: its memory; by default a quarter more than the picture needs, and 256 MiB.
        nr_swap: its swap slots; by default twice what the picture needs, and 4 GiB at least.

    Raises:
        LimitError: ``nr_pages`` or ``nr_swap`` is too small.
    """
    frames = dense_frames(picture)
    if nr_pages is None:
        nr_pages = frames.count + frames.count // 4 + SPARE_PAGES
    if profile is None:
        profile = next((name for name in PROFILES if f"{picture.about['release']}.".startswith(f"{name}.")), "6.18")
    pages, left_out = pages_of(picture, frames)
    if nr_swap is None:
        nr_swap = max(1 << 20, 2 * int(np.count_nonzero(pages.swapped)))
    # One mapping of each 2 MiB region of each process, and as many again for what it will do.
    region = (picture.vmas.start[pages.vma] >> PAGE_SHIFT) + pages.off >> TABLE_BITS
    tables = len(np.unique(picture.vmas.process[pages.vma].astype(np.int64) << REGION_BITS | region))
    nr_tables = max(1 << 18, 2 * tables)
    machine = make(design, profile, nr_pages, nr_swap=nr_swap, nr_tables=nr_tables, scalar_twins=scalar_twins)
    machine.core.costs.enter(ADOPT)
    _Loader(machine, picture, frames, pages, left_out).load()
    return machine


class _Loader:
    def __init__(
        self,
        machine: Machine[Process],
        picture: Snapshot,
        frames: DenseFrames,
        pages: PagesToLoad,
        left_out: dict[str, int],
    ) -> None:
        self.machine = machine
        self.core: Core = machine.core
        self.picture = picture
        self.frames = frames
        self.pages = pages
        self.left_out = left_out
        self.inferred: Inferred = infer(picture, frames, self.pages)
        self.head_index = self._head_indexes()
        self.hangs_here = self._hang_in_their_chains()
        self.copied = self._part_slots()
        slots = pages.pfn[pages.swapped]
        self.slot_users = np.bincount(slots, minlength=1)
        if len(slots):
            self.core.swap.alloc(int(slots.max()))
        tracked = self.pages.pfn[~self.pages.swapped & ~self.pages.special]
        self.found = np.bincount(tracked, minlength=len(frames.picture_pfn))
        self.vmas: list[Vma] = []
        self.anchored = np.zeros(len(frames.picture_pfn), np.bool_)
        self.clipped = 0

    def load(self) -> None:
        self._take_frames()
        self._mark_exclusive()
        files = self._make_files()
        self._make_processes()
        self._make_vmas(files)
        self._make_anon_vmas()
        for row, span_pages in self._by_vma():
            self._map(self.vmas[row], span_pages)
        self._release_unused()
        if not self.core.profile.anon_exclusive:  # its marks said how to load the entries; this release has none
            self.core.frames.flags &= np.int32(~EXCLUSIVE)
        self._note()

    # Frames are in use from the start, so that none of them is handed out for a copy while others are still loaded.
    def _take_frames(self) -> None:
        core, frames = self.core, self.frames
        core.reserve(frames.count)
        core.frames.take(np.arange(1, frames.count + 1))
        for head in np.flatnonzero((frames.order > 0) & (frames.head == np.arange(len(frames.head)))).tolist():
            core.frames.make_folio(head, int(frames.order[head]))

    def _mark_exclusive(self) -> None:
        # The kernel does not tell which pages are exclusive; one that it counts once, and that is found, is taken so.
        frames = self.frames
        exclusive = frames.exclusive
        if not frames.exclusive_known:
            exclusive = (self.found == 1) & (frames.mapcount <= 1) & (frames.kind == f.ANON)
        self.core.frames.flags[np.flatnonzero(exclusive)] |= np.int32(EXCLUSIVE)

    def _make_files(self) -> list[File]:
        picture, pages, core = self.picture, self.pages, self.core
        file_of = picture.vmas.file[pages.vma]
        index = picture.vmas.pgoff[pages.vma] + pages.off
        needed = np.zeros(len(picture.files), np.int64)
        of_file = ~pages.swapped & ~pages.special & (file_of >= 0)
        np.maximum.at(needed, file_of[of_file], index[of_file] + 1)
        made = []
        for row, (path, size, kind) in enumerate(
            zip(picture.files.path, picture.files.size.tolist(), picture.files.kind.tolist())
        ):
            if path == "/dev/zero" and kind == f.FILE_DEVICE:
                made.append(File(None, path))
                continue
            if size > LARGEST_FILE:
                self.clipped += 1
                size = 0
            whole = max(size, int(needed[row]) << PAGE_SHIFT)
            mapping = core.new_mapping(path, whole, kind == f.FILE_SHMEM)
            self.machine.files.setdefault(path, mapping)
            made.append(File(mapping, path))
        cached = of_file.copy()
        cached[cached] = np.isin(self.frames.kind[pages.pfn[cached]], (f.FILE, f.SHMEM))
        # The first entry of each folio says which file it belongs to, and where.
        head = self.frames.head[pages.pfn[cached]]
        heads, first = np.unique(head, return_index=True)
        starts = (index[cached] - (pages.pfn[cached] - head))[first]
        owner = file_of[cached][first]
        for row in np.unique(owner).tolist():
            self._fill_cache(made[row], heads[owner == row], starts[owner == row])
        return made

    # Put folios into the page cache; where two claim one place, the first stays.
    def _fill_cache(self, file: File, heads: I64, starts: I64) -> None:
        mapping, columns, order = file.mapping, self.core.frames, self.frames.order[heads]
        if mapping is None:
            return
        for head, start, n in zip(*(c[order > 0].tolist() for c in (heads, starts, 1 << order))):
            place = mapping.pages[max(start, 0) : start + n]
            if start >= 0 and not place.any():
                place[:] = np.arange(head, head + len(place))
        free = (order == 0) & (mapping.pages[np.where(order == 0, starts, 0)] == 0)
        at, first = np.unique(starts[free], return_index=True)
        mapping.pages[at] = heads[free][first]
        cached = np.flatnonzero(mapping.pages > 0)
        held = mapping.pages[cached]
        columns.extra[held] = 1
        columns.flags[held] |= np.int32(SWAPBACKED if mapping.shmem else 0)
        columns.mapping[held] = mapping.id << TAG_SHIFT
        columns.index[held] = cached
        mapping.nr_cached = len(cached)

    def _make_processes(self) -> None:
        picture, machine = self.picture, self.machine
        depth, parents = fork_tree(picture)
        pids = picture.processes.pid.tolist()
        made: dict[int, Process] = {}
        for row in sorted(range(len(pids)), key=lambda row: depth[row]):
            above = made.get(parents[row])
            mm = machine.core.new_mm(above.mm if above is not None else None)
            made[row] = Process(machine, pids[row], mm, above)
        machine.processes = {pids[row]: made[row] for row in range(len(pids))}
        sharers = picture.sharers
        for row, pid in zip(sharers.process.tolist(), sharers.pid.tolist()):
            made[row].mm.users += 1
            machine.processes[pid] = Process(machine, pid, made[row].mm, made[row])
        machine.reserve_pids(max(machine.processes, default=0))
        self.processes = [made[row] for row in range(len(pids))]

    def _make_vmas(self, files: list[File]) -> None:
        rows = self.picture.vmas.file.tolist()
        opened = (files[row] if row >= 0 else None for row in rows)
        mms = [process.mm for process in self.processes]
        self.vmas = load_vmas(self.core, self.picture, mms, zip(opened, self.inferred.pgoff.tolist()))
        # A machine may allow more areas than is usual (vm.max_map_count).
        self.core.max_map_count = max(self.core.max_map_count, max((len(mm.vmas) for mm in mms), default=0))

    def _make_anon_vmas(self) -> None:
        # Where the picture knows the kernel's own anon_vmas, and the design can hold them, nothing is inferred.
        handles = adopt_anon_vmas(self.core, self.picture, self.vmas) if self._topology_fits() else None
        if handles is not None:
            self._hang_on(handles)
        else:
            fork_families(self.core, self.vmas, self.inferred, self.head_index)
            self.anchored |= self.inferred.anchor_vma != NOBODY

    def _hang_on(self, handles: I64) -> None:
        # Hang pages on the anon_vmas that the picture says they hang on.
        frames, columns = self.frames, self.core.frames
        pages = np.flatnonzero((frames.kind == f.ANON) & (frames.anon_vma >= 0) & (frames.index >= 0))
        heads = frames.head[pages]
        columns.flags[pages] |= np.int32(ANON | SWAPBACKED)
        columns.mapping[heads] = handles[frames.anon_vma[pages]]
        columns.index[heads] = self.head_index[heads] = frames.index[pages] - (pages - heads)
        self.anchored[heads] = True
        self._settle_exclusive()

    def _settle_exclusive(self) -> None:
        # Exclusive pages that hang above the active anon_vma of their VMA: if the picture says that they are exclusive,
        # they came back from swap so (rule 4.12); if that was only concluded from their mapcounts, they are not (4.8).
        present = ~self.pages.swapped & ~self.pages.special
        pfns, vmas = self.pages.pfn[present], self.pages.vma[present]
        hangs_on, flags = self.frames.anon_vma[pfns], self.core.frames.flags
        above = (hangs_on >= 0) & (hangs_on != self.picture.vmas.anon_vma[vmas]) & ((flags[pfns] & EXCLUSIVE) != 0)
        if self.frames.exclusive_known:
            flags[pfns[above]] |= np.int32(KEPT_ANCHOR)
        else:
            flags[pfns[above]] &= np.int32(~EXCLUSIVE)

    def _topology_fits(self) -> bool:
        # Chains of a release that reverses them at every fork are of no use to one that keeps the root last (rule 0.3).
        picture = self.picture
        if picture.about["topology"] == "none" or not len(picture.anon_vmas):
            return False
        chains, root = picture.anon_vma_chains, picture.anon_vmas.root
        last = np.flatnonzero(np.diff(chains.vma, append=-1))
        in_order = (root[chains.anon_vma[last]] == chains.anon_vma[last]).all()
        return bool(in_order) or not self.core.profile.root_is_last

    # The page index of the head of every folio, by dense number: the first entry that maps one of its pages decides.
    def _head_indexes(self) -> I64:
        pages, frames = self.pages, self.frames
        tracked = np.flatnonzero(~pages.swapped & ~pages.special)[::-1]
        head = frames.head[pages.pfn[tracked]]
        index = np.full(len(frames.picture_pfn), NO_INDEX)
        index[head] = self.inferred.pgoff[pages.vma[tracked]] + pages.off[tracked] - (pages.pfn[tracked] - head)
        return index

    # Which entries map what can hang where they are: where the picture has chains, an anonymous page's anon_vma is in
    # the chain of the VMA (I13). If not, the page or the VMA changed while the picture was taken.
    def _hang_in_their_chains(self) -> Bool:
        picture, pages, chains = self.picture, self.pages, self.picture.anon_vma_chains
        hangs = np.ones(len(pages.pfn), np.bool_)
        if picture.about["topology"] == "none":
            return hangs
        mapped = np.flatnonzero(~pages.swapped & ~pages.special)
        anon = mapped[self.frames.kind[pages.pfn[mapped]] == f.ANON]
        link = pages.vma[anon].astype(np.int64) << 32 | self.frames.anon_vma[pages.pfn[anon]]
        hangs[anon] = np.isin(link, chains.vma.astype(np.int64) << 32 | chains.anon_vma)
        return hangs

    # A slot holds the page of one index. Where entries at others name it too, each gets a slot of its own.
    def _part_slots(self) -> int:
        pages = self.pages
        swapped = np.flatnonzero(pages.swapped)[::-1]
        slots = pages.pfn[swapped]
        linear = self.inferred.pgoff[pages.vma[swapped]] + pages.off[swapped]
        last = int(slots.max(initial=0))
        index = np.zeros(last + 1, np.int64)
        index[slots] = linear
        misplaced = swapped[index[slots] != linear]
        pages.pfn[misplaced] = last + 1 + np.arange(len(misplaced))
        return len(misplaced)

    def _by_vma(self) -> Iterator[tuple[int, slice]]:
        vma = self.pages.vma
        if not len(vma):
            return
        starts = np.flatnonzero(np.concatenate(([True], vma[1:] != vma[:-1]))).tolist()
        for first, stop in zip(starts, [*starts[1:], len(vma)]):
            yield int(vma[first]), slice(first, stop)

    # Write the entries of one VMA.
    def _map(self, vma: Vma, where: slice) -> None:
        pages, core = self.pages, self.core
        addrs = vma.start + (pages.off[where] << PAGE_SHIFT)
        for piece, offs, rows in pieces(core, vma, addrs):
            self._map_span(vma, piece, offs, slice(where.start + rows.start, where.start + rows.stop))
            piece.commit()

    def _map_span(self, vma: Vma, piece: Span, offs: I64, where: slice) -> None:
        pages, frames, core = self.pages, self.core.frames, self.core
        pfns, swapped, special = pages.pfn[where].copy(), pages.swapped[where], pages.special[where]
        flags, tracked = pages.flags[where], ~swapped & ~special
        entries = np.where(special, PRESENT | SPECIAL | ACCESSED, 0)
        if swapped.any():
            entries[swapped] = self._swap_entries(pfns[swapped], flags[swapped])
            if not vma.faulted:
                core.prepare(vma)
        anon = np.zeros(len(pfns), np.bool_)
        anon[tracked] = self.frames.kind[pfns[tracked]] == f.ANON
        fits = self._fits(vma, piece, pfns, offs, tracked, anon) & self.hangs_here[where]
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
        frames.flags[pfns[anon]] |= np.int32(ANON | SWAPBACKED)
        frames.flags[pfns[copies]] |= np.int32(EXCLUSIVE)
        self._anchor_own(vma, piece, pfns, offs, anon, copies)
        entries[tracked] = (pfns[tracked] << PAGE_SHIFT) | PRESENT | ACCESSED
        entries[tracked] |= self._write_bits(vma, pfns[tracked], anon[tracked], flags[tracked])
        piece.entries[offs] = entries
        if core.hooks.added:
            for part in (anon, tracked & ~anon):
                if part.any():
                    core.hooks.added(PteBatch(vma, piece, pfns[part], offs[part], bool(part is anon)), "adopt")

    # Whether an entry can stand as it is: a page of the VMA's file at its index, an anonymous page at its index.
    def _fits(self, vma: Vma, piece: Span, pfns: I64, offs: I64, tracked: Bool, anon: Bool) -> Bool:
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

    # Pages of this VMA alone hang on its own anchor.
    def _anchor_own(self, vma: Vma, piece: Span, pfns: I64, offs: I64, anon: Bool, copies: I64) -> None:
        own = anon.copy()
        described = own & (pfns < len(self.frames.head))
        own[described] = ~self.anchored[self.frames.head[pfns[described]]]
        own[copies] = True
        if not own.any():
            return
        where = np.flatnonzero(own)
        self.core.rmap.set_anon(PteBatch(vma, piece, pfns[where], offs[where], True), "adopt")

    def _write_bits(self, vma: Vma, pfns: I64, anon: Bool, flags: I32) -> I64:
        if self.picture.about.get("pte_write"):
            bits = np.where(flags & f.PTE_WRITE, RW, 0) | np.where(flags & f.PTE_DIRTY, DIRTY, 0)
            may = ~anon | ((self.core.frames.flags[pfns] & EXCLUSIVE) != 0)
            return np.where(may, bits, bits & ~RW)
        if not vma.flags & VM_WRITE:
            return np.zeros(len(pfns), np.int64)
        if vma.flags & VM_SHARED:
            return np.full(len(pfns), RW | DIRTY if vma.mapping is not None and vma.mapping.shmem else 0, np.int64)
        exclusive = anon & ((self.core.frames.flags[pfns] & EXCLUSIVE) != 0)
        return np.where(exclusive, RW | DIRTY, 0)

    def _swap_entries(self, slots: I64, flags: I32) -> I64:
        np.add.at(self.core.swap.count, slots, ONE)
        if self.frames.exclusive_known:
            exclusive = (flags & f.PTE_EXCLUSIVE) != 0
        else:
            exclusive = self.slot_users[slots] == 1
        exclusive &= self.core.profile.anon_exclusive
        return (slots << PAGE_SHIFT) | SWAP | np.where(exclusive, SWP_EXCLUSIVE, 0)

    # Folios the picture describes, no page of which is mapped or cached, are free.
    def _release_unused(self) -> None:
        columns, n = self.core.frames, len(self.frames.picture_pfn)
        referenced = np.zeros(n, np.bool_)
        referenced[self.frames.head[np.flatnonzero(columns.mapcount[:n] | columns.extra[:n])]] = True
        unused = np.flatnonzero(~referenced[self.frames.head[1:]]) + 1
        if len(unused):
            for head in unused[(self.frames.order[unused] > 0) & (self.frames.head[unused] == unused)].tolist():
                columns.dissolve_folio(head)
            columns.flags[unused] = 0
            columns.free(unused)

    def _note(self) -> None:
        picture, families = self.picture, self.inferred.families
        unknown = int(np.count_nonzero(picture.vmas.pgoff < 0))
        inferred = []
        if unknown:
            inferred.append(f"page offsets of {unknown:,} anonymous VMAs: from shared pages, else their address")
        if families and picture.about["topology"] == "none":
            inferred.append(f"{len(families):,} families of VMAs that share anonymous pages: from pages and parents")
        if not self.frames.exclusive_known:
            inferred.append("exclusive pages: those the kernel counts as mapped once")
        if self.clipped:
            inferred.append(f"{self.clipped:,} files too large for the model: they end behind their last mapped page")
        if self.inferred.contradictions:
            inferred.append(f"{self.inferred.contradictions:,} contradictions between shared pages (a torn picture)")
        columns = self.core.frames
        self.machine.adoption = Adoption(
            pages=int(np.count_nonzero(columns.mapcount)),
            ptes=int(columns.mapcount.sum(dtype=np.int64)),
            inferred=tuple(inferred),
            left_out=self.left_out,
            unseen=int(np.count_nonzero(self.frames.mapcount > self.found)),
            copied=self.copied,
        )
        self.machine.set_picture_pfns(self.frames.picture_pfn)
