"""Snapshots drawn at random, each with the same facts one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import strategies as st

from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, RW, column

KINDS = (k.ANON, k.FILE, k.SHMEM, k.KSM, k.ZERO, k.HUGETLB)


@dataclass
class World:
    """A snapshot, and the same facts one by one.

    Attributes:
        snapshot: the snapshot.
        entries: (process, frame) of each entry.
        mapcount, kind: of each frame.
    """

    snapshot: Snapshot
    entries: list[tuple[int, int]]
    mapcount: dict[int, int]
    kind: dict[int, int]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to five processes, twelve frames and forty entries."""
    processes, frames = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    entries = draw(st.lists(st.tuples(st.integers(0, processes - 1), st.integers(0, frames - 1)), max_size=40))
    builder = SnapshotBuilder("model")
    for number in range(processes):
        builder.add_process(100 + number, ppid=99 + number, comm=f"p{number % 2}", uid=number % 3)
    kind = {frame: draw(st.sampled_from(KINDS)) for frame in range(frames)}
    found = Counter(frame for _, frame in entries)
    mapcount = {frame: found[frame] + draw(st.integers(0, 2)) for frame in range(frames)}
    for process in range(processes):
        mine = [frame for owner, frame in entries if owner == process]
        if mine:
            vma = builder.add_vma(process, HEAP, HEAP + len(mine) * PAGE, RW)
            builder.add_ptes(vma, column(*(HEAP + n * PAGE for n in range(len(mine)))), column(*mine), f.PTE_PRESENT)
    for frame in range(frames):
        builder.set_frames(column(frame), mapcount=mapcount[frame], kind=kind[frame])
    return World(builder.build(), entries, mapcount, kind)


def counted(world: World) -> set[int]:
    """The frames that are counted: neither the zero page nor hugetlb."""
    return {frame for frame, kind in world.kind.items() if kind not in (k.ZERO, k.HUGETLB)}
