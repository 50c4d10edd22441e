"""The recorded programs that ship: the model does what the running kernel did, in everything that is compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.mutants import MUTANTS, Mutant
from rmap import DESIGNS
from rmap.lab.replay import results as r
from rmap.lab.replay.player import Player
from rmap.lab.replay.run import replay
from rmap.lab.replay.shipped import SUMMARIES, shipped_traces
from rmap.snapshot import Snapshot
from rmap.trace import Picture, Trace
from rmap.trace import tables as t

MOST_BYTES = 400 << 10
KERNEL_CHOSEN = {r.FAULT_AROUND}
"""Which pages of files the kernel maps around a fault depends on its page cache; nothing else may differ."""
NAMES = list(SUMMARIES)


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    """Every shipped trace, loaded once."""
    return {name: Trace.load(path) for name, path in shipped_traces().items()}


def test_four_programs_ship_and_are_small() -> None:
    paths = shipped_traces()
    assert list(paths) == NAMES
    assert all(path.stat().st_size < MOST_BYTES for path in paths.values())


@pytest.mark.parametrize("name", NAMES)
def test_it_tells_nothing_about_the_machine(name: str, traces: dict[str, Trace]) -> None:
    trace = traces[name]
    assert trace.about["complete"] and not trace.about["lost"] and not trace.about["host"]
    for picture in trace.pictures:
        snapshot = picture.snapshot
        assert not snapshot.about["host"]
        assert not snapshot.anon_vmas.address.any()
        assert set(snapshot.processes.cgroup) == {"/"}
    paths = {path for table in (trace.files, *(p.snapshot.files for p in trace.pictures)) for path in table.path}
    assert all(path.startswith(("/usr/", "/lib", "/bin/", "/etc/", "/dev/")) or "/" not in path for path in paths)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_equals_the_recorded_kernel(name: str, traces: dict[str, Trace]) -> None:
    """Layout, sharing, mapcounts, exclusive and writable entries, chains, anon_vmas and anchors: all of all."""
    report = replay(traces[name])
    assert report.played.agrees and report.correctness.equal
    assert report.played.findings == ()
    assert report.played.checkpoints[-1].cause == "end"
    for checkpoint in report.played.checkpoints:
        rows = {row.what: row for row in checkpoint.agreements}
        assert list(rows) == list(r.UNITS)
        for what, row in rows.items():
            assert not row.excused, f"{what} at picture {checkpoint.number}: {row.excused}"
            if what not in (r.KINDS_OF_ENTRIES, r.FILE_MAPCOUNTS):
                assert row.complete and row.total, f"picture {checkpoint.number}: {row}"
            assert row.percent > 99, row
        assert set(checkpoint.resynchronised) <= KERNEL_CHOSEN
        assert not checkpoint.areas and not checkpoint.notes


@pytest.mark.parametrize("design", [name for name in DESIGNS if name != "anon_vma_chain"])
@pytest.mark.parametrize("name", NAMES)
def test_every_design_plays_it_and_finds_every_entry(name: str, design: str, traces: dict[str, Trace]) -> None:
    report = replay(traces[name], design=design)
    assert report.correctness.equal
    assert report.correctness.ptes_total > 400


def without_topology(trace: Trace) -> Trace:
    """The trace as it would be if BPF had not been there for the pictures."""
    pictures = []
    for picture in trace.pictures:
        snapshot = picture.snapshot
        vmas, frames = snapshot.vmas, snapshot.frames
        tables = dict(snapshot.tables)
        no_file = vmas.file < 0
        tables["vmas"] = replace(
            vmas, anon_vma=np.full_like(vmas.anon_vma, -1), pgoff=np.where(no_file, -1, vmas.pgoff)
        )
        anon = frames.kind == 0
        tables["frames"] = replace(
            frames, anon_vma=np.full_like(frames.anon_vma, -1), index=np.where(anon, -1, frames.index)
        )
        for name in ("anon_vmas", "anon_vma_chains"):
            tables[name] = snapshot.tables[name].take(np.zeros(0, np.int64))
        about = {**snapshot.about, "topology": "none", "anon_exclusive": False, "pte_write": False}
        pictures.append(Picture(Snapshot(tables, about), picture.cause, picture.pid))
    return Trace(trace.about, trace.events, trace.opens, trace.files, pictures)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_without_the_kernels_own_topology_do_too(name: str, traces: dict[str, Trace]) -> None:
    report = replay(without_topology(traces[name]))
    assert report.played.agrees and report.correctness.equal
    for checkpoint in report.played.checkpoints:
        assert [row.what for row in checkpoint.agreements] == list(r.UNITS)[:5]


def test_a_lost_copy_on_write_is_noticed(traces: dict[str, Trace]) -> None:
    """Without the faults of one worker, its copies are excused only because events are said to be lost."""
    trace = traces["prefork"]
    events = trace.events
    worker = int(events.a0[np.flatnonzero((events.kind == t.FORK) & (events.a3 == 0))[0]])
    kept = ~((events.kind == t.FAULT) & (events.pid == worker))
    silent = Trace(trace.about, events.take(kept), trace.opens, trace.files, trace.pictures)
    (first, _) = Player(silent).play().checkpoints
    rows = {row.what: row for row in first.agreements}
    assert rows[r.SHARING].excused[r.UNSEEN] > 500
    assert not rows[r.CHAINS].complete or not rows[r.ANCHORS].complete or not rows[r.KINDS_OF_ENTRIES].complete
    lossy = Trace({**trace.about, "lost": 1}, silent.events, trace.opens, trace.files, trace.pictures)
    (first, _) = Player(lossy).play().checkpoints
    assert r.LOST in {cause for row in first.agreements for cause in row.excused}


def test_an_mmap_that_is_not_played_is_noticed(traces: dict[str, Trace]) -> None:
    trace = traces["redis-save"]
    events = trace.events
    threads = np.flatnonzero((events.kind == t.SYSCALL) & (events.nr == 9) & (events.a3 & 0x20000 != 0))
    assert len(threads), "redis-server makes stacks for its threads"
    events_without = events.take(np.setdiff1d(np.arange(len(events)), threads[:1]))
    played = Player(Trace(trace.about, events_without, trace.opens, trace.files, trace.pictures)).play()
    assert not played.agrees
    (layout,) = (row for row in played.checkpoints[0].agreements if row.what == r.LAYOUT)
    assert not layout.complete and layout.first


NOTICED = {
    "root instead of active anon_vma": ("prefork", r.ANCHORS),
    "mapcount missed on COW": ("prefork", r.ANON_MAPCOUNTS),
    "reuse leaves the page on the ancestor": ("redis-save", r.ANCHORS),
    "still exclusive after fork": ("prefork", r.SHARING),
}
"""Bugs put back on purpose that real programs bring to light, where, and in what."""


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.name in NOTICED], ids=lambda m: m.name)
def test_a_bug_put_back_is_noticed(mutant: Mutant, traces: dict[str, Trace]) -> None:
    name, what = NOTICED[mutant.name]
    with mutant.breaks():
        checkpoints = Player(traces[name]).play().checkpoints
    assert not all(row.complete for c in checkpoints for row in c.agreements if row.what == what)
