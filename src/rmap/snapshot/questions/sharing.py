"""Who shares memory with whom: for each pair of processes, how much both map. The vDSO, which all map, is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I32, I64, expand
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.questions.usage import counted_frames
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class Sharing:
    """What some processes share with others.

    Attributes:
        rows: int32[n]: the processes that were asked for, as rows of ``processes``.
        columns: int32[m]: the processes that share something with one of them, and they themselves.
        shared: int64[n, m], bytes: distinct frames that both map; of a process with itself, what it maps at all.
        alone: int64[n], bytes: frames that no other process of the picture maps.
    """

    rows: I32
    columns: I32
    shared: I64
    alone: I64

    def among(self, columns: I32) -> Sharing:
        """Only what is shared with these (int32, rows of ``processes``, ascending)."""
        kept = np.isin(self.columns, columns)
        return Sharing(self.rows, self.columns[kept], self.shared[:, kept], self.alone)


def sharing(snapshot: Snapshot, rows: I32) -> Sharing:
    """What these processes share, and with whom.

    Args:
        rows: int32, rows of ``processes``, distinct.
    """
    sets = snapshot.mapper_sets
    counted = counted_frames(snapshot) & ~among(snapshot.per_frame("kind"), KINDS.untracked)
    pages = np.bincount(sets.of_frame[counted], minlength=sets.nr_classes)
    sizes = np.diff(sets.start)
    of_member = sets.of_member
    whole = np.zeros((len(rows), len(snapshot.processes)), np.int64)
    alone = np.zeros(len(rows), np.int64)
    for at, row in enumerate(rows.tolist()):
        classes = of_member[sets.members == row]
        members = sets.members[expand(sets.start[classes], sizes[classes])]
        np.add.at(whole[at], members, np.repeat(pages[classes], sizes[classes]))
        alone[at] = pages[classes[sizes[classes] == 1]].sum()
    columns = np.union1d(np.flatnonzero(whole.any(axis=0)), rows).astype(np.int32)
    return Sharing(rows, columns, whole[:, columns] << PAGE_SHIFT, alone << PAGE_SHIFT)
