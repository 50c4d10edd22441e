"""The invariants of the anon_vma topology, I1 to I11, over columns (rules 2.1 to 2.9).

The columns come from a picture, or straight from the running kernel: :class:`CheckedTopology` says what is needed.
Every violation is collected as data, none ends the search.

What is missing is told apart from what is wrong. Of an anon_vma that was not read whole no counter is asked (I6 to I8).
Where processes are missing, a counter above what was counted means that the family reaches outside; a counter below it
is wrong all the same. Where KSM may hold references, I8 likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rmap.columns import I64, Bool
from rmap.snapshot.kinds import KSM
from rmap.snapshot.rules.findings import NAMED, Checked, Found, Violation
from rmap.units import format_count

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

_MOST_NAMED = 8  # VMAs or anon_vmas that a violation lists


def pointer(address: int) -> str:
    """A kernel address as the kernel prints it."""
    return f"{address & (1 << 64) - 1:016x}"


def root_is_last(release: str) -> bool:
    """Whether a kernel of this release keeps the root at the end of each chain: since 7.0 not (rule 0.3)."""
    major = release.partition(".")[0]
    return not (major.isdigit() and int(major) >= 7)


WHAT = {
    "I1": "a VMA has an anon_vma iff it has a chain",
    "I2": "all links of a VMA lead to one root",
    "I3": "the active anon_vma is in the chain",
    "I4": "the last link of a chain is the root",
    "I5": "no VMA is linked to an anon_vma twice",
    "I6": "num_active_vmas counts the VMAs that point at the anon_vma",
    "I7": "num_children counts the anon_vmas below it",
    "I8": "refcount: one, plus the family's other members for a root",
    "I9": "parent and root are consistent",
    "I10": "with an anon_vma, a chain holds its ancestors",
    "I11": "VMAs with the same active anon_vma have the same chain",
}


@dataclass(frozen=True)
class CheckedTopology:
    """VMAs, their chains, and the anon_vmas; int64 columns. A row of ``anon_vmas`` that is not there is -1.

    Attributes:
        active: of each VMA, the row of its active anon_vma.
        pid: of each VMA, whose it is.
        link_vma, link_anon_vma: every link, sorted by VMA, in the order of the chain.
        root, parent, refcount, num_children, num_active_vmas: of each anon_vma.
        partial: of each anon_vma, whether it was not read whole: nothing is asked of its counters.
        outside: of each anon_vma, whether VMAs or anon_vmas may hang on it that are not here.
        root_is_last: whether this release keeps the root at the end of a chain (rule 0.3).
        ksm: of each anon_vma, whether KSM may hold references to it (rule 2.9).
        ksm_items: how many references KSM holds in all, None if unknown.
        vma_name, anon_vma_name: what to call a row in a report.
        vma_where, anon_vma_where: what stays the same of a row from one reading to the next.
    """

    active: I64
    pid: I64
    link_vma: I64
    link_anon_vma: I64
    root: I64
    parent: I64
    refcount: I64
    num_children: I64
    num_active_vmas: I64
    partial: Bool
    outside: Bool
    root_is_last: bool
    ksm: Bool
    ksm_items: int | None
    vma_name: Callable[[int], str]
    anon_vma_name: Callable[[int], str]
    vma_where: Callable[[int], object]
    anon_vma_where: Callable[[int], object]


def topology_of(snapshot: Snapshot) -> CheckedTopology:
    """The topology of a picture, as columns."""
    vmas, processes, links, about = snapshot.vmas, snapshot.processes, snapshot.anon_vma_chains, snapshot.about
    table = snapshot.anon_vmas
    pid = processes.pid[vmas.process].astype(np.int64)
    # The kernel's own topology was read for all processes: whatever the picture lacks of it is marked.
    missing = about["topology"] != "kernel" and bool(about["refused"] or about["skipped"] or about["ended"])

    def vma_name(row: int) -> str:
        process = int(vmas.process[row])
        return f"VMA {processes.pid[process]} {processes.comm[process]} {vmas.start[row]:x}-{vmas.end[row]:x}"

    def anon_vma_name(row: int) -> str:
        if not table.address[row]:
            return f"anon_vma {row} (root {table.root[row]})"
        return f"anon_vma {pointer(int(table.address[row]))} (root {pointer(int(table.address[table.root[row]]))})"

    return CheckedTopology(
        active=vmas.anon_vma.astype(np.int64),
        pid=pid,
        link_vma=links.vma.astype(np.int64),
        link_anon_vma=links.anon_vma.astype(np.int64),
        root=table.root.astype(np.int64),
        parent=table.parent.astype(np.int64),
        refcount=table.refcount.astype(np.int64),
        num_children=table.num_children.astype(np.int64),
        num_active_vmas=table.num_active_vmas.astype(np.int64),
        partial=~table.whole.astype(np.bool_),
        outside=np.full(len(table), missing),
        root_is_last=root_is_last(about["release"]),
        ksm=_families_with_ksm(snapshot),
        ksm_items=None,
        vma_name=vma_name,
        anon_vma_name=anon_vma_name,
        vma_where=lambda row: (int(pid[row]), int(vmas.start[row])),
        anon_vma_where=lambda row: int(table.address[row]) or row,
    )


def _families_with_ksm(snapshot: Snapshot) -> Bool:
    # The anon_vmas of families with a VMA that maps a page merged by KSM.
    root = snapshot.anon_vmas.root.astype(np.int64)
    pfns = snapshot.pfns()[snapshot.per_frame("kind") == KSM]
    mapping = np.unique(snapshot.ptes.vma[snapshot.reverse.entries(pfns).extent]) if len(pfns) else pfns
    links = snapshot.anon_vma_chains
    roots = root[links.anon_vma[np.isin(links.vma, mapping)]]
    return np.isin(root, roots)


class MemberCounts(NamedTuple):
    """What each anon_vma should count; int64 columns.

    Attributes:
        active: VMAs that point at it (I6).
        children: anon_vmas below it (I7).
    """

    active: I64
    children: I64


def member_counts(active: I64, linked: I64, parent: I64) -> MemberCounts:
    """Count what ``num_active_vmas`` and ``num_children`` count (I6, I7).

    An anon_vma counts at its parent while its tree holds a VMA (rule 2.8); a root is its own parent.

    Args:
        active: int64, of each VMA, the row of its active anon_vma, -1 for none. Each VMA once.
        linked: int64, rows of anon_vmas that a VMA is linked to, in any order, repeated or not.
        parent: int64, of each anon_vma, the row of its parent, -1 for one that is not there.
    """
    above = parent[np.unique(linked[linked >= 0])]
    return MemberCounts(*(np.bincount(rows[rows >= 0], minlength=len(parent)) for rows in (active, above)))


def inspect_topology(topology: CheckedTopology) -> Iterator[Found]:
    """Check I1 to I11.

    Returns:
        one line per invariant, each with its violations.
    """
    world = _World(topology)
    for number, check in world.checks.items():
        yield check(number)


class _World:
    """Where the chains begin and how long they are; and the checks."""

    def __init__(self, topology: CheckedTopology) -> None:
        self.t = topology
        self.nr_vmas, self.nr_anon_vmas = len(topology.active), len(topology.root)
        self.length: I64 = np.bincount(topology.link_vma, minlength=self.nr_vmas).astype(np.int64)
        self.begin: I64 = np.cumsum(self.length) - self.length
        self.counts = member_counts(topology.active, topology.link_anon_vma, topology.parent)
        self.key: I64 = topology.link_vma * max(self.nr_anon_vmas, 1) + topology.link_anon_vma
        self.checks: dict[str, Callable[[str], Found]] = {
            "I1": self._links_iff_active,
            "I2": self._one_root,
            "I3": self._active_in_chain,
            "I4": self._root_is_last,
            "I5": self._no_link_twice,
            "I6": self._active_counts,
            "I7": self._child_counts,
            "I8": self._refcounts,
            "I9": self._parents,
            "I10": self._ancestors,
            "I11": self._same_chains,
        }

    def _of(self, column: I64, rows: I64) -> I64:
        # What a column says of some rows, -1 where the row is none.
        return np.where(rows >= 0, column[rows] if len(column) else -1, -1)

    def _any(self, of_links: Bool) -> Bool:
        return np.bincount(self.t.link_vma[of_links], minlength=self.nr_vmas) > 0

    def _vmas(self, number: str, wrong: Bool, text: str) -> Found:
        rows = np.flatnonzero(wrong).tolist()
        violations = [self._of_vma(number, text, row) for row in rows[:NAMED]]
        return Found(Checked(number, WHAT[number], self.nr_vmas, "VMAs", violations=len(rows)), violations)

    def _of_vma(self, number: str, text: str, row: int, *others: int) -> Violation:
        objects: list[str] = []
        for vma in (row, *others):
            active = int(self.t.active[vma])
            objects += [
                self.t.vma_name(vma),
                f"  active {self._name(active)}",
                f"  chain  {', '.join(map(self._name, self._chain(vma))) or 'empty'}",
            ]
        pids = tuple(sorted({int(self.t.pid[vma]) for vma in (row, *others)}))
        return Violation(number, text, tuple(objects), pids, self.t.vma_where(row))

    def _name(self, row: int) -> str:
        return self.t.anon_vma_name(row) if row >= 0 else "none"

    def _chain(self, vma: int) -> list[int]:
        begin = int(self.begin[vma])
        return self.t.link_anon_vma[begin : begin + int(self.length[vma])].tolist()

    def _links_iff_active(self, number: str) -> Found:
        text = "the VMA has an anon_vma and no chain, or a chain and no anon_vma"
        return self._vmas(number, (self.t.active >= 0) != (self.length > 0), text)

    def _one_root(self, number: str) -> Found:
        t = self.t
        first = t.link_anon_vma[self.begin[t.link_vma]]
        wrong = self._any(self._of(t.root, t.link_anon_vma) != self._of(t.root, first))
        return self._vmas(number, wrong, "the links of the VMA lead to several families")

    def _active_in_chain(self, number: str) -> Found:
        there = self._any(self.t.link_anon_vma == self.t.active[self.t.link_vma])
        wrong = (self.t.active >= 0) & (self.length > 0) & ~there
        return self._vmas(number, wrong, "the active anon_vma is not in the VMA's chain")

    def _root_is_last(self, number: str) -> Found:
        if not self.t.root_is_last:
            reason = "the order of chains differs since Linux 7.0 (rule 0.3)"
            return Found(Checked(number, WHAT[number], 0, "VMAs", reason), [])
        some = np.flatnonzero(self.length > 0)
        last = self.t.link_anon_vma[self.begin[some] + self.length[some] - 1]
        wrong = np.zeros(self.nr_vmas, np.bool_)
        wrong[some] = self._of(self.t.root, last) != last
        return self._vmas(number, wrong, "the last link of the chain is not the root")

    def _no_link_twice(self, number: str) -> Found:
        order = np.argsort(self.key, kind="stable")
        twice = np.zeros(len(self.key), np.bool_)
        twice[order[1:]] = self.key[order][1:] == self.key[order][:-1]
        return self._vmas(number, self._any(twice), "the VMA is linked to an anon_vma twice")

    def _ancestors(self, number: str) -> Found:
        t = self.t
        parent = self._of(t.parent, t.link_anon_vma)
        wanted = t.link_vma * max(self.nr_anon_vmas, 1) + parent
        wrong = self._any((parent < 0) | ~np.isin(wanted, self.key))
        return self._vmas(number, wrong, "an anon_vma is in the chain without its parent")

    def _same_chains(self, number: str) -> Found:
        t = self.t
        first = np.full(self.nr_anon_vmas, -1, np.int64)
        having = np.flatnonzero(t.active >= 0)[::-1]
        first[t.active[having]] = having  # the last written is the lowest row
        other = self._of(first, t.active)
        model = np.where(other >= 0, other, np.arange(self.nr_vmas))
        wrong = self.length != self.length[model]
        link = np.arange(len(t.link_vma)) - self.begin[t.link_vma]
        same = ~wrong[t.link_vma]
        at = self.begin[model[t.link_vma[same]]] + link[same]
        differs = np.zeros(len(t.link_vma), np.bool_)
        differs[same] = t.link_anon_vma[same] != t.link_anon_vma[at]
        rows = np.flatnonzero(wrong | self._any(differs)).tolist()
        text = "two VMAs have the same active anon_vma, but not the same chain"
        violations = [self._of_vma(number, text, row, int(model[row])) for row in rows[:NAMED]]
        return Found(Checked(number, WHAT[number], self.nr_vmas, "VMAs", violations=len(rows)), violations)

    def _active_counts(self, number: str) -> Found:
        text = "num_active_vmas is {says:,}; VMAs that point at the anon_vma: {counted:,}"
        return self._counters(number, self.t.num_active_vmas, self.counts.active, text)

    def _child_counts(self, number: str) -> Found:
        text = "num_children is {says:,}; living anon_vmas whose parent it is: {counted:,}"
        return self._counters(number, self.t.num_children, self.counts.children, text)

    def _refcounts(self, number: str) -> Found:
        t = self.t
        members = np.bincount(t.root[t.root >= 0], minlength=self.nr_anon_vmas)
        wanted = np.where(t.root == np.arange(self.nr_anon_vmas), members, 1)
        text = "refcount is {says:,}; by rule 2.9 it should be {counted:,}"
        finding = self._counters(number, t.refcount, wanted, text, above=t.ksm)
        more = np.flatnonzero(t.ksm & ~t.partial & ~t.outside & (t.refcount > wanted))
        above = int((t.refcount - wanted)[more].sum())
        if t.ksm_items is not None and above > t.ksm_items:
            text = (
                f"anon_vmas have {above:,} references more than their families explain, and KSM holds {t.ksm_items:,}"
            )
            pids = tuple(np.unique(t.pid[t.link_vma[np.isin(t.link_anon_vma, more)]]).tolist())
            objects = tuple(map(self._name, more.tolist()[:_MOST_NAMED]))
            finding.violations.append(Violation(number, text, objects, pids, "ksm"))
            return Found(finding.checked._replace(violations=finding.checked.violations + 1), finding.violations)
        return finding

    def _counters(self, number: str, says: I64, counted: I64, text: str, *, above: Bool | None = None) -> Found:
        # One counter of every anon_vma; `above` says where more than was counted may be right.
        t = self.t
        excused = t.partial | ((says > counted) & (t.outside if above is None else t.outside | above))
        left_out = int(np.count_nonzero(excused))
        rows = np.flatnonzero((says != counted) & ~excused).tolist()
        violations = [
            self._of_anon_vma(number, text.format(says=int(says[row]), counted=int(counted[row])), row)
            for row in rows[:NAMED]
        ]
        note = ""
        if left_out:
            only_ksm = above is not None and not ((t.partial | t.outside) & excused).any()
            why = "KSM holds them" if only_ksm else "they reach outside, or changed meanwhile"
            note = f"not asked of {format_count(left_out)}: {why}"
        line = Checked(number, WHAT[number], self.nr_anon_vmas - left_out, "anon_vmas", "", len(rows), note)
        return Found(line, violations)

    def _of_anon_vma(self, number: str, text: str, row: int) -> Violation:
        vmas = np.unique(self.t.link_vma[self.t.link_anon_vma == row])
        named = [self.t.vma_name(vma) for vma in vmas[:_MOST_NAMED].tolist()]
        if len(vmas) > _MOST_NAMED:
            named.append(f"... {len(vmas) - _MOST_NAMED:,} more VMAs in its tree")
        pids = tuple(np.unique(self.t.pid[vmas]).tolist())
        return Violation(number, text, (self._name(row), *named), pids, self.t.anon_vma_where(row))

    def _parents(self, number: str) -> Found:
        t = self.t
        own = np.arange(self.nr_anon_vmas)
        right = (
            (t.root >= 0)
            & (t.parent >= 0)
            & (self._of(t.root, t.root) == t.root)
            & (self._of(t.root, t.parent) == t.root)
            & ((t.parent == own) == (t.root == own))
        )
        # Where one above was not read, a picture names the anon_vma itself.
        right |= t.partial & ((t.parent == own) | (t.root == own))
        rows = np.flatnonzero(~right).tolist()
        violations = []
        for row in rows[:NAMED]:
            parent, root = int(t.parent[row]), int(t.root[row])
            text = f"parent {self._name(parent)} and root {self._name(root)} of the anon_vma do not fit"
            violations.append(self._of_anon_vma(number, text, row))
        return Found(Checked(number, WHAT[number], self.nr_anon_vmas, "anon_vmas", violations=len(rows)), violations)
