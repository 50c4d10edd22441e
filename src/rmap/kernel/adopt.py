"""Loading a picture: a machine whose processes, VMAs, files, folios and entries are as the picture shows them.

Everything goes through the hooks a running machine would call, in the order in which its history would have called
them: files, processes (parents first), VMAs, forks of VMAs that share pages, then entries. What the picture does not
show is inferred (:mod:`rmap.kernel.families`) and said to be so in :attr:`rmap.kernel.machine.Machine.adoption`.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from rmap.columns import I32, I64
from rmap.kernel.entries import EntryWriter
from rmap.kernel.families import NOBODY, Inferred, fork_tree, infer
from rmap.kernel.inodes import LARGEST, ZERO_DEVICE, fill_page_cache, size_in_model
from rmap.kernel.machine import Adoption, Machine
from rmap.kernel.pages import DenseFrames, PagesToLoad, dense_frames, pages_of
from rmap.kernel.process import Process
from rmap.kernel.structure import adopt_anon_vmas, fork_families, load_vmas
from rmap.mm.core import Core
from rmap.mm.costs import ADOPT
from rmap.mm.frames import EXCLUSIVE
from rmap.mm.interface import ReverseMapFactory
from rmap.mm.mm_types import File, Mm, Vma
from rmap.mm.profile import PROFILES
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.units import PAGE_SHIFT, PMD_SHIFT

SPARE_PAGES = 1 << 16
TABLE_BITS = PMD_SHIFT - PAGE_SHIFT
REGION_BITS = 28
"""More than the regions of an address space take."""

AnyMachine = TypeVar("AnyMachine", bound=Machine[Process])


def adopt(
    make: type[AnyMachine],
    snapshot: Snapshot,
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
        snapshot: what it shows.
        design: the reverse map.
        profile: the rules of which release; by default the picture's, or 6.18's if its release is not modelled.
        nr_pages: its memory; by default a quarter more than the picture needs, and 256 MiB.
        nr_swap: its swap slots; by default twice what the picture needs, and 4 GiB at least.

    Raises:
        LimitError: ``nr_pages`` or ``nr_swap`` is too small.
    """
    frames = dense_frames(snapshot)
    if nr_pages is None:
        nr_pages = frames.count + frames.count // 4 + SPARE_PAGES
    if profile is None:
        profile = next((name for name in PROFILES if f"{snapshot.about['release']}.".startswith(f"{name}.")), "6.18")
    pages, left_out = pages_of(snapshot, frames)
    if nr_swap is None:
        nr_swap = max(1 << 20, 2 * int(np.count_nonzero(pages.swapped)))
    # One mapping of each 2 MiB region of each process, and as many again for what it will do.
    region = (snapshot.vmas.start[pages.vma] >> PAGE_SHIFT) + pages.off >> TABLE_BITS
    tables = len(np.unique(snapshot.vmas.process[pages.vma].astype(np.int64) << REGION_BITS | region))
    nr_tables = max(1 << 18, 2 * tables)
    machine = make(design, profile, nr_pages, nr_swap=nr_swap, nr_tables=nr_tables, scalar_twins=scalar_twins)
    machine.core.costs.enter(ADOPT)
    _Loader(machine, snapshot, frames, pages, left_out).load()
    return machine


class _Loader:
    def __init__(
        self,
        machine: Machine[Process],
        snapshot: Snapshot,
        frames: DenseFrames,
        pages: PagesToLoad,
        left_out: dict[str, int],
    ) -> None:
        self.machine = machine
        self.core: Core = machine.core
        self.snapshot = snapshot
        self.frames = frames
        self.pages = pages
        self.left_out = left_out
        self.inferred: Inferred = infer(snapshot, frames, pages)
        self.entries = EntryWriter(self.core, snapshot, frames, pages, self.inferred)
        self.mappings_loaded = np.bincount(pages.pfn[pages.tracked], minlength=len(frames.snapshot_pfn))
        self.clipped = 0

    def load(self) -> None:
        self._take_frames()
        self._mark_exclusive()
        files = self._make_files()
        mms = self._make_processes()
        opened = [files[row] if row >= 0 else None for row in self.snapshot.vmas.file.tolist()]
        vmas = load_vmas(self.core, self.snapshot, mms, zip(opened, self.inferred.pgoff.tolist()))
        # A machine may allow more areas than is usual (vm.max_map_count).
        self.core.max_map_count = max(self.core.max_map_count, max((len(mm.vmas) for mm in mms), default=0))
        self._make_anon_vmas(vmas)
        self.entries.write(vmas)
        self._release_unused()
        if not self.core.profile.anon_exclusive:  # its marks said how to load the entries; this release has none
            self.core.frames.flags &= np.int32(~EXCLUSIVE)
        self._note()

    def _take_frames(self) -> None:
        # Frames are in use from the start, so that none of them is handed out for a copy while others are still loaded.
        core, frames = self.core, self.frames
        core.reserve(frames.count)
        core.frames.take(np.arange(1, frames.count + 1))
        for head in np.flatnonzero((frames.order > 0) & (frames.head == np.arange(len(frames.head)))).tolist():
            core.frames.make_folio(head, int(frames.order[head]))

    def _mark_exclusive(self) -> None:
        # The kernel does not tell which pages are exclusive; one that it counts once, and that has an entry here, is.
        frames = self.frames
        exclusive = frames.exclusive
        if not frames.exclusive_known:
            exclusive = (self.mappings_loaded == 1) & (frames.mapcount <= 1) & among(frames.kind, KINDS.on_anon_vmas)
        self.core.frames.flags[np.flatnonzero(exclusive)] |= np.int32(EXCLUSIVE)

    def _make_files(self) -> list[File]:
        # One open of each file of the picture: it reaches as far as it is mapped, and that is in its page cache.
        snapshot, pages = self.snapshot, self.pages
        mapped = np.flatnonzero(pages.tracked & (snapshot.vmas.file[pages.vma] >= 0))
        vma = pages.vma[mapped]
        file, index, pfns = snapshot.vmas.file[vma], snapshot.vmas.pgoff[vma] + pages.off[mapped], pages.pfn[mapped]
        needed = np.zeros(len(snapshot.files), np.int64)
        np.maximum.at(needed, file, index + 1)
        made = [self._make_file(row, nr_pages) for row, nr_pages in enumerate(needed.tolist())]
        cached = among(self.frames.kind[pfns], KINDS.cached)
        self._fill_page_caches(made, file[cached], index[cached], pfns[cached])
        return made

    def _make_file(self, row: int, nr_pages: int) -> File:
        files = self.snapshot.files
        path, size, kind = files.path[row], int(files.size[row]), files.kind[row]
        if path == ZERO_DEVICE and kind == f.FILE_DEVICE:
            return File(None, path)
        self.clipped += size > LARGEST
        size = max(size_in_model(size), nr_pages << PAGE_SHIFT)
        mapping = self.core.new_mapping(path, size, bool(kind == f.FILE_SHMEM))
        self.machine.files.setdefault(path, mapping)
        return File(mapping, path)

    def _fill_page_caches(self, files: list[File], file: I32, index: I64, pfns: I64) -> None:
        # The first entry of each folio says which file it belongs to, and where.
        frames = self.frames
        heads, first = np.unique(frames.head[pfns], return_index=True)
        owner, start = file[first], index[first] - (pfns[first] - heads)
        for row in np.unique(owner).tolist():
            mapping, own = files[row].mapping, owner == row
            if mapping is not None:
                fill_page_cache(self.core, mapping, heads[own], start[own], frames.order[heads[own]])

    def _make_processes(self) -> list[Mm]:
        # The mm of each process of the picture, in order.
        snapshot, machine = self.snapshot, self.machine
        depth, parents = fork_tree(snapshot)
        pids = snapshot.processes.pid.tolist()
        made: dict[int, Process] = {}
        for row in sorted(range(len(pids)), key=lambda row: depth[row]):
            above = made.get(parents[row])
            mm = machine.core.new_mm(above.mm if above is not None else None)
            made[row] = Process(machine, pids[row], mm, above)
        machine.processes = {pids[row]: made[row] for row in range(len(pids))}
        sharers = snapshot.sharers
        for row, pid in zip(sharers.process.tolist(), sharers.pid.tolist()):
            made[row].mm.users += 1
            machine.processes[pid] = Process(machine, pid, made[row].mm, made[row])
        machine.reserve_pids(max(machine.processes, default=0))
        return [made[row].mm for row in range(len(pids))]

    def _make_anon_vmas(self, vmas: list[Vma]) -> None:
        # Where the picture knows the kernel's own anon_vmas, and the design can hold them, nothing is inferred.
        handles = adopt_anon_vmas(self.core, self.snapshot, vmas) if self._topology_fits() else None
        if handles is not None:
            self.entries.hang_on(handles)
        else:
            fork_families(self.core, vmas, self.inferred, self.entries.head_index)
            self.entries.anchored |= self.inferred.anchor_vma != NOBODY

    def _topology_fits(self) -> bool:
        # Chains of a release that reverses them at every fork are of no use to one that keeps the root last (rule 0.3).
        snapshot = self.snapshot
        if snapshot.about["topology"] == "none" or not len(snapshot.anon_vmas):
            return False
        chains, root = snapshot.anon_vma_chains, snapshot.anon_vmas.root
        last = np.flatnonzero(np.diff(chains.vma, append=-1))
        in_order = (root[chains.anon_vma[last]] == chains.anon_vma[last]).all()
        return bool(in_order) or not self.core.profile.root_is_last

    def _release_unused(self) -> None:
        # Folios the picture describes, no page of which is mapped or cached, are free.
        columns, n = self.core.frames, len(self.frames.snapshot_pfn)
        referenced = np.zeros(n, np.bool_)
        referenced[self.frames.head[np.flatnonzero(columns.mapcount[:n] | columns.extra[:n])]] = True
        unused = np.flatnonzero(~referenced[self.frames.head[1:]]) + 1
        if len(unused):
            for head in unused[(self.frames.order[unused] > 0) & (self.frames.head[unused] == unused)].tolist():
                columns.dissolve_folio(head)
            columns.flags[unused] = 0
            columns.free(unused)

    def _note(self) -> None:
        snapshot, families = self.snapshot, self.inferred.families
        unknown = int(np.count_nonzero(snapshot.vmas.pgoff < 0))
        inferred = []
        if unknown:
            inferred.append(f"page offsets of {unknown:,} anonymous VMAs: from shared pages, else their address")
        if families and snapshot.about["topology"] == "none":
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
            left_out={**self.left_out, **self.entries.left_out},
            unseen=int(np.count_nonzero(self.frames.mapcount > self.mappings_loaded)),
            copied=self.entries.copied,
        )
        self.machine.set_snapshot_pfns(self.frames.snapshot_pfn)
