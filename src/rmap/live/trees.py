"""The kernel's interval trees, many at once: of anon_vmas, and of files (``i_mmap``); rule 1.11.

Nodes of all trees stand in one set of columns. :func:`inspect_trees` holds them against I12 and I22.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I64, Bool
from rmap.snapshot import flags as f
from rmap.snapshot.findings import DESCRIBED, Checked, Found, Violation
from rmap.snapshot.topology import pointer
from rmap.units import PAGE_SHIFT, format_count

if TYPE_CHECKING:
    from rmap.live.bpf import IntervalTree, KernelMemory, Topology

NODE_COLUMNS = ("node", "left", "right", "subtree_last", "vma", "start", "end", "pgoff", "mm", "flags")
"""The columns of nodes, as ``IntervalTree`` has them."""
_SHARED_MAYWRITE = f.VM_SHARED | f.VM_MAYWRITE


@dataclass(frozen=True)
class Trees:
    """Trees one after the other; int64 columns.

    Attributes:
        anchor: of each tree: the address of its ``anon_vma`` or ``address_space``; ascending.
        of_anon_vmas: which of the two they are.
        begin, size: of each tree: its nodes among the following; the first is the root.
        i_mmap_writable: of each tree.
        truncated: whether nodes are missing of any.
        tree: of each node: its tree.
        node, left, right, subtree_last, vma, start, end, pgoff, mm, flags: as in ``IntervalTree``.
    """

    anchor: I64
    of_anon_vmas: bool
    begin: I64
    size: I64
    i_mmap_writable: I64
    truncated: bool
    tree: I64
    node: I64
    left: I64
    right: I64
    subtree_last: I64
    vma: I64
    start: I64
    end: I64
    pgoff: I64
    mm: I64
    flags: I64

    @property
    def last(self) -> I64:
        """The last page index of each node's own interval."""
        return self.pgoff + ((self.end - self.start) >> PAGE_SHIFT) - 1

    def name(self, tree: int) -> str:
        """What to call a tree."""
        return f"{'anon_vma' if self.of_anon_vmas else 'address_space'} {pointer(int(self.anchor[tree]))}"


def read_trees(memory: KernelMemory, anchors: I64, *, of_anon_vmas: bool) -> Trees:
    """Read trees.

    Args:
        anchors: int64, addresses of ``anon_vma`` or of ``address_space``; ascending, distinct.
        of_anon_vmas: which of the two they are.
    """
    read = memory.anon_vma_tree if of_anon_vmas else memory.i_mmap_tree
    return join([read(address) for address in anchors.tolist()], anchors, of_anon_vmas=of_anon_vmas)


def join(trees: list[IntervalTree], anchors: I64, *, of_anon_vmas: bool) -> Trees:
    """Put trees one after the other."""
    size = np.array([len(tree) for tree in trees], np.int64)
    nothing = np.empty(0, np.int64)
    columns = {name: np.concatenate([nothing, *(getattr(tree, name) for tree in trees)]) for name in NODE_COLUMNS}
    return Trees(
        anchor=anchors,
        of_anon_vmas=of_anon_vmas,
        begin=np.cumsum(size) - size,
        size=size,
        i_mmap_writable=np.array([tree.i_mmap_writable for tree in trees], np.int64),
        truncated=any(tree.truncated for tree in trees),
        tree=np.repeat(np.arange(len(trees)), size),
        **columns,
    )


def rows_of(column: I64, values: I64) -> I64:
    """For each value the row of a column that holds it, -1 where none does; the column in any order."""
    if not len(column):
        return np.full(len(values), -1, np.int64)
    order = np.argsort(column, kind="stable")
    at = np.minimum(np.searchsorted(column, values, sorter=order), len(column) - 1)
    row = order[at]
    return np.where(column[row] == values, row, -1)


def members_outside(trees: Trees, topology: Topology) -> Bool:
    """Which nodes are VMAs of no process that was read: of one that began meanwhile, or of an mm without a process."""
    return ~np.isin(trees.mm, topology.vmas.mm)


def inspect_trees(anon: Trees, files: Trees, topology: Topology) -> Iterator[Found]:
    """Hold trees against I12 and I22.

    Args:
        anon, files: the trees of every anon_vma and of every mapped file.
        topology: VMAs and chains, read just before.
    """
    own = _unique_vmas(topology)
    yield _order(anon, files, topology)
    yield _anon_members(anon, topology, own)
    yield _file_members(files, topology, own)


# The rows of VMAs, each once: processes that share an mm show the same ones.
def _unique_vmas(topology: Topology) -> I64:
    return np.unique(topology.vmas.address, return_index=True)[1]


def _order(anon: Trees, files: Trees, topology: Topology) -> Found:
    nodes = len(anon.node) + len(files.node)
    line = Checked("I12", "interval trees are in order, and know where they end", nodes, "nodes")
    violations: list[Violation] = []
    count = 0
    for trees in (anon, files):
        for text, rows in disorder(trees):
            count += len(rows)
            violations += [_of_node(trees, row, text, topology) for row in rows.tolist()[:DESCRIBED]]
    return Found(line._replace(violations=count), violations)


def _of_node(trees: Trees, row: int, text: str, topology: Topology) -> Violation:
    objects = (
        trees.name(int(trees.tree[row])),
        f"node {pointer(int(trees.node[row]))}, pages {trees.pgoff[row]:#x}-{trees.last[row]:#x}, "
        f"subtree_last {trees.subtree_last[row]:#x}",
        f"VMA {pointer(int(trees.vma[row]))} {trees.start[row]:x}-{trees.end[row]:x}",
    )
    return Violation("I12", text, objects, _pids(trees, topology, int(trees.tree[row])), int(trees.node[row]))


# Whose VMAs a tree has.
def _pids(trees: Trees, topology: Topology, tree: int) -> tuple[int, ...]:
    mms = trees.mm[trees.tree == tree]
    return tuple(np.unique(topology.vmas.pid[np.isin(topology.vmas.mm, mms)]).tolist())


def disorder(trees: Trees) -> Iterator[tuple[str, I64]]:
    """What is wrong in the order of trees: each kind of fault, with the rows of its nodes."""
    left, right = rows_of(trees.node, trees.left), rows_of(trees.node, trees.right)
    n = len(trees.node)
    yield (
        "a child of the node is not in the tree",
        np.flatnonzero(((trees.left != 0) & (left < 0)) | ((trees.right != 0) & (right < 0))),
    )
    low, high = np.full(n, np.iinfo(np.int64).min), np.full(n, np.iinfo(np.int64).max)
    levels = [trees.begin[trees.size > 0]]
    reached = np.zeros(n, np.bool_)
    while len(levels[-1]) and len(levels) <= 128:
        rows = levels[-1]
        reached[rows] = True
        for child, bound, other in ((left, high, low), (right, low, high)):
            has = rows[child[rows] >= 0]
            bound[child[has]] = trees.pgoff[has]
            other[child[has]] = other[has]
        below = np.concatenate((left[rows], right[rows]))
        levels.append(below[(below >= 0) & ~reached[below]])
    yield "the node is on the wrong side of one above it", np.flatnonzero((trees.pgoff < low) | (trees.pgoff > high))
    yield "no link leads to the node", np.flatnonzero(~reached)
    reach = trees.last.copy()
    for rows in reversed(levels):
        for child in (left, right):
            has = rows[child[rows] >= 0]
            reach[has] = np.maximum(reach[has], reach[child[has]])
    yield "subtree_last is not the last index below the node", np.flatnonzero(reached & (reach != trees.subtree_last))


# Which VMAs the trees should have and do not, or have twice, or have and should not: rows of a tree and a VMA.
def _compare(trees: Trees, tree: I64, vma: I64) -> dict[str, tuple[I64, I64]]:
    width = max(len(trees.anchor), 1)
    every, code = np.unique(np.concatenate((vma, trees.vma)), return_inverse=True)
    wanted = code[: len(vma)] * width + tree
    there = code[len(vma) :] * width + trees.tree
    distinct, times = np.unique(there, return_counts=True)
    answer = {
        "missing": np.setdiff1d(wanted, distinct),
        "twice": distinct[times > 1],
        "surplus": np.setdiff1d(distinct, wanted),
    }
    return {name: (keys % width, every[keys // width]) for name, keys in answer.items()}


_FAULTS = {
    "missing": "the VMA is not in the tree",
    "twice": "the VMA is in the tree twice",
    "surplus": "the tree has a VMA that does not belong there",
}


def _members(trees: Trees, topology: Topology, tree: I64, vma: I64, line: Checked) -> Found:
    compared = _compare(trees, tree, vma)
    foreign = trees.vma[members_outside(trees, topology)]
    violations: list[Violation] = []
    count, outside = 0, 0
    for name, (of_tree, address) in compared.items():
        ours = ~np.isin(address, foreign) if name == "surplus" else np.ones(len(address), np.bool_)
        outside += int(np.count_nonzero(~ours))
        of_tree, address = of_tree[ours], address[ours]
        count += len(address)
        rows = rows_of(topology.vmas.address, address)
        for row, at, there in zip(rows.tolist()[:DESCRIBED], of_tree.tolist(), address.tolist()):
            vmas = topology.vmas
            named = f" {vmas.pid[row]} {vmas.start[row]:x}-{vmas.end[row]:x}" if row >= 0 else ""
            objects = (trees.name(at), f"VMA {pointer(there)}{named}")
            pids = (int(vmas.pid[row]),) if row >= 0 else _pids(trees, topology, at)
            where = (int(trees.anchor[at]), there, name)
            violations.append(Violation(line.invariant, _FAULTS[name], objects, pids, where))
    note = f"{format_count(outside)} more belong to no process" if outside else ""
    return Found(line._replace(violations=count, note=note), violations)


def _anon_members(trees: Trees, topology: Topology, own: I64) -> Found:
    links = topology.links
    mine = np.isin(links.vma, own)
    line = Checked("I12", "a VMA is in the tree of each anon_vma of its chain, once", int(mine.sum()), "links")
    tree = rows_of(trees.anchor, topology.anon_vmas.address[links.anon_vma[mine]])
    return _members(trees, topology, tree, topology.vmas.address[links.vma[mine]], line)


def _file_members(trees: Trees, topology: Topology, own: I64) -> Found:
    vmas = topology.vmas
    mine = own[vmas.mapping[own] != 0]
    line = Checked("I22", "a file's i_mmap has each of its VMAs once; i_mmap_writable counts", len(mine), "file VMAs")
    found = _members(trees, topology, rows_of(trees.anchor, vmas.mapping[mine]), vmas.address[mine], line)
    counted = np.bincount(trees.tree[(trees.flags & _SHARED_MAYWRITE) == _SHARED_MAYWRITE], minlength=len(trees.anchor))
    # Negative: writing to mappings is denied (a sealed memfd), which is only possible while nobody may.
    wrong = np.flatnonzero(np.maximum(trees.i_mmap_writable, 0) != counted).tolist()
    for tree in wrong:
        text = f"i_mmap_writable is {trees.i_mmap_writable[tree]}, but {counted[tree]} VMAs may write to the file"
        where = (int(trees.anchor[tree]), "writable")
        found.violations.append(Violation("I22", text, (trees.name(tree),), _pids(trees, topology, tree), where))
    line = found.checked
    return Found(line._replace(violations=line.violations + len(wrong)), found.violations)
