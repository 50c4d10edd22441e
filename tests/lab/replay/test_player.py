"""Each kind of event does to the model what it did to the machine that was recorded."""

from __future__ import annotations

import pytest

from rmap.lab.replay import calls
from rmap.lab.replay import results as r
from rmap.lab.replay.player import TracePlayer
from rmap.lab.replay.results import TracePlayed
from rmap.mm.mm_types import START_BRK
from rmap.uapi.vm_flags import VM_NOHUGEPAGE
from rmap.units import PAGE_SIZE
from tests.lab.replay.recorded_model import NUMBER, RecordedModel

BOTH = ("anon_vma_chain", "pte_chain")


def played(machine: RecordedModel, design: str = "anon_vma_chain") -> tuple[TracePlayed, TracePlayer]:
    """Play what was recorded, and check the machine that came out."""
    player = TracePlayer(machine.build(), design)
    answer = player.play()
    player.kernel.check()
    return answer, player


def assert_equal(machine: RecordedModel) -> None:
    """The model did the same, in everything that is compared, and nothing had to be put right."""
    answer, _ = played(machine)
    assert [row for c in answer.checkpoints for row in c.agreements if not row.complete or row.excused] == []
    assert answer.agrees
    assert all(not c.resynchronised and not c.areas and not c.notes for c in answer.checkpoints)
    assert answer.findings == ()
    assert len(answer.checkpoints[-1].agreements) == 10


def test_anonymous_memory_over_fork_and_exit() -> None:
    machine = RecordedModel()
    parent = machine.first()
    area = machine.mmap(parent, 32)
    machine.write(parent, area, 20)
    machine.read(parent, area + 25 * PAGE_SIZE, 2)
    child = machine.fork(parent, 101)
    machine.write(child, area, 3)
    machine.write(parent, area + 2 * PAGE_SIZE, 3)
    machine.checkpoint()
    grandchild = machine.fork(child, 102)
    machine.exit(child)
    machine.write(grandchild, area, 2)
    machine.write(parent, area + 10 * PAGE_SIZE, 5)
    machine.checkpoint(end=True)
    assert_equal(machine)


def test_files_private_shared_and_moved() -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.file("/lib/library.so", 64 * PAGE_SIZE)
    machine.file("/dev/shm/segment", 16 * PAGE_SIZE, shmem=True)
    text = machine.mmap(process, 32, prot="rx", file="/lib/library.so")
    data = machine.mmap(process, 8, file="/lib/library.so", offset=32 * PAGE_SIZE)
    shared = machine.mmap(process, 16, shared=True, file="/dev/shm/segment")
    nameless = machine.mmap(process, 8, shared=True)
    machine.read(process, text, 20)
    machine.write(process, data, 3)
    machine.write(process, shared, 4)
    machine.write(process, nameless, 4)
    child = machine.fork(process, 101)
    machine.read(child, text, 4)
    machine.write(child, data + PAGE_SIZE, 3)
    machine.write(child, nameless, 6)
    machine.mremap(child, data, 8, 20)
    machine.mprotect(child, text, 4, "r")
    machine.checkpoint(end=True)
    assert_equal(machine)


def test_vfork_shares_until_exec() -> None:
    machine = RecordedModel()
    parent = machine.first()
    area = machine.mmap(parent, 8)
    machine.write(parent, area, 4)
    child = machine.vfork(parent, 101)
    machine.write(child, area + 4 * PAGE_SIZE, 2)
    machine.checkpoint()
    machine.exec(child)
    machine.write(child, machine.mmap(child, 4), 2)
    machine.write(parent, area, 8)
    machine.checkpoint(end=True)
    assert_equal(machine)


def test_a_thread_is_no_process() -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.made.fork(100, 100, flags=0x10100, tid=107, thread=True)
    area = machine.mmap(process, 8, stack=True)
    machine.write(process, area, 2)
    machine.checkpoint(end=True)
    assert_equal(machine)
    assert played(machine)[0].processes == 1


def test_the_heap_begins_where_its_first_question_says() -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.brk(process, START_BRK + 10 * PAGE_SIZE)
    machine.write(process, START_BRK, 5)
    child = machine.fork(process, 101)
    machine.brk(child, START_BRK + 20 * PAGE_SIZE)
    machine.write(child, START_BRK, 20)
    machine.brk(process, START_BRK + 3 * PAGE_SIZE)
    machine.checkpoint(end=True)
    assert_equal(machine)


def test_a_stack_grows_by_its_faults() -> None:
    machine = RecordedModel()
    process = machine.first()
    top = process.mmap(4 * PAGE_SIZE, growsdown=True)
    flags = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS | calls.MAP_GROWSDOWN
    machine.made.syscall(100, NUMBER["mmap"], 0, 4 * PAGE_SIZE, 3, flags, -1, 0, result=top)
    machine.write(process, top - 3 * PAGE_SIZE, 1)
    machine.checkpoint(end=True)
    assert_equal(machine)


@pytest.mark.parametrize("advice", sorted({*calls.ADVICE.values()} - {"collapse", "hwpoison", "soft_offline"}))
def test_every_advice(advice: str) -> None:
    """Also over a hole, where Linux does the rest and refuses all the same."""
    machine = RecordedModel()
    process = machine.first()
    machine.file("/data", 16 * PAGE_SIZE)
    area = machine.mmap(process, 16)
    machine.mmap(process, 8, file="/data", addr=area - 8 * PAGE_SIZE)
    machine.write(process, area - 8 * PAGE_SIZE, 20)
    machine.munmap(process, area + 6 * PAGE_SIZE, 1)
    if not advice.startswith(("guard", "pageout", "free")):
        machine.madvise(process, area - 4 * PAGE_SIZE, 16, advice)
    else:
        machine.madvise(process, area + 8 * PAGE_SIZE, 2, advice)
    machine.write(process, area, 6)
    machine.checkpoint(end=True)
    answer, _ = played(machine)
    if advice.startswith("guard"):
        assert [finding.what for finding in answer.findings] == [f"call not modelled: madvise of {advice}"]
    else:
        assert answer.findings == ()
        assert answer.agrees
        assert all(row.complete for row in answer.checkpoints[-1].agreements)


def test_locking_everything() -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 4)
    process.mlockall(current=True, future=True)
    machine.made.syscall(100, NUMBER["mlockall"], calls.MCL_CURRENT | calls.MCL_FUTURE)
    machine.mmap(process, 4)
    machine.brk(process, START_BRK + 3 * PAGE_SIZE)
    child = machine.fork(process, 101)
    machine.mmap(child, 4)
    process.munlock(area, PAGE_SIZE)
    machine.made.syscall(100, NUMBER["munlock"], area, PAGE_SIZE)
    machine.checkpoint()
    process.munlockall()
    machine.made.syscall(100, NUMBER["munlockall"])
    machine.mmap(process, 4)
    machine.checkpoint(end=True)
    assert_equal(machine)


def test_a_refused_call_changes_nothing_but_mprotect_up_to_the_hole() -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 8)
    machine.write(process, area, 8)
    machine.munmap(process, area + 4 * PAGE_SIZE, 1)
    machine.mprotect(process, area + 2 * PAGE_SIZE, 6, "r")
    machine.made.syscall(100, NUMBER["munmap"], area + 1, PAGE_SIZE, result=-22)
    machine.made.syscall(100, NUMBER["mmap"], 0, 1 << 60, 3, 0x22, -1, 0, result=-12)
    machine.checkpoint(end=True)
    assert_equal(machine)
    assert played(machine)[0].refused == 2


def test_files_that_shrink_grow_and_are_opened_anew() -> None:
    machine = RecordedModel()
    process = machine.first()
    opened = machine.file("/data", 16 * PAGE_SIZE)
    area = machine.mmap(process, 16, shared=True, file="/data")
    machine.write(process, area, 12)
    opened.truncate(8 * PAGE_SIZE)
    machine.made.syscall(100, NUMBER["ftruncate"], 3, 8 * PAGE_SIZE, file=0)
    machine.checkpoint()
    opened.truncate(0)
    machine.made.syscall(100, NUMBER["openat"], 0, 0, 0o1002, 0, 0, 0, result=4, file=0)
    machine.checkpoint(end=True)
    assert_equal(machine)


def test_a_segment_is_attached_and_detached() -> None:
    machine = RecordedModel()
    process = machine.first()
    opened = machine.file("/SYSV00000000", 8 * PAGE_SIZE, shmem=True)
    at = process.mmap(8 * PAGE_SIZE, "rw", "shared", opened)
    machine.made.syscall(100, NUMBER["shmat"], 7, 0, 0, result=at, file=0)
    machine.write(process, at, 3)
    machine.checkpoint()
    process.munmap(at, 8 * PAGE_SIZE)
    machine.made.syscall(100, NUMBER["shmdt"], at)
    machine.checkpoint(end=True)
    assert_equal(machine)


@pytest.mark.parametrize("design", BOTH)
def test_unknown_calls_are_counted_by_name_and_put_right(design: str) -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 8)
    machine.write(process, area, 8)
    process.mremap(area, 8 * PAGE_SIZE, 8 * PAGE_SIZE, addr=area - (1 << 30))  # the effect of a call nobody knows
    machine.made.syscall(100, NUMBER["userfaultfd"], 0)
    machine.checkpoint()
    machine.checkpoint(end=True)
    answer, _ = played(machine, design)
    assert [(finding.what, finding.count, finding.meaning) for finding in answer.findings] == [
        ("call not modelled: userfaultfd", 1, r.NOT_JUDGED)
    ]
    first, last = answer.checkpoints
    assert first.resynchronised == {r.UNMODELLED: 8} and first.areas == 2
    assert first.agreements[0].excused == {r.UNMODELLED: 2} and first.agreements[0].wrong == 0
    assert last.agrees and not last.resynchronised
    assert answer.verdict == r.AS_FAR_AS_JUDGED


PR_SET_VMA_ANON_NAME = (calls.PR_SET_VMA, 0)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["mbind", "remap_file_pages", "prctl", "madvise"])
def test_an_unknown_call_about_a_range_excuses_that_range(name: str, inside: bool) -> None:
    """What differs elsewhere in the same process is held against the model."""
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 8)
    other = machine.mmap(process, 8, stack=True)
    machine.write(process, area, 8)
    machine.write(process, other, 8)
    process.madvise(other + PAGE_SIZE, PAGE_SIZE, "dontneed")  # who knows by whom
    where = other if inside else area
    before = PR_SET_VMA_ANON_NAME if name == "prctl" else ()
    machine.made.syscall(100, NUMBER[name], *before, where, 8 * PAGE_SIZE, 102 if name == "madvise" else 0)
    machine.checkpoint(end=True)
    answer, _ = played(machine)
    (only,) = answer.checkpoints
    assert only.resynchronised == ({r.UNMODELLED: 1} if inside else {r.WRONG: 1})
    assert answer.verdict == (r.AS_FAR_AS_JUDGED if inside else r.NO)


def test_a_call_that_writes_the_memory_of_another_excuses_nobody() -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 4)
    machine.write(process, area, 4)
    process.madvise(area, PAGE_SIZE, "dontneed")
    machine.made.syscall(100, NUMBER["process_vm_writev"], 999, area, 1, area, 1)
    machine.made.syscall(100, NUMBER["process_madvise"], 5, area, 1, 20)
    machine.checkpoint(end=True)
    answer, _ = played(machine)
    assert [(f.what, f.meaning) for f in answer.findings] == [
        ("call not modelled: process_vm_writev", r.NOTED),
        ("call not modelled: process_madvise of cold", r.NOTED),
    ]
    assert answer.checkpoints[0].resynchronised == {r.WRONG: 1} and answer.verdict == r.NO


@pytest.mark.parametrize("finished", [False, True])
def test_a_fault_that_a_picture_interrupted_counts_once_where_it_was_finished(finished: bool) -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 4)
    machine.write(process, area, 2)
    machine.made.fault(100, area + 2 * PAGE_SIZE, write=True)
    if finished:
        process.write(area + 2 * PAGE_SIZE)
    machine.checkpoint()
    machine.write(process, area + (3 if finished else 2) * PAGE_SIZE)
    machine.checkpoint(end=True)
    assert_equal(machine)


def test_nothing_is_equal_to_nothing() -> None:
    """Pictures without memory, or none at all, prove nothing."""
    machine = RecordedModel()
    machine.first()
    machine.checkpoint(end=True)
    answer, _ = played(machine)
    assert not answer.agrees and answer.verdict == r.NO
    assert all(not row.compared and row.percent == 0 for row in answer.totals.values())


def test_what_came_after_the_last_picture_was_not_compared() -> None:
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 4)
    machine.write(process, area, 2)
    machine.checkpoint()
    assert played(machine)[0].verdict == r.EQUAL
    machine.write(process, area + 2 * PAGE_SIZE)
    machine.exit(process)
    answer, _ = played(machine)
    assert answer.after_last == 1 and answer.verdict == r.AS_FAR_AS_JUDGED


def test_what_the_trace_does_not_introduce_is_counted() -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.made.fault(999, 0x1000, write=True)
    machine.made.syscall(998, NUMBER["munmap"], 0x1000, 0x1000)
    machine.made.fault(100, 0x5000)
    machine.made.fault(100, -0x1000)
    area = machine.mmap(process, 2)
    machine.made.syscall(100, NUMBER["mmap"], 0, PAGE_SIZE, 3, 0x22, -1, 0, result=area)
    machine.checkpoint(end=True)
    answer, _ = played(machine)
    assert {finding.what: finding.count for finding in answer.findings} == {
        "events of a process that the trace does not introduce": 2,
        "faults that end in a signal here": 1,
        "faults outside the address space of programs": 1,
        "mmap: the model has areas where the kernel had none": 1,
    }
    assert "0x5000" in next(f.first for f in answer.findings if f.what.startswith("faults that end"))


def test_an_answer_that_differs_is_a_finding() -> None:
    machine = RecordedModel()
    process = machine.first()
    machine.mmap(process, 2)
    machine.made.syscall(100, NUMBER["mprotect"], 0x1000, PAGE_SIZE, 1)
    machine.checkpoint(end=True)
    answer, _ = played(machine)
    (finding,) = answer.findings
    assert finding.what == "mprotect: said ENOMEM, the kernel did it" and "0x1000" in finding.first
    assert finding.meaning == r.DIFFERS and answer.verdict == r.NO and not answer.agrees


def test_one_flag_decides_whether_areas_merge() -> None:
    """MAP_STACK is VM_NOHUGEPAGE: a replay that loses it has one area where the kernel has two."""
    machine = RecordedModel()
    process = machine.first()
    area = machine.mmap(process, 4)
    machine.mmap(process, 4, addr=area - 4 * PAGE_SIZE, stack=True)
    machine.checkpoint(end=True)
    assert_equal(machine)
    trace = machine.build()
    flags = trace.events.a3
    flags[(trace.events.nr == NUMBER["mmap"]) & (flags & calls.MAP_STACK != 0)] &= ~calls.MAP_STACK
    answer = TracePlayer(trace).play()
    assert not answer.agrees
    (layout,) = (row for row in answer.checkpoints[-1].agreements if row.what == r.LAYOUT)
    assert (layout.equal, layout.total) == (0, 2)
    assert hex(VM_NOHUGEPAGE)[2] in layout.first or "end" in layout.first
