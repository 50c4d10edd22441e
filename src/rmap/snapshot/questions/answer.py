"""Who maps a page: the answer, of a picture or of the running machine, with how complete it is.

``status`` compares what was found with the kernel's own count of mappings; :func:`judge` is the one place that does:

============  ==========================================================================================
complete      found exactly as many entries as the kernel counts (those of the picture taker aside)
hidden        the kernel counts more: some mapper was not recorded
raced         the page changed while the picture was taken; the numbers are of different moments
approximate   the kernel keeps no exact count for this page (zero page, large folios of some kernels, swap)
unmapped      no recorded process maps it, and the kernel counts none
============  ==========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rmap.snapshot.kinds import KINDS


@dataclass(frozen=True)
class Mapping:
    """One page-table entry that leads to the page.

    Attributes:
        address: in bytes; ``vma_start`` and ``vma_end`` bound its VMA.
        perms: as in /proc/PID/maps, ``rw-p``.
        file: path of the VMA's file, None for anonymous memory.
        offset: bytes into that file, None without one.
    """

    pid: int
    comm: str
    address: int
    vma_start: int
    vma_end: int
    perms: str
    file: str | None
    offset: int | None


@dataclass(frozen=True)
class Who:
    """Everything a picture, or the running machine, says about one page, or about one swap slot.

    Attributes:
        pfn: the frame, None for a swap slot.
        kind: a name of :data:`rmap.snapshot.kinds.KINDS`, ``"swap"``, or ``"unknown"`` where the picture does not
            describe the frame.
        mapcount: how many entries the kernel counts, None if it does not tell.
        found: how many entries were found.
        status: see the module.
        order: the folio has ``1 << order`` pages; ``head`` is its first frame.
        file, file_offset: the page's file and its place there in bytes, None for anonymous memory or if unknown.
        note: what a reader must know about this status, or ``""``.
        found_by: the way by which the entries were found; ``""`` for those of a picture.
        hidden: why some were not found, as far as that is known.
        own: how many of the counted entries belong to the process that asks, which leaves itself out.
        flags: KPF bits of the frame, None if not known.
    """

    pfn: int | None
    kind: str
    mapcount: int | None
    found: int
    status: str
    mappings: list[Mapping]
    order: int = 0
    head: int | None = None
    file: str | None = None
    file_offset: int | None = None
    swap: tuple[int, int] | None = None
    note: str = field(default="", compare=False)
    found_by: str = field(default="", compare=False)
    hidden: list[str] = field(default_factory=list, compare=False)
    own: int = 0
    flags: int | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The object that ``rmap who --json`` prints, schema 1."""
        answer: dict[str, Any] = {
            "schema": 1,
            "pfn": self.pfn,
            "kind": self.kind,
            "mapcount": self.mapcount,
            "found": self.found,
            "status": self.status,
            "mappings": [vars(mapping) for mapping in self.mappings],
        }
        if self.swap is not None:
            answer["swap"] = {"type": self.swap[0], "offset": self.swap[1]}
        if self.file is not None:
            answer["file"] = {"path": self.file, "offset": self.file_offset}
        if self.order:
            answer["folio"] = {"order": self.order, "head": self.head}
        if self.hidden:
            answer["hidden"] = self.hidden
        if self.found_by:
            answer["found_by"] = self.found_by
        if self.note:
            answer["note"] = self.note
        if self.own:
            answer["own"] = self.own
        return answer


class Completeness(NamedTuple):
    """How complete an answer is: a status (see the module), and what a reader must know about it, or ``""``."""

    status: str
    note: str


def judge(
    found: int,
    counted: int,
    *,
    kind: int | None = None,
    averaged: bool = False,
    surplus: bool | None = None,
    raced: str = "",
    hidden: str = "",
    absent: str = "",
) -> Completeness:
    """Hold what was found against what the kernel counts.

    Args:
        found: entries, those of the process that asks included.
        counted: entries that the kernel counts.
        kind: of the page, as ``frames.kind``; None for pages of which each has a count.
        averaged: the kernel keeps no exact count of it: a large folio, on some kernels.
        surplus: whether more entries of some page were found than the kernel counts; None: the sums decide.
        raced: why the numbers are of different moments; ``""`` if they are not.
        hidden: the note, if some were not found.
        absent: why nobody can map it, whatever is counted; ``""`` if somebody can.
    """
    if absent and not found:
        return Completeness("unmapped", absent)
    uncounted = KINDS[kind].uncounted if kind is not None else ""
    if kind in KINDS.untracked and found != counted:
        return Completeness("approximate", uncounted)
    if raced:
        return Completeness("raced", raced)
    if averaged:
        return Completeness("approximate", "this kernel counts mappings of large folios on average only")
    if found > counted if surplus is None else surplus:
        return Completeness("raced", "more entries were found than the kernel counts")
    if found == counted:
        return Completeness("complete", uncounted) if found else Completeness("unmapped", "")
    return Completeness("hidden", hidden)
