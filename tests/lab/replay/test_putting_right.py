"""What no event shows is found, given its cause, not held against the model, and put right, under every design."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from rmap.lab.replay import results as r
from rmap.lab.replay.player import TracePlayer
from rmap.lab.replay.results import Checkpoint
from rmap.mm import fault, truncate
from rmap.mm.fault import touch
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.rules.isomorphic import isomorphic
from rmap.trace import tables as t
from rmap.units import PAGE_SIZE
from tests.lab.replay.recorded_model import NUMBER, RecordedModel

BOTH = ("anon_vma_chain", "pte_chain")


def checkpoints(machine: RecordedModel, design: str = "anon_vma_chain") -> tuple[Checkpoint, ...]:
    """Play; the machine is sound afterwards, and what was put right is equal to the picture."""
    trace = machine.build()
    player = TracePlayer(trace, design)
    answer = player.play()
    player.kernel.check()
    if design == "anon_vma_chain":
        assert isomorphic(player.kernel.snapshot(), trace.moments[-1].snapshot, vma_flags=-1) is None
    return answer.checkpoints


def agreement(checkpoint: Checkpoint, what: str) -> r.Agreement:
    """One row of a checkpoint."""
    (row,) = (row for row in checkpoint.agreements if row.what == what)
    return row


@pytest.mark.parametrize("design", BOTH)
def test_pages_written_by_the_kernel(design: str) -> None:
    """New ones, one in place of the zero page, one in place of a page of a file; then nothing is left to do."""
    machine = RecordedModel()
    process = machine.first()
    machine.file("/lib/library.so", 64 * PAGE_SIZE)
    area = machine.mmap(process, 16)
    data = machine.mmap(process, 8, file="/lib/library.so")
    machine.write(process, area, 2)
    machine.read(process, area + 5 * PAGE_SIZE)
    machine.read(process, data, 8)
    process.write(area + 5 * PAGE_SIZE, 3 * PAGE_SIZE)
    process.write(data + PAGE_SIZE)
    machine.checkpoint()
    machine.write(process, area + 10 * PAGE_SIZE)
    machine.checkpoint(end=True)
    first, last = checkpoints(machine, design)
    assert first.resynchronised == {r.UNSEEN: 4}
    assert first.agrees and agreement(first, r.SHARING).excused == {r.UNSEEN: 4}
    assert not agreement(first, r.KINDS_OF_ENTRIES).complete
    assert last.agrees and not last.resynchronised


@pytest.mark.parametrize("design", BOTH)
def test_a_shared_page_copied_by_the_kernel_and_one_that_a_fork_shared_unseen(design: str) -> None:
    machine = RecordedModel()
    parent = machine.first()
    area = machine.mmap(parent, 8)
    machine.write(parent, area, 4)
    parent.write(area + 5 * PAGE_SIZE, PAGE_SIZE)
    child = machine.fork(parent, 101)
    grandchild = machine.fork(child, 102)
    child.write(area, PAGE_SIZE)
    machine.write(grandchild, area + 2 * PAGE_SIZE)
    machine.checkpoint(end=True)
    (only,) = checkpoints(machine, design)
    # Page 0 of all three: the child's copy, and the two that keep the page; page 5 of all three, never seen.
    assert only.resynchronised == {r.UNSEEN: 6}
    assert only.agrees
    sharing = agreement(only, r.SHARING)
    assert (sharing.equal, sharing.total, sharing.wrong) == (9, 15, 0)


@pytest.mark.parametrize("design", BOTH)
def test_pages_swapped_out_and_pages_of_files_dropped(design: str) -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.file("/lib/library.so", 64 * PAGE_SIZE)
    area = machine.mmap(process, 8)
    text = machine.mmap(process, 16, prot="rx", file="/lib/library.so")
    machine.write(process, area, 8)
    machine.read(process, text, 16)
    child = machine.fork(process, 101)
    machine.read(child, text)
    machine.write(child, area)
    victims = [machine.kernel.pfn(process, area + i * PAGE_SIZE) for i in (1, 2, 3)]
    machine.kernel.reclaim([pfn for pfn in victims if pfn is not None])
    text_page = machine.kernel.pfn(process, text + 3 * PAGE_SIZE)
    assert text_page is not None
    machine.kernel.reclaim([text_page])
    machine.checkpoint()
    machine.write(process, area + PAGE_SIZE)
    machine.checkpoint(end=True)
    first, last = checkpoints(machine, design)
    assert first.resynchronised == {r.FAULT_AROUND: 2, r.RECLAIM: 6}
    # Who shares a slot shared the page.
    assert agreement(first, r.SHARING).complete and first.agrees
    assert agreement(first, r.KINDS_OF_ENTRIES).excused == {r.FAULT_AROUND: 2, r.RECLAIM: 6}
    assert last.agrees and not last.resynchronised


@pytest.mark.parametrize("design", BOTH)
def test_lazily_freed_pages_that_went(design: str) -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 8)
    machine.write(process, area, 8)
    machine.madvise(process, area, 4, "free")
    gone = machine.kernel.pfn(process, area)
    assert gone is not None
    machine.kernel.reclaim([gone])
    machine.checkpoint(end=True)
    (only,) = checkpoints(machine, design)
    assert only.resynchronised == {r.RECLAIM: 1} and only.agrees


def test_a_fault_that_the_model_did_not_take_is_held_against_it() -> None:
    """The same page, missing in the model: excused if no fault was seen, wrong if one was."""
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 4)
    machine.write(process, area, 2)
    machine.checkpoint()
    machine.madvise(process, area, 1, "dontneed")
    machine.write(process, area)
    machine.checkpoint(end=True)
    trace = machine.build()
    advice = np.flatnonzero(trace.events.nr == 28)
    faults = np.flatnonzero((trace.events.kind == 2) & (trace.events.a0 == area))
    trace.events.kind[[advice[0], faults[-1]]] = trace.events.kind[[faults[-1], advice[0]]]
    for name in ("nr", "a0", "a1", "a2"):
        column = getattr(trace.events, name)
        column[[advice[0], faults[-1]]] = column[[faults[-1], advice[0]]]
    answer = TracePlayer(trace).play()
    last = answer.checkpoints[-1]
    # Played the other way round, the page is dropped after it was written.
    assert last.resynchronised == {r.UNSEEN: 1}
    assert agreement(last, r.KINDS_OF_ENTRIES).equal == 1
    assert answer.verdict == r.AS_FAR_AS_JUDGED


@pytest.mark.parametrize("shared", [True, False])
def test_no_unseen_access_makes_processes_share_a_page(shared: bool) -> None:
    """It can separate what the model shares, and never the other way round."""
    machine = RecordedModel()
    parent = machine.first()
    area = machine.mmap(parent, 4)
    machine.write(parent, area, 4)
    child = machine.fork(parent, 101)
    if shared:  # the trace says that it wrote; the kernel knows nothing of it
        machine.made.fault(101, area, write=True)
    else:
        child.write(area)
    machine.checkpoint(end=True)
    answer = TracePlayer(machine.build()).play()
    (only,) = answer.checkpoints
    sharing = agreement(only, r.SHARING)
    if shared:
        assert only.resynchronised == {r.WRONG: 2} and sharing.wrong == 2 and answer.verdict == r.NO
        assert "mapped by 2 (processes 100, 101); in the model by 1" in sharing.first
    else:
        assert only.resynchronised == {r.UNSEEN: 2} and sharing.excused == {r.UNSEEN: 2}
        assert answer.verdict == r.AS_FAR_AS_JUDGED and sharing.total == 8


def test_a_separation_that_a_write_asked_for_is_not_unseen() -> None:
    """The child's fault was seen; a model that goes on sharing is wrong, whoever else may have written."""
    machine = RecordedModel()
    parent = machine.first()
    area = machine.mmap(parent, 4)
    machine.write(parent, area, 4)
    child = machine.fork(parent, 101)
    machine.write(child, area)
    machine.checkpoint(end=True)
    trace = machine.build()
    player = TracePlayer(trace)
    with mock.patch.object(fault, "touch", lambda core, mm, *rest: None if mm.parent else touch(core, mm, *rest)):
        answer = player.play()
    (only,) = answer.checkpoints
    assert only.resynchronised == {r.WRONG: 2} and answer.verdict == r.NO


@pytest.mark.parametrize("prot", ["r", "rx"])
def test_pages_of_files_are_mapped_ahead_near_a_fault_only(prot: str) -> None:
    """Far from any, somebody else read them; but nobody else runs a program's code."""
    machine = RecordedModel(actors=True)
    process = machine.first()
    machine.file("/lib/library.so", 64 * PAGE_SIZE)
    text = machine.mmap(process, 64, prot=prot, file="/lib/library.so")
    machine.write(process, machine.mmap(process, 2))
    machine.read(process, text)
    ahead = machine.kernel.pfn(process, text + PAGE_SIZE) or 0
    machine.kernel.reclaim([ahead])  # as if it had not been there to be mapped
    machine.checkpoint()
    process.read(text + 40 * PAGE_SIZE)
    machine.checkpoint(end=True)
    answer = TracePlayer(machine.build()).play()
    near, far = (agreement(checkpoint, r.KINDS_OF_ENTRIES) for checkpoint in answer.checkpoints)
    assert near.excused == {r.FAULT_AROUND: 1} and not near.not_judged and not near.wrong
    if prot == "r":
        assert far.excused == {r.UNSEEN: 16} and answer.verdict == r.AS_FAR_AS_JUDGED
    else:
        assert far.wrong == 16 and answer.verdict == r.NO


def test_an_entry_that_the_model_failed_to_zap_is_held_against_it() -> None:
    """The fault before a truncation excuses nothing after it."""
    machine = RecordedModel(actors=True)
    process = machine.first()
    opened = machine.file("/data", 16 * PAGE_SIZE)
    area = machine.mmap(process, 16, shared=True, file="/data")
    machine.write(process, area, 12)
    machine.write(process, machine.mmap(process, 2))
    opened.truncate(8 * PAGE_SIZE)
    machine.made.syscall(100, NUMBER["ftruncate"], 3, 8 * PAGE_SIZE, file=0)
    machine.checkpoint(end=True)
    with mock.patch.object(truncate, "unmap_mapping_range"):
        answer = TracePlayer(machine.build()).play()
    (only,) = answer.checkpoints
    assert only.resynchronised == {r.WRONG: 4} and answer.verdict == r.NO


@pytest.mark.parametrize(("watched", "told", "cause"), [(True, True, r.RECLAIM), (True, False, r.WRONG),
                                                        (False, False, r.RECLAIM)])  # fmt: skip
def test_reclaim_is_the_cause_only_if_it_was_at_work(watched: bool, told: bool, cause: str) -> None:
    """A page of a file went after its own fault: by reclaim, if that was seen or nobody looked."""
    machine = RecordedModel(actors=watched)
    process = machine.first()
    machine.file("/data", 16 * PAGE_SIZE)
    area = machine.mmap(process, 16, prot="r", file="/data")
    machine.read(process, area)
    machine.write(process, machine.mmap(process, 2))
    gone = machine.kernel.pfn(process, area)
    assert gone is not None
    machine.kernel.reclaim([gone])
    if told:
        machine.made.event(t.GONE_ON, -1, t.RECLAIM, 1)
    machine.checkpoint(end=True)
    assert TracePlayer(machine.build()).play().checkpoints[0].resynchronised == {cause: 1}


def test_a_file_is_not_shared_memory() -> None:
    """One kind of page for another is nobody's choice."""
    machine = RecordedModel()
    process = machine.first()
    machine.file("/data", 16 * PAGE_SIZE)
    machine.read(process, machine.mmap(process, 16, prot="r", file="/data"))
    machine.write(process, machine.mmap(process, 2))
    machine.checkpoint(end=True)
    trace = machine.build()
    frames = trace.moments[-1].snapshot.frames
    frames.kind[frames.kind == k.FILE] = k.SHMEM
    answer = TracePlayer(trace).play()
    assert agreement(answer.checkpoints[0], r.KINDS_OF_ENTRIES).wrong == 16 and answer.verdict == r.NO


def test_a_copy_that_the_model_missed_is_held_against_it() -> None:
    machine = RecordedModel()
    parent = machine.first()
    area = machine.mmap(parent, 4)
    machine.write(parent, area, 4)
    child = machine.fork(parent, 101)
    machine.write(child, area, 2)
    machine.checkpoint(end=True)
    trace = machine.build()
    # The first of the child's faults comes before the fork, from its parent: seen, but without effect.
    fault = int(np.flatnonzero((trace.events.pid == 101) & (trace.events.kind == 2))[0])
    trace.events.pid[fault] = 100
    player = TracePlayer(trace)
    answer = player.play()
    (only,) = answer.checkpoints
    sharing = agreement(only, r.SHARING)
    # The model separated the page by the parent's write: the two sides have the same shape, if not the same history.
    assert sharing.complete
    anchors = agreement(only, r.ANCHORS)
    assert not anchors.complete and "anon_vma" in anchors.first


def test_areas_that_came_and_went_unseen_are_put_right() -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.file("/lib/library.so", 64 * PAGE_SIZE)
    area = machine.mmap(process, 16)
    text = machine.mmap(process, 16, prot="rx", file="/lib/library.so")
    machine.write(process, area, 16)
    machine.read(process, text, 8)
    process.munmap(area + 4 * PAGE_SIZE, 4 * PAGE_SIZE)
    process.mprotect(text + 4 * PAGE_SIZE, 4 * PAGE_SIZE, "r")
    other = process.mmap(4 * PAGE_SIZE, stack=True)
    process.write(other, PAGE_SIZE)
    machine.checkpoint()
    machine.checkpoint(end=True)
    first, last = checkpoints(machine)
    assert not first.agrees and first.areas >= 2
    layout = agreement(first, r.LAYOUT)
    assert layout.equal < layout.total and layout.first
    assert last.agrees and not last.resynchronised and not last.areas
    for design in BOTH:
        assert checkpoints(machine, design)[-1].areas == 0


def test_lost_events_are_a_cause_of_their_own() -> None:
    machine = RecordedModel(lost=3, complete=True)
    process = machine.first()
    area = machine.mmap(process, 4)
    process.write(area, PAGE_SIZE)
    machine.checkpoint(end=True)
    (only,) = checkpoints(machine)
    assert only.resynchronised == {r.LOST: 1}


@pytest.mark.parametrize("design", BOTH)
def test_pages_merged_by_ksm_are_left_as_they_are(design: str) -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 4)
    machine.madvise(process, area, 4, "mergeable")
    machine.write(process, area, 4)
    machine.checkpoint()
    machine.write(process, area)
    machine.checkpoint(end=True)
    trace = machine.build()
    frames = trace.moments[1].snapshot.frames
    merged = np.flatnonzero(frames.kind == k.ANON)[:2]
    frames.kind[merged], frames.mapping[merged], frames.anon_vma[merged] = k.KSM, f.MAPPING_KSM, -1
    player = TracePlayer(trace, design)
    first, last = player.play().checkpoints
    player.kernel.check()
    pages = int(frames.count[merged].sum())
    assert first.resynchronised == {r.FOREIGN: pages} and pages
    assert agreement(first, r.SHARING).excused == {r.FOREIGN: pages} and first.agrees
    assert last.agrees and not last.resynchronised
