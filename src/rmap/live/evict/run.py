"""Pushing pages out by the gentlest means, believing none of them.

The kernel's calls answer with success whether or not a page went. So what is in memory and what maps it is read before
and afterwards, from the page cache and the page tables, and only that is told. A page that is gone and there again
within 100 ms came back; so did one that is there in another frame, or whose only mapper has waited for it since.

Unless the whole cgroup is allowed, only the named pages are touched (:mod:`rmap.live.evict.plan` says by what means,
and what each skips). If it is, the memory cgroup that most of them are charged to is reclaimed, everything in it alike:
memory.force_empty (v1) or memory.reclaim (v2), until the pages are gone. Reclaim of a node, drop_caches and a DAMON
that others use are never touched: what they push out is everybody's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import numpy as np

from rmap.columns import I64, Bool, runs
from rmap.live.evict.plan import (
    FADVISE,
    FINAL,
    MEANS,
    OWN_PAGEOUT,
    PAGEOUT,
    Charge,
    Eviction,
    NotUsed,
    PlannedPages,
    Tried,
    plan,
    stays,
)
from rmap.live.evict.targets import FileTarget, Target, free_swap
from rmap.live.sources import memcg, procfs
from rmap.live.sources.residency import mapped
from rmap.live.sources.syscalls import cachestat, madvise, process_madvise, sync_range
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.uapi.mman import MADV_PAGEOUT, MADV_POPULATE_READ
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_bytes, format_count

_BACK = 0.1  # seconds in which a page that is used comes back
_PATIENCE = 30.0  # seconds that a cgroup is reclaimed for
_HOW = {
    FADVISE: "fadvise DONTNEED",
    PAGEOUT: "process_madvise PAGEOUT",
    OWN_PAGEOUT: "madvise PAGEOUT, mapped by rmap for it",
}

Say = Callable[[str], None]


def evict(
    target: Target, *, whole_cgroup: bool = False, dry_run: bool = False, say: Say = lambda line: None
) -> Eviction:
    """Push pages out, and look whether they went.

    Args:
        whole_cgroup: allow reclaiming the cgroup that they are charged to.
        dry_run: only say what would be done.
        say: told what else will be pushed out, before it is.

    Raises:
        NotPermitted: this user may not see page frames.
    """
    before, pages = target.look()
    answer = Eviction(target.what, target.pages, dry_run, before, charged=_charges(pages))
    answer.neighbours = target.neighbours()
    run = _Run(target, pages, plan(pages, swap_free=free_swap()), answer, say)
    if dry_run:
        run.would(whole_cgroup)
        return answer
    run.targeted()
    run.cgroup(whole_cgroup)
    run.judge()
    return answer


class _Run:
    """One eviction. ``classes``: of each page its means, or why it stays."""

    def __init__(self, target: Target, pages: PlannedPages, classes: list[str], answer: Eviction, say: Say) -> None:
        self.target, self.pages, self.answer, self.say = target, pages, answer, say
        self.classes = np.array(classes, dtype=object)
        self.refused: set[int] = set()
        self.reclaimed = False
        self.paged: dict[int, tuple[I64, int]] = {}  # by process: pages that were advised on, its faults before

    def _with(self, *means: str) -> I64:
        return self.pages.page[np.isin(self.classes.astype(str), means)]

    # -- means that touch the named pages alone ---------------------------------------------------------------------

    def would(self, whole_cgroup: bool) -> None:
        """What would be done."""
        for means in (PAGEOUT, FADVISE, OWN_PAGEOUT):
            if n := len(self._with(means)):
                self.answer.tried.append(Tried(_HOW[means], n, None))
        rest = [name for name in self.classes.tolist() if name not in MEANS]
        helped = self._reclaim_or_not(len(rest), [name for name in rest if name not in FINAL], whole_cgroup, act=False)
        self.answer.stayed = stays([name for name in rest if name in FINAL or not helped])

    def targeted(self) -> None:
        """PAGEOUT first: what it unmaps and does not drop, fadvise may."""
        self._sync()
        paged = self._with(PAGEOUT)
        if len(paged):
            if isinstance(self.target, FileTarget):
                # It drops nothing that is mapped. But where it cannot, the kernel empties every processor's batches
                # (lru_add_drain_all, mm/fadvise.c): a page that was read a moment ago is held there, and kept.
                self._fadvise(self.target, paged)
            self._tried(PAGEOUT, paged, self._pageout(paged))
        left = np.intersect1d(self._with(PAGEOUT), self.target.remaining())
        dropped = np.union1d(self._with(FADVISE), self._unmapped(left))
        if len(dropped) and isinstance(self.target, FileTarget):
            self._fadvise(self.target, dropped)
            self._tried(FADVISE, dropped, "")
        own = self._with(OWN_PAGEOUT)
        if len(own) and isinstance(self.target, FileTarget):
            self._tried(OWN_PAGEOUT, own, _own_pageout(self.target.file.fd, own))

    def _tried(self, means: str, pages: I64, note: str) -> None:
        went = len(np.setdiff1d(pages, self.target.remaining()))
        self.answer.tried.append(Tried(_HOW[means], len(pages), went, note))

    def _sync(self) -> None:
        # Dirty pages would stay. Those of the named range alone are written.
        target = self.target
        if not isinstance(target, FileTarget) or not len(self._with(FADVISE, PAGEOUT)):
            return
        start, length = target.first << PAGE_SHIFT, target.pages << PAGE_SHIFT
        stat = cachestat(target.file.fd, start, length)
        if stat is None or stat.dirty or stat.writeback:
            try:
                sync_range(target.file.fd, start, length)
            except OSError:  # what could not be written stays, and is said to
                return
            self.answer.written = stat.dirty + stat.writeback if stat is not None else 0

    def _pageout(self, pages: I64) -> str:
        # Answers what the kernel claims, which is no proof.
        places = self.target.places(pages)
        self.paged = {pid: (self.target.of_process(pid, pages), procfs.major_faults(pid)) for pid in places}
        claimed, refused = 0, {}
        for pid, ranges in places.items():
            try:
                claimed += process_madvise(pid, ranges, MADV_PAGEOUT)
            except OSError as error:
                refused[pid] = error.strerror or str(error)
        self.refused = set(refused)
        if refused:
            pid, why = next(iter(refused.items()))
            others = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
            return f"the kernel refuses it for process {pid} ({why}){others}"
        return f"the kernel claims {format_bytes(claimed)}, in {len(places)} process{'es' if len(places) > 1 else ''}"

    def _unmapped(self, pages: I64) -> I64:
        if not len(pages) or not isinstance(self.target, FileTarget):
            return pages[:0]
        _, now = self.target.look()
        return np.intersect1d(pages, now.page[(now.mapcount == 0) & among(now.kind, KINDS.disk_cache)])

    def _fadvise(self, target: FileTarget, pages: I64) -> None:
        # A folio is dropped as a whole, or not at all: so the range is made to end where folios do.
        pfn = target.frames(pages)
        first, count = target.whole_folios(pages[pfn >= 0], pfn[pfn >= 0])
        for page, n in zip(first.tolist(), count.tolist()):
            os.posix_fadvise(target.file.fd, page << PAGE_SHIFT, n << PAGE_SHIFT, os.POSIX_FADV_DONTNEED)

    # -- the whole cgroup -------------------------------------------------------------------------------------------

    def cgroup(self, allowed: bool) -> None:
        """Reclaim the cgroup, if it is allowed and could help."""
        left = np.isin(self.pages.page, self.target.remaining())
        names = self.classes[left].tolist()
        self._reclaim_or_not(len(names), [name for name in names if name not in FINAL], allowed, act=True)

    def _reclaim_or_not(self, left: int, helped: Sequence[str], allowed: bool, *, act: bool) -> bool:
        # Whether it was, or would be, reclaimed.
        if not left or not helped or not self.answer.charged:
            return False
        main, *others = self.answer.charged
        for other in others:
            self._not_used("memory cgroup", f"{_pages(other.pages)} charged to {_named(other)}, another than most are")
        group = memcg.cgroup_of(main.inode)
        how = "memory cgroup" if group is None else group.reclaimer
        if group is None or group.root:
            self._not_used(how, f"pages are charged to {_named(main)}: " + _WHY_NOT[group is not None])
            return False
        besides = f"{format_bytes(main.others or 0)} of other memory"
        if not allowed:
            self._not_used(
                how,
                f"pages are charged to cgroup {main.cgroup}; it would also push out up to {besides} there "
                "(allow it: --whole-cgroup)",
            )
            return False
        if not act:
            self.answer.tried.append(Tried(how, left, None, f"of cgroup {main.cgroup}, with up to {besides}"))
            return True
        self.reclaimed = True
        self.say(f"reclaiming cgroup {main.cgroup}: up to {besides} there may go, too")
        usage = group.usage or 0
        hindered = memcg.reclaim(group, lambda: not len(self.target.remaining()), patience=_PATIENCE)
        rest = len(self.target.remaining())
        out = max(0, usage - (group.usage or 0))
        note = f"{format_bytes(out)} of cgroup {main.cgroup} went in all"
        note += f"; {hindered}" if hindered and rest else ""
        self.answer.tried.append(Tried(how, left, max(0, left - rest), note))
        return True

    def _not_used(self, how: str, why: str) -> None:
        self.answer.not_used.append(NotUsed(how, why))

    # -- what came of it --------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Look twice, and say of each page whether it went, came back, or stayed, and why."""
        answer, target = self.answer, self.target
        at_once = target.remaining()
        neighbours = target.neighbours()
        time.sleep(_BACK)
        answer.after = target.found()
        at_last = target.remaining()
        page = self.pages.page
        there = np.isin(page, at_last)
        back = there & ~np.isin(page, at_once)
        back |= self._elsewhere(there & ~back)
        answer.went = int((~there).sum())
        answer.came_back = int(back.sum())
        answer.stayed = stays([self._why(name) for name in self.classes[there & ~back].tolist()])
        answer.swap_cache = target.swap_cached() if answer.went else 0
        answer.neighbours_went = max(0, answer.neighbours - neighbours)

    def _elsewhere(self, which: Bool) -> Bool:
        # Which of the pages that were tried on are in another frame than before, or were waited for by their process
        # since then.
        answer = np.zeros(len(which), np.bool_)
        rows = np.flatnonzero(which & (np.isin(self.classes.astype(str), MEANS) | self.reclaimed))
        if not len(rows):
            return answer
        frame = self.target.frames(self.pages.page[rows])
        answer[rows] = (frame >= 0) & (frame != self.pages.pfn[rows])
        for pid, (pages, faults) in self.paged.items():
            mine = rows[~answer[rows] & np.isin(self.pages.page[rows], pages)]
            if len(mine) and procfs.major_faults(pid) - faults >= len(mine):
                answer[mine] = True
        return answer

    def _why(self, name: str) -> str:
        if name not in MEANS and (name in FINAL or not self.reclaimed):
            return name
        return "refused" if self.refused and name == PAGEOUT else "kept"


_WHY_NOT = {
    True: "that is not reclaimed by itself, for all that is charged there is everybody's",
    False: "none has this inode here (another namespace)",
}


def _pages(n: int) -> str:
    return f"{format_count(n)} page{'s' if n != 1 else ''}"


def _named(charge: Charge) -> str:
    if not charge.inode:
        return "no cgroup"
    if charge.root:
        return "the root cgroup"
    return f"cgroup {charge.cgroup}" if charge.cgroup else f"a cgroup with inode {charge.inode}"


def _own_pageout(fd: int, pages: I64) -> str:
    # A page of tmpfs that nobody maps has its one mapper in us: then PAGEOUT sends it to swap.
    for first, count in zip(*(column.tolist() for column in runs(pages))):
        with mapped(fd, first, count) as address:
            try:
                madvise(address, count << PAGE_SHIFT, MADV_POPULATE_READ)
                madvise(address, count << PAGE_SHIFT, MADV_PAGEOUT)
            except OSError as error:
                return error.strerror or str(error)
    return ""


def _charges(pages: PlannedPages) -> list[Charge]:
    inodes, counts = np.unique(pages.cgroup, return_counts=True)
    answer = []
    for inode, n in sorted(zip(inodes.tolist(), counts.tolist()), key=lambda pair: -pair[1]):
        group = memcg.cgroup_of(inode)
        usage = None if group is None else group.usage
        others = None if usage is None else max(0, usage - n * PAGE_SIZE)
        answer.append(Charge("" if group is None else group.path, inode, n, others, group is not None and group.root))
    return answer
