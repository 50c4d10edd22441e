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

import numpy as np

from rmap.columns import I8, I64, Bool
from rmap.live.capture.capture import capture
from rmap.live.capture.settle import AGAIN, Recurring, settle_rows
from rmap.live.sources import procfs
from rmap.live.sources.kpage_columns import read_counts
from rmap.snapshot import Snapshot
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.rules.anon_vmas import WHAT, pointer
from rmap.snapshot.rules.check import inspect_pages
from rmap.snapshot.rules.findings import NAMED, Checked, Found, Report, Violation, report_of
from rmap.structs.anon_vmas import Topology
from rmap.structs.check import inspect_structs, walks
from rmap.structs.memory import KernelMemory
from rmap.structs.page import StructPages, anchors

PAUSE = 0.02
"""Seconds between two readings."""

RACED_MAX = 0.25
"""Of all mapped pages, the part that may have changed while they were read."""

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
        untold: differences beyond those that are named, which may have been there each time: no judgement either.
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


@dataclass(frozen=True)
class _Reading:
    # What was found in one reading, and in what. There is no topology where the kernel's memory was not read, and no
    # snapshot where no process was.

    found: list[Found]
    snapshot: Snapshot | None
    topology: Topology | None

    def violations(self) -> dict[tuple[str, object], Violation]:
        return {v.identity: v for one in self.found for v in one.violations}


def check_machine(
    memory: KernelMemory | None, *, readings: int = AGAIN, progress: Callable[[int, int], None] | None = None
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
    recurring, again = Recurring(first.violations(), _same), 0
    unnamed = _Unnamed(first)
    before = _run_times(_involved(recurring.there.values()))
    while (recurring.there or unnamed.any()) and again < readings:
        again += 1
        time.sleep(PAUSE)
        reading = _read(memory, None, progress) if unnamed.any() else _read_again(memory, recurring.there.values())
        recurring.read(reading.violations())
        unnamed.read(reading)
    there = recurring.there
    rested = {pid for pid, spent in _run_times(_involved(there.values())).items() if spent == before.get(pid)}
    moving = recurring.moved | {identity for identity, one in there.items() if not _settled(one, rested)}
    stayed = [violation for identity, violation in there.items() if identity not in moving]
    unsettled = [violation for identity, violation in there.items() if identity in moving]
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


def _settled(violation: Violation, rested: set[int]) -> bool:
    # Whether a violation that was there each time is one: those it is about may have run meanwhile. This process does
    # run, so only the others must have held still; a violation that concerns nobody else cannot be judged.
    others = {*violation.pids} - {os.getpid()}
    return not violation.open and others <= rested and bool(others or not violation.pids)


class _Unnamed:
    # An invariant can have more violations than are named. This bounds how many of the unnamed ones were there in every
    # reading: once a reading named all of them, those that were there ever since; until then as many as the reading
    # with the fewest, less those that are named.

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


def _line_of(finding: Found) -> tuple[str, str]:
    return finding.checked.invariant, finding.checked.what


def _same(one: Violation, other: Violation) -> bool:
    # A violation that is seen again must be so in every word.
    return (one.message, one.objects) == (other.message, other.objects)


def _involved(violations: Iterable[Violation]) -> list[int]:
    return sorted({pid for violation in violations for pid in violation.pids})


def _run_times(pids: list[int]) -> dict[int, tuple[str, ...]]:
    # For each process what grows whenever it runs; without those that have ended, and without this one, which does run.
    spent = {}
    for pid in pids:
        with suppress(OSError):
            if pid != os.getpid():
                spent[pid] = procfs.run_times(pid)
    return spent


def _judged(findings: list[Found], stayed: list[Violation]) -> Report:
    names = {violation.identity for violation in stayed}
    judged = []
    for one in findings:
        kept = [violation for violation in one.violations if violation.identity in names]
        judged.append(Found(one.checked._replace(violations=len(kept)), kept))
    return report_of(judged)


def _facts(reading: _Reading) -> dict[str, str | int]:
    snapshot, topology = reading.snapshot, reading.topology
    if snapshot is None:
        return {}
    mappers, kind = snapshot.reverse.found, snapshot.per_frame("kind")
    return {
        "release": snapshot.about["release"],
        "processes": len(snapshot.processes) if topology is None else len(np.unique(topology.vmas.mm)),
        "vmas": len(snapshot.vmas) if topology is None else len(np.unique(topology.vmas.address)),
        "anon_vmas": 0 if topology is None else len(topology.anon_vmas),
        "anon_pages": int(np.count_nonzero(among(kind, KINDS.on_anon_vmas) & (mappers > 0))),
        "pages": snapshot.nr_mapped,
        "ptes": snapshot.nr_ptes,
        **{name: snapshot.about[name] for name in ("refused", "ended", "raced")},
    }


def _read(memory: KernelMemory | None, pids: list[int] | None, progress: Callable[[int, int], None] | None) -> _Reading:
    if memory is None:
        snapshot = capture(pids, progress=progress, bpf=False)
        missing = [Found(line, []) for line in _without_memory()]
        return _Reading(missing + inspect_pages(snapshot), snapshot, None)
    of_structs, topology, trees = inspect_structs(memory)
    snapshot = capture(pids, progress=progress, memory=memory)
    of_pages = inspect_pages(snapshot, strict=_anchors_are_strict())
    of_both = [walks(memory, topology, trees, snapshot), _accounts(memory, snapshot)]
    return _Reading(of_structs + of_pages + of_both, snapshot, topology)


def _read_resting(memory: KernelMemory | None, progress: Callable[[int, int], None] | None) -> _Reading:
    # A large process that forks changes the count of every page it has: such a reading says little, and is repeated.
    best = _read(memory, None, progress)
    for _ in range(AGAIN):
        if _raced(_facts(best)) <= RACED_MAX:
            break
        time.sleep(PAUSE)
        best = min(best, _read(memory, None, progress), key=lambda reading: _raced(_facts(reading)))
    return best


def _raced(facts: dict[str, str | int]) -> float:
    # The part of the mapped pages that changed while they were read.
    return int(facts.get("raced", 0)) / max(int(facts.get("pages", 0)), 1)


def _read_again(memory: KernelMemory | None, violations: Iterable[Violation]) -> _Reading:
    # Of pages only those of the processes that the violations are about; structures are read whole.
    if memory is not None and all(violation.invariant in _OF_STRUCTS for violation in violations):
        return _Reading(inspect_structs(memory).found, None, None)
    return _read(memory, _involved(violations), None)


def _without_memory() -> list[Checked]:
    reason = "the kernel's own memory cannot be read here (`rmap doctor`)"
    return [
        *(Checked(number, what, 0, "VMAs", reason) for number, what in WHAT.items()),
        Checked("I12", "interval trees are in order", 0, "nodes", reason),
        Checked("I22", "a file's i_mmap has each of its VMAs once", 0, "file VMAs", reason),
        Checked("8.3", "kpagecount and kpageflags tell what the page's struct page says", 0, "pages", reason),
    ]


def _anchors_are_strict() -> bool:
    # I16 has no exception as long as nothing was swapped in and no large folio was split since the machine was started.
    wanted = ("pswpin", "swpin_zero", "thp_split_page", "thp_swpin")
    try:
        counted = procfs.vmstat()
    except OSError:
        return False
    return not any(counted.get(name) for name in wanted)


def _accounts(memory: KernelMemory, snapshot: Snapshot) -> Found:
    # Whether /proc tells of a page what its struct page says. What differs is looked at again at once, between two
    # readings of its count: the kernel counts on while both are read.
    kind = snapshot.per_frame("kind")
    asked = ~among(kind, KINDS.untracked) & (snapshot.per_frame("raced") == 0) & (snapshot.reverse.found > 0)
    pfns, kind, order = snapshot.pfns()[asked], kind[asked], snapshot.per_frame("order")[asked]
    counts = snapshot.per_frame("mapcount")[asked].astype(np.int64)
    exact = (order == 0) | (snapshot.about["mapcount"] == "precise")

    def differ(rows: I64, counted: I64) -> Bool:
        pages = memory.struct_pages(pfns[rows])
        return ~pages.valid | (exact[rows] & (pages.mapcount != counted)) | ~_fits(kind[rows], pages)

    def changed(rows: I64) -> Bool:
        before = read_counts(pfns[rows])
        return ~(differ(rows, before) & (before == read_counts(pfns[rows])))

    rows = settle_rows(np.flatnonzero(differ(np.arange(len(pfns)), counts)), changed)
    pages, before = memory.struct_pages(pfns[rows]), read_counts(pfns[rows])
    named = rows[:NAMED]
    entries = snapshot.walk_many(pfns[named])  # in the order of the pages, which rise
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


def _fits(kind: I8, pages: StructPages) -> Bool:
    # Whether the anchor of a page is of its kind (rule 1.1).
    anonymous, of_file, _ = anchors(pages.mapping)
    wanted = np.select([among(kind, KINDS.on_anon_vmas), among(kind, KINDS.cached)], [anonymous, of_file], True)
    return wanted & ((pages.index >= 0) | ~among(kind, KINDS.walked))

