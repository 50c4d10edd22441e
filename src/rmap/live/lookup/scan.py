"""The search through every page table of the machine for one page: what an object-based reverse map saves.

Entries are read 64 KiB at a time and compared as numbers, not decoded: both halves in one pass, and as a whole only
where a half is equal. Reading releases Python's lock, so that each processor that this one may use reads for itself;
the pieces are small enough that one large process keeps all of them busy.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator

import numpy as np

from rmap.columns import I64, Bool
from rmap.live.lookup.search import STATE, Enough, Hit, Search, looking_at
from rmap.live.sources import procfs
from rmap.live.sources.pagemap_columns import Pagemap, ranges_to_read
from rmap.live.sources.same_mm import compare_mms, groups
from rmap.units import PAGE_SHIFT

_ENTRIES = 8192  # 64 KiB: larger buffers are slower
_PIECE = 32 * _ENTRIES  # what one thread takes at a time: 1 GiB of addresses, some milliseconds
_HOLE = 256  # entries: reading over a hole of this size costs less than another call
_SPAN = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+)", re.MULTILINE)
_LOW = (1 << 32) - 1

_Run = tuple[int, int]


def everywhere(search: Search, pids: Iterable[int], enough: Enough = lambda: False) -> None:
    """Look at every entry of every process that has not been scanned yet; only the lowest pid of those who share an mm.

    Args:
        pids: ascending.
        enough: asked after every hit: whether to stop. A process once begun is scanned to its end.
    """
    once = [pid for pid in groups(pids, compare_mms) if pid not in search.scanned]
    work = _Work(search, once, enough)
    threads = [threading.Thread(target=work.run, daemon=True) for _ in range(len(os.sched_getaffinity(0)) - 1)]
    for thread in threads:
        thread.start()
    work.run()
    for thread in threads:
        thread.join()
    if work.error is not None:
        raise work.error


class _Work:
    def __init__(self, search: Search, pids: list[int], enough: Enough) -> None:
        self.search = search
        self.enough = enough
        self.done = False
        self.error: BaseException | None = None
        self.pieces = self._pieces(pids)
        self.lock = threading.Lock()

    def run(self) -> None:
        """Take pieces until there are no more; what goes wrong is kept for whoever asked."""
        try:
            self._run()
        except BaseException as error:  # also an interrupt: the other threads are to stop
            self.error = error

    def _run(self) -> None:
        buffers = np.empty(_ENTRIES, np.int64), np.empty(2 * _ENTRIES, np.bool_)
        while self.error is None:
            with self.lock:
                piece = next(self.pieces, None)
            if piece is None:
                return
            pid, runs = piece
            hits: set[Hit] = set()
            with looking_at(pid, self.search.unread), Pagemap(pid) as pagemap:
                hits = _scan(self.search, pagemap, runs, buffers)
            with self.lock:
                new = hits - self.search.hits
                self.search.hits |= new
                self.done = self.done or (bool(new) and self.enough())

    def _pieces(self, pids: list[int]) -> Iterator[tuple[int, list[_Run]]]:
        # All entries of a process before those of the next; a process once begun is read to the end.
        for pid in pids:
            if self.done:
                return
            runs: list[_Run] = []
            with looking_at(pid, self.search.unread):
                runs = list(_runs(pid))
            piece: list[_Run] = []
            size = 0
            for first, count in runs:
                for at in range(first, first + count, _PIECE):
                    n = min(_PIECE, first + count - at)
                    piece.append((at, n))
                    size += n
                    if size >= _PIECE:
                        yield pid, piece
                        piece, size = [], 0
            if piece:
                yield pid, piece
            self.search.scanned.add(pid)


def _runs(pid: int) -> Iterator[_Run]:
    # Runs of page numbers that hold all entries of a process.
    spans = [(int(start, 16), int(end, 16)) for start, end in _SPAN.findall(procfs.maps_text(pid))]
    spans = [span for span in spans if span[1] <= 1 << 63]  # not [vsyscall]: it lies beyond every offset
    if not spans:
        return
    with Pagemap(pid) as pagemap:
        first, last = 0, 0
        for start, end in ranges_to_read(pagemap, spans, procfs.read_stat(pid).rss):
            if last and start >> PAGE_SHIFT <= last + _HOLE:
                last = max(last, end >> PAGE_SHIFT)
                continue
            if last:
                yield first, last - first
            first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
        yield first, last - first


def _scan(search: Search, pagemap: Pagemap, runs: list[_Run], buffers: tuple[I64, Bool]) -> set[Hit]:
    entries, equal = buffers
    view = entries.data.cast("B")
    hits: set[Hit] = set()
    filled: list[_Run] = []
    used = 0
    for first, count in runs:
        while count:
            n = min(count, _ENTRIES - used)
            pagemap.fill(view[used * 8 : (used + n) * 8], first)
            filled.append((first, n))
            first, count, used = first + n, count - n, used + n
            if used == _ENTRIES:
                hits |= _hits(search, pagemap.pid, entries, equal, filled)
                filled, used = [], 0
    if used:
        hits |= _hits(search, pagemap.pid, entries[:used], equal[: 2 * used], filled)
    return hits


def _hits(search: Search, pid: int, entries: I64, equal: Bool, filled: list[_Run]) -> set[Hit]:
    # One pass over both halves of every entry: entries are compared as a whole only if a half equals the page's.
    np.equal(entries.view(np.uint32), np.uint32(search.wanted & _LOW), out=equal)
    if not equal.any():
        return set()
    positions = np.flatnonzero(entries.view(np.uint64) & np.uint64(STATE) == np.uint64(search.wanted))
    hits = set()
    for at in positions.tolist():
        for first, count in filled:
            if at < count:
                hits.add(Hit(pid, (first + at) << PAGE_SHIFT))
                break
            at -= count
    return hits
