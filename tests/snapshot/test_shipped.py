"""The picture that ships with the package: large enough, small enough, sound, and silent about where it was taken."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rmap.snapshot import Snapshot, shipped
from rmap.snapshot import flags as f


@pytest.fixture(scope="module")
def picture() -> Snapshot:
    return Snapshot.load(shipped())


def test_it_is_what_was_promised(picture: Snapshot) -> None:
    assert shipped().stat().st_size < 1 << 20
    assert len(picture.processes) >= 30
    assert picture.nr_mapped >= 100_000
    assert picture.about["source"] == "kernel"
    assert {"sh", "cat", "sleep"} <= set(picture.processes.comm)


def test_it_holds_a_forking_server_whose_workers_rewrote_part_of_their_heap(picture: Snapshot) -> None:
    parents = picture.parents()
    server = int(np.bincount(parents[parents >= 0]).argmax())
    workers = np.flatnonzero(parents == server)
    assert len(workers) >= 20
    heaps = [
        (picture.vmas.process == worker) & (picture.vmas.end - picture.vmas.start == 64 << 20) for worker in workers
    ]
    for heap in map(np.flatnonzero, heaps):
        assert len(heap) == 1
        entries = picture.ptes.take(np.flatnonzero(picture.ptes.vma == heap[0]))
        own = entries.count[(entries.flags & f.PTE_EXCLUSIVE) != 0].sum()
        assert entries.count.sum() == 16384
        assert 0.05 < own / 16384 < 0.5


def test_libraries_are_shared_by_dozens_of_processes(picture: Snapshot) -> None:
    libc = next(row for row, path in enumerate(picture.files.path) if path.endswith("/libc.so.6"))
    assert len(set(picture.vmas.process[picture.vmas.file == libc].tolist())) == len(picture.processes)
    assert picture.per_frame("mapcount")[picture.per_frame("file") == libc].max() >= 36


def test_it_is_sound(picture: Snapshot) -> None:
    checked = {line.invariant: line.checked for line in picture.check()}
    assert checked["I19"] >= 100_000
    assert checked["8.2"] == picture.nr_ptes - int(picture.ptes.count[(picture.ptes.flags & f.PTE_SPECIAL) != 0].sum())


def test_it_does_not_tell_where_it_was_taken(picture: Snapshot) -> None:
    assert picture.about["host"] == ""
    assert set(picture.processes.cgroup) == {"/"}
    for path in picture.files.path + picture.processes.exe + picture.vmas.label:
        assert re.fullmatch(r"(/(usr|lib|bin|etc)[^ ]*|/dev/zero \(deleted\)|\[[a-z_]+\]|[^/ ]*)", path), path
