"""What a replay finds, as plain data: what was played, what had to be put right and why, what agreed.

``rmap.show.verify`` turns it into text, ``--json`` prints it as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
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
DEMANDED = (LAYOUT, SHARING)
"""What must agree entirely for a verdict of yes."""

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
PERMISSION = "permission changed unseen"
AREA = "in an area that was put right"
WRONG = "the model differs"
"""Causes why an entry had to be put right. ``WRONG`` is the only one that is held against the model."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One kind of facts, compared.

    Attributes:
        what: ``LAYOUT``, ``SHARING``, ...
        equal, total: how many of how many are equal, those of ``excused`` left out.
        excused: by cause, those that somebody changed whom no event shows.
        first: the first difference in words, empty if there is none.
    """

    what: str
    equal: int
    total: int
    excused: Mapping[str, int] = field(default_factory=dict)
    first: str = ""

    @property
    def complete(self) -> bool:
        """Whether all are equal."""
        return self.equal == self.total

    @property
    def percent(self) -> float:
        """Equal of total, in percent; 100 of nothing."""
        return 100.0 * self.equal / self.total if self.total else 100.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A picture of every recorded process, held against the model, which was then put right.

    Attributes:
        number: of the picture in the trace.
        cause: ``"checkpoint"`` or ``"end"``.
        time_ns: since the first event.
        processes, vmas, ptes: what the picture has.
        agreements: before anything was put right.
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
        """Whether the layout of VMAs and the sharing of anonymous pages agree entirely."""
        return all(row.complete for row in self.agreements if row.what in DEMANDED)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the model did otherwise than the kernel, or cannot do.

    Attributes:
        what: ``"mremap refused: EFAULT"``, ``"call not modelled: shmat"``.
        count: how often.
        first: the first time, in words.
    """

    what: str
    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Played:
    """What was played.

    Attributes:
        events: by kind.
        calls: system calls by name.
        findings: what went otherwise.
        checkpoints: in order.
        processes: how many there were in all.
        execs: how many address spaces a picture brought.
    """

    events: Mapping[str, int]
    calls: Mapping[str, int]
    findings: tuple[Finding, ...]
    checkpoints: tuple[Checkpoint, ...]
    processes: int
    execs: int

    @property
    def agrees(self) -> bool:
        """Whether every checkpoint agrees, each since the one before; False if there is none."""
        return bool(self.checkpoints) and all(checkpoint.agrees for checkpoint in self.checkpoints)


@dataclass(frozen=True, slots=True)
class Film:
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
        film: which.
        design, profile: under what.
        played: what happened.
        correctness: the design's walks against the page tables, when the last picture had been met; where there is
            none, after the last event.
        processes, vmas: of the machine at that moment.
        structures: bytes of the design's metadata at that moment, by its own names.
        costs: every counter, by operation and name, of the whole.
    """

    film: Film
    design: str
    profile: str
    played: Played
    correctness: Correctness
    processes: int
    vmas: int
    structures: Mapping[str, int]
    costs: Mapping[str, Mapping[str, int]]
