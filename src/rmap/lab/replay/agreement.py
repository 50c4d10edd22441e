"""Two pictures of the same processes, the recorded kernel's and the model's: what is equal, counted.

Processes are paired by pid, VMAs by process and start, entries by process and address. Frames, anon_vmas and files have
other names in each picture: a name of one side and a name of the other are equal if they only ever meet each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from rmap.columns import I64, Bool
from rmap.kernel.entries import ANON, FILE, KINDS, NONE, SHMEM, SWAPPED, Entries, spread
from rmap.lab.replay import results as r
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.units import PAGE_SHIFT

PAGE_BITS = 52 - PAGE_SHIFT
"""Bits of a page number in user space, as far as x86-64 goes with five levels less one."""
MISSING = -1

FileNames = Callable[[Snapshot, int], object]
"""Names the file of a row of ``vmas`` so that both sides say the same; None where only pairing can tell."""


@dataclass
class Side:
    """One picture, made ready.

    Attributes:
        picture: it.
        entries: its entries page by page.
        key: int64, by entry: process and page in one number.
        vma_key: the same for VMAs, by their start.
    """

    picture: Snapshot
    entries: Entries = field(init=False)
    key: I64 = field(init=False)
    vma_key: I64 = field(init=False)

    def __post_init__(self) -> None:
        picture = self.picture
        pid = picture.processes.pid.astype(np.int64)[picture.vmas.process] << PAGE_BITS
        self.vma_key = pid | (picture.vmas.start >> PAGE_SHIFT)
        entries = spread(picture)
        # Page tables of frames without a struct page cannot be seen from outside (pagemap passes VM_PFNMAP over).
        self.entries = entries.take((picture.vmas.flags[entries.vma] & f.VM_PFNMAP) == 0)
        self.key = pid[self.entries.vma] | (self.entries.address >> PAGE_SHIFT)


def place(key: int) -> str:
    """A key in words."""
    return f"process {key >> PAGE_BITS} at {(key & ((1 << PAGE_BITS) - 1)) << PAGE_SHIFT:#x}"


def paired(left: I64, right: I64) -> Bool:
    """Which pairs of names only ever meet each other; bool by pair."""
    if not len(left):
        return np.empty(0, np.bool_)
    return _single_valued(left, right) & _single_valued(right, left)


def _single_valued(names: I64, values: I64) -> Bool:
    # Whether a name has the same value wherever it occurs.
    _, where = np.unique(names, return_inverse=True)
    n = int(where.max()) + 1
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(low, where, values)
    np.maximum.at(high, where, values)
    single: Bool = (low == high)[where]
    return single


@dataclass
class Entry:
    """Every entry that either side has, by key ascending; rows of each side's entries, ``MISSING`` for none."""

    theirs: Side
    mine: Side
    key: I64 = field(init=False)
    row: I64 = field(init=False)
    my_row: I64 = field(init=False)
    kind: I64 = field(init=False)
    my_kind: I64 = field(init=False)
    shared_alike: Bool = field(init=False)

    def __post_init__(self) -> None:
        self.key = np.union1d(self.theirs.key, self.mine.key)
        self.row, self.kind = self._of(self.theirs)
        self.my_row, self.my_kind = self._of(self.mine)
        # Of entries that are anonymous on both sides: whether their frames are paired.
        self.shared_alike = np.zeros(len(self.key), np.bool_)
        both = np.flatnonzero((self.kind == self.my_kind) & ((self.kind == ANON) | (self.kind == SWAPPED)))
        frame, my_frame = self.of("frame", both), self.my("frame", both)
        # A slot and a frame may have one number.
        swapped = self.kind[both] == SWAPPED
        self.shared_alike[both] = paired(frame << 1 | swapped, my_frame << 1 | swapped)

    def _of(self, side: Side) -> tuple[I64, I64]:
        row = np.full(len(self.key), MISSING, np.int64)
        row[np.searchsorted(self.key, side.key)] = np.arange(len(side.key))
        kind = np.where(row >= 0, side.entries.kind[row], NONE) if len(side.key) else np.full(len(row), NONE)
        return row, kind

    def of(self, name: str, where: I64) -> I64:
        """A column of the kernel's entries, at places where it has one."""
        column: I64 = getattr(self.theirs.entries, name)
        return column[self.row[where]]

    def my(self, name: str, where: I64) -> I64:
        """A column of the model's entries, at places where it has one."""
        column: I64 = getattr(self.mine.entries, name)
        return column[self.my_row[where]]


def layout(theirs: Side, mine: Side, name_of: FileNames) -> r.Agreement:
    """VMAs: start, end, flags, pgoff, file. Those of the model alone count as differing."""
    left, right = _described(theirs, name_of), _described(mine, name_of)
    files = _pair_files(theirs, mine, name_of)
    equal, first = 0, ""
    for key in sorted({*left, *right}):
        difference = _vma_difference(left.get(key), right.get(key), files)
        if not difference:
            equal += 1
        elif not first:
            first = f"{place(key)}: {difference}"
    return r.Agreement(r.LAYOUT, equal, len({*left, *right}), first=first)


Described = Mapping[str, object]


def _described(side: Side, name_of: FileNames) -> dict[int, Described]:
    vmas = side.picture.vmas
    found: dict[int, Described] = {}
    for row, key in enumerate(side.vma_key.tolist()):
        file = int(vmas.file[row])
        found[key] = {
            "end": hex(int(vmas.end[row])),
            "flags": hex(int(vmas.flags[row]) & f.VM_ALL),
            "pgoff": hex(int(vmas.pgoff[row])),
            "file": name_of(side.picture, row),
            "file row": file,
        }
    return found


def _pair_files(theirs: Side, mine: Side, name_of: FileNames) -> dict[int, int]:
    # Files that only pairing can tell (shared anonymous memory): the kernel's row -> the model's, by first meeting.
    pairs: dict[int, int] = {}
    right = {key: row for row, key in enumerate(mine.vma_key.tolist())}
    taken: set[int] = set()
    for row, key in enumerate(theirs.vma_key.tolist()):
        other = right.get(key, MISSING)
        file = int(theirs.picture.vmas.file[row])
        if other < 0 or file < 0 or file in pairs:
            continue
        own = int(mine.picture.vmas.file[other])
        if own >= 0 and own not in taken and name_of(mine.picture, other) is None:
            pairs[file] = own
            taken.add(own)
    return pairs


def _vma_difference(theirs: Described | None, mine: Described | None, files: Mapping[int, int]) -> str:
    if mine is None or theirs is None:
        return f"{'the model' if mine is None else 'the kernel'} has no VMA that begins here"
    for name in ("end", "flags", "pgoff"):
        if theirs[name] != mine[name] and theirs[name] != "-0x1":
            return f"{name} {theirs[name]}, the model {mine[name]}"
    if mine["file"] is None:
        row = theirs["file row"]
        assert isinstance(row, int)
        return "" if files.get(row) == mine["file row"] else f"file {theirs['file']}, the model another"
    return "" if theirs["file"] == mine["file"] else f"file {theirs['file']}, the model {mine['file']}"


def kinds(entries: Entry) -> r.Agreement:
    """What kind of page each entry maps."""
    wrong = np.flatnonzero(entries.kind != entries.my_kind)
    first = ""
    if len(wrong):
        at = int(wrong[0])
        kind, own = KINDS[int(entries.kind[at])], KINDS[int(entries.my_kind[at])]
        first = f"{place(int(entries.key[at]))}: {kind}, the model {own}"
    return r.Agreement(r.KINDS_OF_ENTRIES, len(entries.key) - len(wrong), len(entries.key), first=first)


def sharing(entries: Entry, cause: list[str]) -> r.Agreement:
    """Which anonymous entries map one page.

    Args:
        cause: by entry, why it differs; ``WRONG`` is held against the model, others are excused.
    """
    private = (ANON, SWAPPED)
    anon = np.isin(entries.kind, private) | np.isin(entries.my_kind, private)
    excused: dict[str, int] = {}
    wrong, first = 0, ""
    for at in np.flatnonzero(anon & ~entries.shared_alike).tolist():
        why = cause[at]
        if why != r.WRONG:
            excused[why] = excused.get(why, 0) + 1
            continue
        wrong += 1
        first = first or _sharing_difference(entries, at)
    total = int(np.count_nonzero(anon)) - sum(excused.values())
    return r.Agreement(r.SHARING, total - wrong, total, excused, first)


def _sharing_difference(entries: Entry, at: int) -> str:
    where = place(int(entries.key[at]))
    kind, own = int(entries.kind[at]), int(entries.my_kind[at])
    if kind != own:
        return f"{where}: {KINDS[kind]}, the model {KINDS[own]}"
    one = np.array([at])
    frame, my_frame = int(entries.of("frame", one)[0]), int(entries.my("frame", one)[0])
    sharers = entries.theirs.key[entries.theirs.entries.frame == frame].tolist()
    own_sharers = entries.mine.key[entries.mine.entries.frame == my_frame].tolist()
    return f"{where}: mapped by {_some(sharers)}; in the model by {_some(own_sharers)}"


def _some(keys: list[int]) -> str:
    pids = [key >> PAGE_BITS for key in keys[:6]]
    return f"{len(keys)} (processes {', '.join(map(str, pids))}{', ...' if len(keys) > 6 else ''})"


def mapcounts(entries: Entry, of_files: bool) -> r.Agreement:
    """Mapcounts of pages all of whose mappers are in the picture, where both sides have the same pages."""
    wanted = (FILE, SHMEM) if of_files else (ANON,)
    both = np.flatnonzero((entries.kind == entries.my_kind) & np.isin(entries.kind, wanted))
    if not of_files:
        both = both[entries.shared_alike[both]]
    theirs, every = entries.theirs.entries, entries.theirs.entries.frame
    frames, found = np.unique(every[np.isin(theirs.kind, (ANON, FILE, SHMEM))], return_counts=True)
    frame = entries.of("frame", both)
    at = np.searchsorted(frames, frame)
    inside = found[at] == entries.of("mapcount", both) if len(both) else np.zeros(0, np.bool_)
    _, one_each = np.unique(frame, return_index=True)
    chosen = both[one_each[inside[one_each]]] if len(both) else both
    count, own = entries.of("mapcount", chosen), entries.my("mapcount", chosen)
    wrong = np.flatnonzero(count != own)
    first = ""
    if len(wrong):
        i = int(wrong[0])
        first = f"{place(int(entries.key[chosen[i]]))}: mapped {count[i]} times, in the model {own[i]}"
    what = r.FILE_MAPCOUNTS if of_files else r.ANON_MAPCOUNTS
    return r.Agreement(what, len(chosen) - len(wrong), len(chosen), first=first)


def writable(entries: Entry) -> r.Agreement | None:
    """Which entries may be written, where both sides have the same page; None where the kernel's are not known."""
    if not entries.theirs.picture.about["pte_write"]:
        return None
    tracked = np.isin(entries.kind, (FILE, SHMEM)) | (entries.shared_alike & (entries.kind == ANON))
    both = np.flatnonzero(tracked & (entries.kind == entries.my_kind))
    may, own = entries.of("writable", both), entries.my("writable", both)
    wrong = np.flatnonzero(may != own)
    first = ""
    if len(wrong):
        i = int(wrong[0])
        kind, said = KINDS[int(entries.kind[both[i]])], "writable" if may[i] else "write-protected"
        first = f"{place(int(entries.key[both[i]]))}: {kind}, {said}; not in the model"
    return r.Agreement(r.WRITABLE, len(both) - len(wrong), len(both), first=first)


def exclusive(entries: Entry) -> r.Agreement | None:
    """PG_anon_exclusive of pages that both sides have; None where the kernel's is not known."""
    if not entries.theirs.picture.about["anon_exclusive"]:
        return None
    both = np.flatnonzero(entries.shared_alike & (entries.kind == ANON))
    wrong = np.flatnonzero(entries.of("exclusive", both) != entries.my("exclusive", both))
    first = ""
    if len(wrong):
        at = both[wrong[:1]]
        said = "exclusive" if entries.of("exclusive", at)[0] else "not exclusive"
        first = f"{place(int(entries.key[at[0]]))}: {said}, the model says the contrary"
    return r.Agreement(r.EXCLUSIVE_PAGES, len(both) - len(wrong), len(both), first=first)
