"""One file as the running machine has it: which of its pages are in memory, who maps them, who holds it open."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from rmap.live.doctor.abilities import missing_frames
from rmap.live.files.mappers import Mapper, Mappers, OpenedFile, mappers_of, open_by, open_file
from rmap.live.sources.kpage_columns import mapcount_kind, read_counts
from rmap.live.sources.residency import Residency, residency
from rmap.snapshot.questions.answer import judge
from rmap.snapshot.questions.file_ranges import FileRange, distinct, ranges_of


@dataclass(frozen=True)
class FilePages:
    """A file, now. This process is left out everywhere.

    Attributes:
        path: as the kernel names it.
        size: bytes.
        residency: what of it is in memory.
        mappers: processes with areas of it.
        counted: entries that the kernel counts for the pages that were found mapped; None if it does not tell this
            user. It is not asked about pages that nobody visible maps.
        status: ``complete``, ``hidden``, ``raced``, ``approximate``, or ``unknown`` without page frames.
        open_by: who holds it open: pid -> descriptors.
        ended, refused: processes that ended meanwhile, or whose maps this user may not read.
        ranges: the file cut where residency or mappers change.
    """

    path: str
    size: int
    residency: Residency
    mappers: list[Mapper]
    counted: int | None
    status: str
    open_by: dict[int, list[int]]
    ended: int
    refused: list[int]
    ranges: list[FileRange]

    @property
    def ptes(self) -> int:
        """Entries found."""
        return sum(len(one.page) for one in self.mappers)


def file_pages(path: str) -> FilePages:
    """Look at a file.

    Raises:
        UsageError, NotPermitted, OSError: as :func:`rmap.live.files.mappers.open_file`.
    """
    file = open_file(path)
    try:
        return _look(file)
    finally:
        file.close()


def _look(file: OpenedFile) -> FilePages:
    mappers = mappers_of(file)
    cached = residency(file.fd)
    others = [one for one in mappers.found if one.pid != os.getpid()]
    counted, status = _completeness(mappers, others)
    resident = None if cached.why_unknown else (cached.first, cached.count)
    return FilePages(
        file.path,
        file.size,
        cached,
        others,
        counted,
        status,
        open_by(file.key),
        mappers.ended,
        mappers.refused,
        ranges_of(cached.pages, resident, [(one.pid, one.page) for one in others]),
    )


def _completeness(mappers: Mappers, others: list[Mapper]) -> tuple[int | None, str]:
    # How many entries the kernel counts, without our own, and how what was found stands to it.
    if missing_frames() is not None:
        return None, "unknown"
    frames = np.concatenate([one.pfn for one in others] or [np.empty(0, np.int64)])
    mapped = distinct(frames)
    if not len(mapped):
        return 0, "complete"  # of pages that nobody visible maps the kernel is not asked
    own = [one.pfn for one in mappers.found if one not in others]
    ours = int(np.isin(np.concatenate(own), mapped).sum()) if own else 0
    counts = read_counts(mapped)
    entries = np.bincount(np.searchsorted(mapped, frames), minlength=len(mapped))
    counted = int(counts.sum()) - ours
    completeness = judge(
        len(frames),
        counted,
        averaged=mapcount_kind(os.uname().release) == "average",
        surplus=bool((entries > counts).any()),
    )
    return counted, completeness.status
