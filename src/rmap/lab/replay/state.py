"""The state of a replay: the machine on which a trace is played, its files, and what has become of the events so far.

Below everything that plays: calls, checkpoints and the player read it and write into it, and it knows none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmap.errors import LimitError
from rmap.kernel import Kernel
from rmap.kernel.inodes import MOST_CACHED, Inodes, pages_of_bytes
from rmap.lab.replay.results import DIFFERS, NOT_JUDGED, Finding
from rmap.lab.replay.seen import Seen
from rmap.mm.mm_types import TASK_SIZE, AddressSpace, File, Mm
from rmap.trace import Trace
from rmap.trace import tables as t
from rmap.uapi.unistd import NR
from rmap.units import PAGE_SHIFT

SPARE_FRAMES = 1 << 16
MOST_FRAMES = 1 << 24
MAPPING_AHEAD = tuple(NR[name] for name in ("mmap", "brk", "madvise", "mlock", "mlockall", "mlock2"))
"""Calls that may make pages present before any fault."""


@dataclass
class _Occurrences:
    first: str
    meaning: str
    count: int = 0


class ReplayState:
    """A machine on which a trace is played, and what is known of the play.

    Args:
        trace: what happened.
        design: the reverse map.
        profile: the kernel release whose rules hold.

    Attributes:
        kernel, core: the machine.
        inodes: its files. files: the open that each row of the trace's ``opens`` is.
        pid: whose event is being played.
        unwatched: whether nobody watched for reclaim while this was recorded.
        reclaimed: whether reclaim was at work since the last picture, or nobody watched for it.
        refused: calls that the kernel refused and that changed nothing.
        seen_of_mm: by id of the mm, what events have shown of it; :meth:`seen` adds who is not there yet.

    Raises:
        LimitError: the trace needs more memory than a machine of the model has.
        UsageError: no such design or profile.
    """

    def __init__(self, trace: Trace, design: str, profile: str) -> None:
        self.trace = trace
        frames = frames_needed(trace)
        # A machine without swap keeps its anonymous pages, whatever MADV_PAGEOUT asks for.
        swaps = any(moment.snapshot.nr_swap_ptes for moment in trace.moments)
        self.kernel = Kernel(design, profile, nr_pages=frames, nr_swap=frames if swaps else 0)
        self.core = self.kernel.core
        self.inodes = Inodes(self.core)
        self.files = self._open_files()
        self.pid = 0
        self.unwatched = not trace.about.get("actors", False)
        self.reclaimed = self.unwatched
        self.refused = 0
        self.seen_of_mm: dict[int, Seen] = {}
        self._occurrences: dict[str, _Occurrences] = {}

    def _open_files(self) -> list[File]:
        files, opens = self.trace.files, self.trace.opens
        mappings: dict[int, AddressSpace] = {}
        numbers: set[tuple[int, int]] = set()
        made = []
        for row, writable in zip(opens.file.tolist(), opens.writable.tolist()):
            dev, inode, path = int(files.dev[row]), int(files.inode[row]), files.path[row]
            if files.device[row]:
                made.append(self.inodes.device(dev, inode, path))
                continue
            if row not in mappings:
                # Numbers of inodes are used again.
                find = self.inodes.later if (dev, inode) in numbers else self.inodes.mapping
                mappings[row] = find(dev, inode, path, int(files.size[row]), bool(files.shmem[row]))
                numbers.add((dev, inode))
            made.append(File(mappings[row], path, bool(writable)))
        return made

    def seen(self, mm: Mm) -> Seen:
        """What events have shown of an address space."""
        seen = self.seen_of_mm.get(mm.id)
        if seen is None:
            seen = self.seen_of_mm[mm.id] = Seen()
        return seen

    def let_go(self, mm: Mm) -> None:
        """Forget what events have shown of an address space, if nobody lives in it any more."""
        if not mm.users:
            self.seen_of_mm.pop(mm.id, None)

    def finding(self, what: str, first: str, meaning: str = DIFFERS) -> None:
        """Something went otherwise than on the kernel, or cannot be told.

        Args:
            what: happened; counted under these words.
            first: where, should it be the first time.
            meaning: for the verdict: ``DIFFERS``, ``NOT_JUDGED`` or ``NOTED``.
        """
        self._occurrences.setdefault(what, _Occurrences(first, meaning)).count += 1

    def findings(self) -> tuple[Finding, ...]:
        """All of them so far, in the order in which each came first."""
        return tuple(Finding(what, o.count, o.first, o.meaning) for what, o in self._occurrences.items())

    def not_modelled(self, what: str, mm: Mm | None, start: int = 0, length: int = TASK_SIZE) -> None:
        """A call that the model does not have: what it did comes with the next picture.

        Args:
            mm: what it may have changed; None if that is nothing that needs an excuse.
            start, length: where, in bytes.
        """
        self.finding(what, f"process {self.pid}", NOT_JUDGED)
        if mm is not None:
            self.seen(mm).not_modelled(start, length)

    def dropped(self, mapping: AddressSpace, first: int, last: int) -> None:
        """The pages ``first`` to ``last`` of a file went away: what was mapped of them is not accounted for."""
        for vma in list(mapping.i_mmap.stab(first, last)):
            low, high = max(first, vma.pgoff), min(last, vma.last)
            start = vma.start + ((low - vma.pgoff) << PAGE_SHIFT)
            self.seen(vma.mm).forget(start, (high + 1 - low) << PAGE_SHIFT)


def frames_needed(trace: Trace) -> int:
    """An upper bound of the frames that a replay takes: files whole, a page for every fault, what pictures show.

    Raises:
        LimitError: more than a machine of the model is given.
    """
    sizes: dict[tuple[int, int], int] = {}
    tables: list[Any] = [trace.files, *(moment.snapshot.files for moment in trace.moments)]
    for files in tables:
        for dev, inode, size in zip(files.dev.tolist(), files.inode.tolist(), files.size.tolist()):
            sizes[dev, inode] = max(size, sizes.get((dev, inode), 0))
    events = trace.events
    resized = events.kind == t.RESIZED
    for row, size in zip(events.file[resized].tolist(), events.a0[resized].tolist()):
        file = int(trace.opens.file[row])
        key = int(trace.files.dev[file]), int(trace.files.inode[file])
        sizes[key] = max(size, sizes[key])
    in_bytes = [*sizes.values(), *trace.files.size.tolist()]  # what one number stands for, twice: it may be used again
    cached = sum(pages_of_bytes(size) for size in in_bytes if 0 < size <= MOST_CACHED)
    described = max((int(p.snapshot.frames.count.sum()) for p in trace.moments), default=0)
    execs = sum(int(p.snapshot.frames.count.sum()) for p in trace.moments if p.cause == t.CAUSES[t.AT_EXEC])
    calls_ahead = (events.kind == t.SYSCALL) & np.isin(events.nr, MAPPING_AHEAD)
    lengths = np.minimum(events.a1[calls_ahead].clip(0), 1 << 30) >> PAGE_SHIFT
    ahead = min(int(lengths.sum()), 1 << 20) if len(lengths) else 0
    wanted = cached + described + execs + int(np.count_nonzero(events.kind == t.FAULT)) + ahead + SPARE_FRAMES
    if wanted > MOST_FRAMES:
        raise LimitError(f"the trace would need {wanted:,} frames: the limit is {MOST_FRAMES:,}")
    return wanted
