"""Why an entry of the recorded kernel differs from the model's, as far as the events can tell.

Every access that a program makes to a page it may not access yet is a fault, and every fault is an event, unless events
were lost. What differs is held against the model unless it can be only the kernel's own doing: an access through
get_user_pages, reclaim, huge pages, what it maps around a fault. Each excuse is as narrow as its actor:

* an unseen access can make a page, or separate sharers. It never makes two entries share a page that the model has
  split, and where a fault was seen it explains nothing;
* what is mapped around a fault is a page of a file, near that fault;
* a call that the model does not have explains what lies in its range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.columns import I64, Bool
from rmap.kernel.entries import ANON, FILE, KERNEL, NONE, OTHER, SHMEM, SWAPPED, ZERO
from rmap.lab.replay import results as r
from rmap.lab.replay.pairs import MISSING, NOBODY, Entry, page_of, pid_of, single_valued
from rmap.lab.replay.seen import Seen
from rmap.uapi.vm_flags import VM_EXEC, VM_LOCKED, VM_WRITE

Causes = npt.NDArray[np.object_]
"""A cause by row; empty where nothing differs."""


@dataclass
class SinceLast:
    """What is known of the time since the last picture.

    Attributes:
        seen_of: by pid, what events have shown of its mm.
        lost: events that the recorder lost.
        reclaimed: whether reclaim was at work, or nobody watched for it.
    """

    seen_of: dict[int, Seen]
    lost: int
    reclaimed: bool


@dataclass
class _Evidence:
    # What events have shown of some rows of entries.
    written: Bool
    present: Bool
    touched: Bool
    near: Bool
    given_up: Bool
    untold: Bool
    raced: Bool
    order: I64

    @classmethod
    def of(cls, entries: Entry, rows: I64, since: SinceLast) -> _Evidence:
        no = np.zeros((7, len(rows)), np.bool_)
        evidence = cls(no[0], no[1], no[2], no[3], no[4], no[5], no[6], np.zeros(len(rows), np.int64))
        there = np.flatnonzero(entries.row[rows] != MISSING)
        index = np.zeros(len(rows), np.int64)
        evidence.raced[there] = entries.of("raced", rows[there])
        evidence.order[there] = entries.of("order", rows[there])
        index[there] = entries.of("index", rows[there])
        vmas = entries.theirs.snapshot.vmas
        allowed = np.zeros(len(rows), np.bool_)
        allowed[there] = (vmas.flags[entries.of("vma", rows[there])] & VM_WRITE) != 0
        evidence.near[there] = (vmas.flags[entries.of("vma", rows[there])] & VM_LOCKED) != 0
        pids, pages = pid_of(entries.key[rows]), page_of(entries.key[rows])
        for pid in np.unique(pids).tolist():
            seen = since.seen_of.get(pid)
            at = np.flatnonzero(pids == pid)
            if seen is None:
                continue
            here = pages[at]
            evidence.written[at], evidence.present[at] = seen.written(here), seen.present(here)
            # What the kernel's area allows, the kernel has not refused.
            refused = allowed[at] & seen.refused(here)
            evidence.written[at] |= refused
            evidence.touched[at], evidence.given_up[at] = seen.touched(here) | refused, seen.given_up(here)
            evidence.near[at] |= seen.near(here, index[at], evidence.order[at])
            evidence.untold[at] = seen.untold(here)
        return evidence


class Judge:
    """Says of every difference whether it is held against the model.

    Attributes:
        entries, since: what is judged, and by what.
        why: by entry, why it differs; empty where it does not.
    """

    def __init__(self, entries: Entry, since: SinceLast) -> None:
        self.entries, self.since = entries, since
        self.why: Causes = np.full(len(entries.key), "", object)
        differing = np.flatnonzero(~entries.alike)
        if len(differing):
            self.why[differing] = self._entries(differing)

    def _entries(self, rows: I64) -> Causes:
        entries = self.entries
        kind, own = entries.kind[rows], entries.my_kind[rows]
        seen = _Evidence.of(entries, rows, self.since)
        said: Causes = np.full(len(rows), r.WRONG, object)
        self._of_files(said, rows, kind, own, seen)
        absent, own_absent = kind == NONE, own == NONE
        said[((kind == KERNEL) & own_absent | absent & (own == KERNEL)) & ~seen.touched] = r.KERNELS_OWN
        said[(kind == ZERO) & own_absent & ~seen.touched] = r.UNSEEN
        self._of_anonymous(said, rows, kind, own, seen)
        said[kind == OTHER] = r.FOREIGN
        return self._or_else(said, seen)

    def _of_files(self, said: Causes, rows: I64, kind: I64, own: I64, seen: _Evidence) -> None:
        files = (FILE, SHMEM)
        came = np.isin(kind, files) & (own == NONE) & ~seen.touched
        went = (kind == NONE) & np.isin(own, files)
        said[went & self.since.reclaimed] = r.RECLAIM
        said[(came | went & ~seen.touched) & seen.near] = r.FAULT_AROUND
        # A program's code is mapped by its own faults: the kernel does not read it for others.
        code = np.zeros(len(rows), np.bool_)
        at = np.flatnonzero(came)
        code[at] = (self.entries.theirs.snapshot.vmas.flags[self.entries.of("vma", rows[at])] & VM_EXEC) != 0
        said[came & ~seen.near & ~code] = r.UNSEEN

    def _of_anonymous(self, said: Causes, rows: I64, kind: I64, own: I64, seen: _Evidence) -> None:
        entries = self.entries
        private, own_private = entries.page[rows] != NOBODY, entries.my_page[rows] != NOBODY
        within = self._share_in_the_model()[rows]  # who shares here shares in the model too, or has nothing there
        made = private & np.isin(own, (NONE, ZERO, FILE, SHMEM)) & within & ~seen.written & ~seen.present
        said[made] = r.UNSEEN
        said[made & (seen.order > 0) & seen.near] = r.HUGE
        both = private & own_private
        apart = both & ~entries.shared_alike[rows] & within & ~self._split_by_a_write(rows)
        said[apart] = r.UNSEEN
        said[apart & (seen.order > 0)] = r.HUGE
        swapped = both & ((kind == SWAPPED) != (own == SWAPPED))
        said[swapped & (entries.shared_alike[rows] | apart)] = r.RECLAIM
        said[(kind == NONE) & own_private & seen.given_up & self.since.reclaimed] = r.RECLAIM

    def _share_in_the_model(self) -> Bool:
        # For each entry: whether all that share its page in the kernel have one page in the model, or all have none.
        single = np.zeros(len(self.entries.key), np.bool_)
        private = np.flatnonzero(self.entries.page != NOBODY)
        single[private] = single_valued(self.entries.page[private], self.entries.my_page[private])
        return single

    def _split_by_a_write(self, rows: I64) -> Bool:
        # For each row: whether one of those that share its page in the model has written it since it was shared.
        entries = self.entries
        pages = entries.my_page[rows]
        sharers = np.flatnonzero(np.isin(entries.my_page, pages[pages != NOBODY]))
        written = _Evidence.of(entries, sharers, self.since).written
        split: Bool = np.isin(pages, entries.my_page[sharers[written]])
        return split

    def _or_else(self, said: Causes, seen: _Evidence) -> Causes:
        # Entries not to be trusted, or that anything may have changed. A call not modelled goes before lost events.
        said[(said == r.WRONG) & seen.raced] = r.RACED
        open_ = (said == r.WRONG) | (said == r.UNSEEN)
        said[open_ & seen.untold] = r.UNMODELLED
        if self.since.lost:
            said[open_ & ~seen.untold] = r.LOST
        return said

    # -- what is asked of pages that both sides have --------------------------------------------------------------
    def rights(self, rows: I64, more: Bool, *, protected_by_writeback: bool = False) -> Causes:
        """Why pages are not as exclusive, or entries not as writable, in the model.

        Args:
            rows: of entries that map the same.
            more: whether it is the kernel's that may more: an unseen write made it so, unless a write was seen.
        """
        seen = _Evidence.of(self.entries, rows, self.since)
        said: Causes = np.full(len(rows), r.WRONG, object)
        said[more & ~seen.written] = r.UNSEEN
        if protected_by_writeback:
            said[~more & (self.entries.kind[rows] == FILE)] = r.WRITEBACK
        return self._or_else(said, seen)

    def anchors(self, rows: I64, excused: Causes) -> Causes:
        """Why pages hang on something else in the model.

        Args:
            rows: of entries that map the same anonymous page; pages whose index differs are not among them.
            excused: by row, why the model may not have that anon_vma.
        """
        seen = _Evidence.of(self.entries, rows, self.since)
        said: Causes = np.full(len(rows), r.WRONG, object)
        # The last user of a page writes it: it becomes exclusive and hangs on his own anon_vma (rule 4.7).
        taken = self.entries.of("exclusive", rows) & ~self.entries.my("exclusive", rows)
        said[taken.astype(np.bool_) & ~seen.written] = r.UNSEEN
        said = np.where(excused != "", excused, said)
        return self._or_else(said, seen)

    def raced(self, rows: I64) -> Bool:
        """Whether the kernel's page was torn while the picture was taken."""
        torn: Bool = _Evidence.of(self.entries, rows, self.since).raced
        return torn

    # -- what is asked of areas -----------------------------------------------------------------------------------
    def prepared_unseen(self) -> dict[int, str]:
        """VMAs (rows of the picture) in which a page was made that no event shows, and why: they have a chain then."""
        entries = self.entries
        made = (entries.page != NOBODY) & (entries.my_page == NOBODY) & (entries.kind == ANON)
        made &= (self.why != r.WRONG) & (self.why != "")
        rows = np.flatnonzero(made)
        return dict(zip(entries.of("vma", rows).tolist(), self.why[rows].tolist()))

    def untold_area(self, pid: int, start: int, end: int) -> bool:
        """Whether a call that the model does not have may have changed an area."""
        seen = self.since.seen_of.get(pid)
        return seen is not None and seen.untold_area(start, end)


def by_cause(causes: Causes) -> dict[str, int]:
    """How many have each cause."""
    counts: dict[str, int] = {}
    for cause in causes.tolist():
        if cause:
            counts[cause] = counts.get(cause, 0) + 1
    return dict(sorted(counts.items()))
