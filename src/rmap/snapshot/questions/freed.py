"""What comes back if some processes end, and what stays, because somebody or something else holds it.

Comes back: anonymous pages that only they map (pages merged by KSM, too), slots of swap that only they name, their
page tables, shared memory that nothing else holds, and the page cache of deleted files of which the same is true.
Stays: page cache (it could be dropped, and is not), shared memory with a descriptor, a name or a SysV identifier
elsewhere, and every page that somebody else maps.

A page of a large folio that only they map stays as long as another page of the folio is mapped by others: the kernel
splits folios when memory is short, not when they become partly unused (``deferred_split_folio``, ``mm/huge_memory.c``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I64, Bool
from rmap.snapshot import flags as f
from rmap.snapshot.index.sums import by_row
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.questions.groups import mappers_of_frames, slots
from rmap.snapshot.questions.usage import counted_frames
from rmap.units import PAGE_SIZE

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

_DELETED = " (deleted)"


@dataclass(frozen=True)
class Held:
    """A file whose memory stays.

    Attributes:
        path: of the file.
        bytes: how much of it.
        why: what holds it, in words: ``"3120 cached, fd"``, ``"its name"``; ``""`` for page cache.
    """

    path: str
    bytes: int
    why: str = ""


@dataclass(frozen=True)
class Freed:
    """The answer; all sizes in bytes.

    Attributes:
        pids: of the processes that would end, ascending.
        anonymous, page_tables, swap, shared: what comes back. ``page_tables`` -1 if unknown.
        deleted: page cache of files that have no name any more, and that nothing else holds; it comes back, too.
        cache: files whose pages only these processes map: they stay in the page cache.
        held: shared memory that something else holds.
        others: files, and ``"anonymous"``, that others map, too.
        folios: anonymous pages that only they map, in large folios that others map in part: they stay.
        unmapped: file and shared pages that nobody maps any more then (``Mapped`` of /proc/meminfo falls by them).
        raced: pages that changed while the picture was taken.
        frames: int64: every frame that comes back.
    """

    pids: list[int]
    anonymous: int
    page_tables: int
    swap: int
    shared: int
    deleted: int
    cache: list[Held]
    held: list[Held]
    others: list[Held]
    folios: int
    unmapped: int
    raced: int
    frames: I64 = field(repr=False, compare=False)

    @property
    def comes_back(self) -> int:
        """Everything that comes back into memory; swap is on its device, and aside."""
        return self.anonymous + self.shared + self.deleted + max(0, self.page_tables)

    @property
    def stays(self) -> int:
        """Everything they map that stays."""
        return sum(item.bytes for item in (*self.cache, *self.held, *self.others)) + self.folios


def freed_by(snapshot: Snapshot, chosen: Bool) -> Freed:
    """What comes back if these processes end, all together.

    Args:
        chosen: bool, by row of ``processes``.
    """
    kind, order = snapshot.per_frame("kind"), snapshot.per_frame("order")
    counted = counted_frames(snapshot)
    ours = _entries_of(snapshot, chosen)
    touched = counted & (ours > 0)
    only = touched & (ours >= mappers_of_frames(snapshot))
    anonymous = among(kind, KINDS.anonymous)
    kept = only & anonymous & (order > 0) & _folio_mapped(snapshot, ~only)
    comes = only & anonymous & ~kept
    file = snapshot.per_frame("file")
    shared = only & among(kind, KINDS.shared_memory)
    cached = only & among(kind, KINDS.disk_cache)
    holders = {row: _holder(snapshot, row, chosen) for row in np.unique(file[shared | cached]).tolist()}
    free_files = [row for row, why in holders.items() if not why]
    held_by_nobody = np.isin(file, free_files)
    shared_comes, cache_goes = shared & held_by_nobody, cached & held_by_nobody
    free_shared = np.unique(file[shared_comes]).tolist()
    pfns = snapshot.pfns()
    tables = snapshot.processes.page_table_bytes[chosen]
    tracked = ~among(kind, KINDS.untracked)
    return Freed(
        pids=snapshot.processes.pid[chosen].tolist(),
        anonymous=_bytes(comes),
        page_tables=int(tables.sum()) if (tables >= 0).all() else -1,
        swap=_swap(snapshot, chosen),
        shared=_shared(snapshot, free_shared, shared_comes),
        deleted=_bytes(cache_goes),
        cache=_by_file(snapshot, file, cached & ~cache_goes),
        held=[Held(h.path, h.bytes, h.why) for h in _with_holders(snapshot, file, shared & ~shared_comes, holders)],
        others=_by_file(snapshot, np.where(anonymous, -2, file), touched & ~only & tracked),
        folios=_bytes(kept),
        unmapped=_bytes(only & ~anonymous & tracked),
        raced=int((snapshot.per_frame("raced") & touched).sum()),
        frames=pfns[comes | shared_comes | cache_goes],
    )


def _bytes(frames: Bool) -> int:
    return int(frames.sum()) * PAGE_SIZE


def _entries_of(snapshot: Snapshot, chosen: Bool) -> I64:
    # How many entries of the chosen map each frame.
    sets = snapshot.mapper_sets
    of_class = by_row(sets.of_member, np.where(chosen[sets.members], sets.entries, 0), sets.nr_classes)
    return of_class[sets.of_frame]


def _folio_mapped(snapshot: Snapshot, given: Bool) -> Bool:
    # Of each frame: whether one of its folio that is mapped is among the given.
    head = np.arange(len(given)) - snapshot.per_frame("head_offset")
    mapped = given & (np.maximum(snapshot.per_frame("mapcount"), snapshot.mapper_sets.found) > 0)
    any_mapped = np.zeros(len(given), np.bool_)
    any_mapped[head[mapped]] = True
    return any_mapped[head]


def _swap(snapshot: Snapshot, chosen: Bool) -> int:
    group, slot = slots(snapshot, (~chosen).astype(np.int32))  # 0 those who end, 1 all others
    return len(np.setdiff1d(slot[group == 0], slot[group == 1])) * PAGE_SIZE


def _shared(snapshot: Snapshot, files: list[int], frames: Bool) -> int:
    # What is allocated of a file comes back whole, mapped or not, where the picture knows how much that is.
    file = snapshot.per_frame("file")
    mapped = np.bincount(file[frames & (file >= 0)], minlength=len(snapshot.files))
    return sum(max(int(mapped[row]) * PAGE_SIZE, int(snapshot.files.allocated[row])) for row in files)


def _holder(snapshot: Snapshot, file: int, chosen: Bool) -> str:
    # What else holds a file's memory, in words; "" if nothing does.
    if file < 0:
        return "an unknown file"
    holders, processes = snapshot.holders, snapshot.processes
    rows = np.flatnonzero(holders.file == file)
    kinds = holders.kind[rows]
    elsewhere = [int(p) for p in holders.process[rows[kinds == f.HOLDER_FD]] if p < 0 or not chosen[p]]
    if elsewhere:
        first = elsewhere[0]
        who = f"{processes.pid[first]} {processes.comm[first]}" if first >= 0 else "a process"
        return f"{who}, open" + (f", and {len(elsewhere) - 1} more" if len(elsewhere) > 1 else "")
    if (kinds == f.HOLDER_SYSV).any():
        return "its SysV identifier (ipcrm)"
    if (kinds == f.HOLDER_PATH).any():
        return "its name"
    mapped = (snapshot.vmas.file == file) & ~chosen[snapshot.vmas.process]
    return "mapped by others" if mapped.any() else ""


def _by_file(snapshot: Snapshot, file: I64, frames: Bool) -> list[Held]:
    rows, pages = np.unique(file[frames], return_counts=True)
    items = [Held(_path(snapshot, row), n * PAGE_SIZE) for row, n in zip(rows.tolist(), pages.tolist())]
    return sorted(items, key=lambda item: (-item.bytes, item.path))


def _with_holders(snapshot: Snapshot, file: I64, frames: Bool, holders: dict[int, str]) -> list[Held]:
    rows, pages = np.unique(file[frames], return_counts=True)
    items = [Held(_path(snapshot, r), n * PAGE_SIZE, holders[r]) for r, n in zip(rows.tolist(), pages.tolist())]
    return sorted(items, key=lambda item: (-item.bytes, item.path))


def _path(snapshot: Snapshot, file: int) -> str:
    if file < 0:
        return "anonymous" if file == -2 else "(unknown file)"
    return snapshot.files.path[file].removesuffix(_DELETED)
