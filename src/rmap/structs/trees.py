"""The kernel's interval trees, many at once: of anon_vmas, and of files (``i_mmap``); rule 1.11.

Nodes of all trees stand in one set of columns. :func:`inspect_trees` holds them against I12 and I22.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rmap.columns import I64, Bool, rows_of
from rmap.snapshot.rules.anon_vmas import pointer
from rmap.snapshot.rules.findings import NAMED, Checked, Found, Violation
from rmap.structs.anon_vmas import Topology
from rmap.structs.memory import KernelMemory
from rmap.structs.page import NODE_COLUMNS, Nodes, TreeNodes
from rmap.uapi.vm_flags import VM_MAYWRITE, VM_SHARED
from rmap.units import format_count

_DEEPEST = 128  # a red-black tree of 2^63 nodes is less deep
_SHARED_MAYWRITE = VM_SHARED | VM_MAYWRITE


@dataclass(frozen=True)
class Trees(Nodes):
    """The nodes of many trees, one tree after the other; int64 columns.

    Attributes:
        anchor: of each tree: the address of its ``anon_vma`` or ``address_space``; ascending.
        of_anon_vmas: which of the two they are.
        begin, size: of each tree: its nodes; the first is the root.
        i_mmap_writable: of each tree.
        truncated: bool, of each tree: nodes of it are missing.
        tree: of each node: its tree.
    """

    anchor: I64
    of_anon_vmas: bool
    begin: I64
    size: I64
    i_mmap_writable: I64
    truncated: Bool
    tree: I64

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


def join(trees: list[TreeNodes], anchors: I64, *, of_anon_vmas: bool) -> Trees:
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
        truncated=np.array([tree.truncated for tree in trees], np.bool_),
        tree=np.repeat(np.arange(len(trees)), size),
        **columns,
    )


Again = Callable[[Trees, I64], Trees]
"""Reads some trees of a set (row numbers) once more."""


def members_outside(trees: Trees, topology: Topology) -> Bool:
    """Which nodes are VMAs of no process that was read: of one that began meanwhile, or of an mm without a process."""
    return ~np.isin(trees.mm, topology.vmas.mm)


def inspect_trees(anon: Trees, files: Trees, topology: Topology, again: Again | None = None) -> Iterator[Found]:
    """Hold trees against I12 and I22.

    Trees and VMAs with more nodes or links than are read (``truncated``) are left out, and counted in a note.

    Args:
        anon, files: the trees of every anon_vma and of every mapped file.
        topology: VMAs and chains, read just before.
        again: how to read a tree in disorder once more: what is not there a moment later was a tree that changed while
            it was read.
    """
    own, pids = _unique_vmas(topology), _owners(topology)
    yield _order(anon, files, pids, again)
    yield _anon_members(anon, topology, own, pids)
    yield _file_members(files, topology, own, pids)


def _unique_vmas(topology: Topology) -> I64:
    # The rows of VMAs, each once: processes that share an mm show the same ones.
    return np.unique(topology.vmas.address, return_index=True)[1]


def _owners(topology: Topology) -> dict[int, tuple[int, ...]]:
    # The processes that have each mm.
    owners: dict[int, tuple[int, ...]] = {}
    for mm, pid in np.unique(np.stack((topology.vmas.mm, topology.vmas.pid)), axis=1).T.tolist():
        owners[mm] = (*owners.get(mm, ()), pid)
    return owners


def _pids(trees: Trees, rows: list[int], owners: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({pid for row in rows for pid in owners.get(int(trees.mm[row]), ())}))


def _order(anon: Trees, files: Trees, owners: dict[int, tuple[int, ...]], again: Again | None) -> Found:
    nodes, left_out, violations, count = 0, 0, [], 0
    for trees in (anon, files):
        nodes += int(trees.size[~trees.truncated].sum())
        left_out += int(np.count_nonzero(trees.truncated))
        broken, of_tree, total = _disordered(trees, owners)
        if broken and again is not None:
            sure = {(v.identity, v.objects) for v in _disordered(again(trees, np.unique(of_tree)), owners)[0]}
            kept = [violation for violation in broken if (violation.identity, violation.objects) in sure]
            broken, total = kept, total - len(broken) + len(kept)
        violations += broken
        count += total
    note = f"{format_count(left_out)} trees have more nodes than are read" if left_out else ""
    what = "interval trees are in order, and know where they end"
    return Found(Checked("I12", what, nodes, "nodes", "", count, note), violations)


def _disordered(trees: Trees, owners: dict[int, tuple[int, ...]]) -> tuple[list[Violation], list[int], int]:
    # The first violations of each kind, the trees they are in, and how many there are in all.
    violations, of_tree, total = [], [], 0
    for text, rows, others in disorder(trees):
        read = ~trees.truncated[trees.tree[rows]]
        total += int(np.count_nonzero(read))
        for row, *near in np.column_stack((rows[read], others[:, read].T)).tolist()[: NAMED // 4]:
            related = [row, *(at for at in near if at >= 0)]
            objects = (trees.name(int(trees.tree[row])), *(_node_name(trees, at) for at in related))
            where = (int(trees.anchor[trees.tree[row]]), int(trees.node[row]), text)
            violations.append(Violation("I12", text, objects, _pids(trees, related, owners), where))
            of_tree.append(int(trees.tree[row]))
    return violations, of_tree, total


def _node_name(trees: Trees, row: int) -> str:
    return (
        f"node {pointer(int(trees.node[row]))}, pages {trees.pgoff[row]:#x}-{trees.last[row]:#x}, subtree_last "
        f"{trees.subtree_last[row]:#x}, VMA {pointer(int(trees.vma[row]))} {trees.start[row]:x}-{trees.end[row]:x}"
    )


def disorder(trees: Trees) -> Iterator[tuple[str, I64, I64]]:
    """What is wrong in the order of trees.

    Every node is held against its neighbours only, so that a fault is found where it is, and nothing is asked of
    whoever else is in the tree.

    Returns:
        each kind of fault, with the rows of its nodes, and for each of these, one column each, the rows of the nodes it
        was held against, -1 for none.
    """
    left, right = rows_of(trees.node, trees.left), rows_of(trees.node, trees.right)
    n = len(trees.node)
    children = np.stack((left, right))
    rows = np.flatnonzero(((trees.left != 0) & (left < 0)) | ((trees.right != 0) & (right < 0)))
    yield "a child of the node is not in the tree", rows, children[:, rows]
    # The nodes above that a node must not begin before, or after.
    low, high = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    level = trees.begin[trees.size > 0]
    reached = np.zeros(n, np.bool_)
    for _ in range(_DEEPEST):
        reached[level] = True
        for child, bound, other in ((left, high, low), (right, low, high)):
            has = level[child[level] >= 0]
            bound[child[has]] = has
            other[child[has]] = other[has]
        below = np.concatenate((left[level], right[level]))
        level = below[(below >= 0) & ~reached[below]]
        if not len(level):
            break
    too_low = (low >= 0) & (trees.pgoff < trees.pgoff[low])
    too_high = (high >= 0) & (trees.pgoff > trees.pgoff[high])
    rows = np.flatnonzero(too_low | too_high)
    yield "the node is on the wrong side of one above it", rows, np.stack((low, high))[:, rows]
    rows = np.flatnonzero(~reached)
    yield "no link leads to the node", rows, children[:, rows]
    reach = trees.last
    for child in (left, right):
        reach = np.where(child >= 0, np.maximum(reach, trees.subtree_last[child]), reach)
    rows = np.flatnonzero(reach != trees.subtree_last)
    yield "subtree_last is not the last index below the node", rows, children[:, rows]


_FAULTS = {
    "missing": "the VMA is not in the tree",
    "twice": "the VMA is in the tree twice",
    "surplus": "the tree has a VMA that does not belong there",
    "left": "the tree has a VMA whose memory map nobody uses any more",
}


def _membership(trees: Trees, tree: I64, vma: I64, nodes: Bool) -> dict[str, tuple[I64, I64]]:
    # Which VMAs the trees should have and do not, or have twice, or have and should not: rows of a tree and a VMA.
    width = max(len(trees.anchor), 1)
    every, code = np.unique(np.concatenate((vma, trees.vma)), return_inverse=True)
    wanted = code[: len(vma)] * width + tree
    there = (code[len(vma) :] * width + trees.tree)[nodes]
    distinct, times = np.unique(there, return_counts=True)
    answer = {
        "missing": np.setdiff1d(wanted, distinct),
        "twice": distinct[times > 1],
        "surplus": np.setdiff1d(distinct, wanted),
    }
    return {name: (keys % width, every[keys // width]) for name, keys in answer.items()}


def _members(
    trees: Trees, topology: Topology, tree: I64, vma: I64, but: I64, owners: dict[int, tuple[int, ...]], line: Checked
) -> Found:
    # vma[i] must be in tree[i]; the VMAs in `but` were not read whole, so nothing is asked of them.
    asked = ~trees.truncated[tree] & ~np.isin(vma, but)
    nodes = ~trees.truncated[trees.tree] & ~np.isin(trees.vma, but)
    compared = _membership(trees, tree[asked], vma[asked], nodes)
    # A node whose VMA no process has: if its mm is in use, its process was not read.
    foreign = members_outside(trees, topology)
    of_tree, address = compared["surplus"]
    strange = np.isin(address, trees.vma[foreign])
    left = np.isin(address, trees.vma[foreign & (trees.mm_users <= 0)])
    compared["surplus"] = of_tree[~strange], address[~strange]
    compared["left"] = of_tree[left], address[left]
    violations: list[Violation] = []
    for name, (of_tree, address) in compared.items():
        rows = rows_of(topology.vmas.address, address)
        for row, at, there in zip(rows.tolist()[: NAMED // 4], of_tree.tolist(), address.tolist()):
            vmas = topology.vmas
            named = f" {vmas.pid[row]} {vmas.start[row]:x}-{vmas.end[row]:x}" if row >= 0 else ""
            objects = (trees.name(at), f"VMA {pointer(there)}{named}")
            mine = np.flatnonzero((trees.tree == at) & (trees.vma == there)).tolist()
            pids = (int(vmas.pid[row]),) if row >= 0 else _pids(trees, mine, owners)
            where = (int(trees.anchor[at]), there, name, *trees.node[mine].tolist())
            violations.append(Violation(line.invariant, _FAULTS[name], objects, pids, where, open=name == "left"))
    outside, unread = int(np.count_nonzero(strange & ~left)), int(np.count_nonzero(~asked))
    notes = [f"{format_count(outside)} more belong to no process"] if outside else []
    notes += [f"not asked of {format_count(unread)}: there is more of them than is read"] if unread else []
    count = sum(len(address) for _, address in compared.values())
    line = line._replace(checked=line.checked - unread, violations=count, note="; ".join(notes))
    return Found(line, violations)


def _anon_members(trees: Trees, topology: Topology, own: I64, owners: dict[int, tuple[int, ...]]) -> Found:
    links = topology.links
    mine = np.isin(links.vma, own)
    line = Checked("I12", "a VMA is in the tree of each anon_vma of its chain, once", int(mine.sum()), "links")
    tree = rows_of(trees.anchor, topology.anon_vmas.address[links.anon_vma[mine]])
    vma, cut = topology.vmas.address[links.vma[mine]], topology.vmas.address[topology.truncated]
    return _members(trees, topology, tree, vma, cut, owners, line)


def _file_members(trees: Trees, topology: Topology, own: I64, owners: dict[int, tuple[int, ...]]) -> Found:
    vmas = topology.vmas
    mine = own[vmas.mapping[own] != 0]
    line = Checked("I22", "a file's i_mmap has each of its VMAs once; i_mmap_writable counts", len(mine), "file VMAs")
    tree, nobody = rows_of(trees.anchor, vmas.mapping[mine]), np.empty(0, np.int64)
    finding = _members(trees, topology, tree, vmas.address[mine], nobody, owners, line)
    may_write = (trees.flags & _SHARED_MAYWRITE) == _SHARED_MAYWRITE
    counted = np.bincount(trees.tree[may_write], minlength=len(trees.anchor))
    # Negative: writing to mappings is denied (a sealed memfd), which is only possible while nobody may.
    wrong = np.flatnonzero((np.maximum(trees.i_mmap_writable, 0) != counted) & ~trees.truncated).tolist()
    for at in wrong[:NAMED]:
        text = f"i_mmap_writable is {trees.i_mmap_writable[at]}, but {counted[at]} VMAs may write to the file"
        writers = np.flatnonzero(may_write & (trees.tree == at)).tolist()
        objects = (trees.name(at), *(f"VMA {pointer(int(trees.vma[row]))}" for row in writers))
        where = (int(trees.anchor[at]), "writable")
        finding.violations.append(Violation("I22", text, objects, _pids(trees, writers, owners), where))
    line = finding.checked
    return Found(line._replace(violations=line.violations + len(wrong)), finding.violations)
