"""How the running kernel is observed: what BPF reads of its own structures, or what /proc shows.

The puppets wait for their next call while they are observed, so what is seen is of one moment. Each address space is
read once, through one of those that live in it.

By BPF everything is seen that :mod:`.observed` has a place for. By /proc: areas and their flags, page indexes of areas
that have a file, entries, mapcounts, the swap cache; no open files, no anon_vmas, no exclusive marks, no page indexes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from rmap.columns import Bool
from rmap.lab.conform.observed import (
    FLAGS,
    KIND,
    MARK,
    NO_ENTRY,
    NOT_SEEN,
    NUMBER_SHIFT,
    PAGE,
    SWAP_SLOT,
    ZERO_PAGE,
    AnonVmaFacts,
    Area,
    Observed,
    PageFacts,
    SeenMm,
    TreeNode,
    observed_of,
)
from rmap.lab.conform.puppets import Puppet, PuppetDied, Puppets
from rmap.live.sources.kpage import open_kpage
from rmap.live.sources.pagemap import entry_of
from rmap.live.sources.procfs import MapsLine, read_maps
from rmap.mm.frames import TAG_ANON, TAG_BITS
from rmap.structs.anon_vmas import Topology
from rmap.structs.memory import KernelMemory
from rmap.structs.page import StructPages, TreeNodes
from rmap.uapi.pagemap import PM_GUARD_REGION, PM_PFRAME_MASK, PM_PRESENT, PM_SWAP
from rmap.units import PAGE_SHIFT, PAGE_SIZE

KPF_ANON, KPF_SWAPCACHE = 1 << 12, 1 << 13
NEAR_BYTES = 64 * PAGE_SIZE
"""Areas with smaller gaps between them are read in one go."""
BUFFER_ENTRIES = 1 << 12


class KernelObserver:
    """Observes puppets. A context manager.

    Args:
        puppets: the group of them.
        memory: reads the kernel's structures; None: /proc is all there is.
        anon_vmas: whether to tell what the reverse map of anonymous pages looks like (page indexes, anon_vmas).
    """

    def __init__(self, puppets: Puppets, memory: KernelMemory | None, anon_vmas: bool = True) -> None:
        self._puppets = puppets
        self._memory = memory
        self._anon_vmas = anon_vmas
        self._kpagecount = open_kpage("kpagecount")
        self._kpageflags = open_kpage("kpageflags")
        self._buffer = mmap.mmap(-1, BUFFER_ENTRIES * 8)
        self._raw = memoryview(self._buffer)
        self._zero_pfn = _zero_pfn()
        self._seen_files: dict[int, str] = {}
        self._row_of_anon_vma: dict[int, int] = {}
        self._address_of_anon_vma: list[int] = []
        self._vmas: dict[int, list[int]] = {}
        self._mm_address: dict[int, int] = {}

    def close(self) -> None:
        """Let go of what is open."""
        self._raw.release()
        self._buffer.close()
        os.close(self._kpagecount)
        os.close(self._kpageflags)

    def __enter__(self) -> KernelObserver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def observe(self) -> Observed:
        """Every living puppet, in the order they were made.

        Raises:
            PuppetDied: one is not there any more.
        """
        puppets = self._puppets.living
        living: dict[int, Puppet] = {}
        for puppet in puppets:
            living.setdefault(puppet.mm, puppet)
        families: dict[int, AnonVmaFacts] = {}
        self._vmas = {mm: [] for mm in living}
        try:
            if self._memory is None:
                areas = {mm: list(self._areas_of_smaps(puppet.pid)) for mm, puppet in living.items()}
                facts = self._counts
            else:
                topology = self._memory.topology(puppet.pid for puppet in living.values())
                areas = self._areas_of(topology, {puppet.pid: mm for mm, puppet in living.items()})
                if self._anon_vmas:
                    families = _families(topology)
                    self._address_of_anon_vma = topology.anon_vmas.address.tolist()
                    self._row_of_anon_vma = {at: row for row, at in enumerate(self._address_of_anon_vma)}
                facts = self._struct_pages
            seen = {}
            for mm, puppet in living.items():
                entries = self._marked(mm, areas[mm], self._entries(puppet, areas[mm]))
                seen[mm] = SeenMm(areas[mm], entries, self._vmas[mm])
        except (ProcessLookupError, FileNotFoundError):
            raise PuppetDied("a puppet went away while it was looked at") from None
        return observed_of([puppet.mm for puppet in puppets], seen, families, facts, self._tree, self._file_name)

    def pfn(self, process: Puppet, addr: int) -> int | None:
        """The frame that an address of a puppet maps, None if no page is present there."""
        page = addr & -PAGE_SIZE
        entry = self._read(process.pagemap, page, page + PAGE_SIZE)[0]
        return entry & PM_PFRAME_MASK if entry & PM_PRESENT else None

    # -- areas

    def _areas_of(self, topology: Topology, mm_of: dict[int, int]) -> dict[int, list[Area]]:
        vmas, links = topology.vmas, topology.links
        inside = np.flatnonzero((vmas.start >= Puppets.LOW) & (vmas.start < Puppets.HIGH))
        wanted = (vmas.start, vmas.end, vmas.flags & FLAGS, vmas.pgoff, vmas.file, vmas.mapping, vmas.anon_vma)
        columns = [column[inside].tolist() for column in (vmas.pid, vmas.address, vmas.dev, vmas.inode, *wanted)]
        first = np.searchsorted(links.vma, inside).tolist()
        last = np.searchsorted(links.vma, inside, side="right").tolist()
        chains = links.anon_vma.tolist()
        areas: dict[int, list[Area]] = {mm: [] for mm in mm_of.values()}
        self._mm_address = {mm_of[pid]: mm for pid, mm in zip(vmas.pid.tolist(), vmas.mm.tolist())}
        self._seen_files.clear()
        for row in zip(*columns, first, last):
            pid, vma, dev, inode, start, end, flags, pgoff, file, mapping, anon_vma, low, high = row
            if file:
                name = self._seen_files[mapping] = self._name(dev, inode)
                # A private mapping of /dev/zero has a file and no pages of it (rule 1.8).
                mapping = NOT_SEEN if name == "/dev/zero" else mapping
            else:
                file = mapping = NOT_SEEN
            chain = tuple(chains[low:high]) if self._anon_vmas else ()
            active = anon_vma if self._anon_vmas else NOT_SEEN
            areas[mm_of[pid]].append((start, end, flags, pgoff, file, mapping, active, chain))
            self._vmas[mm_of[pid]].append(vma)
        return areas

    def _areas_of_smaps(self, pid: int) -> Iterator[Area]:
        for line in read_maps(pid, vm_flags=True):
            if Puppets.LOW <= line.start < Puppets.HIGH:
                yield self._area(line)

    def _area(self, line: MapsLine) -> Area:
        if not line.inode:
            return line.start, line.end, line.flags, NOT_SEEN, NOT_SEEN, NOT_SEEN, NOT_SEEN, ()
        mapping = line.dev << 64 | line.inode
        name = self._seen_files[mapping] = self._name(line.dev, line.inode)
        mapping = NOT_SEEN if name == "/dev/zero" else mapping
        return line.start, line.end, line.flags, line.offset >> PAGE_SHIFT, NOT_SEEN, mapping, NOT_SEEN, ()

    def _name(self, dev: int, inode: int) -> str:
        return self._puppets.names.get((dev, inode), "shared memory")

    def _file_name(self, mapping: int) -> str:
        return self._seen_files[mapping]

    def _tree(self, is_anon: bool, number: int) -> list[TreeNode]:
        if self._memory is None:
            return []
        if is_anon:
            return _in_order(self._memory.anon_vma_tree(self._address_of_anon_vma[number]))
        return _in_order(self._memory.i_mmap_tree(number))

    # -- entries

    def _entries(self, puppet: Puppet, areas: list[Area]) -> list[int]:
        entries: list[int] = []
        for low, high, pieces in _near_each_other(areas):
            raw = self._read(puppet.pagemap, low, high)
            for start, end in pieces:
                entries += raw[(start - low) >> PAGE_SHIFT : (end - low) >> PAGE_SHIFT]
        return [self._entry(raw) for raw in entries]

    def _read(self, pagemap: int, low: int, high: int) -> list[int]:
        raw: list[int] = []
        for at in range(low, high, BUFFER_ENTRIES * PAGE_SIZE):
            size = (min(high - at, BUFFER_ENTRIES * PAGE_SIZE) >> PAGE_SHIFT) * 8
            got = os.preadv(pagemap, [self._raw[:size]], (at >> PAGE_SHIFT) * 8)
            if got != size:
                raise ProcessLookupError  # its address space is gone
            raw += self._raw[:size].cast("Q").tolist()
        return raw

    def _entry(self, raw: int) -> int:
        if raw & PM_PRESENT:
            pfn = raw & PM_PFRAME_MASK
            return ZERO_PAGE if pfn == self._zero_pfn else pfn << NUMBER_SHIFT | PAGE
        swapped = raw & PM_SWAP and not raw & PM_GUARD_REGION
        return (raw & PM_PFRAME_MASK) << NUMBER_SHIFT | SWAP_SLOT if swapped else NO_ENTRY

    def _marked(self, mm: int, areas: list[Area], entries: list[int]) -> list[int]:
        # The entries, with the marks that only the page tables themselves show.
        if self._memory is None or self._memory.why_no_ptes is not None or not areas:
            return entries
        every = np.concatenate([np.arange(start, end, PAGE_SIZE) for start, end, *_ in areas])
        seen = np.array(entries, np.int64)
        at = np.flatnonzero(seen & KIND >= PAGE)
        raw = self._memory.ptes(self._mm_address[mm], every[at])
        seen[at] |= np.where(seen[at] & KIND == PAGE, raw.write, raw.swap_exclusive) * MARK
        marked: list[int] = seen.tolist()
        return marked

    # -- pages

    def _counts(self, pfns: list[int]) -> list[PageFacts]:
        facts: list[PageFacts] = []
        for pfn in pfns:
            flags = _u64(self._kpageflags, pfn)
            facts.append((self.mapcount(pfn), False, bool(flags & KPF_ANON), _in_swapcache(flags), NOT_SEEN, NOT_SEEN))
        return facts

    def mapcount(self, pfn: int) -> int:
        """How many entries map a frame."""
        return _u64(self._kpagecount, pfn)

    def _struct_pages(self, pfns: list[int]) -> list[PageFacts]:
        assert self._memory is not None
        pages = self._memory.struct_pages(np.array(pfns, np.int64))
        anon = pages.mapping & TAG_BITS == TAG_ANON
        return list(
            zip(
                pages.mapcount.tolist(),
                (pages.exclusive & anon).tolist(),
                anon.tolist(),
                [_in_swapcache(_u64(self._kpageflags, pfn)) for pfn in pfns],
                self._owners(pages, anon),
                np.where(anon & (not self._anon_vmas), NOT_SEEN, pages.index).tolist(),
            )
        )

    def _owners(self, pages: StructPages, anon: Bool) -> list[int]:
        # An anonymous page's anon_vma by its row in the topology just read, any other's address_space by its address.
        row = self._row_of_anon_vma
        return [
            row.get(mapping - TAG_ANON, NOT_SEEN) if is_anon else mapping
            for mapping, is_anon in zip(pages.mapping.tolist(), anon.tolist())
        ]


def _in_order(tree: TreeNodes) -> list[TreeNode]:
    # The VMAs of a tree whose nodes come in some other order.
    nodes = dict(zip(tree.node.tolist(), zip(tree.left.tolist(), tree.vma.tolist(), tree.right.tolist())))
    in_order: list[TreeNode] = []
    above: list[tuple[int, int]] = []
    node, depth = int(tree.node[0]) if len(tree) else 0, 0
    while node or above:
        if node:
            above.append((node, depth))
            node, depth = nodes[node][0], depth + 1
        else:
            node, depth = above.pop()
            _, vma, node = nodes[node]
            in_order.append((vma, depth))
            depth += 1
    return in_order


def _u64(fd: int, number: int) -> int:
    return int.from_bytes(os.pread(fd, 8, number * 8), "little")


def _in_swapcache(flags: int) -> bool:
    # Memory files go through the swap cache too, on their way out: of them it is not asked.
    return flags & (KPF_ANON | KPF_SWAPCACHE) == KPF_ANON | KPF_SWAPCACHE


def _families(topology: Topology) -> dict[int, AnonVmaFacts]:
    a = topology.anon_vmas
    columns = (a.root, a.parent, a.refcount, a.num_children, a.num_active_vmas)
    return dict(enumerate(zip(*(column.tolist() for column in columns))))


def _near_each_other(areas: list[Area]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    # Groups of areas with small gaps: from where to where, and the areas of the group.
    pieces: list[tuple[int, int]] = []
    for start, end, *_ in areas:
        if pieces and start - pieces[-1][1] > NEAR_BYTES:
            yield pieces[0][0], pieces[-1][1], pieces
            pieces = []
        pieces.append((start, end))
    if pieces:
        yield pieces[0][0], pieces[-1][1], pieces


def _zero_pfn() -> int:
    # The frame that a read of untouched memory maps.
    with mmap.mmap(-1, PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0]
        view = ctypes.c_char.from_buffer(page)
        entry = entry_of(os.getpid(), ctypes.addressof(view))
        del view
    return entry & PM_PFRAME_MASK
