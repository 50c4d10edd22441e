"""The picture that ships with the package: large enough, small enough, sound, and silent about where it was taken."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rmap.snapshot import Snapshot, shipped
from rmap.snapshot import flags as f


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Snapshot.load(shipped())


def test_it_is_what_was_promised(snapshot: Snapshot) -> None:
    assert shipped().stat().st_size < 1 << 20
    assert len(snapshot.processes) >= 30
    assert snapshot.nr_mapped >= 100_000
    assert snapshot.about["source"] == "kernel"
    assert {"sh", "cat", "sleep"} <= set(snapshot.processes.comm)


def test_it_holds_a_forking_server_whose_workers_rewrote_part_of_their_heap(snapshot: Snapshot) -> None:
    parents = snapshot.parents()
    server = int(np.bincount(parents[parents >= 0]).argmax())
    workers = np.flatnonzero(parents == server)
    assert len(workers) >= 20
    heaps = [
        (snapshot.vmas.process == worker) & (snapshot.vmas.end - snapshot.vmas.start == 64 << 20) for worker in workers
    ]
    for heap in map(np.flatnonzero, heaps):
        assert len(heap) == 1
        entries = snapshot.ptes.take(np.flatnonzero(snapshot.ptes.vma == heap[0]))
        own = entries.count[(entries.flags & f.PTE_EXCLUSIVE) != 0].sum()
        assert entries.count.sum() == 16384
        assert 0.05 < own / 16384 < 0.5


def test_libraries_are_shared_by_dozens_of_processes(snapshot: Snapshot) -> None:
    libc = next(row for row, path in enumerate(snapshot.files.path) if path.endswith("/libc.so.6"))
    assert len(set(snapshot.vmas.process[snapshot.vmas.file == libc].tolist())) == len(snapshot.processes)
    assert snapshot.per_frame("mapcount")[snapshot.per_frame("file") == libc].max() >= 36


def test_it_is_sound(snapshot: Snapshot) -> None:
    checked = {line.invariant: line.checked for line in snapshot.check()}
    assert checked["I19"] >= 100_000
    special = snapshot.ptes.count[(snapshot.ptes.flags & f.PTE_SPECIAL) != 0]
    assert checked["8.2"] == snapshot.nr_ptes - int(special.sum())


def test_it_does_not_tell_where_it_was_taken(snapshot: Snapshot) -> None:
    assert snapshot.about["host"] == ""
    assert set(snapshot.processes.cgroup) == {"/"}
    for path in snapshot.files.path + snapshot.processes.exe + snapshot.vmas.label:
        assert re.fullmatch(r"(/(usr|lib|bin|etc)[^ ]*|/dev/zero \(deleted\)|\[[a-z_]+\]|[^/ ]*)", path), path
