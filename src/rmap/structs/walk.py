"""The walk that the kernel would do: from a page, through its own interval trees, to the entries that map it.

``rmap_walk`` (mm/rmap.c, Linux 6.18) goes from the folio's ``mapping`` to an anon_vma or an address_space, descends the
interval tree there by the page's index, and computes in each VMA it meets where the page would be (rules 5.1 to 5.5).
Here the same is done with what a source reads of those objects; whether an entry maps the page is what the source says
of the page tables (``entry_at``), in place of ``page_vma_mapped_walk``. So it can be held against the page tables
themselves.

Left out: KSM pages, whose stable nodes are not read (rule 5.6), and hugetlb. No lock is taken: what changes meanwhile
is a race of the reader's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from rmap.columns import I32, I64, Bool, rows_of
from rmap.structs.anon_vmas import Topology
from rmap.structs.memory import KernelMemory
from rmap.structs.page import ANON_TAG, KSM_TAG, TAG_MASK, EntryAt, Nodes
from rmap.structs.trees import Trees
from rmap.units import PAGE_SHIFT


@dataclass(frozen=True)
class Candidate:
    """One VMA that the walk meets.

    Attributes:
        pid: whose it is, the lowest if an mm is shared; -1 if no process has it.
        vma: address of the ``vm_area_struct``.
        start, end: of the VMA, bytes; pgoff in pages.
        address: where the page would be: ``vma_address`` (rule 5.3).
        found: ``"hit"``, ``"another page"``, ``"swapped out"``, ``"nothing"``, or ``"not readable"``.
    """

    pid: int
    vma: int
    start: int
    end: int
    pgoff: int
    address: int
    found: str


@dataclass(frozen=True)
class KernelWalk:
    """The whole walk of one page.

    Attributes:
        pfn: the page.
        kind: ``"anon"``, ``"file"``, ``"ksm"``, or ``"none"``: no reverse map leads back from it.
        anchor: address of the anon_vma or address_space; 0 for ksm and none.
        index: the page's index.
        mapcount: as the page says.
        head, order: of its folio.
        nodes: how many the tree has.
        visited: how many of them the descent looked at.
        candidates: the VMAs it met, in the order of the tree.
    """

    pfn: int
    kind: str
    anchor: int
    index: int
    mapcount: int
    head: int
    order: int
    nodes: int = 0
    visited: int = 0
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def hits(self) -> set[tuple[int, int]]:
        """(pid, address) of every entry found."""
        return {(one.pid, one.address) for one in self.candidates if one.found == "hit"}


def descend(tree: Nodes, start: int, last: int) -> tuple[list[int], int]:
    """Every interval of a tree that touches one, as ``interval_tree_iter_first`` and ``_next`` find them.

    Args:
        tree: its nodes; row 0 is the root.
        start, last: the interval asked for, page indexes, both inclusive.

    Returns:
        the rows that touch it, in order; and how many nodes were looked at.
    """
    if not len(tree):
        return [], 0
    row = {node: i for i, node in enumerate(tree.node.tolist())}
    left = [row.get(node, -1) for node in tree.left.tolist()]
    right = [row.get(node, -1) for node in tree.right.tolist()]
    first = tree.pgoff.tolist()
    ends = tree.last.tolist()
    reach = tree.subtree_last.tolist()
    looked: set[int] = {0}
    rows: list[int] = []

    def search(node: int) -> None:
        # What subtree_search and the climb of iter_next do together: in order, leaving out what cannot touch.
        below = left[node]
        if below >= 0:
            looked.add(below)
            if start <= reach[below]:
                search(below)
        if first[node] > last:
            return
        if start <= ends[node]:
            rows.append(node)
        below = right[node]
        if below >= 0:
            looked.add(below)
            if start <= reach[below]:
                search(below)

    if start <= reach[0]:
        search(0)
    return rows, len(looked)


def vma_address(start: int, end: int, pgoff: int, index: int) -> int | None:
    """Where a page of this index lies in a VMA (rule 5.3), None if it does not."""
    address = start + ((index - pgoff) << PAGE_SHIFT)
    return address if start <= address < end else None


def walk_page(memory: KernelMemory, pfn: int) -> KernelWalk:
    """Walk from one page as the kernel would.

    Args:
        memory: the kernel's structures.
        pfn: the page.

    Raises:
        NotPermitted: this user may not read page tables.
    """
    pages = memory.struct_pages(np.array([pfn], np.int64))
    mapping, index = int(pages.mapping[0]), int(pages.index[0])
    tag, anchor = mapping & TAG_MASK, mapping & ~TAG_MASK
    mapcount, head, order = int(pages.mapcount[0]), int(pages.head[0]), int(pages.order[0])
    kind = {ANON_TAG: "anon", KSM_TAG: "ksm"}.get(tag, "file" if anchor else "none")
    if not pages.valid[0] or (not mapcount and kind != "file"):  # without a mapping it is of no meaning (rule 1.2)
        kind = "none"
    if kind in ("ksm", "none"):
        return KernelWalk(pfn, kind, 0, index, mapcount, head, order)
    tree = memory.anon_vma_tree(anchor) if kind == "anon" else memory.i_mmap_tree(anchor)
    met, visited = descend(tree, index, index)
    owner = _owners(memory.topology(), tree.vma[met]) if met else []
    places = zip(owner, *(column[met].tolist() for column in (tree.vma, tree.start, tree.end, tree.pgoff, tree.mm)))
    candidates = [_looked_at(memory, pfn, index, *place) for place in places]
    return KernelWalk(pfn, kind, anchor, index, mapcount, head, order, len(tree), visited, candidates)


def _owners(topology: Topology, vmas: I64) -> list[int]:
    # The lowest pid that has each VMA, -1 for none.
    order = np.argsort(topology.vmas.pid, kind="stable")
    row = rows_of(topology.vmas.address[order], vmas)
    return np.where(row >= 0, topology.vmas.pid[order][row], -1).tolist()


def _looked_at(
    memory: KernelMemory, pfn: int, index: int, pid: int, vma: int, start: int, end: int, pgoff: int, mm: int
) -> Candidate:
    # The descent has found that the interval has the index, so the address lies in the VMA.
    address = vma_address(start, end, pgoff, index)
    entry = None if address is None else memory.entry_at(pid, mm, address)
    return Candidate(pid, vma, start, end, pgoff, address or 0, _in_words(entry, pfn))


def _in_words(entry: EntryAt | None, pfn: int) -> str:
    if entry is None:
        return "not readable"
    if entry.pfn >= 0:
        return "hit" if entry.pfn == pfn else "another page"
    return "swapped out" if entry.swapped else "nothing"


@dataclass(frozen=True)
class WalkDifference:
    """The walk against the page tables: places are (pid, address).

    Attributes:
        common: entries that both found.
        missed: entries that only the page tables have.
        invented: entries that only the walk found.
        own: entries of the process that reads, which a picture leaves out.
        raced: differences that were gone, or others, when both were read again.
    """

    common: int
    missed: list[tuple[int, int]]
    invented: list[tuple[int, int]]
    own: int
    raced: int = 0

    @property
    def equal(self) -> bool:
        """Whether both found the same."""
        return not (self.missed or self.invented)

    def settled(self, earlier: WalkDifference | None) -> WalkDifference:
        """Of this comparison what the one before had too: the machine runs on between page tables and walk."""
        if earlier is None:
            return self
        missed = sorted(set(self.missed) & set(earlier.missed))
        invented = sorted(set(self.invented) & set(earlier.invented))
        gone = len(self.missed) + len(self.invented) - len(missed) - len(invented)
        return replace(self, missed=missed, invented=invented, raced=gone)


def compare(walk: KernelWalk, mappings: Iterable[tuple[int, int]], *, own_pid: int | None = None) -> WalkDifference:
    """Hold a walk against the entries that the page tables have.

    Args:
        walk: what the walk met.
        mappings: (pid, address) of each entry.
        own_pid: the process that reads, if the page tables were read without its own; None if they were all read.
    """
    there = set(mappings)
    own = {place for place in walk.hits if place[0] == own_pid}
    hits = walk.hits - own
    return WalkDifference(len(hits & there), sorted(there - hits), sorted(hits - there), len(own))


# ---- many pages at once ----------------------------------------------------------------------------------------------


def meets(trees: Trees, tree: I64, vma: I64, row: I32 | I64, index: I64, address: I64) -> Bool:
    """Whether the walk of a page meets an entry, for many entries: what :func:`walk_page` tells of one page.

    A walk meets an entry iff the entry's VMA is in the page's tree, with the page's index where the entry is (rules 5.2
    to 5.5). Whether the descent finds the VMA in the tree is a question of the tree's order (I12).

    Args:
        trees: some trees.
        tree: int64, the tree that the page hangs on, -1 for none of them.
        vma: int64, addresses of ``vm_area_struct``, 0 unknown.
        row: which of those has the entry.
        index: int64, of the page.
        address: int64, of the entry.
    """
    if not len(trees.node) or not len(vma):
        return np.zeros(len(tree), np.bool_)
    vmas, code = np.unique(trees.vma, return_inverse=True)
    key = code * len(trees.anchor) + trees.tree
    order = np.argsort(key, kind="stable")
    key = key[order]
    at = np.minimum(np.searchsorted(vmas, vma), len(vmas) - 1)
    begin = np.where(vmas[at] == vma, at * len(trees.anchor), -len(trees.anchor))
    wanted = begin[row] + tree
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    there = (tree >= 0) & (key[place] == wanted)
    node = order[place]
    pgoff, behind = trees.pgoff[node], address - trees.start[node]
    return there & (behind == (index - pgoff) << PAGE_SHIFT) & (behind >= 0) & (address < trees.end[node])
