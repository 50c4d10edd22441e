"""The whole state of a machine as one value, equal for machines that differ only in names.

Names are what a machine hands out as it likes: frame numbers, swap slots, rows of the page-table arena, ids of mms, of
address_spaces, of open files and of anon_vmas. They are replaced by the order in which they are first met, going
through processes by pid and through addresses upwards. So two sequences of calls that lead to the same state have the
same canonical form, and it can be hashed, compared and shown.

Not part of it: what was counted, which frames are free in which order, and what only helps to be quick.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Hashable
from typing import Any

import numpy as np

from rmap import Kernel
from rmap.mm.frames import ANON, SWAPCACHE, ZERO_PFN
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.pte import FLAG_BITS, PRESENT, SPECIAL, SWAP
from rmap.uapi.vm_flags import VM_PFNMAP
from rmap.units import PAGE_SHIFT, PMD_SHIFT

State = tuple[Any, ...]


class Names:
    """Numbers in order of first appearance, by kind."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Hashable, int]] = {}

    def __call__(self, kind: str, name: Hashable) -> int:
        """The number of a name, a new one if it has none yet."""
        known = self._numbers.setdefault(kind, {})
        return known.setdefault(name, len(known))

    def known(self, kind: str) -> list[Any]:
        """All names of a kind, in order of their numbers."""
        return list(self._numbers.get(kind, {}))


def canonical(kernel: Kernel, *, design: bool = True) -> State:
    """The canonical form of a machine.

    Args:
        design: with the design's own structures; without, machines under different designs may be equal.
    """
    names = Names()
    mms = _address_spaces(kernel)
    areas = tuple(_areas(mm, names) for mm in mms)
    if design and kernel.design.name == "anon_vma_chain":
        # Number the anon_vmas by the VMAs that hang on them, before pages name those that have no VMA of their own.
        for mm in mms:
            for vma in mm.vmas:
                for link in vma.chain or ():
                    names("anon", link.anon_vma.handle)
    entries = tuple(_entries(kernel, mm, names) for mm in mms)
    sharers = tuple(
        tuple(rank for rank, process in enumerate(_by_pid(kernel)) if process.mm is mm) for mm in mms
    )  # fmt: skip
    files = _files(kernel, names, design)
    _name_the_rest(kernel, names)
    swap = _swap(kernel, names)
    pages = _pages(kernel, names, design)
    form: State = (sharers, areas, entries, files, swap, pages, _accounts(kernel))
    return (*form, _design(kernel, mms, names)) if design else form


def digest(state: State) -> bytes:
    """16 bytes that stand for a canonical form; the same in every run."""
    return hashlib.blake2b(marshal.dumps(state, 2), digest_size=16).digest()


def explain_difference(one: Any, other: Any, path: str = "state") -> str:
    """Where two canonical forms first differ, in words."""
    if type(one) is tuple and type(other) is tuple:
        if len(one) != len(other):
            return f"{path}: {len(one)} items against {len(other)}: {one} against {other}"
        for at, (a, b) in enumerate(zip(one, other)):
            if a != b:
                return explain_difference(a, b, f"{path}[{at}]")
        return "no difference"
    return "no difference" if one == other else f"{path}: {one!r} against {other!r}"


def _by_pid(kernel: Kernel) -> list[Any]:
    return [kernel.processes[pid] for pid in sorted(kernel.processes)]


def _address_spaces(kernel: Kernel) -> list[Mm]:
    # Each once, by its lowest pid.
    return list({process.mm.id: process.mm for process in _by_pid(kernel)}.values())


def _areas(mm: Mm, names: Names) -> State:
    vmas = tuple(_area(vma, names) for vma in mm.vmas)
    return (mm.brk, mm.locked_vm, mm.users, vmas)


def _area(vma: Vma, names: Names) -> State:
    file = names("file", id(vma.file)) if vma.file is not None else -1
    mapping = names("mapping", vma.mapping.id) if vma.mapping is not None else -1
    pgoff = -1 - names("kernel", vma.pgoff) if vma.flags & VM_PFNMAP else vma.pgoff  # a frame number
    return (vma.start, vma.end, vma.flags, pgoff, file, mapping, vma.faulted)


def _entries(kernel: Kernel, mm: Mm, names: Names) -> State:
    tables = kernel.core.tables
    found = []
    for region in sorted(mm.rows):
        row = tables.rows[mm.rows[region]]
        at = np.flatnonzero(row)
        found.append((region, tuple(_entry(slot, entry, names) for slot, entry in zip(at.tolist(), row[at].tolist()))))
    return tuple(found)


def _entry(slot: int, entry: int, names: Names) -> State:
    flags, what = entry & FLAG_BITS, entry >> PAGE_SHIFT
    if entry & PRESENT and not entry & SPECIAL:
        return (slot, flags, names("frame", what))
    if entry & SWAP and not entry & PRESENT:
        return (slot, flags, names("slot", what))
    return (slot, flags, names("kernel", what) if what != ZERO_PFN else -1)


def _files(kernel: Kernel, names: Names, design: bool) -> State:
    # Files that have a name, in the order of the names; then those that live by their mappings alone.
    named = {mapping.id: name for name, mapping in kernel.files.items()}
    for mapping_id in sorted(named, key=named.__getitem__):
        names("mapping", mapping_id)
    for mapping in kernel.core.mappings:
        if mapping.nr_cached:
            names("mapping", mapping.id)
    files = []
    for mapping_id in names.known("mapping"):
        mapping = kernel.core.mappings[mapping_id - 1]
        at = np.flatnonzero(mapping.pages)
        held = tuple(
            (index, names("frame", page) if page > 0 else -1 - names("slot", -page))
            for index, page in zip(at.tolist(), mapping.pages[at].tolist())
        )
        users = tuple(_place(kernel, vma) for vma in mapping.i_mmap)
        users = users if design else tuple(sorted(users))  # their order is the design's
        files.append((named.get(mapping_id, ""), mapping.size, mapping.shmem, mapping.nr_cached, held, users))
    return tuple(files)


def _name_the_rest(kernel: Kernel, names: Names) -> None:
    # Pages and slots that nothing maps or names: through the swap cache from those that have a name, then what is left.
    frames, swap = kernel.core.frames, kernel.core.swap
    if swap.used:
        named = -1
        while named != len(names.known("frame")):
            named = len(names.known("frame"))
            for pfn in names.known("frame"):
                if frames.mv_flags[pfn] & SWAPCACHE:
                    names("slot", int(frames.private[pfn]))
            for slot in names.known("slot"):
                if swap.cached[slot]:
                    names("frame", int(swap.cached[slot]))
        for slot in np.flatnonzero((swap.count != 0) | (swap.cached != 0)).tolist():
            names("slot", slot)
    for pfn in np.flatnonzero(frames.mapcount + frames.extra).tolist():
        names("frame", pfn)


def _swap(kernel: Kernel, names: Names) -> State:
    swap = kernel.core.swap
    return (
        swap.used,
        tuple(
            (int(swap.count[slot]), names("frame", int(swap.cached[slot])) if swap.cached[slot] else -1)
            for slot in names.known("slot")
        ),
    )


def _pages(kernel: Kernel, names: Names, design: bool) -> State:
    return tuple(_page(kernel, pfn, names, design) for pfn in names.known("frame"))


def _page(kernel: Kernel, pfn: int, names: Names, design: bool) -> State:
    frames = kernel.core.frames
    flags = frames.mv_flags[pfn]
    slot = names("slot", int(frames.private[pfn])) if flags & SWAPCACHE else -1
    counts = (flags, frames.mv_mapcount[pfn], frames.mv_extra[pfn], slot)
    if flags & ANON:
        # An anonymous page's anchor is the design's, and worth something only while the page is mapped (rule 1.2).
        if not design or not frames.mv_mapcount[pfn]:
            return (*counts, None, None)
        mapping, index = frames.anchor1(pfn)
        return (*counts, names("anon", mapping) if mapping else -1, index if kernel.design.index_is else -1)
    mapping, index = frames.anchor1(pfn)
    return (*counts, names("mapping", mapping >> 2) if mapping else -1, index)


def _accounts(kernel: Kernel) -> State:
    # How much is left: what leaks has no name, but is missing here.
    core = kernel.core
    return (core.frames.free_top, core.tables.live, core.swap.free)


def _place(kernel: Kernel, vma: Vma) -> State:
    # A VMA by where it is.
    return (_address_spaces(kernel).index(vma.mm), vma.start)


def _design(kernel: Kernel, mms: list[Mm], names: Names) -> State:
    forms = {"anon_vma_chain": _anon_vma_chain, "pte_chain": _pte_chain}
    form = forms.get(kernel.design.name, _by_candidates)
    return form(kernel, mms, names)


def _by_candidates(kernel: Kernel, mms: list[Mm], names: Names) -> State:
    # Any other design, seen from outside: where it would look for each page, in order, and how much it holds.
    rank = {mm.id: at for at, mm in enumerate(mms)}
    tables, frames = kernel.core.tables, kernel.core.frames
    before = list(kernel.costs.current)
    proposals = []
    for pfn in names.known("frame"):
        places = []
        for candidate in kernel.design.candidates1(pfn) if frames.mv_mapcount[pfn] else ():
            if isinstance(candidate, int):
                mm_id, addr = int(tables.row_mm[candidate >> 9]), tables.addr_of1(candidate)
            else:
                where, addr = candidate
                mm_id = where.mm.id if isinstance(where, Vma) else where.id
            places.append((rank.get(mm_id, -1), addr))
        proposals.append(tuple(places))
    kernel.costs.current[:] = before
    return (tuple(proposals), tuple(sorted(kernel.metadata_bytes().items())))


def _anon_vma_chain(kernel: Kernel, mms: list[Mm], names: Names) -> State:
    rank = {mm.id: at for at, mm in enumerate(mms)}
    objects: dict[int, Any] = {}
    chains = []
    for mm in mms:
        for vma in mm.vmas:
            objects.update((link.anon_vma.handle, link.anon_vma) for link in vma.chain or ())
            active = names("anon", vma.anon.handle) if vma.anon is not None else -1
            chains.append((active, tuple(names("anon", link.anon_vma.handle) for link in vma.chain or ())))
    families = []
    for handle in names.known("anon"):
        anon = objects.get(handle)
        if anon is None:
            families.append(("no VMA",))
            continue
        tree = tuple((rank[link.vma.mm.id], link.vma.start) for link in anon.tree)
        families.append(
            (
                names("anon", anon.root.handle),
                names("anon", anon.parent.handle),
                anon.num_children,
                anon.num_active_vmas,
                anon.refcount,
                tree,
            )
        )
    return (tuple(chains), tuple(families), len(kernel.design.anon_vmas))


def _pte_chain(kernel: Kernel, mms: list[Mm], names: Names) -> State:
    rank = {mm.id: at for at, mm in enumerate(mms)}
    tables, chains = kernel.core.tables, kernel.design.chains
    before = list(kernel.costs.current)
    found = []
    for pfn in names.known("frame"):
        head = int(chains.head[pfn])
        # How full the head block is decides what the next mapping costs; it follows from the number of entries and
        # from whether there is a chain at all.
        places = tuple(
            (rank.get(int(tables.row_mm[ptep >> 9]), -1), tables.addr_of1(ptep)) for ptep in chains.candidates1(pfn)
        ) if head else ()  # fmt: skip
        found.append((head < 0, places))
    kernel.costs.current[:] = before
    return (tuple(found), chains.live)


def present_pages(kernel: Kernel) -> dict[tuple[int, int], tuple[int, int, bool]]:
    """What a program could tell apart, whatever the design: ``(mm by rank, address)`` of every tracked entry, with the
    page's number by first appearance, its mapcount, and whether it may be written."""
    names = Names()
    facts = {}
    for at, mm in enumerate(_address_spaces(kernel)):
        for region in sorted(mm.rows):
            row = kernel.core.tables.rows[mm.rows[region]]
            for slot in np.flatnonzero((row & (PRESENT | SPECIAL)) == PRESENT).tolist():
                entry = int(row[slot])
                pfn = entry >> PAGE_SHIFT
                addr = (region << PMD_SHIFT) + (slot << PAGE_SHIFT)
                facts[at, addr] = (names("frame", pfn), kernel.core.frames.mv_mapcount[pfn], bool(entry & 2))
    return facts
