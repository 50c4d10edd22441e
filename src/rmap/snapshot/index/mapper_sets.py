"""Which processes map each frame, as sets: frames that the very same processes map form one *class*.

A machine has millions of entries, hundreds of thousands of frames, and a few thousand classes: fifty workers of one
server share most of their pages all together. Questions of sharing are asked of classes.

No entry is looked at one by one. An extent maps the dense numbers ``[d, d + count)``: its process adds a random number
of its own there, as a step up at ``d`` and down behind. Their running sum gives each frame a sum by which its class is
known; entries count as often as they are there. Two different classes would have one sum with a probability of 2^-64.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I32, I64, U64
from rmap.snapshot.index.coverage import Mapped, covered, covering
from rmap.snapshot.tables import PteTable, VmaTable


class MapperSets:
    """The classes of frames, and who maps each.

    Args:
        ptes, vmas: the tables of one valid picture.
        mapped: its present extents.
        nr_frames: how many frames it describes.

    Attributes:
        found: int64[frames], by dense number: entries that map each frame.
        of_frame: int32[frames]: the class of each frame; 0 is that of the frames that nobody maps.
        nr_classes: how many there are.
        members: int32, rows of ``processes``, ascending within a class; those of class c are
            ``members[start[c]:start[c + 1]]``.
        entries: int64, for each member: how many entries of its own map a frame of the class.
        start: int64[classes + 1].
    """

    def __init__(self, ptes: PteTable, vmas: VmaTable, mapped: Mapped, nr_frames: int) -> None:
        extent, first, behind = mapped
        process: I32 = vmas.process[ptes.vma[extent]]
        self.found = covered(first, behind, np.ones(len(first), np.int64), nr_frames)
        random = _random(np.arange(int(process.max(initial=-1)) + 1)).view(np.int64)
        sums = covered(first, behind, random[process], nr_frames)
        sums[self.found == 0] = 0
        distinct, example, of_frame = np.unique(sums, return_index=True, return_inverse=True)
        # Class 0 is there, and is the empty one, whether or not a frame is in it.
        empty = np.flatnonzero(distinct == 0)
        order = np.concatenate((empty, np.flatnonzero(distinct != 0)))
        number = np.empty(len(distinct), np.int32)
        number[order] = np.arange(len(order)) + (0 if len(empty) else 1)
        self.of_frame: I32 = number[of_frame.reshape(-1)]
        self.nr_classes = len(distinct) + (0 if len(empty) else 1)
        frames = example[order[len(empty) :]]  # one of each class but 0, in order of class
        self.members, self.entries, self.start = _members(frames, first, behind, process)

    @property
    def of_member(self) -> I32:
        """int32, for each member: its class."""
        return np.repeat(np.arange(self.nr_classes, dtype=np.int32), np.diff(self.start))


def _random(process: I64) -> U64:
    # A number for each process, the same in every run: the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
    x: U64 = (process.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _members(frames: I64, first: I64, behind: I64, process: I32) -> tuple[I32, I64, I64]:
    # The processes that map some frames, and how many entries of each do.
    which, extent = covering(frames, first, behind)
    pairs = which << 32 | process[extent]
    distinct, entries = np.unique(pairs, return_counts=True)
    sizes = np.bincount(distinct >> 32, minlength=len(frames))
    start = np.concatenate(([0, 0], np.cumsum(sizes)))
    return (distinct & 0xFFFFFFFF).astype(np.int32), entries.astype(np.int64), start
