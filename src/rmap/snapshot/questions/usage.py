"""RSS, PSS, USS and swap of every process, from its page-table entries, as the kernel counts them in smaps_rollup.

Rules (Linux 6.18, ``fs/proc/task_mmu.c``, ``smaps_account``; ``mm/memory.c``, ``vm_normal_page``):

* an entry counts if the kernel keeps a mapcount for its page: not the zero page, not memory of a device, not pages of
  the kernel that are mapped without one; hugetlb pages have counters of their own;
* RSS: a page for each entry. USS: for each entry whose page is mapped once;
* PSS: each entry adds ``(page size << 12) // mapcount``; the sum is shifted back by 12;
* swap: an entry that names a slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I64, Bool, expand
from rmap.snapshot import flags as f
from rmap.snapshot.index.sums import by_row, over_extents
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

_PSS_SHIFT = 12


@dataclass(frozen=True)
class Usage:
    """One row per process of the picture; int64 columns, in bytes.

    Attributes:
        rss, pss, uss, swap: as above.
        page_tables: VmPTE, -1 unknown.
        shared_with: how many other processes of the picture map a page that this one maps; the vDSO aside, as that is
            everybody's.
    """

    rss: I64
    pss: I64
    uss: I64
    swap: I64
    page_tables: I64
    shared_with: I64


@dataclass(frozen=True)
class ProcessUsage:
    """The same for one process; bytes.

    Attributes:
        page_tables: None if unknown.
        shared_with: None if that was not asked for.
    """

    pid: int
    comm: str
    rss: int
    pss: int
    uss: int
    swap: int
    page_tables: int | None
    shared_with: int | None


def by_process(snapshot: Snapshot, chosen: Bool) -> list[ProcessUsage]:
    """One row for each of the chosen processes (bool, by row of ``processes``), in order of pid."""
    table = usage(snapshot)
    processes = snapshot.processes
    return [
        ProcessUsage(
            int(processes.pid[row]),
            processes.comm[row],
            rss=int(table.rss[row]),
            pss=int(table.pss[row]),
            uss=int(table.uss[row]),
            swap=int(table.swap[row]),
            page_tables=int(table.page_tables[row]) if table.page_tables[row] >= 0 else None,
            shared_with=int(table.shared_with[row]),
        )
        for row in np.flatnonzero(chosen).tolist()
    ]


def usage(snapshot: Snapshot) -> Usage:
    """What each process has in memory."""
    ptes, vmas = snapshot.ptes, snapshot.vmas
    mapcount = snapshot.per_frame("mapcount").astype(np.int64)
    counted = counted_frames(snapshot)
    pss = np.where(counted, (PAGE_SIZE << _PSS_SHIFT) // np.maximum(mapcount, 1), 0)
    extent, first, behind = snapshot.mapped
    process = vmas.process[ptes.vma[extent]]

    def per_process(of_frame: I64) -> I64:
        return by_row(process, over_extents(of_frame, first, behind), len(snapshot.processes))

    swapped = np.flatnonzero(ptes.flags & f.PTE_SWAP)
    swap = by_row(vmas.process[ptes.vma[swapped]], ptes.count[swapped], len(snapshot.processes))
    return Usage(
        rss=per_process(counted.astype(np.int64)) << PAGE_SHIFT,
        pss=per_process(pss) >> _PSS_SHIFT,
        uss=per_process((counted & (mapcount == 1)).astype(np.int64)) << PAGE_SHIFT,
        swap=swap << PAGE_SHIFT,
        page_tables=snapshot.processes.page_table_bytes,
        shared_with=_shared_with(snapshot, counted & ~among(snapshot.per_frame("kind"), KINDS.untracked)),
    )


def counted_frames(snapshot: Snapshot) -> Bool:
    """Which frames count as memory of those who map them, by dense number."""
    kind, mapcount = snapshot.per_frame("kind"), snapshot.per_frame("mapcount")
    # A page of the kernel's own has a mapcount (the vDSO), or none (what remap_pfn_range maps).
    without = among(kind, KINDS.untracked) & (mapcount == 0)
    return among(kind, KINDS.counted) & ~without


def _shared_with(snapshot: Snapshot, counted: Bool) -> I64:
    # Pairs of processes are told apart one process at a time: all pairs of a large machine would not fit.
    sets = snapshot.mapper_sets
    used = np.bincount(sets.of_frame[counted], minlength=sets.nr_classes) > 0
    of_member = sets.of_member
    by_process = np.argsort(sets.members, kind="stable")
    bounds = np.searchsorted(sets.members[by_process], np.arange(len(snapshot.processes) + 1))
    others = np.zeros(len(snapshot.processes), np.int64)
    seen = np.zeros(len(snapshot.processes), np.bool_)
    for process in range(len(snapshot.processes)):
        classes = of_member[by_process[bounds[process] : bounds[process + 1]]]
        classes = classes[used[classes]]
        seen[:] = False
        sizes = sets.start[classes + 1] - sets.start[classes]
        seen[sets.members[expand(sets.start[classes], sizes)]] = True
        others[process] = max(0, int(seen.sum()) - 1)
    return others
