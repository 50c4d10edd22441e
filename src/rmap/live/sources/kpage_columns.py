"""/proc/kpagecount, kpageflags and kpagecgroup: what the kernel says of each frame (rule 8.3).

They are read by ``pread`` in multiples of 8 bytes: single pages in small blocks, large folios in windows aligned so
that none is cut: a folio of order n lies at a multiple of 2^n. Heads and tails give its order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from rmap.columns import I8, I32, I64, Bool, expand
from rmap.live.sources.kpage import mapcount_kind as mapcount_kind
from rmap.live.sources.kpage import open_kpage
from rmap.snapshot import flags as f
from rmap.uapi.kpageflags import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_NOPAGE

_BLOCK_SHIFT = 3  # a call costs as much as some frames more
_WINDOW_SHIFT = 9
_GIGANTIC_SHIFT = 18  # a hugetlb page of 1 GiB
_READ = 1 << 16  # entries a read: 512 KiB
_LARGE = KPF_COMPOUND_HEAD | KPF_COMPOUND_TAIL


@dataclass
class PageState:
    """One row per frame, ascending; whole folios. Columns as in the table ``frames``; ``raced``: the count moved."""

    pfn: I64
    mapcount: I64
    flags: I64
    order: I8
    head_offset: I32
    cgroup: I64
    raced: Bool


class KpageFile:
    """One of the three files, open.

    Raises:
        NotPermitted: this user may not read it, or the kernel does not have it.
    """

    def __init__(self, name: str) -> None:
        self._fd = open_kpage(name)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def read(self, first: I64, count: I64, beyond: int) -> I64:
        """Read runs of frames, one after the other.

        Args:
            first, count: int64, the runs.
            beyond: the value of frames the kernel has no struct page for, past the end of the file.

        Returns:
            int64, one number per frame.
        """
        values: I64 = np.full(int(count.sum()), beyond, np.int64)
        view = values.data.cast("B")
        done = 0
        for start, length in zip(first.tolist(), count.tolist()):
            for offset in range(0, length, _READ):
                n = min(_READ, length - offset)
                os.preadv(self._fd, [view[done * 8 : (done + n) * 8]], (start + offset) * 8)
                done += n
        return values


def read_page_state(first: I64, count: I64) -> PageState:
    """Read what the kernel says of some frames, and of the rest of their folios.

    Args:
        first, count: int64, ascending disjoint runs of frames.

    Raises:
        NotPermitted: this user may not, or the kernel does not have the files.
    """
    names = ("kpagecount", "kpageflags", "kpagecgroup")
    files: list[KpageFile] = []
    try:
        files += [KpageFile(name) for name in names]
        wide, shift = _windows_of_folios(files[1], first, count)
        low, size = _blocks(first, count, wide, shift)
        before = files[0].read(low, size, 0)
        flags = files[1].read(low, size, KPF_NOPAGE)
        cgroup = files[2].read(low, size, 0)
        after = files[0].read(low, size, 0)
    finally:
        for file in files:
            file.close()
    pfn = expand(low, size)
    order, head_offset, torn = _folios(pfn, flags)
    torn |= ((flags & _LARGE) != 0) & ~np.isin(pfn >> shift, wide)  # it was a single page when it was looked at first
    needed = _marked(pfn, first, count)
    keep = needed | (np.isin(pfn - head_offset, (pfn - head_offset)[needed]) & (order > 0))
    return PageState(
        pfn=pfn[keep],
        mapcount=before[keep],
        flags=(flags & f.KPF_KEPT)[keep],
        order=order[keep],
        head_offset=head_offset[keep],
        cgroup=cgroup[keep],
        raced=((before != after) | torn)[keep],
    )


def read_counts(pfns: I64) -> I64:
    """The mapcounts of some frames as they are now.

    Args:
        pfns: int64, ascending, distinct.
    """
    file = KpageFile("kpagecount")
    try:
        return file.read(pfns, np.ones(len(pfns), np.int64), 0)
    finally:
        file.close()


def _windows(first: I64, count: I64, shift: int) -> tuple[I64, I64]:
    # Aligned windows that cover the runs, joined where they touch.
    low = first >> shift << shift
    high = ((first + count - 1) >> shift << shift) + (1 << shift)
    if not len(low):
        return low, low
    begins = np.concatenate(([True], low[1:] > np.maximum.accumulate(high)[:-1]))
    starts = np.flatnonzero(begins)
    return low[starts], np.maximum.reduceat(high, starts) - low[starts]


def _marked(pfn: I64, first: I64, count: I64) -> Bool:
    # Which of these frames are in the runs. Both ascending.
    if not len(first):
        return np.zeros(len(pfn), np.bool_)
    run = np.searchsorted(first, pfn, side="right") - 1
    return (run >= 0) & (pfn < (first + count)[run])


def _windows_of_folios(flags_file: KpageFile, first: I64, count: I64) -> tuple[I64, int]:
    # The windows that hold the large folios among these frames: their numbers, and the shift from a PFN to a number.
    low, size = _windows(first, count, _BLOCK_SHIFT)
    pfn, flags = expand(low, size), flags_file.read(low, size, KPF_NOPAGE)
    large = pfn[((flags & _LARGE) != 0) & _marked(pfn, first, count)]
    wide: I64 = np.unique(large >> _WINDOW_SHIFT)
    begins = np.union1d(wide, wide + 1) << _WINDOW_SHIFT
    flags = flags_file.read(begins, np.ones(len(begins), np.int64), KPF_NOPAGE)
    if (flags & KPF_COMPOUND_TAIL).any():  # a folio is larger than a window
        return np.unique(large >> _GIGANTIC_SHIFT), _GIGANTIC_SHIFT
    return wide, _WINDOW_SHIFT


def _blocks(first: I64, count: I64, wide: I64, shift: int) -> tuple[I64, I64]:
    # The runs to read: these windows, and besides them the blocks that the frames are in.
    low, size = _windows(first, count, _BLOCK_SHIFT)
    each = 1 << (shift - _BLOCK_SHIFT)
    in_windows = expand(wide * each, np.full(len(wide), each, np.int64))
    blocks = np.union1d(expand(low >> _BLOCK_SHIFT, size >> _BLOCK_SHIFT), in_windows)
    return _windows(blocks << _BLOCK_SHIFT, np.full(len(blocks), 1 << _BLOCK_SHIFT, np.int64), _BLOCK_SHIFT)


def _folios(pfn: I64, flags: I64) -> tuple[I8, I32, Bool]:
    # For each frame: order, distance to the head, and whether head and tails made no sense (the folio changed
    # meanwhile).
    n = len(pfn)
    place = np.arange(n)
    tail = (flags & KPF_COMPOUND_TAIL) != 0
    head = (flags & KPF_COMPOUND_HEAD) != 0
    # The frame that begins the folio of each frame: the last that is not a tail, in the same run.
    inside = tail & (np.diff(pfn, prepend=-1) == 1)
    begin = np.maximum.accumulate(np.where(inside, 0, place))
    length = np.bincount(begin, minlength=n)
    order_of = np.round(np.log2(np.maximum(length, 1))).astype(np.int8)
    whole = head & ((1 << order_of.astype(np.int64)) == length) & (pfn % np.maximum(length, 1) == 0)
    good = whole[begin] & (pfn - pfn[begin] == place - begin)
    large = head | tail
    order = np.where(good & large, order_of[begin], 0).astype(np.int8)
    head_offset = np.where(good & large, place - begin, 0).astype(np.int32)
    return order, head_offset, large & ~good


def kinds(flags: I64) -> I8:
    """The kind of each frame, as far as its flags alone tell (``frames.kind``).

    Args:
        flags: int64, /proc/kpageflags.
    """
    found = np.select([(flags & bits) != 0 for bits, _ in f.KIND_TESTS], [kind for _, kind in f.KIND_TESTS], f.FILE)
    return found.astype(np.int8)
