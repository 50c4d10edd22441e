"""Loading a picture: a machine whose processes, VMAs, files, folios and entries are as the picture shows them.

Everything goes through the hooks a running machine would call, in the order in which its history would have called
them: files, processes (parents first), VMAs, forks of VMAs that share pages, then entries. What the picture does not
show is inferred (:mod:`rmap.kernel.families`) and said to be so in :attr:`Kernel.adoption`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rmap.columns import I32, I64, Bool
from rmap.kernel.entries import pieces
from rmap.kernel.families import NOBODY, Inferred, VmaFamily, fork_tree, infer
from rmap.kernel.kernel import Kernel
from rmap.kernel.pages import MISPLACED, DenseFrames, PagesToLoad, dense_frames, pages_of
from rmap.kernel.process import Process
from rmap.kernel.structure import new_vma, topology_columns
from rmap.mm.core import Core
from rmap.mm.costs import ADOPT
from rmap.mm.frames import ANON, EXCLUSIVE, KEPT_ANCHOR, ONE, SWAPBACKED, TAG_SHIFT
from rmap.mm.interface import PteBatch, ReverseMapFactory
from rmap.mm.mm_types import File, Mm, Vma
from rmap.mm.page_tables import Span
from rmap.mm.profile import PROFILES
from rmap.mm.pte import ACCESSED, DIRTY, PRESENT, RW, SPECIAL, SWAP, SWP_EXCLUSIVE
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.uapi.vm_flags import VM_LOCKED, VM_LOCKED_MASK, VM_MAYSHARE, VM_SHARED, VM_WRITE
from rmap.units import PAGE_SHIFT, PMD_SHIFT

SPARE_PAGES = 1 << 16
TABLE_BITS = PMD_SHIFT - PAGE_SHIFT
REGION_BITS = 28
"""More than the regions of an address space take."""
LARGEST_FILE = 1 << 40
"""In bytes. A file of the model has a column of all its pages; of a larger one, what is mapped of it is loaded."""
NO_INDEX = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Adoption:
    """How a picture was loaded.

    Attributes:
        pages, ptes: distinct frames mapped, and entries that map them.
        inferred: what was inferred, a sentence each.
        left_out: entries that were not loaded, by reason.
        unseen: pages that the kernel counts more mappings of than the picture has entries: somebody outside it maps
            them too. Here their mapcount is the number of entries found.
        copied: entries whose page became a private copy, because the design or the rules cannot hold it as it was.
    """

    pages: int
    ptes: int
    inferred: tuple[str, ...]
    left_out: dict[str, int]
    unseen: int
    copied: int


def adopt(
    picture: Snapshot,
    design: str | ReverseMapFactory,
    *,
    profile: str | None = None,
    nr_pages: int | None = None,
    nr_swap: int | None = None,
    scalar_twins: bool = True,
) -> Kernel:
    """Build a machine from a picture.

    Args:
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
    kernel = Kernel(design, profile, nr_pages, nr_swap=nr_swap, nr_tables=nr_tables, scalar_twins=scalar_twins)
    kernel.core.costs.enter(ADOPT)
    return _Loader(kernel, picture, frames, pages, left_out).load()


class _Loader:
    def __init__(
        self, kernel: Kernel, picture: Snapshot, frames: DenseFrames, pages: PagesToLoad, left_out: dict[str, int]
    ) -> None:
        self.kernel = kernel
        self.core: Core = kernel.core
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
        self.has_topology = False

    def load(self) -> Kernel:
        self._take_frames()
        self._mark_exclusive()
        files = self._make_files()
        self._make_processes()
        self._make_vmas(files)
        self._fork_families()
        for row, span_pages in self._by_vma():
            self._map(self.vmas[row], span_pages)
        self._release_unused()
        if not self.core.profile.anon_exclusive:  # its marks said how to load the entries; this release has none
            self.core.frames.flags &= np.int32(~EXCLUSIVE)
        self._note()
        return self.kernel

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
            exclusive = (self.found == 1) & (frames.mapcount <= 1) & among(frames.kind, KINDS.on_anon_vmas)
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
            self.kernel.files.setdefault(path, mapping)
            made.append(File(mapping, path))
        cached = of_file.copy()
        cached[cached] = among(self.frames.kind[pages.pfn[cached]], KINDS.cached)
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
        picture, kernel = self.picture, self.kernel
        depth, parents = fork_tree(picture)
        pids = picture.processes.pid.tolist()
        made: dict[int, Process] = {}
        for row in sorted(range(len(pids)), key=lambda row: depth[row]):
            above = made.get(parents[row])
            mm = kernel.core.new_mm(above.mm if above is not None else None)
            made[row] = Process(kernel, pids[row], mm, above)
        kernel.processes = {pids[row]: made[row] for row in range(len(pids))}
        sharers = picture.sharers
        for row, pid in zip(sharers.process.tolist(), sharers.pid.tolist()):
            made[row].mm.users += 1
            kernel.processes[pid] = Process(kernel, pid, made[row].mm, made[row])
        kernel.reserve_pids(max(kernel.processes, default=0))
        self.processes = [made[row] for row in range(len(pids))]

    def _make_vmas(self, files: list[File]) -> None:
        vmas = self.picture.vmas
        columns = zip(
            vmas.process.tolist(),
            vmas.start.tolist(),
            vmas.end.tolist(),
            vmas.flags.tolist(),
            self.inferred.pgoff.tolist(),
            vmas.file.tolist(),
            vmas.label,
        )
        for process, start, end, flags, pgoff, row, label in columns:
            mm = self.processes[process].mm
            file = files[row] if row >= 0 else None
            vma = new_vma(self.core, mm, start, end, flags, pgoff, file)
            mm.append(vma)
            self.core.link_file(vma)
            if label == "[heap]":
                mm.start_brk, mm.brk = min(start, mm.start_brk if mm.brk == start else start), end
            if vma.flags & VM_LOCKED:
                mm.locked_vm += vma.pages
            self.vmas.append(vma)
        # A machine may allow more areas than is usual (vm.max_map_count).
        most = max((len(process.mm.vmas) for process in self.processes), default=0)
        self.core.max_map_count = max(self.core.max_map_count, most)

    # VMAs that share pages were forked from a common one: from a live VMA, or from a ghost that is unlinked again.
    def _fork_families(self) -> None:
        if self._adopt_topology() or not self.inferred.families:
            return
        shared = self._shared_pages()
        mm = self.core.new_mm(None)
        for number, family in enumerate(self.inferred.families):
            ghost = self._ghost(mm, family)
            for row in family.vmas:
                vma = self.vmas[row]
                vma.faulted = True
                if row in family.split_from:
                    self.core.rmap.vma_clone(vma, self.vmas[family.split_from[row]], "split")
                else:
                    above = family.up[row]
                    self.core.rmap.vma_fork(vma, ghost if above == NOBODY else self.vmas[above])
            self._hang(shared.get(-2 - number), ghost)
            for row in family.vmas:
                self._hang(shared.get(row), self.vmas[row])
            self.core.rmap.vma_unlink(ghost, None)
            mm.remove(ghost)
        mm.clear()
        self.core.rmap.mm_exit(mm)
        del self.core.mms[mm.id]

    # Where the picture knows the kernel's own anon_vmas, and the design can hold them, nothing is inferred.
    def _adopt_topology(self) -> bool:
        picture, frames, columns = self.picture, self.frames, self.core.frames
        if picture.about["topology"] == "none" or not len(picture.anon_vmas) or not self._chains_are_in_order():
            return False
        handles = self.core.rmap.adopt_topology(topology_columns(picture), self.vmas)
        if handles is None:
            return False
        for vma, row in zip(self.vmas, picture.vmas.anon_vma.tolist()):
            vma.faulted = row >= 0
        known = np.flatnonzero(among(frames.kind, KINDS.on_anon_vmas) & (frames.anon_vma >= 0) & (frames.index >= 0))
        heads = frames.head[known]
        columns.flags[known] |= np.int32(ANON | SWAPBACKED)
        columns.mapping[heads] = handles[frames.anon_vma[known]]
        columns.index[heads] = self.head_index[heads] = frames.index[known] - (known - heads)
        self.anchored[heads] = True
        self.has_topology = True
        self._settle_exclusive()
        return True

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

    # Chains of a release that reverses them at every fork are of no use to one that keeps the root last (rule 0.3).
    def _chains_are_in_order(self) -> bool:
        chains, root = self.picture.anon_vma_chains, self.picture.anon_vmas.root
        last = np.flatnonzero(np.diff(chains.vma, append=-1))
        in_order = (root[chains.anon_vma[last]] == chains.anon_vma[last]).all()
        return bool(in_order) or not self.core.profile.root_is_last

    def _ghost(self, mm: Mm, family: VmaFamily) -> Vma:
        members = [self.vmas[row] for row in family.vmas]
        low, high = min(m.pgoff for m in members), max(m.last for m in members)
        model = members[0]
        start = max(0, model.start + ((low - model.pgoff) << PAGE_SHIFT))
        flags = model.flags & ~VM_LOCKED_MASK
        ghost = Vma(mm, start, start + ((high - low + 1) << PAGE_SHIFT), flags, low, model.file, model.mapping)
        mm.append(ghost)
        self.core.prepare(ghost)
        return ghost

    def _hang(self, shared: tuple[I64, I64] | None, vma: Vma) -> None:
        # Pages of several VMAs hang on their nearest common ancestor.
        if shared is not None:
            heads, index = shared
            self.core.frames.flags[heads] |= np.int32(ANON | SWAPBACKED)
            self.core.rmap.set_anon(PteBatch.anchored(vma, heads, index), "adopt")
            self.anchored[heads] = True

    def _shared_pages(self) -> dict[int, tuple[I64, I64]]:
        # Anchor VMA, or -2 - family for its ghost -> (head frames, their page indexes).
        anchor, index = self.inferred.anchor_vma, self.head_index
        heads = np.flatnonzero(anchor != NOBODY)
        heads = heads[np.argsort(anchor[heads], kind="stable")]
        keys, starts = np.unique(anchor[heads], return_index=True)
        groups = np.split(heads, starts[1:]) if len(keys) else []
        return {key: (np.sort(group), index[np.sort(group)]) for key, group in zip(keys.tolist(), groups)}

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
        anon = mapped[among(self.frames.kind[pages.pfn[mapped]], KINDS.on_anon_vmas)]
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
        anon[tracked] = among(self.frames.kind[pfns[tracked]], KINDS.on_anon_vmas)
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
        self.kernel.adoption = Adoption(
            pages=int(np.count_nonzero(columns.mapcount)),
            ptes=int(columns.mapcount.sum(dtype=np.int64)),
            inferred=tuple(inferred),
            left_out=self.left_out,
            unseen=int(np.count_nonzero(self.frames.mapcount > self.found)),
            copied=self.copied,
        )
        self.kernel.set_picture_pfns(self.frames.picture_pfn)
