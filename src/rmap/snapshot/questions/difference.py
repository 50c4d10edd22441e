"""What changed from one picture to another: who came and went, and who gained, lost or unshared which pages.

A process is the same in both if its pid and its start time are: a pid that was given to another process shows as one
that went and one that came. A page of a process is known by its address. Held against each other, an address that
both pictures map has

* the same frame, or another one;
* been *unshared*, if its frame was mapped by others too, and now it has another frame that nobody else maps: a write
  copied the page (COW);
* been *left*, if its frame is the same, and the others that mapped it have gone;
* been *newly shared*, if nobody else mapped its frame, and now somebody does: a fork, most often.

"Mapped by others" goes by the kernel's own count, and by the entries found. Pages that no process owns (the zero page,
memory of devices, pages of the kernel) and hugetlb pages are no part of RSS, and do not count here either; so RSS
after is RSS before, plus what was gained, less what was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rmap.columns import I64, Bool, expand, rows_of
from rmap.snapshot import flags as f
from rmap.snapshot.questions.usage import counted_frames
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class ProcessChange:
    """One process that is in either picture. Sizes in bytes, all others in pages.

    Attributes:
        comm: its name, in the later picture if it is there.
        state: ``stayed``, ``came`` or ``went``.
        reused: its pid belongs to another process in the other picture.
        ran: the program it ran before, if it runs another one now; else ``""``.
        rss_before, rss_after: resident memory; 0 where it is not in the picture.
        swap_before, swap_after: entries that name a slot of swap.
        gained: pages at addresses that had none.
        lost: pages at addresses that have none any more.
        swapped_out: those of the lost ones whose address names a slot of swap now.
        replaced: addresses whose page is in another frame now; unshared ones are among them.
        unshared, left, newly_shared: as above.
    """

    pid: int
    start_time: int
    comm: str
    state: str
    reused: bool
    ran: str
    rss_before: int
    rss_after: int
    swap_before: int
    swap_after: int
    gained: int
    lost: int
    swapped_out: int
    replaced: int
    unshared: int
    left: int
    newly_shared: int

    @property
    def changed(self) -> bool:
        """Whether anything did that a row shows: not pages that the others left, or that the kernel moved."""
        moved = self.gained or self.lost or self.unshared or self.newly_shared
        return bool(self.state != "stayed" or self.ran or moved)


@dataclass(frozen=True)
class FileChange:
    """One file; distinct mapped frames of it, in bytes."""

    path: str
    before: int
    after: int


@dataclass(frozen=True)
class Difference:
    """Everything that changed.

    Attributes:
        processes: every process of either picture, by pid, those that went before those that came.
        files: the files whose mapped part differs, by path.
        memory_before, memory_after: every counted frame that somebody maps, once; bytes.
        warnings: why the two can hardly be compared, or what may only look like a change; sentences.
    """

    processes: list[ProcessChange]
    files: list[FileChange]
    memory_before: int
    memory_after: int
    warnings: list[str]


class _Pages(NamedTuple):
    """The counted entries of one process, ascending by address; and the addresses that name a slot."""

    address: I64
    frame: I64
    shared: Bool
    swapped: I64


_NOTHING = _Pages(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int64))


class _Side:
    """One of the two pictures, with what is needed of each of its frames."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.counted = counted_frames(snapshot)
        self.found = snapshot.mapper_sets.found
        self.shared = (self.found > 1) | (snapshot.per_frame("mapcount") > 1)
        of_process = np.searchsorted(snapshot.vmas.process, np.arange(len(snapshot.processes) + 1))
        self._bounds = np.searchsorted(snapshot.ptes.vma, of_process)
        self.row_of = {key: row for row, key in enumerate(_keys(snapshot))}
        self.pids = {*snapshot.processes.pid.tolist(), *snapshot.sharers.pid.tolist()}

    def pages(self, row: int | None) -> _Pages:
        if row is None:
            return _NOTHING
        ptes, low, high = self.snapshot.ptes, int(self._bounds[row]), int(self._bounds[row + 1])
        swap = low + np.flatnonzero(ptes.flags[low:high] & f.PTE_SWAP)
        present, first, behind = self.snapshot.mapped.within(low, high)
        count = behind - first
        dense = expand(first, count)
        held = self.counted[dense]
        address = expand(ptes.address[present] >> PAGE_SHIFT, count)[held]
        frame = expand(ptes.pfn[present], count)[held]
        slots = expand(ptes.address[swap] >> PAGE_SHIFT, ptes.count[swap].astype(np.int64))
        return _Pages(address, frame, self.shared[dense[held]], slots)

    def memory(self) -> int:
        return int(np.count_nonzero(self.counted & (self.found > 0))) << PAGE_SHIFT

    def files(self, by_path: bool) -> dict[tuple[int, int, str], int]:
        """Mapped frames of each file: by device, inode and path, or by path alone."""
        files = self.snapshot.files
        of_frame = self.snapshot.per_frame("file")[(self.found > 0) & self.counted]
        mapped = np.bincount(of_frame[of_frame >= 0], minlength=len(files))
        sums: dict[tuple[int, int, str], int] = {}
        for row in np.flatnonzero(mapped).tolist():
            place = (0, 0) if by_path else (int(files.dev[row]), int(files.inode[row]))
            key = (*place, files.path[row])
            sums[key] = sums.get(key, 0) + int(mapped[row])
        return sums


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """Hold two pictures against each other.

    Args:
        before, after: in order of time.
    """
    old, new = _Side(before), _Side(after)
    processes = [_change(old, new, key) for key in sorted({*old.row_of, *new.row_of})]
    elsewhere = _other_machine(before, after)
    warnings = [*elsewhere, *_incomplete(before, after, {one.state for one in processes})]
    return Difference(processes, _files(old, new, bool(elsewhere)), old.memory(), new.memory(), warnings)


def _change(old: _Side, new: _Side, key: tuple[int, int]) -> ProcessChange:
    pid, start_time = key
    was, now = old.row_of.get(key), new.row_of.get(key)
    state = "came" if was is None else "went" if now is None else "stayed"
    a, b = old.pages(was), new.pages(now)
    row_in_b = rows_of(b.address, a.address, ascending=True)
    stayed = row_in_b >= 0
    at_b = row_in_b[stayed]
    same = a.frame[stayed] == b.frame[at_b]
    was_shared, is_shared = a.shared[stayed], b.shared[at_b]
    alone = was_shared & ~is_shared
    side, row = (old, was) if now is None else (new, now)
    assert row is not None
    gone = a.address[~stayed]
    return ProcessChange(
        pid,
        start_time,
        side.snapshot.processes.comm[row],
        state,
        reused=state != "stayed" and pid in (new if now is None else old).pids,
        ran=_ran(old, new, was, now),
        rss_before=len(a.address) << PAGE_SHIFT,
        rss_after=len(b.address) << PAGE_SHIFT,
        swap_before=len(a.swapped) << PAGE_SHIFT,
        swap_after=len(b.swapped) << PAGE_SHIFT,
        gained=len(b.address) - len(at_b),
        lost=len(gone),
        swapped_out=int(np.count_nonzero(rows_of(b.swapped, gone, ascending=True) >= 0)),
        replaced=int(np.count_nonzero(~same)),
        unshared=int(np.count_nonzero(alone & ~same)),
        left=int(np.count_nonzero(alone & same)),
        newly_shared=int(np.count_nonzero(~was_shared & is_shared)),
    )


def _ran(old: _Side, new: _Side, was: int | None, now: int | None) -> str:
    # What it ran before, if it has called exec since.
    if was is None or now is None:
        return ""
    before, after = old.snapshot.processes, new.snapshot.processes
    return before.comm[was] if before.exe[was] != after.exe[now] else ""


def _files(old: _Side, new: _Side, by_path: bool) -> list[FileChange]:
    a, b = old.files(by_path), new.files(by_path)
    keys = sorted({*a, *b}, key=lambda key: (key[2], key))
    changes = (FileChange(key[2], a.get(key, 0) << PAGE_SHIFT, b.get(key, 0) << PAGE_SHIFT) for key in keys)
    return [change for change in changes if change.before != change.after]


def _other_machine(before: Snapshot, after: Snapshot) -> list[str]:
    # Why pids and frames of one picture may say nothing about the other.
    for name, what in (("host", "hosts"), ("release", "kernels"), ("source", "sources")):
        a, b = before.about[name], after.about[name]
        if a and b and a != b:
            return [f"the pictures are of different {what} ({a}, {b}): pids and frames of one say nothing of the other"]
    if _rebooted(before, after):
        return ["the machine was booted anew between the pictures: pids and frames of one say nothing of the other"]
    if len(before.processes) and len(after.processes) and not set(_keys(before)) & set(_keys(after)):
        return ["no process is in both pictures: they need not be of one machine, or of one boot of it"]
    return []


def _incomplete(before: Snapshot, after: Snapshot, states: set[str]) -> Iterator[str]:
    # What may only look like a change, given which states processes are in.
    if before.about["time"] and after.about["time"] and before.about["time"] > after.about["time"]:
        yield "the first picture was taken after the second: gained and lost are the wrong way round"
    for name, snapshot, state in (("first", before, "came"), ("second", after, "went")):
        about = snapshot.about
        missing = ((about["skipped"], "not asked for"), (about["refused"], "refused"), (about["ended"], "ending"))
        reasons = ", ".join(f"{number:,} {why}" for number, why in missing if number)
        if reasons and state in states:
            verb = "come" if state == "came" else "gone"
            yield f"the {name} picture lacks processes ({reasons}): what is only in the other need not have {verb}"
    raced = before.about["raced"] + after.about["raced"]
    if raced:
        yield f"pages that changed while a picture was taken: {raced:,}; they count as they were last seen"
    if "average" in (before.about["mapcount"], after.about["mapcount"]):
        yield "a kernel counts mappings of large folios on average only: who shares them is approximate"


def _rebooted(before: Snapshot, after: Snapshot) -> bool:
    # A pid is given again to a process that starts later; after a boot the clock of start times begins anew.
    a, b = dict(_keys(before)), dict(_keys(after))
    in_order = before.about["time"] <= after.about["time"]
    return any((b[pid] < a[pid]) if in_order else (a[pid] < b[pid]) for pid in {*a} & {*b})


def _keys(snapshot: Snapshot) -> list[tuple[int, int]]:
    # What identifies a process: pid and start time.
    return list(zip(snapshot.processes.pid.tolist(), snapshot.processes.start_time.tolist()))


def changes_of(whole: Difference, pids: set[int] | None) -> Difference:
    """The same, with only these processes; None for all. Totals of memory and files stay those of the machine."""
    if pids is None:
        return whole
    kept = [one for one in whole.processes if one.pid in pids]
    return Difference(kept, whole.files, whole.memory_before, whole.memory_after, whole.warnings)


def pids_in(before: Snapshot, after: Snapshot) -> set[int]:
    """Every pid of either picture that has a row of its own."""
    return {*before.processes.pid.tolist(), *after.processes.pid.tolist()}
