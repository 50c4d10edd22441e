"""Describing the frames of a picture: their kinds, their files, and whether they held still.

Input are the page-table entries found, as extents, and what the kernel says of each frame; output are the columns of
the table ``frames``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rmap.columns import I8, I64, Bool, expand, rows_of, runs
from rmap.live.capture.settle import settle_rows
from rmap.live.sources import procfs
from rmap.live.sources.kpage_columns import PageState, kinds, read_counts, read_page_state
from rmap.live.sources.pagemap_columns import Pagemap, decode, ranges_to_read
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, concatenated, single_pages
from rmap.snapshot.index.coverage import covered, covering
from rmap.snapshot.index.numbering import Numbering
from rmap.snapshot.kind_columns import among, of_each
from rmap.snapshot.kinds import KERNEL, KINDS
from rmap.units import PAGE_SHIFT

_MAX_SPAN = 1 << 24  # frames, 64 GiB: a column over all of them


class VmaColumns(NamedTuple):
    """What is to be known of each VMA here: whose, its file (-1 none, -2 a device), and where; int64 columns."""

    pid: I64
    file: I64
    start: I64
    pgoff: I64


DEVICE_FILE = -2


@dataclass
class Described:
    """Frames, one row each, ascending: what the kernel says, and what follows from it.

    ``anon_vma`` holds rows of the picture's table, -1 where none is known.
    """

    state: PageState
    kind: I8
    file: I64
    index: I64
    own: I64
    anon_vma: I64

    @cached_property
    def rows(self) -> Numbering:
        """Which row describes a frame."""
        return Numbering(self.state.pfn, np.ones(len(self.state.pfn), np.int64))

    def mark_raced(self, rows: I64) -> None:
        """Note that these rows are of two moments."""
        self.state.raced[rows] = True

    def columns(self) -> dict[str, I64 | I8 | Bool]:
        """The columns for :meth:`rmap.snapshot.builder.SnapshotBuilder.set_frames`."""
        state = self.state
        return {
            "mapcount": state.mapcount,
            "flags": state.flags,
            "kind": self.kind,
            "head_offset": state.head_offset.astype(np.int64),
            "order": state.order,
            "cgroup": state.cgroup,
            "mapping": of_each(lambda kind: kind.mapping)[self.kind],
            "index": self.index,
            "file": self.file,
            "anon_vma": self.anon_vma,
            "own": self.own,
            "raced": state.raced,
        }


def describe(extents: Extents, vmas: VmaColumns) -> Described:
    """Read and describe every frame that some present extents map.

    Raises:
        NotPermitted: this user may not read the state of frames.
    """
    present = extents.take((extents.flags & f.PTE_PRESENT) != 0)
    state = read_page_state(*_merged(present.pfn, present.count))
    kind = kinds(state.flags)
    file, index = _files(present, vmas, state, kind)
    kind[among(kind, KINDS.cached) & (file < 0)] = KERNEL
    return Described(state, kind, file, index, _own_entries(state.pfn), np.full(len(kind), -1, np.int64))


def _merged(pfn: I64, count: I64) -> tuple[I64, I64]:
    # Ascending disjoint runs that cover some extents; frame by frame, where they do not lie too far apart.
    if not len(pfn):
        return pfn, count
    low, high = int(pfn.min()), int((pfn + count).max())
    if high - low <= _MAX_SPAN:
        first = pfn - low
        begin, size = runs(np.flatnonzero(covered(first, first + count, np.ones(len(pfn), np.int64), high - low)))
        return begin + low, size
    order = np.argsort(pfn)
    first, end = pfn[order], (pfn + count)[order]
    reach = np.maximum.accumulate(end)
    starts = np.concatenate(([0], np.flatnonzero(first[1:] > reach[:-1]) + 1))
    return first[starts], np.maximum.reduceat(end, starts) - first[starts]


def _files(present: Extents, vmas: VmaColumns, state: PageState, kind: I8) -> tuple[I64, I64]:
    # Which page of which file each frame is: from any entry that maps it, and from its folio (rule I21).
    n = len(state.pfn)
    file, index = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    if not n:
        return file, index
    ours = present.take(((present.flags & f.PTE_FILE) != 0) & (vmas.file[present.vma] >= 0))
    first = vmas.pgoff[ours.vma] + ((ours.address - vmas.start[ours.vma]) >> PAGE_SHIFT)
    rows = Numbering(state.pfn, np.ones(n, np.int64))
    at = expand(rows.dense(ours.pfn), ours.count)
    file[at] = np.repeat(vmas.file[ours.vma], ours.count)
    index[at] = expand(first, ours.count)
    not_cached = ~among(kind, KINDS.cached)
    file[not_cached] = -1
    # The rest of a folio follows from any page of it.
    head = np.arange(n) - state.head_offset
    head_file, head_index = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    named = file >= 0
    head_file[head[named]] = file[named]
    head_index[head[named]] = index[named] - state.head_offset[named]
    missing = ~named & ~not_cached & (head_index[head] >= 0)
    file[missing] = head_file[head[missing]]
    index[missing] = head_index[head[missing]] + state.head_offset[missing]
    index[file < 0] = -1
    return file, index


def _own_entries(pfns: I64) -> I64:
    # How many entries of this very process map each frame: it is left out of the picture, but the kernel counts it.
    pid = os.getpid()
    vmas = [(line.start, line.end) for line in procfs.read_maps(pid)]
    with Pagemap(pid) as pagemap:
        _, entry = pagemap.read(ranges_to_read(pagemap, vmas, procfs.read_stat(pid).rss))
    pfn, flags = decode(entry, procfs.nr_swap_areas())
    mine = pfn[(flags & f.PTE_PRESENT) != 0]
    at = np.searchsorted(pfns, mine)
    at = at[(at < len(pfns)) & (pfns[np.minimum(at, len(pfns) - 1)] == mine)] if len(pfns) else at[:0]
    own: I64 = np.minimum(np.bincount(at, minlength=len(pfns)), np.iinfo(np.int8).max).astype(np.int64)
    return own


def mark_special(extents: Extents, frames: Described) -> Extents:
    """Mark the entries that no reverse map tracks: of the zero page, of the kernel's own pages, of devices."""
    special = among(frames.kind, KINDS.untracked)
    before = np.concatenate(([0], np.cumsum(special)))
    present = (extents.flags & f.PTE_PRESENT) != 0
    at = np.where(present, frames.rows.dense(np.where(present, extents.pfn, 0)), 0)
    of_them = np.where(present, before[np.where(present, at + extents.count, 0)] - before[at], 0)
    mixed = (of_them > 0) & (of_them < extents.count)
    if mixed.any():
        cut, kept = single_pages(extents.take(mixed)), extents.take(~mixed)
        return mark_special(concatenated([kept, cut]), frames)
    return replace(extents, flags=np.where(of_them > 0, extents.flags | f.PTE_SPECIAL, extents.flags))


def mark_races(
    extents: Extents,
    vmas: VmaColumns,
    frames: Described,
    linked: I64,
    doubtful: Bool | None = None,
    moved: Callable[[Described, I64], Bool] | None = None,
) -> None:
    """Look once more at frames whose numbers contradict each other, and mark those that have changed since.

    Contradictory are: more entries found than the kernel counts; pagemap's exclusive bit against a count other than 1;
    and, where page indexes and anon_vmas are known, a page at a place where its index does not put it (I14, I21), or
    of an anon_vma that the VMA is not linked to (I13). What still contradicts itself each time it is read again is left
    as it is: that is a finding, not a race.

    Args:
        extents: the entries.
        vmas: of all VMAs of the picture.
        frames: described; ``raced`` is written.
        linked: int64: ``vma << 32 | anon_vma`` of every link of a chain, by rows of the picture.
        doubtful: bool, of each frame: other sources contradict each other about it.
        moved: which of these rows of frames are not any more what other sources said.
    """
    state = frames.state
    present = extents.take((extents.flags & f.PTE_PRESENT) != 0)
    first = frames.rows.dense(present.pfn)
    placed = _Placed(present, first, first + present.count)
    wrong = _contradictory(placed, frames) | _misplaced(placed, vmas, frames, linked)
    if doubtful is not None:
        wrong |= doubtful
    suspect = np.flatnonzero(wrong & ~state.raced)

    def changed(rows: I64) -> Bool:
        now = _changed(placed, vmas, frames, rows)
        return now if moved is None else now | moved(frames, rows)

    settle_rows(suspect, changed, frames.mark_raced)


class _Placed(NamedTuple):
    """Present extents, and which rows of the described frames each maps: ``[first, behind)``."""

    extents: Extents
    first: I64
    behind: I64

    def take(self, rows: I64 | Bool) -> _Placed:
        return _Placed(self.extents.take(rows), self.first[rows], self.behind[rows])

    def rows(self) -> I64:
        """The row of each single page."""
        return expand(self.first, self.extents.count)


def _changed(placed: _Placed, vmas: VmaColumns, frames: Described, suspect: I64) -> Bool:
    # Which of these frames are not any more what they were. However many there are, all are read: the larger a defect
    # is, the more of it must be seen.
    pfns, mapcount = frames.state.pfn[suspect], frames.state.mapcount[suspect]
    changed: Bool = read_counts(pfns) != mapcount
    position, extent = covering(suspect, placed.first, placed.behind)
    ours = placed.extents
    address = ours.address[extent] + ((suspect[position] - placed.first[extent]) << PAGE_SHIFT)
    pid, flags = vmas.pid[ours.vma[extent]], ours.flags[extent]
    order = np.lexsort((address, pid))
    pids, first = np.unique(pid[order], return_index=True)
    for one, rows in zip(pids.tolist(), np.split(order, first[1:])):
        at = position[rows]
        changed[at[_changed_entries(one, address[rows], pfns[at], flags[rows])]] = True
    # A process that forks all the time has other counts while its entries are read: so before and after.
    return changed | (read_counts(pfns) != mapcount)


def _contradictory(placed: _Placed, frames: Described) -> Bool:
    state = frames.state
    n, ones = len(state.pfn), np.ones(len(placed.first), np.int64)
    entries = covered(placed.first, placed.behind, ones, n)
    says_exclusive = ((placed.extents.flags & f.PTE_EXCLUSIVE) != 0).astype(np.int64)
    claims = covered(placed.first, placed.behind, says_exclusive, n)
    surplus = entries + frames.own > state.mapcount
    wrong_bit = np.where(state.mapcount == 1, claims < entries, claims > 0)
    return (surplus | wrong_bit) & ~among(frames.kind, KINDS.untracked)


def _misplaced(placed: _Placed, vmas: VmaColumns, frames: Described, linked: I64) -> Bool:
    wrong = np.zeros(len(frames.kind), np.bool_)
    ours = placed.take(vmas.pgoff[placed.extents.vma] >= 0)
    first = vmas.pgoff[ours.extents.vma] + ((ours.extents.address - vmas.start[ours.extents.vma]) >> PAGE_SHIFT)
    if not len(first):
        return wrong
    anon_vmas_known = bool((frames.anon_vma >= 0).any())
    if not anon_vmas_known:
        odd = ~_in_step(ours, first, frames.index)
        ours, first = ours.take(odd), first[odd]
    extents, at = ours.extents, ours.rows()
    indexed = frames.index[at] >= 0
    wrong[at[indexed & (frames.index[at] != expand(first, extents.count))]] = True
    if anon_vmas_known:
        hung = frames.anon_vma[at] >= 0
        link = np.repeat(extents.vma, extents.count) << 32 | frames.anon_vma[at]
        wrong[at[hung & ~np.isin(link, linked)]] = True
    return wrong


def _in_step(placed: _Placed, first: I64, index: I64) -> Bool:
    # Which extents lie where the indexes of their frames put them, told without a look at each page: in a run, the
    # index rises with the frame.
    ahead = index - np.arange(len(index))
    run = np.cumsum(np.diff(ahead, prepend=ahead[0]) != 0)
    whole = run[placed.first] == run[placed.behind - 1]
    right: Bool = whole & (index[placed.first] == first)
    return right


def _changed_entries(pid: int, address: I64, pfn: I64, flags: I64) -> Bool:
    # Which entries of one process are not any more what they were; addresses ascending.
    begin, count = runs(np.unique(address >> PAGE_SHIFT))
    ranges = zip((begin << PAGE_SHIFT).tolist(), ((begin + count) << PAGE_SHIFT).tolist())
    try:
        with Pagemap(pid) as pagemap:
            where, entry = pagemap.read(ranges)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return np.ones(len(address), np.bool_)
    at = rows_of(where, address, ascending=True)
    changed = at < 0
    now_pfn, now_flags = decode(entry, 0)
    held = at[~changed]
    mask = f.PTE_PRESENT | f.PTE_EXCLUSIVE
    changed[~changed] = (now_pfn[held] != pfn[~changed]) | ((now_flags[held] ^ flags[~changed]) & mask != 0)
    return changed
