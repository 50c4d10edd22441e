"""One file in a picture: which of its pages are mapped, by whom, in ranges of equal mappers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.snapshot import flags as f
from rmap.snapshot.questions.usage import counted_frames

if TYPE_CHECKING:
    from rmap.columns import I64, Bool
    from rmap.snapshot.snapshot import Snapshot

DELETED = " (deleted)"


@dataclass(frozen=True)
class MappedRange:
    """Pages of a file that the very same processes map.

    Attributes:
        first, pages: where in the file, in pages.
        pids: who maps them, ascending.
        ptes: entries that do, all together.
    """

    first: int
    pages: int
    pids: list[int]
    ptes: int


@dataclass(frozen=True)
class FileView:
    """A file as a picture has it.

    Attributes:
        path: as the first mapper sees it.
        size: bytes, -1 unknown.
        mapped: pages of it that somebody maps.
        pids: everybody with an area of it, whether or not a page of it is mapped; ascending.
        open_by: everybody who holds it open.
        copies: private copies of its pages, made on writing: anonymous memory, not the file's.
        ranges: ascending.
    """

    path: str
    size: int
    mapped: int
    pids: list[int]
    open_by: list[int]
    copies: int
    ranges: list[MappedRange]


def files_named(snapshot: Snapshot, path: str) -> list[int]:
    """The files of a picture with a path, deleted ones too; rows of ``files``."""
    return [row for row, name in enumerate(snapshot.files.path) if name in (path, path + DELETED)]


def file_view(snapshot: Snapshot, file: int) -> FileView:
    """Everything a picture says about one file (a row of ``files``)."""
    vmas, processes, holders = snapshot.vmas, snapshot.processes, snapshot.holders
    of_file = np.flatnonzero(vmas.file == file)
    held = (holders.file == file) & (holders.kind == f.HOLDER_FD) & (holders.process >= 0)
    ranges = _ranges(snapshot, file)
    return FileView(
        path=snapshot.files.path[file],
        size=int(snapshot.files.size[file]),
        mapped=sum(one.pages for one in ranges),
        pids=sorted(set(processes.pid[vmas.process[of_file]].tolist())),
        open_by=sorted(set(processes.pid[holders.process[held]].tolist())),
        copies=_copies(snapshot, of_file),
        ranges=ranges,
    )


def _ranges(snapshot: Snapshot, file: int) -> list[MappedRange]:
    sets = snapshot.mapper_sets
    frames = np.flatnonzero((snapshot.per_frame("file") == file) & (sets.found > 0))
    index = snapshot.per_frame("index")[frames]
    order = np.argsort(index, kind="stable")
    frames, index = frames[order], index[order]
    of_frame = sets.of_frame[frames]
    if not len(frames):
        return []
    begins = np.concatenate(([0], np.flatnonzero((np.diff(index) != 1) | (np.diff(of_frame) != 0)) + 1))
    counts = np.diff(np.concatenate((begins, [len(frames)])))
    answer = []
    for begin, pages in zip(begins.tolist(), counts.tolist()):
        members = slice(*sets.start[[of_frame[begin], of_frame[begin] + 1]].tolist())
        pids = snapshot.processes.pid[sets.members[members]].tolist()
        ptes = int(sets.entries[members].sum()) * pages
        answer.append(MappedRange(int(index[begin]), pages, sorted(pids), ptes))
    return answer


def _copies(snapshot: Snapshot, vmas: I64) -> int:
    # Entries in the file's areas whose page is anonymous.
    ptes = snapshot.ptes
    rows = np.isin(ptes.vma, vmas) & ((ptes.flags & (f.PTE_PRESENT | f.PTE_FILE | f.PTE_SPECIAL)) == f.PTE_PRESENT)
    return int(ptes.count[rows].sum(dtype=np.int64))


@dataclass(frozen=True)
class MappedFile:
    """A file with mapped pages.

    Attributes:
        resident: bytes of it that somebody maps.
        size: bytes, -1 unknown.
        mapped_by, open_by: processes.
    """

    path: str
    resident: int
    size: int
    mapped_by: int
    open_by: int


def mapped_files(snapshot: Snapshot, chosen: Bool | None = None) -> list[MappedFile]:
    """Every file with mapped pages, the largest first.

    Args:
        chosen: bool, by row of ``processes``: only files that one of these maps or holds open; None for all.
    """
    counted = counted_frames(snapshot) & (snapshot.mapper_sets.found > 0)
    file = snapshot.per_frame("file")
    pages = np.bincount(file[counted & (file >= 0)], minlength=len(snapshot.files))
    vmas, holders = snapshot.vmas, snapshot.holders
    pairs = np.unique(np.stack((vmas.file, vmas.process))[:, vmas.file >= 0], axis=1)
    mapped_by = np.bincount(pairs[0], minlength=len(snapshot.files))
    opened = (holders.kind == f.HOLDER_FD) & (holders.process >= 0)
    open_by = np.bincount(holders.file[opened], minlength=len(snapshot.files))
    if chosen is not None:
        theirs = np.zeros(len(snapshot.files), np.bool_)
        theirs[pairs[0][chosen[pairs[1]]]] = True
        theirs[holders.file[opened][chosen[holders.process[opened]]]] = True
        pages = np.where(theirs, pages, 0)
    rows = sorted(np.flatnonzero(pages).tolist(), key=lambda row: (-pages[row], snapshot.files.path[row]))
    files = snapshot.files
    return [
        MappedFile(files.path[r], int(pages[r]) << 12, int(files.size[r]), int(mapped_by[r]), int(open_by[r]))
        for r in rows
    ]
