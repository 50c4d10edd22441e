"""Random programs, recorded: the replay is equal at every picture but for what was done unseen, under every design."""

from __future__ import annotations

import random

import pytest

from rmap.errors import SyscallError
from rmap.kernel import Process
from rmap.lab.replay import player
from rmap.lab.replay import results as r
from rmap.lab.replay.player import TracePlayer
from rmap.mm.mm_types import START_BRK
from rmap.snapshot.rules.isomorphic import isomorphic
from rmap.units import PAGE_SIZE
from tests.lab.replay.recorded_model import RecordedModel

FILE, SEGMENT = "/lib/library.so", "/dev/shm/segment"
AREA_PAGES = 24
SEEDS = range(12)


def step(machine: RecordedModel, rng: random.Random, unseen: float) -> None:
    """One random call of a random process; some accesses are not seen."""
    process = rng.choice(list(machine.kernel.processes.values()))
    kind = rng.choice(("write", "write", "write", "read", "mmap", "munmap", "mprotect", "madvise", "mremap", "fork",
                       "exit", "brk", "file"))  # fmt: skip
    vmas = process.mm.vmas
    vma = rng.choice(vmas) if vmas else None
    if kind == "mmap" or vma is None:
        machine.mmap(process, rng.randint(1, AREA_PAGES), stack=rng.random() < 0.3, shared=rng.random() < 0.2)
        return
    first = rng.randrange(vma.pages)
    pages = rng.randint(1, min(6, vma.pages - first))
    addr = vma.start + first * PAGE_SIZE
    if kind in ("write", "read"):
        _touch(machine, process, addr, pages, kind == "write", rng.random() < unseen)
    elif kind == "munmap":
        machine.munmap(process, addr, pages)
    elif kind == "mprotect":
        machine.mprotect(process, addr, pages, rng.choice(("r", "rw", "rw", "")))
    elif kind == "madvise":
        machine.madvise(process, addr, pages, rng.choice(("dontneed", "dontfork", "dofork", "nohugepage", "mergeable")))
    elif kind == "mremap" and rng.random() < 0.7:
        machine.mremap(process, vma.start, vma.pages, rng.randint(1, 2 * AREA_PAGES))
    elif kind == "brk":
        machine.brk(process, START_BRK + rng.randrange(20) * PAGE_SIZE)
    elif kind == "file":
        shared = rng.random() < 0.5
        machine.mmap(process, rng.randint(1, 16), shared=shared, file=SEGMENT if shared else FILE)
    elif kind == "fork" and len(machine.kernel.processes) < 6:
        machine.fork(process, 101 + machine.kernel.costs.calls[4])
    elif kind == "exit" and len(machine.kernel.processes) > 2:
        machine.exit(process)


def _touch(machine: RecordedModel, process: Process, addr: int, pages: int, write: bool, unseen: bool) -> None:
    # Page by page, as faults come: what is refused ends it.
    for at in range(addr, addr + pages * PAGE_SIZE, PAGE_SIZE):
        try:
            if unseen:
                (process.write if write else process.read)(at)
            else:
                (machine.write if write else machine.read)(process, at)
        except SyscallError:
            return


def recorded(seed: int, unseen: float) -> RecordedModel:
    """Three hundred steps, a picture after every hundred."""
    rng = random.Random(seed)
    machine = RecordedModel(1 << 13)
    machine.first()
    machine.file(FILE, 128 * PAGE_SIZE)
    machine.file(SEGMENT, 128 * PAGE_SIZE, shmem=True)
    for number in range(300):
        try:
            step(machine, rng, unseen)
        except SyscallError:
            continue
        if number % 100 == 99:
            machine.checkpoint(end=number == 299)
    return machine


@pytest.mark.parametrize("seed", SEEDS)
def test_a_trace_without_unseen_actors_is_equal_in_everything(seed: int) -> None:
    machine = TracePlayer(recorded(seed, 0.0).build())
    answer = machine.play()
    machine.kernel.check()
    assert len(answer.checkpoints) == 3
    rows = [row for checkpoint in answer.checkpoints for row in checkpoint.agreements]
    assert [row for row in rows if not row.complete or row.excused] == []
    assert answer.verdict == r.EQUAL
    assert sum(row.total for row in rows) > 200
    assert {finding.what for finding in answer.findings} <= {"faults that end in a signal here"}


@pytest.mark.parametrize("seed", SEEDS)
def test_unseen_accesses_are_excused_and_put_right(seed: int) -> None:
    trace = recorded(seed, 0.3).build()
    machine = TracePlayer(trace)
    answer = machine.play()
    machine.kernel.check()
    assert isomorphic(machine.kernel.snapshot(), trace.moments[-1].snapshot, vma_flags=-1) is None
    causes = {cause for checkpoint in answer.checkpoints for cause in checkpoint.resynchronised}
    assert r.WRONG not in causes
    shares = [row for checkpoint in answer.checkpoints for row in checkpoint.agreements if row.what == r.SHARING]
    assert all(row.wrong == 0 for row in shares) and any(row.not_judged for row in shares)
    # Not all can be told apart: a chain that an unseen write began outlives its page, and keeps areas from merging.
    assert answer.verdict != r.EQUAL


@pytest.mark.parametrize("seed", SEEDS)
def test_every_design_plays_it(seed: int) -> None:
    machine = TracePlayer(recorded(seed, 0.3).build(), "pte_chain")
    machine.play()
    machine.kernel.check()


@pytest.mark.parametrize("design", ["anon_vma_chain", "pte_chain"])
@pytest.mark.parametrize("seed", SEEDS)
def test_runs_of_faults_are_worth_single_ones(seed: int, design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played one by one, the machine and its costs are the same."""
    trace = recorded(seed, 0.2).build()
    in_runs = TracePlayer(trace, design)
    in_runs.play()
    assert max(player.runs_of_faults(trace.events)) > 2
    monkeypatch.setattr(player, "runs_of_faults", lambda events: [1] * len(events))
    one_by_one = TracePlayer(trace, design)
    one_by_one.play()
    assert isomorphic(in_runs.kernel.snapshot(), one_by_one.kernel.snapshot(), vma_flags=-1) is None
    assert in_runs.kernel.costs.as_dict() == one_by_one.kernel.costs.as_dict()
