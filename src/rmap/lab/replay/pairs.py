"""Two pictures of the same processes, the recorded kernel's and the model's, laid side by side entry by entry.

Processes are paired by pid, VMAs by process and start, entries by process and address. Frames, anon_vmas and files have
other names in each picture: a name of one side and a name of the other are equal if they only ever meet each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from rmap.columns import I64, Bool
from rmap.kernel.entries import ANON, FILE, NONE, SHMEM, SWAPPED, SnapshotEntries, spread
from rmap.snapshot import Snapshot
from rmap.uapi.vm_flags import VM_PFNMAP
from rmap.units import PAGE_SHIFT

PAGE_BITS = 52 - PAGE_SHIFT
"""Bits of a page number in a key. User space ends at 2**47, or 2**56 with five levels: programs there would have to ask
for such addresses, and the pictures of a kernel with four levels have none."""
MISSING = -1
NOBODY = -1
"""The name of the page that an entry without an anonymous page maps."""
PRIVATE = (ANON, SWAPPED)

Keys = TypeVar("Keys", int, I64)


def key_of(pid: Keys, address: Keys) -> Keys:
    """Process and page in one number, ascending by process, then address."""
    return pid << PAGE_BITS | address >> PAGE_SHIFT


def pid_of(key: Keys) -> Keys:
    """The process of a key, or of each."""
    return key >> PAGE_BITS


def page_of(key: Keys) -> Keys:
    """The page number of a key, or of each."""
    return key & ((1 << PAGE_BITS) - 1)


def place(key: int) -> str:
    """A key in words."""
    return f"process {pid_of(key)} at {page_of(key) << PAGE_SHIFT:#x}"


@dataclass
class Side:
    """One picture, made ready.

    Attributes:
        snapshot: it.
        entries: its entries page by page.
        key: int64, by entry: process and page in one number.
        vma_key: the same for VMAs, by their start.
    """

    snapshot: Snapshot
    entries: SnapshotEntries = field(init=False)
    key: I64 = field(init=False)
    vma_key: I64 = field(init=False)

    def __post_init__(self) -> None:
        snapshot = self.snapshot
        pid = snapshot.processes.pid.astype(np.int64)[snapshot.vmas.process]
        self.vma_key = key_of(pid, snapshot.vmas.start)
        entries = spread(snapshot)
        # Page tables of frames without a struct page cannot be seen from outside (pagemap passes VM_PFNMAP over).
        self.entries = entries.take((snapshot.vmas.flags[entries.vma] & VM_PFNMAP) == 0)
        self.key = key_of(pid[self.entries.vma], self.entries.address)


def paired(left: I64, right: I64) -> Bool:
    """Which pairs of names only ever meet each other; bool by pair."""
    return single_valued(left, right) & single_valued(right, left)


def single_valued(names: I64, values: I64) -> Bool:
    """Whether a name has the same value wherever it occurs; bool by place."""
    if not len(names):
        return np.empty(0, np.bool_)
    _, where = np.unique(names, return_inverse=True)
    n = int(where.max()) + 1
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(low, where, values)
    np.maximum.at(high, where, values)
    single: Bool = (low == high)[where]
    return single


@dataclass
class Entry:
    """Every entry that either side has, by key ascending; rows of each side's entries, ``MISSING`` for none.

    Attributes:
        page, my_page: the anonymous page (or swap slot) that each entry names, as a number; ``NOBODY`` for none.
        shared_alike: bool: anonymous on both sides, and the two pages only ever meet each other.
        alike: bool: nothing is to be put right: one kind, one page of the file, shared alike.
    """

    theirs: Side
    mine: Side
    key: I64 = field(init=False)
    row: I64 = field(init=False)
    my_row: I64 = field(init=False)
    kind: I64 = field(init=False)
    my_kind: I64 = field(init=False)
    page: I64 = field(init=False)
    my_page: I64 = field(init=False)
    shared_alike: Bool = field(init=False)
    alike: Bool = field(init=False)

    def __post_init__(self) -> None:
        self.key = np.union1d(self.theirs.key, self.mine.key)
        self.row, self.kind = self._of(self.theirs)
        self.my_row, self.my_kind = self._of(self.mine)
        self.page = _pages(self.kind, self.row, self.theirs.entries)
        self.my_page = _pages(self.my_kind, self.my_row, self.mine.entries)
        self.shared_alike = np.zeros(len(self.key), np.bool_)
        both = np.flatnonzero((self.page != NOBODY) & (self.my_page != NOBODY))
        self.shared_alike[both] = paired(self.page[both], self.my_page[both])
        self.alike = (self.kind == self.my_kind) & (self.shared_alike | (self.page == NOBODY))
        files = np.flatnonzero(self.alike & np.isin(self.kind, (FILE, SHMEM)))
        index = self.of("index", files)
        self.alike[files] = (index < 0) | (index == self.my("index", files))

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

    @property
    def same_anonymous(self) -> Bool:
        """Entries that map the same anonymous page on both sides, present on both."""
        return self.shared_alike & (self.kind == ANON) & (self.my_kind == ANON)


def _pages(kind: I64, row: I64, entries: SnapshotEntries) -> I64:
    # A slot and a frame may have one number.
    page = np.full(len(kind), NOBODY, np.int64)
    private = np.isin(kind, PRIVATE)
    page[private] = entries.frame[row[private]] << 1 | (kind[private] == SWAPPED)
    return page
