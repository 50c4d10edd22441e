"""The invariants of the anon_vma topology, I1 to I11, over the tables of a picture (rules 2.1 to 2.9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from rmap.errors import InvariantError
from rmap.snapshot import flags as f

if TYPE_CHECKING:
    from rmap.snapshot.picture import Snapshot

Line: TypeAlias = tuple[str, str, int, str, str]

_WHAT = {
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


def check_topology(picture: Snapshot) -> Iterator[Line]:
    """Check I1 to I11.

    Returns:
        one line per invariant: number, what, how many checked, unit, reason if it could not be.

    Raises:
        InvariantError: the first violation.
    """
    if picture.about["topology"] == "none":
        for number, what in _WHAT.items():
            yield number, what, 0, "VMAs", "the picture has no anon_vmas (/proc does not show them)"
        return
    world = _World(picture)
    for number, what in _WHAT.items():
        reason = world.why_not(number)
        if reason:
            yield number, what, 0, "VMAs", reason
        else:
            count, unit = world.checks[number]()
            yield number, what, count, unit, ""


# The topology as Python objects: there are thousands of VMAs, not millions.
class _World:
    def __init__(self, picture: Snapshot) -> None:
        self.picture = picture
        self.active = picture.vmas.anon_vma.tolist()
        self.chains: list[list[int]] = [[] for _ in self.active]
        links = picture.anon_vma_chains
        for vma, anon_vma in zip(links.vma.tolist(), links.anon_vma.tolist()):
            self.chains[vma].append(anon_vma)
        self.root = picture.anon_vmas.root.tolist()
        self.parent = picture.anon_vmas.parent.tolist()
        self.checks: dict[str, Callable[[], tuple[int, str]]] = {
            "I1": lambda: self._vmas("I1", lambda v: (self.active[v] >= 0) == bool(self.chains[v])),
            "I2": lambda: self._vmas("I2", lambda v: len({self.root[a] for a in self.chains[v]}) <= 1),
            "I3": lambda: self._vmas("I3", lambda v: self.active[v] < 0 or self.active[v] in self.chains[v]),
            "I4": lambda: self._vmas("I4", lambda v: not self.chains[v] or self._is_root(self.chains[v][-1])),
            "I5": lambda: self._vmas("I5", lambda v: len(set(self.chains[v])) == len(self.chains[v])),
            "I6": self._active_counts,
            "I7": self._child_counts,
            "I8": self._refcounts,
            "I9": self._parents,
            "I10": lambda: self._vmas("I10", lambda v: {self.parent[a] for a in self.chains[v]} <= set(self.chains[v])),
            "I11": self._same_chains,
        }

    def why_not(self, number: str) -> str:
        about = self.picture.about
        if number == "I4" and about["release"].startswith("7."):
            return "the order of chains differs since Linux 7.0 (rule 0.3)"
        if number in ("I6", "I7", "I8") and (about["refused"] or about["skipped"] or about["ended"]):
            return "processes are missing from the picture"
        if number == "I8" and (self.picture.frames.kind == f.KSM).any():
            return "references of KSM are not in the picture"
        return ""

    def _is_root(self, anon_vma: int) -> bool:
        return bool(self.root[anon_vma] == anon_vma)

    def _vmas(self, number: str, holds: Callable[[int], bool]) -> tuple[int, str]:
        for vma in range(len(self.active)):
            if not holds(vma):
                raise InvariantError(
                    number,
                    f"not so: {_WHAT[number]}. {self._name(vma)}: active {self.active[vma]}, chain {self.chains[vma]}",
                )
        return len(self.active), "VMAs"

    def _name(self, vma: int) -> str:
        vmas, processes = self.picture.vmas, self.picture.processes
        process = int(vmas.process[vma])
        return f"VMA {vmas.start[vma]:x}-{vmas.end[vma]:x} of {processes.pid[process]} {processes.comm[process]}"

    def _equal(self, number: str, column: str, wanted: list[int]) -> tuple[int, str]:
        for row, (says, counted) in enumerate(zip(getattr(self.picture.anon_vmas, column).tolist(), wanted)):
            if says != counted:
                raise InvariantError(number, f"{column} of anon_vma {row} is {says}, but {counted} were counted")
        return len(wanted), "anon_vmas"

    def _active_counts(self) -> tuple[int, str]:
        counted = Counter(self.active)
        return self._equal("I6", "num_active_vmas", [counted[a] for a in range(len(self.root))])

    def _child_counts(self) -> tuple[int, str]:
        # An anon_vma counts at its parent while its tree holds a VMA (rule 2.8); a root is its own parent.
        linked = {anon_vma for chain in self.chains for anon_vma in chain}
        counted = Counter(self.parent[a] for a in linked)
        return self._equal("I7", "num_children", [counted[a] for a in range(len(self.root))])

    def _refcounts(self) -> tuple[int, str]:
        family = Counter(self.root)
        wanted = [family[a] if self._is_root(a) else 1 for a in range(len(self.root))]
        return self._equal("I8", "refcount", wanted)

    def _parents(self) -> tuple[int, str]:
        for a, (root, parent) in enumerate(zip(self.root, self.parent)):
            if not (self.root[root] == root and self.root[parent] == root and (parent == a) == (root == a)):
                raise InvariantError("I9", f"anon_vma {a} has parent {parent} and root {root}, which do not fit")
        return len(self.root), "anon_vmas"

    def _same_chains(self) -> tuple[int, str]:
        first: dict[int, int] = {}
        for vma, anon_vma in enumerate(self.active):
            other = first.setdefault(anon_vma, vma)
            if anon_vma >= 0 and self.chains[vma] != self.chains[other]:
                raise InvariantError(
                    "I11",
                    f"{self._name(vma)} and {self._name(other)} share anon_vma {anon_vma}, but not their chains: "
                    f"{self.chains[vma]}, {self.chains[other]}",
                )
        return len(self.active), "VMAs"
