"""What a replay finds, as plain data: what was played, what had to be put right and why, what agreed.

``rmap.show.verify`` turns it into text, ``--json`` prints it as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rmap.lab.results import Correctness

LAYOUT = "VMA layout"
SHARING = "anonymous sharing"
KINDS_OF_ENTRIES = "kinds of PTEs"
ANON_MAPCOUNTS = "mapcounts, anonymous"
FILE_MAPCOUNTS = "mapcounts, files"
ANCHORS = "page anchors"
EXCLUSIVE_PAGES = "exclusive pages"
WRITABLE = "writable PTEs"
CHAINS = "VMA chains"
ANON_VMAS = "anon_vmas"
DEMANDED = (
    LAYOUT,
    SHARING,
    KINDS_OF_ENTRIES,
    ANON_MAPCOUNTS,
    EXCLUSIVE_PAGES,
    WRITABLE,
    CHAINS,
    ANON_VMAS,
    ANCHORS,
)
"""What must agree for a verdict of yes: all but mapcounts of files, which follow from what is mapped ahead."""

UNITS = {
    LAYOUT: "VMAs",
    SHARING: "PTEs",
    KINDS_OF_ENTRIES: "PTEs",
    ANON_MAPCOUNTS: "pages",
    FILE_MAPCOUNTS: "pages",
    EXCLUSIVE_PAGES: "pages",
    WRITABLE: "PTEs",
    CHAINS: "VMAs",
    ANON_VMAS: "anon_vmas",
    ANCHORS: "pages",
}
"""What is compared, in order, and what of it is counted."""

FAULT_AROUND = "fault-around and page cache"
UNSEEN = "unseen kernel access (GUP)"
RECLAIM = "reclaim and swap"
HUGE = "huge page"
RACED = "raced while the picture was taken"
LOST = "lost events"
UNMODELLED = "call not modelled"
KERNELS_OWN = "the kernel's own pages"
FOREIGN = "KSM, hugetlb, guard or migration entry"
WRITEBACK = "write-protected by writeback"
OUTSIDE = "mapped by processes that were not recorded"
NOT_SHOWN = "not shown by the picture"
PERMISSION = "permission changed unseen"
AREA = "in an area that was put right"
WRONG = "the model differs"
"""Causes why something differs. ``WRONG`` is held against the model; the others say that nothing can be said, but for
``FAULT_AROUND``: which pages of files the kernel maps ahead of a fault is its own choice, and not demanded."""

EQUAL, AS_FAR_AS_JUDGED, NO = "equal", "equal as far as judged", "NO"
"""The verdicts. The second: nothing is held against the model, but not all could be judged."""

DIFFERS, NOT_JUDGED, NOTED = "differs", "not judged", "noted"
"""What a finding means for the verdict: it is a NO by itself; something was left out; nothing."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One kind of facts, compared.

    Attributes:
        what: ``LAYOUT``, ``SHARING``, ...
        equal, total: how many of how many are equal. ``total`` is all that both sides could be asked for.
        excused: by cause, how many differ and are not held against the model.
        first: the first difference in words, of those held against the model if there is one; empty if there is none.
    """

    what: str
    equal: int
    total: int
    excused: Mapping[str, int] = field(default_factory=dict)
    first: str = ""

    @property
    def compared(self) -> bool:
        """Whether there was anything to compare."""
        return self.total > 0

    @property
    def complete(self) -> bool:
        """Whether all are equal."""
        return self.equal == self.total

    @property
    def wrong(self) -> int:
        """How many are held against the model."""
        return self.total - self.equal - sum(self.excused.values())

    @property
    def not_judged(self) -> int:
        """How many differ by a cause that leaves open what the model should have done."""
        return sum(n for cause, n in self.excused.items() if cause != FAULT_AROUND)

    @property
    def percent(self) -> float:
        """Equal of total, in percent; 0 of nothing."""
        return 100.0 * self.equal / self.total if self.total else 0.0


def summed(rows: Iterable[Agreement]) -> dict[str, Agreement]:
    """Rows of several pictures added up, by what they compare, in the order of ``UNITS``."""
    sums: dict[str, Agreement] = {}
    for row in rows:
        before = sums.get(row.what, Agreement(row.what, 0, 0))
        excused = dict(before.excused)
        for cause, n in row.excused.items():
            excused[cause] = excused.get(cause, 0) + n
        first = before.first or row.first
        sums[row.what] = Agreement(row.what, before.equal + row.equal, before.total + row.total, excused, first)
    return {what: sums[what] for what in UNITS if what in sums}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A picture of every recorded process, held against the model, which was then put right.

    Attributes:
        number: of the picture in the trace.
        cause: ``"checkpoint"`` or ``"end"``.
        time_ns: since the first event.
        processes, vmas, ptes: what the picture has.
        agreements: before anything was put right. What a picture does not know is not among them.
        resynchronised: entries that were put right, by cause.
        areas: VMAs that were put right.
        notes: what else is to be said, a sentence each.
    """

    number: int
    cause: str
    time_ns: int
    processes: int
    vmas: int
    ptes: int
    agreements: tuple[Agreement, ...]
    resynchronised: Mapping[str, int]
    areas: int
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether nothing that is demanded is held against the model."""
        return not any(row.wrong for row in self.agreements if row.what in DEMANDED)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the model did otherwise than the kernel, or cannot do.

    Attributes:
        what: ``"mremap: said EFAULT, the kernel did it"``, ``"call not modelled: shmat"``.
        count: how often.
        first: the first time, in words.
        meaning: for the verdict: ``DIFFERS``, ``NOT_JUDGED`` or ``NOTED``.
    """

    what: str
    count: int
    first: str
    meaning: str = DIFFERS


@dataclass(frozen=True, slots=True)
class TracePlayed:
    """What was played.

    Attributes:
        events: by kind.
        calls: system calls by name.
        findings: what went otherwise.
        checkpoints: in order.
        processes: how many there were in all.
        execs: how many address spaces a picture brought.
        refused: calls that the kernel refused, and that were not put to the model: why is mostly no matter of memory.
        after_last: faults, forks, execs and calls that came after the last picture.
    """

    events: Mapping[str, int]
    calls: Mapping[str, int]
    findings: tuple[Finding, ...]
    checkpoints: tuple[Checkpoint, ...]
    processes: int
    execs: int
    refused: int = 0
    after_last: int = 0

    @property
    def totals(self) -> dict[str, Agreement]:
        """What was compared, over all pictures, in the order of ``UNITS``."""
        return summed(row for checkpoint in self.checkpoints for row in checkpoint.agreements)

    @property
    def not_compared(self) -> tuple[str, ...]:
        """What is demanded and was not compared at some picture, or nowhere."""
        totals = self.totals
        shown = [{row.what for row in checkpoint.agreements} for checkpoint in self.checkpoints]
        return tuple(
            what
            for what in DEMANDED
            if what not in totals or not totals[what].compared or not all(what in rows for rows in shown)
        )

    @property
    def verdict(self) -> str:
        """``EQUAL``, ``AS_FAR_AS_JUDGED`` or ``NO``. What was compared with nothing is a NO."""
        demanded = [row for row in self.totals.values() if row.what in DEMANDED]
        meanings = {finding.meaning for finding in self.findings}
        if not any(row.compared for row in demanded) or any(row.wrong for row in demanded) or DIFFERS in meanings:
            return NO
        left_out = any(row.not_judged for row in demanded) or self.not_compared or self.after_last
        return AS_FAR_AS_JUDGED if left_out or NOT_JUDGED in meanings else EQUAL

    @property
    def agrees(self) -> bool:
        """Whether nothing is held against the model, at any picture, each since the one before, or in any call.

        ``verdict`` says whether everything was judged.
        """
        return self.verdict != NO


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """Which trace it was.

    Attributes:
        name: of the file.
        command: what was recorded.
        recorder, release, host, time: of the recording.
        events, pictures: how many it has.
        span_ns: from the first event to the last.
        complete: whether the recording came to its end, and ``why_incomplete``.
        lost: events the recorder lost.
    """

    name: str
    command: tuple[str, ...]
    recorder: str
    release: str
    host: str
    time: str
    events: int
    pictures: int
    span_ns: int
    complete: bool
    why_incomplete: str
    lost: int


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """A trace, played under one design.

    Attributes:
        trace: which.
        design, profile: under what.
        played: what happened.
        correctness: the design's walks against the page tables, when the last picture had been met; where there is
            none, after the last event.
        processes, vmas: of the machine at that moment.
        structures: bytes of the design's metadata at that moment, by its own names.
        costs: every counter, by operation and name, of the whole.
    """

    trace: TraceSummary
    design: str
    profile: str
    played: TracePlayed
    correctness: Correctness
    processes: int
    vmas: int
    structures: Mapping[str, int]
    costs: Mapping[str, Mapping[str, int]]
