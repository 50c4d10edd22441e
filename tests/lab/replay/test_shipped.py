"""The recorded programs that ship: the model does what the running kernel did, in everything that is compared."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from rmap import DESIGNS
from rmap.kernel import Kernel, Process
from rmap.lab.replay import results as r
from rmap.lab.replay.player import TracePlayer
from rmap.lab.replay.run import replay
from rmap.lab.replay.shipped import SUMMARIES, shipped_traces
from rmap.mm.fault import touch
from rmap.mm.frames import ANON
from rmap.mm.page_tables import spans
from rmap.mm.pte import PRESENT, TRACKED_MASK
from rmap.snapshot import Snapshot
from rmap.trace import Moment, Trace
from rmap.trace import tables as t
from rmap.uapi.vm_flags import VM_WRITE
from rmap.units import PAGE_SHIFT, PAGE_SIZE
from tests.model.mutants import MUTANTS, Mutant

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
    for moment in trace.moments:
        snapshot = moment.snapshot
        assert not snapshot.about["host"]
        assert not snapshot.anon_vmas.address.any()
        assert set(snapshot.processes.cgroup) == {"/"}
    paths = {path for table in (trace.files, *(p.snapshot.files for p in trace.moments)) for path in table.path}
    assert all(path.startswith(("/usr/", "/lib", "/bin/", "/etc/", "/dev/")) or "/" not in path for path in paths)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_equals_the_recorded_kernel(name: str, traces: dict[str, Trace]) -> None:
    """Layout, sharing, mapcounts, exclusive and writable entries, chains, anon_vmas and anchors: all of all."""
    report = replay(traces[name])
    assert report.played.verdict == r.EQUAL and report.correctness.equal
    assert report.played.findings == () and not report.played.not_compared and not report.played.after_last
    assert report.played.checkpoints[-1].cause == "end"
    for checkpoint in report.played.checkpoints:
        rows = {row.what: row for row in checkpoint.agreements}
        assert list(rows) == list(r.UNITS)
        for what, row in rows.items():
            if what in (r.KINDS_OF_ENTRIES, r.FILE_MAPCOUNTS):
                assert set(row.excused) <= KERNEL_CHOSEN and not row.wrong, row
                assert row.percent > 99 or not row.compared, row
            else:
                assert row.complete and row.compared and not row.excused, f"picture {checkpoint.number}: {row}"
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
    moments = []
    for moment in trace.moments:
        snapshot = moment.snapshot
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
        moments.append(Moment(Snapshot(tables, about), moment.cause, moment.pid))
    return Trace(trace.about, trace.events, trace.opens, trace.files, moments)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_without_the_kernels_own_topology_do_too(name: str, traces: dict[str, Trace]) -> None:
    report = replay(without_topology(traces[name]))
    assert report.played.agrees and report.correctness.equal
    assert report.played.verdict == r.AS_FAR_AS_JUDGED
    assert set(report.played.not_compared) == set(list(r.UNITS)[5:])
    for checkpoint in report.played.checkpoints:
        assert [row.what for row in checkpoint.agreements] == list(r.UNITS)[:5]


def without_faults(trace: Trace, kind: str, *, lost: int = 0) -> Trace:
    """The trace without faults of the forked workers: of one of them, of all, or all their writes to data."""
    events = trace.events
    workers = events.a0[(events.kind == t.FORK) & (events.a3 == 0)]
    gone = (events.kind == t.FAULT) & np.isin(events.pid, workers[:1] if kind == "one" else workers)
    if kind == "writes":
        gone &= (events.a1 & t.WRITE) != 0
    assert gone.sum() > 500
    about = {**trace.about, "lost": lost}
    return Trace(about, events.take(~gone), trace.opens, trace.files, trace.moments)


@pytest.mark.parametrize("kind", ["one", "all"])
def test_faults_that_are_not_played_are_noticed(kind: str, traces: dict[str, Trace]) -> None:
    """Whoever runs code has taken faults of his own: the copies of a silent worker are not somebody else's."""
    played = TracePlayer(without_faults(traces["prefork"], kind)).play()
    assert played.verdict == r.NO and not played.agrees
    assert played.totals[r.KINDS_OF_ENTRIES].wrong


def test_copies_that_nobody_saw_are_counted_and_not_called_equal(traces: dict[str, Trace]) -> None:
    """Writes alone could all be get_user_pages: then that is said, and of how many of how many entries."""
    trace = traces["prefork"]
    whole = TracePlayer(trace).play().totals
    played = TracePlayer(without_faults(trace, "writes")).play()
    sharing = played.totals[r.SHARING]
    assert played.verdict == r.AS_FAR_AS_JUDGED
    assert sharing.total >= whole[r.SHARING].total
    assert set(sharing.excused) == {r.UNSEEN} and sharing.not_judged > 5000
    assert sharing.equal + sharing.not_judged == sharing.total
    lossy = TracePlayer(without_faults(trace, "writes", lost=1)).play()
    assert lossy.verdict == r.AS_FAR_AS_JUDGED
    assert set(lossy.totals[r.SHARING].excused) == {r.LOST}


def test_an_mmap_that_is_not_played_is_noticed(traces: dict[str, Trace]) -> None:
    trace = traces["redis-save"]
    events = trace.events
    threads = np.flatnonzero((events.kind == t.SYSCALL) & (events.nr == 9) & (events.a3 & 0x20000 != 0))
    assert len(threads), "redis-server makes stacks for its threads"
    events_without = events.take(np.setdiff1d(np.arange(len(events)), threads[:1]))
    played = TracePlayer(Trace(trace.about, events_without, trace.opens, trace.files, trace.moments)).play()
    assert not played.agrees
    (layout,) = (row for row in played.checkpoints[0].agreements if row.what == r.LAYOUT)
    assert not layout.complete and layout.first


def eager_copy() -> contextlib.AbstractContextManager[Any]:
    """Fork copies every anonymous page at once: nothing is shared."""
    right = Kernel.fork

    def wrong(self: Kernel, parent: Process, **options: Any) -> Process:
        child = right(self, parent, **options)
        frames = self.core.frames
        for vma in [vma for vma in child.mm.vmas if vma.faulted and vma.flags & VM_WRITE]:
            for piece in list(spans(self.core.tables, child.mm, vma.start, vma.end)):
                offs = np.flatnonzero((piece.entries & TRACKED_MASK) == PRESENT)
                for off in offs[(frames.flags[piece.entries[offs] >> PAGE_SHIFT] & ANON) != 0].tolist():
                    touch(self.core, child.mm, piece.addr + (off << PAGE_SHIFT), PAGE_SIZE, True)
        return child

    return mock.patch.object(Kernel, "fork", wrong)


EAGER = Mutant("fork copies eagerly", ("anon_vma_chain",), eager_copy)
NOTICED = (
    ("root instead of active anon_vma", "prefork", r.ANCHORS),
    ("root instead of active anon_vma", "shell-pipeline", r.ANCHORS),
    ("mapcount missed on COW", "prefork", r.ANON_MAPCOUNTS),
    ("reuse leaves the page on the ancestor", "redis-save", r.ANCHORS),
    ("reuse leaves the page on the ancestor", "prefork", r.ANCHORS),
    ("still exclusive after fork", "prefork", r.SHARING),
    ("still exclusive after fork", "redis-save", r.EXCLUSIVE_PAGES),
    (EAGER.name, "prefork", r.SHARING),
    (EAGER.name, "redis-save", r.SHARING),
    (EAGER.name, "shell-pipeline", r.SHARING),
)
"""Bugs put back on purpose that real programs bring to light, where, and in what."""


@pytest.mark.parametrize(("bug", "name", "what"), NOTICED)
def test_a_bug_put_back_is_noticed(bug: str, name: str, what: str, traces: dict[str, Trace]) -> None:
    (mutant,) = (mutant for mutant in (*MUTANTS, EAGER) if mutant.name == bug)
    with mutant.breaks():
        played = TracePlayer(traces[name]).play()
    assert played.totals[what].wrong and played.verdict == r.NO
