"""Do kernel structures keep the promises of a reverse map? I1 to I12 and I22 of structures alone, I19 with a snapshot.

:func:`inspect_structs` needs a source of structures and nothing else. One reading of a running kernel may hold
differences that are races: whoever reads it again tells them apart (:mod:`rmap.live.soundness`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmap.columns import I64, Bool, rows_of
from rmap.snapshot import Snapshot
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.rules.anon_vmas import CheckedTopology, inspect_topology, pointer, root_is_last
from rmap.snapshot.rules.findings import NAMED, Checked, Found, Violation
from rmap.structs.anon_vmas import Topology
from rmap.structs.memory import KernelMemory
from rmap.structs.page import anchors
from rmap.structs.trees import Trees, inspect_trees, members_outside, read_trees
from rmap.structs.walk import meets
from rmap.units import format_count


class InspectedStructs(NamedTuple):
    """What was found in one reading, and what was read.

    Attributes:
        found: one line per invariant, each with its violations.
        topology: VMAs, chains and anon_vmas.
        trees: of every anon_vma, and of every mapped file.
    """

    found: list[Found]
    topology: Topology
    trees: tuple[Trees, Trees]


def inspect_structs(memory: KernelMemory) -> InspectedStructs:
    """Check what no page is needed for: anon_vmas and chains (I1 to I11), interval trees (I12, I22)."""
    references = memory.ksm_references()
    topology = memory.topology()
    references = max(references, memory.ksm_references())
    anon = read_trees(memory, np.unique(topology.anon_vmas.address), of_anon_vmas=True)
    mapped = np.unique(topology.vmas.mapping[topology.vmas.mapping != 0])
    files = read_trees(memory, mapped, of_anon_vmas=False)

    def again(trees: Trees, rows: I64) -> Trees:
        return read_trees(memory, trees.anchor[rows], of_anon_vmas=trees.of_anon_vmas)

    columns = _columns(topology, anon, references, memory)
    findings = [_with_note(one, topology) for one in inspect_topology(columns)]
    return InspectedStructs([*findings, *inspect_trees(anon, files, topology, again)], topology, (anon, files))


def _with_note(finding: Found, topology: Topology) -> Found:
    line, cut = finding.checked, len(np.unique(topology.vmas.address[topology.truncated]))
    if not cut or line.unit != "VMAs":
        return finding
    return finding._replace(checked=line._replace(note=f"{format_count(cut)} VMAs have more links than are read"))


def _columns(topology: Topology, anon: Trees, references: int, memory: KernelMemory) -> CheckedTopology:
    # The columns that the pure check asks for; each VMA stands once.
    vmas, table = topology.vmas, topology.anon_vmas
    own = np.unique(vmas.address, return_index=True)[1]
    own = own[~np.isin(vmas.address[own], vmas.address[topology.truncated])]
    cut = _of_cut_families(topology)
    alone = cut & ~_linked(topology, own)
    new = np.full(len(vmas), -1, np.int64)
    new[own] = np.arange(len(own))
    links = new[topology.links.vma] >= 0
    order = np.argsort(new[topology.links.vma[links]], kind="stable")
    pid = vmas.pid[own]

    def vma_name(row: int) -> str:
        at = own[row]
        who = f"{vmas.pid[at]} {memory.comm(int(vmas.pid[at]))}"
        return f"VMA {who} {vmas.start[at]:x}-{vmas.end[at]:x}, struct {pointer(int(vmas.address[at]))}"

    def anon_vma_name(row: int) -> str:
        root = int(table.root[row])
        above = pointer(int(table.address[root])) if root >= 0 else "unknown"
        return f"anon_vma {pointer(int(table.address[row]))} (root {above})"

    return CheckedTopology(
        active=vmas.anon_vma[own],
        pid=pid,
        link_vma=new[topology.links.vma[links]][order],
        link_anon_vma=topology.links.anon_vma[links][order],
        root=np.where(alone, np.arange(len(table)), table.root),
        parent=np.where(alone, np.arange(len(table)), table.parent),
        refcount=table.refcount,
        num_children=table.num_children,
        num_active_vmas=table.num_active_vmas,
        partial=alone,
        outside=_with_strangers(topology, anon) | cut,
        root_is_last=root_is_last(memory.release),
        ksm=np.full(len(table), references > 0),
        ksm_items=references,
        vma_name=vma_name,
        anon_vma_name=anon_vma_name,
        vma_where=lambda row: (int(pid[row]), int(vmas.start[own[row]])),
        anon_vma_where=lambda row: int(table.address[row]),
    )


def _of_cut_families(topology: Topology) -> Bool:
    # The anon_vmas of families in which a VMA has more links than are read.
    table, links = topology.anon_vmas, topology.links
    mine = links.anon_vma[np.isin(links.vma, topology.truncated)]
    root = np.where(table.root >= 0, table.root, np.arange(len(table)))
    return np.isin(root, root[mine]) | (table.root < 0) & bool(len(mine))


def _linked(topology: Topology, vmas: I64) -> Bool:
    # The anon_vmas that these VMAs are linked to.
    linked = np.zeros(len(topology.anon_vmas), np.bool_)
    linked[topology.links.anon_vma[np.isin(topology.links.vma, vmas)]] = True
    return linked


def _with_strangers(topology: Topology, anon: Trees) -> Bool:
    # The anon_vmas whose tree has a VMA of an mm that no process read has: one that began meanwhile, or that outlives
    # its last process.
    strange = np.unique(anon.tree[members_outside(anon, topology)])
    return np.isin(topology.anon_vmas.address, anon.anchor[strange])


def walks(memory: KernelMemory, topology: Topology, trees: tuple[Trees, Trees], snapshot: Snapshot) -> Found:
    """I19 itself: from every page through the kernel's own trees, every entry that the page tables have must be met.

    A walk meets an entry iff its VMA is in the tree of the page's anchor (where the order of the tree, I12, lets the
    descent find it), and the page's index gives the entry's address there (rules 5.2 to 5.5).

    Args:
        memory: to read the struct pages.
        topology: whose the VMAs are.
        trees: of anon_vmas, and of files.
        snapshot: with the entries.
    """
    line = Checked("I19", "the walk through the kernel's own trees meets every entry of a page", 0, "pages")
    kind = snapshot.per_frame("kind")
    walked = among(kind, KINDS.walked) & (snapshot.per_frame("raced") == 0) & (snapshot.reverse.found > 0)
    pfns = snapshot.pfns()[walked]
    pages = memory.struct_pages(pfns)
    anonymous, of_file, anchor = anchors(pages.mapping)
    entries = snapshot.walk_many(pfns)
    page = np.repeat(np.arange(len(pfns)), snapshot.reverse.found[walked])
    vmas = _kernel_vmas(topology, snapshot)
    met = vmas[entries.vma] == 0  # VMAs that are not the same in both are of two moments: not asked
    if unknown := int(np.count_nonzero(met)):
        line = line._replace(
            note=f"not asked of {unknown:,} entries: their VMA changed meanwhile, or is not read whole"
        )
    for which, those in zip((anonymous, of_file), trees):
        rows = np.flatnonzero(which[page] & ~met)
        asked = page[rows]
        tree = rows_of(those.anchor, anchor)[asked]
        cut = (tree >= 0) & those.truncated[tree] if len(those.anchor) else tree >= 0
        met[rows] = cut | meets(those, tree, vmas, entries.vma[rows], pages.index[asked], entries.address[rows])
    missed = np.flatnonzero(~met)
    violations = []
    for row in missed[:NAMED].tolist():
        pid, address = int(entries.pid[row]), int(entries.address[row])
        objects = (
            f"pfn {entries.pfn[row]:#x}, mapping {pointer(int(pages.mapping[page[row]]))}",
            f"entry at {address:#x} of {pid} {snapshot.processes.comm[entries.process[row]]}",
        )
        text = "the walk from the page does not meet an entry that maps it"
        violations.append(Violation("I19", text, objects, (pid,), ("walk", pid, address)))
    return Found(line._replace(checked=len(pfns), violations=len(missed)), violations)


def _kernel_vmas(topology: Topology, snapshot: Snapshot) -> I64:
    # For each VMA of the picture the address of its struct, 0 for one that the structures do not have so.
    vmas = snapshot.vmas
    pid = snapshot.processes.pid[vmas.process].astype(np.int64)
    row = rows_of(topology.vmas.pid << 36 | topology.vmas.start >> 12, pid << 36 | vmas.start >> 12)
    same = (row >= 0) & (topology.vmas.end[row] == vmas.end) & ~np.isin(row, topology.truncated)
    return np.where(same, topology.vmas.address[row], 0)
