"""All that stands around one page: its anon_vma with the family it belongs to, or its file; the VMAs that a walk from
it meets, and what their page tables hold where it would be. Data for a drawing.

For an anonymous page the picture must carry the kernel's own topology (``about["topology"]``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I64
from rmap.errors import UntrackedPage, UsageError
from rmap.snapshot import flags as f
from rmap.snapshot.extents import entry_at
from rmap.snapshot.kinds import KINDS, FrameKind
from rmap.uapi.vm_flags import perms
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class AnonVmaOfPage:
    """One anon_vma.

    Attributes:
        name: ``"A0"``: within this family, numbered from the root, a parent before its children.
        parent: its parent's name, ``""`` for the root.
        depth: generations below the root.
        refcount, num_children, num_active_vmas: as the kernel has them.
        address: of the struct, 0 unknown.
    """

    name: str
    parent: str
    depth: int
    refcount: int
    num_children: int
    num_active_vmas: int
    address: int


@dataclass(frozen=True)
class FamilyVma:
    """One VMA that the walk meets.

    Attributes:
        name: ``"V1"``, in the order of processes and addresses.
        pid, comm: whose it is.
        start, end: in bytes; pgoff in pages.
        perms: ``rw-p``.
        active: the name of its active anon_vma, ``""`` for none.
        chain: the names of its chain, in order.
        address: where the page would be: start + (index - pgoff) pages.
        entry: what the page tables hold there: ``"hit"``, ``"another page"``, ``"swapped out"``, ``"nothing"``.
        pfn: of the page that is there, -1 if none.
    """

    name: str
    pid: int
    comm: str
    start: int
    end: int
    pgoff: int
    perms: str
    active: str
    chain: tuple[str, ...]
    address: int
    entry: str
    pfn: int


@dataclass(frozen=True)
class PageFamily:
    """A page and what stands around it.

    Attributes:
        pfn, kind, index, mapcount, order: of the page, as in the table ``frames``.
        exclusive: PG_anon_exclusive, None if the picture does not tell.
        raced: the page changed while the picture was taken.
        anchor: the name of the anon_vma it hangs on, ``""`` for a page of a file.
        file: the path of its file, ``""`` for an anonymous page.
        anon_vmas: those in the chains of ``vmas``, a parent before its children.
        others: how many more the family has.
        vmas: what the walk meets.
        met: how many those are, also where only the first are kept (:meth:`first`).
        hits: how many entries the walk finds.
        passed: how many VMAs hang on the same anon_vma, or map the same file, without the page's index: passed by.
    """

    pfn: int
    kind: str
    index: int
    mapcount: int
    order: int
    exclusive: bool | None
    raced: bool
    anchor: str
    file: str
    anon_vmas: tuple[AnonVmaOfPage, ...]
    others: int
    vmas: tuple[FamilyVma, ...]
    met: int
    hits: int
    passed: int

    def first(self, limit: int | None) -> PageFamily:
        """The same with at most so many VMAs, and only the anon_vmas of their chains; counts stay those of all."""
        if limit is None or len(self.vmas) <= limit:
            return self
        vmas = self.vmas[:limit]
        needed = {name for vma in vmas for name in vma.chain} | {self.anchor}
        kept = tuple(one for one in self.anon_vmas if one.name in needed)
        return replace(self, vmas=vmas, anon_vmas=kept, others=self.others + len(self.anon_vmas) - len(kept))


def family_of(snapshot: Snapshot, pfn: int) -> PageFamily:
    """Gather what stands around a page.

    Args:
        snapshot: with the page in it.
        pfn: the frame.

    Raises:
        UntrackedPage: no reverse map leads back from it, or none that a picture holds (KSM, hugetlb).
        UsageError: the picture does not have the frame, or not the anon_vma of an anonymous page.
    """
    run = snapshot.frame_run(pfn)
    if run < 0:
        raise UsageError(f"frame {pfn:#x} is not in the picture: it holds only frames that a recorded process maps")
    frames = snapshot.frames
    kind = int(frames.kind[run])
    _refuse_unwalked(KINDS[kind])
    index = int(frames.index[run]) + pfn - int(frames.pfn[run])
    anchor, file = int(frames.anon_vma[run]), int(frames.file[run])
    on_anon_vma = kind in KINDS.on_anon_vmas
    if on_anon_vma and anchor < 0:
        why = "it was taken from /proc alone" if snapshot.about["topology"] == "none" else "the page changed meanwhile"
        raise UsageError(f"the picture does not have the page's anon_vma: {why}")
    rows = _in_the_tree(snapshot, on_anon_vma, anchor, file)
    pgoff, pages = snapshot.vmas.pgoff[rows], (snapshot.vmas.end - snapshot.vmas.start)[rows] >> PAGE_SHIFT
    met = rows[(pgoff <= index) & (index < pgoff + pages)]
    names, anon_vmas, others = _anon_vmas(snapshot, met, anchor)
    vmas = tuple(_vma(snapshot, row, f"V{n}", names, index, pfn) for n, row in enumerate(met.tolist(), 1))
    tells_exclusive = snapshot.about["anon_exclusive"] and on_anon_vma
    return PageFamily(
        pfn=pfn,
        kind=KINDS[kind].name,
        index=index,
        mapcount=int(frames.mapcount[run]),
        order=int(frames.order[run]),
        exclusive=bool(frames.flags[run] & f.KPF_ANON_EXCLUSIVE) if tells_exclusive else None,
        raced=bool(frames.raced[run]),
        anchor=names.get(anchor, ""),
        file=snapshot.files.path[file] if file >= 0 else "",
        anon_vmas=anon_vmas,
        others=others,
        vmas=vmas,
        met=len(vmas),
        hits=sum(vma.entry == "hit" for vma in vmas),
        passed=len(rows) - len(met),
    )


def _refuse_unwalked(kind: FrameKind) -> None:
    if not kind.tracked:
        raise UntrackedPage(kind.name, "there is nothing to draw but its entries (`rmap who` lists them)")
    if not kind.walked:
        raise UntrackedPage(kind.name, f"the picture does not hold {kind.no_walk}; `rmap who` lists its entries")


def _in_the_tree(snapshot: Snapshot, on_anon_vma: bool, anchor: int, file: int) -> I64:
    # The VMAs that hang in the tree of an anon_vma, or of a file; rows, ascending.
    if not on_anon_vma:
        return (
            np.flatnonzero((snapshot.vmas.file == file) & (snapshot.vmas.pgoff >= 0)) if file >= 0 else np.empty(0, int)
        )
    links = snapshot.anon_vma_chains
    return np.unique(links.vma[links.anon_vma == anchor]).astype(np.int64)


def _chain(snapshot: Snapshot, vma: int) -> list[int]:
    links = snapshot.anon_vma_chains
    low, high = np.searchsorted(links.vma, [vma, vma + 1])
    return links.anon_vma[low:high].tolist()


def _anon_vmas(snapshot: Snapshot, vmas: I64, anchor: int) -> tuple[dict[int, str], tuple[AnonVmaOfPage, ...], int]:
    # The anon_vmas of some VMAs' chains and above the anchor, named from the root down; and how many more the family
    # has.
    if anchor < 0:
        return {}, (), 0
    table = snapshot.anon_vmas
    root = int(table.root[anchor])
    needed = {a for vma in vmas.tolist() for a in _chain(snapshot, vma)} | {anchor, root}
    needed = {a for a in needed if table.root[a] == root}
    below: dict[int, list[int]] = {}
    for a in sorted(needed - {root}):
        above = int(table.parent[a])
        below.setdefault(above if above in needed and above != a else root, []).append(a)
    names: dict[int, str] = {}
    rows: list[AnonVmaOfPage] = []
    waiting = [(root, "", 0)]
    while waiting:
        a, parent, depth = waiting.pop()
        if a in names:
            continue
        names[a] = f"A{len(names)}"
        columns = (table.refcount, table.num_children, table.num_active_vmas, table.address)
        rows.append(AnonVmaOfPage(names[a], parent, depth, *(int(column[a]) for column in columns)))
        waiting += [(child, names[a], depth + 1) for child in reversed(below.get(a, []))]
    return names, tuple(rows), int(np.count_nonzero(table.root == root)) - len(rows)


def _vma(snapshot: Snapshot, row: int, name: str, names: dict[int, str], index: int, pfn: int) -> FamilyVma:
    vmas, processes = snapshot.vmas, snapshot.processes
    process, start, pgoff = int(vmas.process[row]), int(vmas.start[row]), int(vmas.pgoff[row])
    address = start + ((index - pgoff) << PAGE_SHIFT)
    entry, there = _entry(snapshot, row, address)
    return FamilyVma(
        name=name,
        pid=int(processes.pid[process]),
        comm=processes.comm[process],
        start=start,
        end=int(vmas.end[row]),
        pgoff=pgoff,
        perms=perms(int(vmas.flags[row])),
        active=names.get(int(vmas.anon_vma[row]), ""),
        chain=tuple(names.get(a, "?") for a in _chain(snapshot, row)) if names else (),
        address=address,
        entry="hit" if there == pfn else entry,
        pfn=there,
    )


def _entry(snapshot: Snapshot, vma: int, address: int) -> tuple[str, int]:
    # What the page tables hold at an address of a VMA, and the frame there, -1 if none.
    entry = entry_at(snapshot.ptes, vma, address)
    if entry is None:
        return "nothing", -1
    flags, value = entry
    if flags & f.PTE_PRESENT:
        return "another page", value
    return ("swapped out" if flags & f.PTE_SWAP else "nothing"), -1
