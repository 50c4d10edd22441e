"""One process in a picture, area by area: what is in memory, and what of that others map, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.snapshot import flags as f
from rmap.snapshot.index.sums import by_row, over_extents
from rmap.snapshot.questions.usage import counted_frames
from rmap.uapi.vm_flags import perms
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class AreaView:
    """One VMA; sizes in bytes.

    Attributes:
        name: its file, or what the kernel calls it; ``""`` for anonymous memory.
        rss: in memory. shared: of it, mapped more than once. swap: swapped out.
        most: how many entries map the page of it that most map.
    """

    start: int
    end: int
    perms: str
    name: str
    rss: int
    shared: int
    swap: int
    most: int


def areas_of(snapshot: Snapshot, process: int) -> list[AreaView]:
    """The areas of a process (a row of ``processes``), in order of address."""
    vmas = snapshot.vmas
    low, high = (int(n) for n in np.searchsorted(vmas.process, [process, process + 1]))
    ptes = snapshot.ptes
    first, last = (int(n) for n in np.searchsorted(ptes.vma, [low, high]))
    vma = ptes.vma[first:last] - low
    flags, count = ptes.flags[first:last], ptes.count[first:last].astype(np.int64)
    extent, dense, behind = snapshot.mapped.within(first, last)
    counted = counted_frames(snapshot).astype(np.int64)
    mappers = np.maximum(snapshot.per_frame("mapcount"), snapshot.mapper_sets.found) * counted
    n = high - low
    of_present = ptes.vma[extent] - low
    swap = by_row(vma, np.where((flags & f.PTE_SWAP) != 0, count, 0), n)
    rss = by_row(of_present, over_extents(counted, dense, behind), n)
    shared = by_row(of_present, over_extents((mappers > 1).astype(np.int64), dense, behind), n)
    most = np.zeros(n, np.int64)
    if len(dense):  # of each pair of bounds the first begins an extent, the second what lies between two
        bounds = np.stack((dense, behind), axis=1).reshape(-1)
        np.maximum.at(most, of_present, np.maximum.reduceat(np.append(mappers, 0), bounds)[::2])
    return [
        AreaView(
            start=int(vmas.start[row]),
            end=int(vmas.end[row]),
            perms=perms(int(vmas.flags[row])),
            name=snapshot.files.path[vmas.file[row]] if vmas.file[row] >= 0 else vmas.label[row],
            rss=int(rss[row - low]) << PAGE_SHIFT,
            shared=int(shared[row - low]) << PAGE_SHIFT,
            swap=int(swap[row - low]) << PAGE_SHIFT,
            most=int(most[row - low]),
        )
        for row in range(low, high)
    ]
