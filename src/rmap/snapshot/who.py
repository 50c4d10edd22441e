"""Who maps a page: the answer of a picture, with how complete it is.

``status`` compares what was found with the kernel's own count of mappings:

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
from typing import TYPE_CHECKING, Any

import numpy as np

from rmap.snapshot import flags as f
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.picture import Snapshot

NOTES = {
    f.ZERO: "the zero page: every process may map it, and the kernel does not count its mappings",
    f.KERNEL: "a page of the kernel itself, shown to processes: no reverse map leads back from it",
    f.DEVICE: "memory of a device: it has no struct page, and no reverse map",
}


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
    """Everything a picture says about one page, or about one swap slot.

    Attributes:
        pfn: the frame, None for a swap slot.
        kind: one of ``FRAME_KINDS``, ``"swap"``, or ``"unknown"`` where the picture does not describe the frame.
        mapcount: how many entries the kernel counts, None if it does not tell.
        found: how many entries the picture holds.
        status: see the module.
        order: the folio has ``1 << order`` pages; ``head`` is its first frame.
        file, file_offset: the page's file and its place there in bytes, None for anonymous memory or if unknown.
        note: what a reader must know about this status, or ``""``.
        found_by: the way by which the entries were found; ``""`` for those of a picture.
        hidden: why some were not found, as far as that is known.
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
        return answer


def who(picture: Snapshot, pfn: int) -> Who:
    """Answer for one frame; see :meth:`rmap.snapshot.picture.Snapshot.who`."""
    entries = picture.reverse.entries(np.array([pfn], np.int64))
    mappings = _mappings(picture, entries.extent.tolist(), entries.address.tolist())
    run = picture.frame_run(pfn)
    if run < 0:
        note = "not in the picture: it holds only frames that a recorded process maps"
        return Who(pfn, "unknown", None, 0, "unmapped", [], note=note)
    frames = picture.frames
    within = pfn - int(frames.pfn[run])
    order = int(frames.order[run])
    mapcount = int(frames.mapcount[run])
    status, note = _status(picture, run, mapcount, len(mappings) + int(frames.own[run]))
    file = int(frames.file[run])
    offset = int(frames.head_offset[run]) + within if order else 0
    return Who(
        pfn,
        f.FRAME_KINDS[frames.kind[run]],
        mapcount,
        len(mappings),
        status,
        mappings,
        order=order,
        head=pfn - offset,
        file=picture.files.path[file] if file >= 0 else None,
        file_offset=(int(frames.index[run]) + within) << PAGE_SHIFT if file >= 0 else None,
        note=note,
    )


def _status(picture: Snapshot, run: int, mapcount: int, found: int) -> tuple[str, str]:
    frames = picture.frames
    kind = int(frames.kind[run])
    if kind in f.UNTRACKED and found != mapcount:
        return "approximate", NOTES[kind]
    if frames.raced[run]:
        return "raced", "the page changed while the picture was taken"
    if frames.order[run] and picture.about["mapcount"] == "average":
        return "approximate", "this kernel counts mappings of large folios on average only"
    if found == mapcount:
        own = "one of its mappings is the picture taker's own, which is left out" if frames.own[run] else ""
        return ("complete", NOTES.get(kind, own)) if found else ("unmapped", "")
    if found < mapcount:
        return "hidden", f"{mapcount - found} of its mappings are in processes that were not recorded"
    return "raced", "more entries were found than the kernel counts"


def who_swap(picture: Snapshot, swap_type: int, offset: int) -> Who:
    """Which entries name one swap slot; see :meth:`rmap.snapshot.picture.Snapshot.who_swap`."""
    ptes = picture.ptes
    entry = swap_type | offset << f.SWAP_TYPE_BITS
    behind = entry - ptes.pfn
    inside = (behind >= 0) & (behind % f.SWAP_STEP == 0) & (behind < ptes.count.astype(np.int64) * f.SWAP_STEP)
    extents = np.flatnonzero(((ptes.flags & f.PTE_SWAP) != 0) & inside)
    addresses = ptes.address[extents] + (behind[extents] // f.SWAP_STEP << PAGE_SHIFT)
    mappings = _mappings(picture, extents.tolist(), addresses.tolist())
    status = "approximate" if mappings else "unmapped"
    note = "the kernel does not show how many entries name a swap slot"
    return Who(None, "swap", None, len(mappings), status, mappings, swap=(swap_type, offset), note=note)


def _mappings(picture: Snapshot, extents: list[int], addresses: list[int]) -> list[Mapping]:
    vmas, processes, files = picture.vmas, picture.processes, picture.files
    answer = []
    for extent, address in zip(extents, addresses):
        vma = int(picture.ptes.vma[extent])
        process = int(vmas.process[vma])
        start, file, pgoff = int(vmas.start[vma]), int(vmas.file[vma]), int(vmas.pgoff[vma])
        answer.append(
            Mapping(
                pid=int(processes.pid[process]),
                comm=processes.comm[process],
                address=address,
                vma_start=start,
                vma_end=int(vmas.end[vma]),
                perms=f.perms(int(vmas.flags[vma])),
                file=files.path[file] if file >= 0 else None,
                offset=(pgoff << PAGE_SHIFT) + address - start if file >= 0 and pgoff >= 0 else None,
            )
        )
    return answer
