"""``rmap check`` on the running kernel: a load of every shape breaks no invariant; races are told from violations."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmap.cli import main
from rmap.live.bpf import BpfMemory
from rmap.live.capture.capture import capture
from rmap.live.soundness import check_machine
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.rules import anon_vmas as pure
from rmap.structs import check as module
from rmap.structs.page import NODE_COLUMNS
from rmap.structs.trees import Trees
from tests.support import load as load_module
from tests.support.load import CLOSED_PAGES, EVERY_CHILD, LINES, Load, load
from tests.support.proc import runs
from tests.support.waiting import until

pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm", "kernel_memory")]
NUMBERS = {f"I{n}" for n in range(1, 23)} - {"I18"} | {"8.2", "8.3"}


@pytest.fixture(scope="module")
def still() -> Iterator[Load]:
    with load(workers=16, pages=3000, vmas=2400, seed=3) as up:
        yield up


def test_nothing_is_broken_under_a_load(still: Load, memory: BpfMemory) -> None:
    found = check_machine(memory)
    assert found.report.violations == []
    # Nor is anything left open of what holds still, whatever others do meanwhile.
    assert [violation for violation in found.unsettled if {*violation.pids} & {*still.pids}] == []
    assert found.untold == 0 and not found.too_much_moved
    lines: dict[str, int] = {}
    for row in found.report.checked:
        assert row.violations == 0
        lines[row.invariant] = max(lines.get(row.invariant, 0), row.checked)
    assert set(lines) == NUMBERS
    assert lines["I1"] > 2400 and lines["I6"] > 100 and lines["I12"] > 2000 and lines["I22"] > 500
    assert lines["I13"] > 10_000 and lines["I14"] > 10_000 and lines["I19"] > 3000
    assert {row.invariant for row in found.report.checked if row.reason} <= {"I16", "I17"}
    assert found.facts["vmas"] > 2400 and found.facts["anon_pages"] > 3000
    notes = " ".join(row.note for row in found.report.checked)
    assert "than are read" not in notes and "than is read" not in notes


def test_what_holds_still_is_no_race(still: Load, memory: BpfMemory) -> None:
    """All of it is asked about: closed areas too, and pages of large folios. Files are mapped by others as well."""
    snapshot = capture(still.pids, memory=memory)
    kind = snapshot.per_frame("kind")
    here = (snapshot.reverse.found > 0) & (np.isin(kind, (k.ANON, k.SHMEM)))
    assert here.sum() > 5000 and not snapshot.per_frame("raced")[here].any()
    before = len(snapshot.pfns())
    assert check_machine(memory).facts["raced"] < before, "and elsewhere it is not all"
    closed = [row for row in range(len(snapshot.vmas)) if not snapshot.vmas.flags[row] & 7]
    held = np.isin(snapshot.ptes.vma, closed) & (snapshot.ptes.flags & f.PTE_PRESENT != 0)
    assert snapshot.ptes.count[held].sum() >= CLOSED_PAGES * 16
    for line in snapshot.check():
        assert "chain was recorded" not in line.note


def test_the_load_has_the_shapes_it_promises(still: Load, memory: BpfMemory) -> None:
    """The reuse of 2.7 (an active anon_vma that is not the first of its chain), two areas of one index (2.14), ..."""
    kinds = list(still.kinds.values())
    assert kinds.count("line") == kinds.count("last") == LINES
    assert kinds.count("grandchild") == -(-kinds.count("worker") // EVERY_CHILD)
    topology = memory.topology(still.pids)
    vmas, links = topology.vmas, topology.links
    first = links.anon_vma[np.searchsorted(links.vma, np.arange(len(vmas)))[vmas.anon_vma >= 0]]
    reused = np.isin(vmas.pid[vmas.anon_vma >= 0][first != vmas.anon_vma[vmas.anon_vma >= 0]],
                     [pid for pid, kind in still.kinds.items() if kind == "last"])  # fmt: skip
    assert reused.any(), "a fork took up an old anon_vma"
    assert set(np.unique(vmas.pid).tolist()) == set(still.pids)
    deepest = np.bincount(links.vma).max()
    assert deepest >= 3
    anonymous = vmas.mapping == 0
    keys = vmas.mm[anonymous] * 7 + vmas.pgoff[anonymous]
    assert len(np.unique(keys)) < len(keys), "two areas of one process begin at the same index"
    at_offsets = {(m, p) for m, p in zip(vmas.mapping.tolist(), vmas.pgoff.tolist()) if m}
    assert len(at_offsets) > 60, "files are mapped at many offsets"


def test_the_same_seed_gives_the_same_shapes() -> None:
    def shape(seed: int) -> list[str]:
        with load(workers=3, pages=300, vmas=10, seed=seed) as up:
            found = []
            for pid in [pid for pid in up.pids if up.kinds.get(pid) == "worker"]:
                maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
                found += [re.sub(r"^\S+ (\S+ \S+).*$", r"\1", line) for line in maps if "memfd" in line or "#" in line]
            return sorted(found)  # where they lie is the kernel's choice

    assert shape(5) == shape(5) != shape(6)


def test_a_load_that_never_holds_still_breaks_nothing(memory: BpfMemory) -> None:
    with load(workers=4, pages=200, vmas=10, seed=9, busy=3):
        for _ in range(4):
            assert check_machine(memory).report.violations == []


def test_the_load_goes_away_with_whoever_made_it() -> None:
    script = "import load, sys\nwith load.load(workers=4) as up:\n print(*up.pids, flush=True)\n sys.stdin.read()"
    folder = str(Path(load_module.__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        pids = [int(word) for word in maker.stdout.readline().split()]
        assert len(pids) == 1 + 4 + 1 + 2 * LINES
        maker.send_signal(signal.SIGKILL)
    until(lambda: not any(runs(pid) for pid in pids))


def _misreading(monkeypatch: pytest.MonkeyPatch, pid: int, *, times: int, steps: int = 0) -> None:
    """A counter is misread: on purpose, each time or once."""
    original, calls = module._columns, [0]

    def columns(topology: Any, *rest: Any) -> pure.CheckedTopology:
        read = original(topology, *rest)
        calls[0] += 1
        if calls[0] > times:
            return read
        mine = np.flatnonzero((read.pid == pid) & (read.active >= 0)).tolist()
        row = int(read.active[min(mine, key=read.vma_where)])  # the interpreter's own data
        counter = read.num_active_vmas.copy()
        counter[row] += 1 + calls[0] * steps
        return replace(read, num_active_vmas=counter, outside=read.outside & False)

    monkeypatch.setattr(module, "_columns", columns)


def test_a_vma_missing_from_a_tree_is_a_violation_and_so_are_its_pages(
    still: Load, memory: BpfMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node is left out of each reading: the tree lacks the VMA (I12), and a walk misses its entries (I19)."""
    original = module.read_trees
    vmas = memory.topology([still.server]).vmas
    victim = int(vmas.address[(vmas.start <= still.heap) & (vmas.end > still.heap)][0])

    def read(memory: BpfMemory, anchors: Any, *, of_anon_vmas: bool) -> Trees:
        trees = original(memory, anchors, of_anon_vmas=of_anon_vmas)
        kept = trees.vma != victim
        nodes = {name: getattr(trees, name)[kept] for name in ("tree", *NODE_COLUMNS)}
        size = np.bincount(trees.tree[kept], minlength=len(trees.anchor))
        return replace(trees, begin=np.cumsum(size) - size, size=size, **nodes)

    monkeypatch.setattr(module, "read_trees", read)
    found = check_machine(memory)
    messages = {(violation.invariant, violation.message) for violation in found.report.violations}
    assert ("I12", "the VMA is not in the tree") in messages
    assert ("I19", "the walk from the page does not meet an entry that maps it") in messages
    missed = [violation for violation in found.report.violations if violation.invariant == "I19"]
    assert {pid for violation in missed for pid in violation.pids} == {still.server}
    assert main(["check"]) == 1


def test_what_stays_is_a_violation_with_the_objects(
    still: Load, memory: BpfMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _misreading(monkeypatch, still.server, times=9)
    found = check_machine(memory)
    (violation,) = found.report.violations
    assert (violation.invariant, found.readings, found.unsettled) == ("I6", 3, [])
    assert re.match(r"num_active_vmas is \d+; VMAs that point at the anon_vma: \d+", violation.message)
    assert re.match(r"anon_vma ffff[0-9a-f]{12} \(root ffff[0-9a-f]{12}\)", violation.objects[0])
    assert re.match(r"VMA \d+ python\S* [0-9a-f]+-[0-9a-f]+, struct ffff", violation.objects[1])
    assert still.server in violation.pids


def test_what_is_gone_when_read_again_is_a_race(
    still: Load, memory: BpfMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _misreading(monkeypatch, still.server, times=1)
    found = check_machine(memory)
    assert (found.report.violations, found.unsettled) == ([], [])
    assert found.races >= 1 and found.readings >= 1


def test_what_is_there_each_time_in_a_process_that_runs_is_not_judged(
    memory: BpfMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(workers=2, pages=100, vmas=10, busy=2) as up:
        runs = next(pid for pid, kind in up.kinds.items() if kind == "worker")
        _misreading(monkeypatch, runs, times=9)
        found = check_machine(memory)
    assert found.report.violations == []
    assert "I6" in {violation.invariant for violation in found.unsettled}


def test_what_is_never_twice_the_same_is_not_judged(
    still: Load, memory: BpfMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _misreading(monkeypatch, still.server, times=9, steps=1)
    found = check_machine(memory)
    assert found.report.violations == []
    assert [violation.invariant for violation in found.unsettled] == ["I6"]


def test_without_bpf_what_proc_shows_is_checked() -> None:
    found = check_machine(None)
    assert found.report.violations == []
    reasons = {row.invariant: row.reason for row in found.report.checked}
    assert set(reasons) == NUMBERS
    assert not any(reasons[number] for number in ("I19", "I20", "I21", "8.2"))
    assert all("doctor" in reasons[number] for number in ("I1", "I11", "I12", "I22"))


def test_a_recorded_picture_of_the_load_is_sound_too(still: Load, tmp_path: Path) -> None:
    assert main(["snap", "-o", str(tmp_path / "x.rmap")]) == 0
    assert Snapshot.load(tmp_path / "x.rmap").about["topology"] == "kernel"
    assert main(["check", "-i", str(tmp_path / "x.rmap")]) == 0


def test_frozen_processes_are_exact_and_go_on(memory: BpfMemory, capsys: pytest.CaptureFixture[str]) -> None:
    with load(workers=2, pages=100, vmas=10, busy=2) as up:
        busy = [str(pid) for pid, kind in up.kinds.items() if kind == "worker"]
        before = _ticks(int(busy[0]))
        assert main(["check", "--json", "--freeze", *busy]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["violations"] == [] and told["schema"] == 1
        until(lambda: _ticks(int(busy[0])) > before + 1, otherwise="it goes on afterwards")


def _ticks(pid: int) -> int:
    return sum(int(word) for word in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])


@pytest.mark.parametrize(
    ("pid", "says"),
    [("4194303", "no process 4194303"), ("2", "thread of the kernel"), (str(os.getpid()), "this")],
    ids=["nobody", "the kernel's", "itself"],
)
def test_whom_it_cannot_freeze_it_names(pid: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--freeze", pid]) == 4
    assert says in " ".join(capsys.readouterr().err.split())


def test_watching_goes_on_until_interrupted() -> None:
    command = [sys.executable, "-m", "rmap", "check", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        lines = [watcher.stdout.readline() for _ in range(2)]
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=30)
    assert watcher.returncode == 130
    assert "interrupted" in err
    for number, line in enumerate(lines, 1):
        assert re.match(
            rf" +{number}  \d\d:\d\d:\d\d  (ok|unsettled)  [\d,]+ VMAs, [\d,]+ pages, [\d,]+ races?"
            r"(, [\d,]+ not judged)?, \d+\.\d\d s$",
            line,
        )
