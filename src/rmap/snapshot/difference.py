"""What changed between two pictures of one machine: who came and went, gained, lost, and stopped sharing.

A process is the same if its pid and its start time are. A page of it is compared by address:

=========  ============================================================================
gained     nothing was in memory at the address, and something is
lost       the other way round
replaced   another frame is there now
unshared   of these: it was mapped by several, and the new one by this process alone
=========  ============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I32, I64, expand
from rmap.snapshot import flags as f
from rmap.snapshot.groups import mappers_of_frames
from rmap.snapshot.usage import usage
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.picture import Snapshot


@dataclass(frozen=True)
class ProcessChange:
    """One process; sizes in bytes.

    Attributes:
        state: ``"same"``, ``"new"`` or ``"gone"``.
        before, after: its RSS.
        pss_before, pss_after: its PSS.
        gained, lost, replaced, unshared: as above; 0 for those that came or went.
    """

    pid: int
    comm: str
    state: str
    before: int
    after: int
    pss_before: int
    pss_after: int
    gained: int
    lost: int
    replaced: int
    unshared: int


@dataclass(frozen=True)
class FileChange:
    """A file of which more or less is mapped; bytes."""

    path: str
    before: int
    after: int


@dataclass(frozen=True)
class Difference:
    """What changed.

    Attributes:
        frames_before, frames_after: mapped frames, each once; bytes.
        processes: those that changed at all, by pid.
        files: those of which another part is mapped.
        warnings: why the two may not be comparable, in words.
    """

    frames_before: int
    frames_after: int
    processes: list[ProcessChange]
    files: list[FileChange]
    warnings: list[str]


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """Compare two pictures."""
    old, new = _Side(before), _Side(after)
    changes = []
    for identity in sorted(old.rows.keys() | new.rows.keys()):
        change = _change(identity[0], old, new, old.rows.get(identity, -1), new.rows.get(identity, -1))
        if change.state != "same" or change.before != change.after or change.replaced or change.gained or change.lost:
            changes.append(change)
    frames = before.nr_mapped << PAGE_SHIFT, after.nr_mapped << PAGE_SHIFT
    return Difference(*frames, changes, _files(before, after), _warn(before, after))


class _Side:
    """One of the two pictures, page by page: for each process the addresses and frames in memory."""

    def __init__(self, picture: Snapshot) -> None:
        self.picture = picture
        processes = picture.processes
        identities = zip(processes.pid.tolist(), processes.start_time.tolist())
        self.rows = {identity: row for row, identity in enumerate(identities)}
        self.usage = usage(picture)
        self.mappers = mappers_of_frames(picture)
        kind = f.PTE_PRESENT | f.PTE_SPECIAL
        self._present = np.flatnonzero((picture.ptes.flags & kind) == f.PTE_PRESENT)
        process: I32 = picture.vmas.process[picture.ptes.vma[self._present]]
        self._bounds = np.searchsorted(process, np.arange(len(processes) + 1))

    def pages(self, row: int) -> tuple[I64, I64]:
        """Page numbers, ascending, and frames of a process."""
        ptes = self.picture.ptes
        mine = self._present[self._bounds[row] : self._bounds[row + 1]]
        count = ptes.count[mine].astype(np.int64)
        return expand(ptes.address[mine] >> PAGE_SHIFT, count), expand(ptes.pfn[mine], count)

    def mappers_of(self, frames: I64) -> I64:
        """How many mappers some frames have."""
        return self.mappers[self.picture.numbering.dense(frames)]


def _change(pid: int, old: _Side, new: _Side, before: int, after: int) -> ProcessChange:
    comm = new.picture.processes.comm[after] if after >= 0 else old.picture.processes.comm[before]
    gained = lost = replaced = unshared = 0
    if before >= 0 and after >= 0:
        (page_old, frame_old), (page_new, frame_new) = old.pages(before), new.pages(after)
        common, at_old, at_new = np.intersect1d(page_old, page_new, assume_unique=True, return_indices=True)
        gained, lost = len(page_new) - len(common), len(page_old) - len(common)
        moved = np.flatnonzero(frame_old[at_old] != frame_new[at_new])
        replaced = len(moved)
        was, now = old.mappers_of(frame_old[at_old][moved]), new.mappers_of(frame_new[at_new][moved])
        unshared = int(((was > 1) & (now == 1)).sum())
    return ProcessChange(
        pid,
        comm,
        "same" if before >= 0 and after >= 0 else "new" if after >= 0 else "gone",
        int(old.usage.rss[before]) if before >= 0 else 0,
        int(new.usage.rss[after]) if after >= 0 else 0,
        int(old.usage.pss[before]) if before >= 0 else 0,
        int(new.usage.pss[after]) if after >= 0 else 0,
        gained << PAGE_SHIFT,
        lost << PAGE_SHIFT,
        replaced << PAGE_SHIFT,
        unshared << PAGE_SHIFT,
    )


def _files(before: Snapshot, after: Snapshot) -> list[FileChange]:
    old, new = _mapped(before), _mapped(after)
    changes = [
        FileChange(new[key][0] if key in new else old[key][0], old.get(key, ("", 0))[1], new.get(key, ("", 0))[1])
        for key in old.keys() | new.keys()
        if old.get(key, ("", 0))[1] != new.get(key, ("", 0))[1]
    ]
    return sorted(changes, key=lambda change: (-abs(change.after - change.before), change.path))


# Mapped bytes of each file, by device and inode.
def _mapped(picture: Snapshot) -> dict[tuple[int, int], tuple[str, int]]:
    files = picture.files
    file = picture.per_frame("file")
    pages = np.bincount(file[(file >= 0) & (picture.mapper_sets.found > 0)], minlength=len(files))
    return {
        (int(files.dev[row]), int(files.inode[row])): (files.path[row], int(pages[row]) << PAGE_SHIFT)
        for row in np.flatnonzero(pages).tolist()
    }


def _warn(before: Snapshot, after: Snapshot) -> list[str]:
    old, new = before.about, after.about
    warnings = []
    if old["host"] != new["host"]:
        warnings.append(f"two machines: {old['host'] or '(unnamed)'} and {new['host'] or '(unnamed)'}")
    elif old["release"] != new["release"]:
        warnings.append(f"two kernels: {old['release']} and {new['release']}: it was booted in between")
    if old["time"] > new["time"]:
        warnings.append("the second picture is the older one")
    if old["skipped"] != new["skipped"]:
        warnings.append("one of them holds chosen processes only")
    return warnings
