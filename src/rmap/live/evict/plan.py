"""How each of some pages can be taken out of memory without touching any other, or why it cannot.

What the kernel does (Linux 6.18):

* ``posix_fadvise(DONTNEED)`` drops clean pages of a file that nobody maps, whole folios only, and answers 0 whatever it
  did (``mapping_try_invalidate``, ``mm/truncate.c``); on tmpfs it does nothing (``generic_fadvise``, ``mm/fadvise.c``);
* ``process_madvise(MADV_PAGEOUT)`` skips folios that several processes map, and answers that it has advised on all
  (``madvise_cold_or_pageout_pte_range``, ``mm/madvise.c``); anonymous and shared memory goes to swap, if there is any;
* pages that are locked, the kernel's, a device's or hugetlb's are on no list that is reclaimed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rmap.columns import I8, I64, Bool
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS

FADVISE, PAGEOUT, OWN_PAGEOUT = "fadvise", "pageout", "own pageout"
MEANS = (FADVISE, PAGEOUT, OWN_PAGEOUT)

WHY = {
    "shared": "mapped by more than one process: fadvise skips mapped pages, PAGEOUT skips shared ones",
    "twice": "mapped more than once by its process: fadvise skips mapped pages, PAGEOUT skips shared ones",
    "folio": "another page of the same folio is mapped by somebody else: a folio goes as a whole, or not at all",
    "hidden": "mapped by a process that rmap cannot see",
    "no swap": "nowhere to go: not a page of a file on a disk, and no swap space is free",
    "locked": "locked in memory (mlock, or on no list that is reclaimed)",
    **{kind.name: kind.never_reclaimed for kind in KINDS if not kind.backing},
    "no file": "it is not known which file it belongs to: nobody maps it (name it as PATH@OFFSET)",
    "kept": "the kernel kept it: pinned, being written, or in use by the file system",
    "refused": "the kernel refuses the advice for the process that maps it",
}
"""Why a page stays, by class."""

FINAL = ("no swap", "locked", *(kind.name for kind in KINDS if not kind.backing))
"""Classes for which reclaiming a cgroup is no help either."""


@dataclass(frozen=True)
class PlannedPages:
    """Pages in memory that are to go; one row each.

    Attributes:
        page: int64: its number in the file; of anonymous pages 0.
        pfn: int64; -1 of one that went meanwhile.
        kind: int8, as ``frames.kind``.
        locked: bool.
        mapcount: int64: entries that the kernel counts.
        seen: int64: entries that were found; ``seen_by``: int64: in how many processes.
        order: int8: of its folio.
        folio_most: int64: the highest mapcount of a page of its folio.
        folio_outside: bool: a page of its folio that is not to go is mapped.
        cgroup: int64: inode of the cgroup it is charged to, 0 none.
    """

    page: I64
    pfn: I64
    kind: I8
    locked: Bool
    mapcount: I64
    seen: I64
    seen_by: I64
    order: I8
    folio_most: I64
    folio_outside: Bool
    cgroup: I64

    def __len__(self) -> int:
        return len(self.page)


def plan(pages: PlannedPages, *, swap_free: bool) -> list[str]:
    """For each page one of ``MEANS``, or a class of ``WHY``.

    Args:
        swap_free: whether there is swap space that is not in use.
    """
    needs_swap = among(pages.kind, KINDS.swappable)
    unmapped = pages.mapcount == 0
    tests: list[tuple[Bool, str]] = [(pages.kind == one.number, one.name) for one in KINDS if not one.backing]
    tests += [
        (pages.locked, "locked"),
        (needs_swap & ~np.full(len(pages), swap_free), "no swap"),
        (pages.mapcount > pages.seen, "hidden"),
        ((pages.mapcount > 1) & (pages.seen_by > 1), "shared"),
        (pages.mapcount > 1, "twice"),
        ((pages.order > 0) & (pages.folio_most > 1), "folio"),
        (unmapped & (pages.order > 0) & pages.folio_outside, "folio"),
        (unmapped & among(pages.kind, KINDS.shared_memory), OWN_PAGEOUT),
        (unmapped, FADVISE),
    ]
    chosen = np.select([test for test, _ in tests], np.arange(len(tests)), len(tests))
    names = [*(name for _, name in tests), PAGEOUT]
    return [names[number] for number in chosen.tolist()]


@dataclass(frozen=True)
class EvictionFound:
    """How it is at a moment: pages in memory, entries that map them, processes that have these."""

    resident: int
    ptes: int
    processes: int


@dataclass(frozen=True)
class Tried:
    """A means that was used, or would be.

    Attributes:
        how: its name.
        pages: on how many pages.
        went: how many of them were gone just after it; None if it was not used yet.
        note: what else there is to know, ``""`` if nothing.
    """

    how: str
    pages: int
    went: int | None
    note: str = ""


@dataclass(frozen=True)
class NotUsed:
    """A means that was not used, and why."""

    how: str
    why: str


@dataclass(frozen=True)
class Charge:
    """Pages that are charged to one cgroup.

    Attributes:
        cgroup: its path; ``""`` if none has this inode here (a removed one, or not visible).
        inode: of its folder, 0 for pages charged to nobody.
        pages: of those that are to go.
        others: bytes of other memory charged to it, None if unknown.
        root: whether it is the root.
    """

    cgroup: str
    inode: int
    pages: int
    others: int | None
    root: bool = False


@dataclass(frozen=True)
class Stayed:
    """Pages that are still in memory, and why; ``why`` in words, ``kind`` a class of ``WHY``."""

    kind: str
    pages: int
    why: str


@dataclass
class Eviction:
    """What was done, and what came of it.

    Attributes:
        what: the page or file, in words.
        pages: how many were asked for.
        dry_run: nothing was changed: ``tried`` is what would be.
        before, after: ``after`` None if nothing was changed.
        went: pages that are in no address space and not in memory at the end.
        came_back: pages that went, and were in memory again within 100 ms.
        stayed: by class.
        written: dirty pages that were written to their file first.
        neighbours: pages that were not asked for, in the same folios: in memory before; of them ``neighbours_went``.
        swap_cache: of those that went: in the swap cache still; the kernel frees them when it needs memory.
        charged: to which cgroups the pages were charged before.
    """

    what: str
    pages: int
    dry_run: bool
    before: EvictionFound
    after: EvictionFound | None = None
    went: int = 0
    came_back: int = 0
    stayed: list[Stayed] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    not_used: list[NotUsed] = field(default_factory=list)
    written: int = 0
    neighbours: int = 0
    neighbours_went: int = 0
    swap_cache: int = 0
    charged: list[Charge] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether none of the pages is left (in a dry run: whether there is a means for each)."""
        if self.after is None:
            return not self.stayed
        return not self.after.resident and not self.after.ptes


def stays(classes: list[str]) -> list[Stayed]:
    """Classes of single pages, counted; the largest first."""
    names, counts = np.unique(np.array(classes, dtype=object).astype(str), return_counts=True)
    rows = sorted(zip(names.tolist(), counts.tolist()), key=lambda row: (-row[1], row[0]))
    return [Stayed(name, count, WHY[name]) for name, count in rows]
