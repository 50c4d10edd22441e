"""A snapshot made of the running kernel's structures alone is the one that /proc and structures give together."""

from __future__ import annotations

import numpy as np
import pytest

from rmap.live.bpf import open_memory
from rmap.live.capture.capture import capture
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.structs.snapshot import snapshot_of
from tests.support import PAGE
from tests.support.load import load
from tests.support.needs import need

pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm", "kernel_memory")]
UNKNOWN = f.PTE_FILE | f.PTE_SPECIAL
"""What structures alone do not tell of the kernel's own pages."""


def entries(snapshot: Snapshot, pids: list[int], ours: set[int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Frame and marks by pid and address; of what a reverse map leads to. Marks of counts: of ours."""
    ptes, by_place = snapshot.ptes, {}
    for vma, address, pfn, count, flags in zip(*(getattr(ptes, name).tolist() for name in vars(ptes))):
        pid = int(snapshot.processes.pid[snapshot.vmas.process[vma]])
        if pid in pids and not flags & f.PTE_SPECIAL:
            for i in range(count):
                frame = pfn + (i if flags & f.PTE_PRESENT else i * f.SWAP_STEP)
                marks = flags & ~UNKNOWN if frame in ours else flags & ~UNKNOWN & ~f.PTE_EXCLUSIVE
                by_place[pid, address + i * PAGE] = frame, marks
    return by_place


def test_structures_alone_say_what_proc_says() -> None:
    """Whatever else runs: pages that somebody else maps, too, are theirs to count."""
    with load(workers=8, pages=1500, vmas=600, seed=3) as up, open_memory() as memory:
        need(memory.why_no_ptes)
        alone, both = snapshot_of(memory), capture(up.pids, memory=memory)
    kind, mapcount = both.per_frame("kind"), both.per_frame("mapcount")
    steady = np.isin(kind, (k.ANON, k.FILE, k.SHMEM)) & (both.per_frame("raced") == 0)
    of_the_load = steady & (mapcount == both.reverse.found)
    ours = set(both.pfns()[of_the_load].tolist())
    assert entries(alone, up.pids, ours) == entries(both, up.pids, ours)
    for which, columns in ((of_the_load, ("mapcount",)), (steady, ("order", "head_offset", "index", "mapping"))):
        pfns = both.pfns()[which]
        assert len(pfns) > 1000
        rows = [snapshot.numbering.dense(pfns) for snapshot in (alone, both)]
        for column in columns:
            values = [snapshot.per_frame(column)[at] for snapshot, at in zip((alone, both), rows)]
            assert np.array_equal(*values), column
    hung = [
        snapshot.anon_vmas.address[snapshot.per_frame("anon_vma")[at][kind[rows[1]] == k.ANON]]
        for snapshot, at in zip((alone, both), rows)
    ]
    assert np.array_equal(*hung)
