"""Is the running kernel's reverse map sound? Every invariant that can be read, over every process.

The anon_vma topology and the interval trees are read whole, this process included, so that counters must be met
exactly; pages and entries come from a picture (:mod:`rmap.live.capture`). All of it is read while the machine runs:
what looks wrong is read again. What is gone then was a race. What is still there, the same in every word, is a
violation if the processes involved did not run meanwhile; if they did, it is not judged: a process that maps and unmaps
all the time gets the same addresses, the same frames, the same structs again and again.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmap.columns import I8, I64, Bool, rows_of
from rmap.errors import NotPermitted
from rmap.live.bpf import KernelMemory, StructPages, Topology
from rmap.live.capture.capture import capture
from rmap.live.kernel_walk import anchors, meets
from rmap.live.sources import procfs
from rmap.live.sources.kpage_columns import read_counts
from rmap.live.trees import Trees, inspect_trees, members_outside, read_trees
from rmap.snapshot import Snapshot
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.rules import anon_vmas as pure
from rmap.snapshot.rules.anon_vmas import WHAT, inspect_topology, pointer, root_is_last
from rmap.snapshot.rules.check import inspect_pages
from rmap.snapshot.rules.findings import NAMED, Checked, Found, Report, Violation, report_of
from rmap.units import format_count

READINGS = 3
"""How often what looks wrong is read again."""
PAUSE = 0.02
"""Seconds between two readings."""

RACED_MAX = 0.25
"""Of all mapped pages, the part that may have changed while they were read."""

_KSM = Path("/sys/kernel/mm/ksm")
_OF_STRUCTS = {*WHAT, "I12", "I22"}


@dataclass(frozen=True)
class MachineCheck:
    """What was found.

    Attributes:
        report: what was checked, and the violations that stayed.
        races: differences that were gone when read again.
        unsettled: differences that were there each time, in processes that did not hold still: no judgement.
        readings: how often was read again.
        facts: release, and numbers of processes, vmas, anon_vmas, anon_pages, pages, ptes; refused, ended, raced.
        seconds: how long it took.
        untold: more differences than are told apart, which may have been there each time: no judgement either.
    """

    report: Report
    races: int
    unsettled: list[Violation]
    readings: int
    facts: dict[str, str | int]
    seconds: float
    untold: int = 0

    @property
    def not_judged(self) -> int:
        """Differences that may be violations."""
        return len(self.unsettled) + self.untold

    @property
    def too_much_moved(self) -> bool:
        """Whether so many pages changed while they were read that little can be said of the machine's pages."""
        return _raced(self.facts) > RACED_MAX


# What was found in one reading, and of what; without a topology where the kernel's memory was not read, without a
# picture where no process was.
@dataclass(frozen=True)
class _Reading:
    found: list[Found]
    picture: Snapshot | None
    topology: Topology | None

    def violations(self) -> dict[tuple[str, object], Violation]:
        return {v.identity: v for one in self.found for v in one.violations}


def check_machine(
    memory: KernelMemory | None, *, readings: int = READINGS, progress: Callable[[int, int], None] | None = None
) -> MachineCheck:
    """Check the running machine.

    Args:
        memory: the kernel's; None where it cannot be read: then what /proc shows is checked, and the rest is listed.
        readings: how often what looks wrong is read again.
        progress: called with (processes read, processes in all).

    Raises:
        NotPermitted: the kernel does not show page frames to this user.
    """
    began = time.perf_counter()
    first = _read_resting(memory, progress)
    there, again = first.violations(), 0
    unnamed = _Unnamed(first)
    moved: set[tuple[str, object]] = set()
    before = _run_times(_involved(there.values()))
    while (there or unnamed.any()) and again < readings:
        again += 1
        time.sleep(PAUSE)
        reading = _read(memory, None, progress) if unnamed.any() else _read_again(memory, there.values())
        now = reading.violations()
        unnamed.read(reading)
        there = {identity: violation for identity, violation in there.items() if identity in now}
        moved |= {identity for identity, violation in there.items() if not _same(violation, now[identity])}
    rested = {pid for pid, spent in _run_times(_involved(there.values())).items() if spent == before.get(pid)}
    moved |= {identity for identity, violation in there.items() if not _settled(violation, rested)}
    stayed = [violation for identity, violation in there.items() if identity not in moved]
    unsettled = [violation for identity, violation in there.items() if identity in moved]
    untold = unnamed.left(there)
    total = sum(one.checked.violations for one in first.found)
    return MachineCheck(
        report=_judged(first.found, stayed),
        races=total - len(stayed) - len(unsettled) - untold,
        unsettled=unsettled,
        readings=again,
        facts=_facts(first),
        seconds=time.perf_counter() - began,
        untold=untold,
    )


# Whether a violation that was there each time is one, or whoever it is about ran meanwhile. This process does run: of
# others it is asked whether they held still, and what concerns nobody else cannot be judged.
def _settled(violation: Violation, rested: set[int]) -> bool:
    others = {*violation.pids} - {os.getpid()}
    return not violation.open and others <= rested and bool(others or not violation.pids)


# Of a line more violations may be found than are named. How many of the others may have been there each time: once a
# reading named all of them, those of it that were there ever since; else as many as the reading that found fewest,
# without those that were told apart.
class _Unnamed:
    def __init__(self, first: _Reading) -> None:
        self._line = {violation.identity: _line_of(one) for one in first.found for violation in one.violations}
        self._least = {_line_of(one): one.checked.violations for one in first.found if one.unnamed}
        self._may: dict[tuple[str, str], set[tuple[str, object]]] = {}

    def any(self) -> bool:
        return bool(self._least)

    def read(self, reading: _Reading) -> None:
        now = {_line_of(one): one for one in reading.found}
        for line, least in list(self._least.items()):
            one = now.get(line)
            names = {violation.identity for violation in one.violations} if one else set()
            if one is None or not one.unnamed:
                self._may[line] = names & self._may[line] if line in self._may else names - set(self._line)
            self._least[line] = min(least, one.checked.violations if one else 0)
            if not self._least[line]:
                del self._least[line]

    def left(self, there: Iterable[tuple[str, object]]) -> int:
        named = Counter(self._line[identity] for identity in there)
        return sum(
            len(self._may[line]) if line in self._may else max(0, least - named[line])
            for line, least in self._least.items()
        )


def _line_of(found: Found) -> tuple[str, str]:
    return found.checked.invariant, found.checked.what


# A violation that is seen again must be so in every word.
def _same(one: Violation, other: Violation) -> bool:
    return (one.message, one.objects) == (other.message, other.objects)


def _involved(violations: Iterable[Violation]) -> list[int]:
    return sorted({pid for violation in violations for pid in violation.pids})


# For each process what grows whenever it runs; without those that have ended, and without this one, which does run.
def _run_times(pids: list[int]) -> dict[int, tuple[str, ...]]:
    spent = {}
    for pid in pids:
        with suppress(OSError):
            if pid != os.getpid():
                spent[pid] = tuple(_run_time(f"/proc/{pid}/task/{tid}") for tid in os.listdir(f"/proc/{pid}/task"))
    return spent


# Nanoseconds on a CPU; where the kernel does not count them, switches to another task.
def _run_time(task: str) -> str:
    try:
        return Path(f"{task}/schedstat").read_text().split()[0]
    except FileNotFoundError:
        lines = Path(f"{task}/status").read_text().splitlines()
        return "".join(line for line in lines if "ctxt_switches" in line)


def _judged(found: list[Found], stayed: list[Violation]) -> Report:
    names = {violation.identity for violation in stayed}
    judged = []
    for one in found:
        kept = [violation for violation in one.violations if violation.identity in names]
        judged.append(Found(one.checked._replace(violations=len(kept)), kept))
    return report_of(judged)


def _facts(reading: _Reading) -> dict[str, str | int]:
    picture, topology = reading.picture, reading.topology
    if picture is None:
        return {}
    found, kind = picture.reverse.found, picture.per_frame("kind")
    return {
        "release": picture.about["release"],
        "processes": len(picture.processes) if topology is None else len(np.unique(topology.vmas.mm)),
        "vmas": len(picture.vmas) if topology is None else len(np.unique(topology.vmas.address)),
        "anon_vmas": 0 if topology is None else len(topology.anon_vmas),
        "anon_pages": int(np.count_nonzero(among(kind, KINDS.on_anon_vmas) & (found > 0))),
        "pages": picture.nr_mapped,
        "ptes": picture.nr_ptes,
        **{name: picture.about[name] for name in ("refused", "ended", "raced")},
    }


def _read(memory: KernelMemory | None, pids: list[int] | None, progress: Callable[[int, int], None] | None) -> _Reading:
    if memory is None:
        picture = capture(pids, progress=progress, bpf=False)
        missing = [Found(line, []) for line in _without_memory()]
        return _Reading(missing + inspect_pages(picture), picture, None)
    found, topology, trees = _structs(memory)
    picture = capture(pids, progress=progress, memory=memory)
    found += inspect_pages(picture, strict=_anchors_are_strict())
    found += [walks(memory, topology, trees, picture), _accounts(memory, picture)]
    return _Reading(found, picture, topology)


# A large process that forks changes the count of every page it has: such a reading says little, and is repeated.
def _read_resting(memory: KernelMemory | None, progress: Callable[[int, int], None] | None) -> _Reading:
    best = _read(memory, None, progress)
    for _ in range(READINGS):
        if _raced(_facts(best)) <= RACED_MAX:
            break
        time.sleep(PAUSE)
        best = min(best, _read(memory, None, progress), key=lambda reading: _raced(_facts(reading)))
    return best


# The part of the mapped pages that changed while they were read.
def _raced(facts: dict[str, str | int]) -> float:
    return int(facts.get("raced", 0)) / max(int(facts.get("pages", 0)), 1)


# Only what the violations are about.
def _read_again(memory: KernelMemory | None, violations: Iterable[Violation]) -> _Reading:
    if memory is not None and all(violation.invariant in _OF_STRUCTS for violation in violations):
        return _Reading(_structs(memory)[0], None, None)
    return _read(memory, _involved(violations), None)


# What no page is needed for: anon_vmas, chains, trees.
def _structs(memory: KernelMemory) -> tuple[list[Found], Topology, tuple[Trees, Trees]]:
    items = _ksm_items()
    topology = memory.topology()
    items = max(items, _ksm_items())
    anon = read_trees(memory, np.unique(topology.anon_vmas.address), of_anon_vmas=True)
    mapped = np.unique(topology.vmas.mapping[topology.vmas.mapping != 0])
    files = read_trees(memory, mapped, of_anon_vmas=False)

    def again(trees: Trees, rows: I64) -> Trees:
        return read_trees(memory, trees.anchor[rows], of_anon_vmas=trees.of_anon_vmas)

    found = [_with_note(one, topology) for one in inspect_topology(_columns(topology, anon, items))]
    return [*found, *inspect_trees(anon, files, topology, again)], topology, (anon, files)


def _with_note(found: Found, topology: Topology) -> Found:
    line, cut = found.checked, len(np.unique(topology.vmas.address[topology.truncated]))
    if not cut or line.unit != "VMAs":
        return found
    return found._replace(checked=line._replace(note=f"{format_count(cut)} VMAs have more links than are read"))


def _without_memory() -> list[Checked]:
    reason = "the kernel's own memory cannot be read here (`rmap doctor`)"
    return [
        *(Checked(number, what, 0, "VMAs", reason) for number, what in WHAT.items()),
        Checked("I12", "interval trees are in order", 0, "nodes", reason),
        Checked("I22", "a file's i_mmap has each of its VMAs once", 0, "file VMAs", reason),
        Checked("8.3", "kpagecount and kpageflags tell what the page's struct page says", 0, "pages", reason),
    ]


# The columns that the pure check asks for, of VMAs each of which stands once.
def _columns(topology: Topology, anon: Trees, items: int) -> pure.CheckedTopology:
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
        who = f"{vmas.pid[at]} {_comm(int(vmas.pid[at]))}"
        return f"VMA {who} {vmas.start[at]:x}-{vmas.end[at]:x}, struct {pointer(int(vmas.address[at]))}"

    def anon_vma_name(row: int) -> str:
        root = int(table.root[row])
        above = pointer(int(table.address[root])) if root >= 0 else "unknown"
        return f"anon_vma {pointer(int(table.address[row]))} (root {above})"

    return pure.CheckedTopology(
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
        root_is_last=root_is_last(os.uname().release),
        ksm=np.full(len(table), items > 0),
        ksm_items=items,
        vma_name=vma_name,
        anon_vma_name=anon_vma_name,
        vma_where=lambda row: (int(pid[row]), int(vmas.start[own[row]])),
        anon_vma_where=lambda row: int(table.address[row]),
    )


# The anon_vmas of families in which a VMA has more links than are read.
def _of_cut_families(topology: Topology) -> Bool:
    table, links = topology.anon_vmas, topology.links
    mine = links.anon_vma[np.isin(links.vma, topology.truncated)]
    root = np.where(table.root >= 0, table.root, np.arange(len(table)))
    return np.isin(root, root[mine]) | (table.root < 0) & bool(len(mine))


# The anon_vmas that these VMAs are linked to.
def _linked(topology: Topology, vmas: I64) -> Bool:
    linked = np.zeros(len(topology.anon_vmas), np.bool_)
    linked[topology.links.anon_vma[np.isin(topology.links.vma, vmas)]] = True
    return linked


# The anon_vmas whose tree has a VMA of an mm that no process read has: one that began meanwhile, or that outlives its
# last process.
def _with_strangers(topology: Topology, anon: Trees) -> Bool:
    strange = np.unique(anon.tree[members_outside(anon, topology)])
    return np.isin(topology.anon_vmas.address, anon.anchor[strange])


def _comm(pid: int) -> str:
    try:
        return procfs.read_stat(pid).comm
    except OSError:
        return "(ended)"


# How many references KSM holds to anon_vmas: one per page in its stable tree (rule 2.9).
def _ksm_items() -> int:
    try:
        return sum(int((_KSM / name).read_text()) for name in ("pages_shared", "pages_sharing"))
    except (OSError, ValueError):
        return 0


# I16 has no exception as long as nothing was swapped in and no large folio was split since the machine was started.
def _anchors_are_strict() -> bool:
    wanted = ("pswpin", "swpin_zero", "thp_split_page", "thp_swpin")
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return False
    return not any(int(number) for name, number in (line.split() for line in lines) if name in wanted)


def walks(memory: KernelMemory, topology: Topology, trees: tuple[Trees, Trees], picture: Snapshot) -> Found:
    """I19 itself: from every page through the kernel's own trees, every entry that the page tables have must be met.

    A walk meets an entry iff its VMA is in the tree of the page's anchor (where the order of the tree, I12, lets the
    descent find it), and the page's index gives the entry's address there (rules 5.2 to 5.5).

    Args:
        memory: to read the struct pages.
        topology: whose the VMAs are.
        trees: of anon_vmas, and of files.
        picture: with the entries.
    """
    line = Checked("I19", "the walk through the kernel's own trees meets every entry of a page", 0, "pages")
    kind = picture.per_frame("kind")
    walked = among(kind, KINDS.walked) & (picture.per_frame("raced") == 0) & (picture.reverse.found > 0)
    pfns = picture.pfns()[walked]
    pages = memory.struct_pages(pfns)
    anonymous, of_file, anchor = anchors(pages.mapping)
    entries = picture.walk_many(pfns)
    page = np.repeat(np.arange(len(pfns)), picture.reverse.found[walked])
    vmas = _kernel_vmas(topology, picture)
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
            f"entry at {address:#x} of {pid} {picture.processes.comm[entries.process[row]]}",
        )
        text = "the walk from the page does not meet an entry that maps it"
        violations.append(Violation("I19", text, objects, (pid,), ("walk", pid, address)))
    return Found(line._replace(checked=len(pfns), violations=len(missed)), violations)


# Whether /proc tells of a page what its struct page says. What differs is looked at again at once, between two readings
# of its count: the kernel counts on while both are read.
def _accounts(memory: KernelMemory, picture: Snapshot) -> Found:
    kind = picture.per_frame("kind")
    asked = ~among(kind, KINDS.untracked) & (picture.per_frame("raced") == 0) & (picture.reverse.found > 0)
    pfns, kind, order = picture.pfns()[asked], kind[asked], picture.per_frame("order")[asked]
    counts = picture.per_frame("mapcount")[asked].astype(np.int64)
    exact = (order == 0) | (picture.about["mapcount"] == "precise")
    rows = np.arange(len(pfns))
    for attempt in range(1 + READINGS):
        before = counts if not attempt else read_counts(pfns[rows])
        pages = memory.struct_pages(pfns[rows])
        steady = np.ones(len(rows), np.bool_) if not attempt else before == read_counts(pfns[rows])
        differs = ~pages.valid | (exact[rows] & (pages.mapcount != before)) | ~_fits(kind[rows], pages)
        rows = rows[differs & steady]
        if not len(rows):
            break
    pages, before = memory.struct_pages(pfns[rows]), read_counts(pfns[rows])
    named = rows[:NAMED]
    entries = picture.walk_many(pfns[named])  # in the order of the pages, which rise
    first, end = (np.searchsorted(entries.pfn, pfns[named] + beyond) for beyond in (0, 1))
    violations = []
    for at, (row, low, high) in enumerate(zip(named.tolist(), first.tolist(), end.tolist())):
        objects = (
            f"pfn {pfns[row]:#x}: /proc says {KINDS[kind[row]].name}, mapped {before[at]} times",
            f"struct page: mapping {pointer(int(pages.mapping[at]))}, index {pages.index[at]:#x}, mapcount "
            f"{pages.mapcount[at]}",
        )
        pids = tuple(np.unique(entries.pid[low:high]).tolist())
        text = "kpagecount or kpageflags and the page's struct page differ"
        violations.append(Violation("8.3", text, objects, pids, ("page", int(pfns[row]))))
    what = "kpagecount and kpageflags tell what the page's struct page says"
    return Found(Checked("8.3", what, len(pfns), "pages", violations=len(rows)), violations)


# Whether the anchor of a page is of its kind (rule 1.1).
def _fits(kind: I8, pages: StructPages) -> Bool:
    anonymous, of_file, _ = anchors(pages.mapping)
    wanted = np.select([among(kind, KINDS.on_anon_vmas), among(kind, KINDS.cached)], [anonymous, of_file], True)
    return wanted & ((pages.index >= 0) | ~among(kind, KINDS.walked))


# For each VMA of the picture the address of its struct, 0 for one that the kernel's memory does not have so.
def _kernel_vmas(topology: Topology, picture: Snapshot) -> I64:
    vmas = picture.vmas
    pid = picture.processes.pid[vmas.process].astype(np.int64)
    row = rows_of(topology.vmas.pid << 36 | topology.vmas.start >> 12, pid << 36 | vmas.start >> 12)
    same = (row >= 0) & (topology.vmas.end[row] == vmas.end) & ~np.isin(row, topology.truncated)
    return np.where(same, topology.vmas.address[row], 0)


def open_memory() -> KernelMemory | None:
    """The kernel's memory, None where it cannot be read."""
    try:
        return KernelMemory()
    except NotPermitted:
        return None
