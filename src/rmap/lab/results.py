"""What the experiments of the lab answer, as plain data.

The lab fills these classes, ``rmap.show`` turns them into text, ``--json`` prints them as they stand. Nothing here
computes a result: a class knows at most whether its own numbers agree with each other. No NumPy, so that whoever
reads a result need not load it.

Figures are counts, never times. A figure that is an exact count is an ``int``; one that is an average is a
``float``, even where it comes out whole: that is how a table knows to print ``65,536`` or ``1.00``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Subject:
    """What was compared: a picture of a machine, a workload, or a recorded program.

    Attributes:
        kind: ``"picture"``, ``"workload"`` or ``"trace"``.
        name: the workload's name (``"fork-server"``), the picture's or the trace's file name (``"web.rmap"``).
        summary: one phrase for a reader: ``"shipped: a forking web server and shells, Linux 6.18"``.
        processes: processes (mms) at the moment that was checked.
        vmas: their VMAs.
        pages: mapped pages, each counted once.
        ptes: page-table entries that map them.
        parameters: a workload's parameters by name, as they were used; empty for a picture.
        seed: the seed of whatever was drawn.
        inferred: what about the subject is inferred rather than known, one sentence each
            (``"fork families: from shared frames, as the picture has no anon_vmas"``).
    """

    kind: Literal["picture", "workload", "trace"]
    name: str
    summary: str
    processes: int
    vmas: int
    pages: int
    ptes: int
    parameters: Mapping[str, int | float] = field(default_factory=dict)
    seed: int = 0
    inferred: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Correctness:
    """One design's answer for every page, held against the oracle's.

    Attributes:
        ptes_found: entries that the design's walks found and the oracle confirms.
        ptes_total: entries that the oracle found.
        ptes_invented: entries that the design named and the page tables do not have.
        pages: pages asked for.
        pages_wrong: pages whose set of entries differed.
    """

    ptes_found: int
    ptes_total: int
    ptes_invented: int
    pages: int
    pages_wrong: int

    @property
    def equal(self) -> bool:
        """Whether the design and the oracle gave the same answer for every page."""
        return self.pages_wrong == 0 and self.ptes_invented == 0 and self.ptes_found == self.ptes_total


@dataclass(frozen=True, slots=True)
class Structure:
    """Live metadata of one kind, in the sizes of the modelled release.

    Designs that have the same kind share its ``label`` and so a row of the table.

    Attributes:
        label: ``"in each struct page"``, ``"chain blocks"``, ``"VMA fields, anon_vmas, links"``.
        bytes: how much.
        count: how many objects, where one size fits all of them.
        bytes_each: the size of each, where ``count`` is given.
    """

    label: str
    bytes: int
    count: int | None = None
    bytes_each: int | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """What one operation costs under one design. Figures of several designs with the same operation and label
    share a row; a design without such a figure shows ``-``.

    Attributes:
        operation: the first column: ``"fault"``, ``"fork"``, ``"COW"``, ``"unmap"``, ``"walk"``.
        label: what is counted per what: ``"entries written per PTE"``.
        value: an exact count (int) or an average (float).
        unit: a word shown behind the value (``"pointer"``), or ``""``.
        part_of_above: this figure is a share of the row above it, and is indented.
    """

    operation: str
    label: str
    value: int | float
    unit: str = ""
    part_of_above: bool = False


@dataclass(frozen=True, slots=True)
class WalkFigures:
    """Walks of one kind of pages under one design. All counts are per page.

    Attributes:
        label: which pages: ``"a page of the parent"``.
        pages: how many were walked.
        mappers: entries that map one, on average.
        looked_at: entries looked at, on average; ``in_vain`` of them did not map the page.
        visits: nodes, list members and blocks visited, on average.
        worst: nodes, list members, blocks and entries, for the page for which they were most.
        worst_of: among how many pages the worst was looked for.
    """

    label: str
    pages: int
    mappers: float
    looked_at: float
    in_vain: float
    visits: float
    worst: int
    worst_of: int


@dataclass(frozen=True, slots=True)
class EvictionFigures:
    """Pages evicted through one design's walk.

    Attributes:
        pages: pages chosen.
        ptes_cleared: entries that the walks found and cleared.
        ptes_left: entries that still map one of the pages afterwards, by the oracle.
        pages_barred: mapped pages that were not drawn from, as reclaim leaves them alone: locked pages, pages
            that somebody else holds.
        ptes_faulted_back: entries that processes faulted in again afterwards.
    """

    pages: int
    ptes_cleared: int
    ptes_left: int
    pages_barred: int = 0
    ptes_faulted_back: int = 0


@dataclass(frozen=True, slots=True)
class DesignResult:
    """Everything one design answered.

    Attributes:
        design: its name, as in ``DESIGNS``.
        correctness: against the oracle.
        memory: its metadata by structure, at the moment that was checked.
        bytes_per_page: all of ``memory`` by mapped page.
        figures: costs by operation, in the order of the table.
        vmas: VMAs at the end: designs may differ, as they may veto different merges.
        eviction: where the script evicts, else None.
        costs: every raw counter, by operation and name.
        structures: bytes of metadata by the design's own names, which ``memory`` groups.
        notes: what went otherwise under this design than on the recorded kernel, a sentence each.
        slabs: bytes of the slabs that hold those structures which live in slabs, by the design's own names.
        walks: what walks of samples looked at.
    """

    design: str
    correctness: Correctness
    memory: tuple[Structure, ...]
    bytes_per_page: float
    figures: tuple[Figure, ...]
    vmas: int
    eviction: EvictionFigures | None = None
    costs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    structures: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    slabs: Mapping[str, int] = field(default_factory=dict)
    walks: tuple[WalkFigures, ...] = ()

    @property
    def bytes_live(self) -> int:
        """Metadata, all structures."""
        return sum(self.structures.values())

    @property
    def bytes_in_slabs(self) -> int:
        """The same with whole slabs in the place of the objects that live in them."""
        return sum(max(size, self.slabs.get(name, size)) for name, size in self.structures.items())


@dataclass(frozen=True, slots=True)
class Comparison:
    """One subject, once per design.

    Attributes:
        subject: what was compared.
        profile: the kernel release whose rules the model followed (``"6.18"``).
        designs: one result per design, in the order they were asked for.
        remarks: what the figures say, in sentences.
    """

    subject: Subject
    profile: str
    designs: tuple[DesignResult, ...]
    remarks: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether every design is right for every page, and no eviction left an entry behind."""
        return all(
            result.correctness.equal and (result.eviction is None or result.eviction.ptes_left == 0)
            for result in self.designs
        )


@dataclass(frozen=True, slots=True)
class FirstScreen:
    """The main job: a picture of a real machine under each design: right? what does it cost? can it evict?

    Attributes:
        comparison: of the picture; every design has its ``eviction``.
    """

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One step of a story.

    Attributes:
        title: what is done: ``"fork; the child unmaps the first page"``.
        lines: what changed, each at most 75 characters, printed as they are.
    """

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """A small story, told step by step in the model or on the running kernel.

    Attributes:
        name: as in ``STORIES``.
        design: the reverse map it was told with; ``""`` on the running kernel.
        title: the question, with its answer.
        steps: what happened.
        closing: what to take home, one sentence or paragraph each.
        holds: whether what happened is what ``title`` and ``closing`` say. False is a bug of the model, or news about
            the running kernel.
        live: whether it happened on the running kernel.
    """

    name: str
    design: str
    title: str
    steps: tuple[StoryStep, ...]
    closing: tuple[str, ...]
    holds: bool = True
    live: bool = False


Progress: TypeAlias = Callable[[Subject | DesignResult | str], None]
"""Told how a comparison gets on: the subject once it is known, each design's result when it is there, and in between
what is being done now (``"pte_chain: evicting"``), which is shown only to a person who waits."""


def no_progress(event: Subject | DesignResult | str) -> None:
    """A ``Progress`` for callers who do not watch."""
