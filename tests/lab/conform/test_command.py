"""``rmap conform`` as a user runs it, also interrupted and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rmap.cli import main
from rmap.live.sources import procfs
from rmap.live.undo import journal_folder, machine_state
from tests.support.proc import runs
from tests.support.swap import need_zram
from tests.support.waiting import until

COMMAND = [sys.executable, "-m", "rmap", "conform"]
PATIENCE = 20.0


def below(pid: int) -> set[int]:
    """All processes that descend from this one."""
    parents = {}
    for other in procfs.pids():
        try:
            parents[other] = procfs.read_stat(other).ppid
        except OSError:
            continue
    found = {pid}
    while new := {other for other, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {pid}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "some"], "not a count: 'some'"),
        (["--steps", "0"], "at least one step"),
        (["--steps", "-1"], "not a count: '-1'"),
        (["--until", "soon"], "not a time: 'soon'"),
        (["--until", "0m"], "not a time: '0m'"),
        (["--processes", "1"], "2 to 8 processes"),
        (["--design", "slow"], "slow"),
        (["--profile", "2.4"], "no profile '2.4'"),
        (["--script", "/nowhere/x.py"], "--script /nowhere/x.py: there is no such folder"),
        (["--seed", "x"], "not a count: 'x'"),
        (["now"], "unrecognized arguments: now"),
    ],
)
def test_a_bad_argument_gets_a_clear_error(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


@pytest.mark.live
@pytest.mark.needs("puppets")
def test_json_carries_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "--seed", "300", "--steps", "200", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["conformance"]
    assert found["seed"] == 300
    assert found["divergence"] is None
    assert found["release"] == os.uname().release
    assert sum(found["calls"].values()) == found["steps"] >= 200
    assert found["compared"]["ptes"] > 0
    assert found["costs"]["fault"]["calls"] > 0


@pytest.mark.live
@pytest.mark.needs("puppets")
def test_the_closing_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "--seed", "300", "--steps", "150"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": all equal.")
    assert f"kernel      Linux {os.uname().release}" in lines
    assert any(line.startswith("CALL") and line.endswith("MADE  REFUSED") for line in lines)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.live
@pytest.mark.needs("puppets")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_tells_what_it_has_and_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--until", "10m"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert until(lambda: len(below(run.pid)) > 2)
        family = below(run.pid)
        run.send_signal(number)
        out, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130
    assert "interrupted" in " ".join(out.splitlines()[:2])
    assert until(lambda: not any(map(runs, family)))


@pytest.mark.live
def test_a_killed_run_leaves_no_process_and_the_next_one_undoes_its_swap() -> None:
    need_zram()
    cluster = Path("/proc/sys/vm/page-cluster")
    with machine_state():
        page_cluster = cluster.read_text().strip()
    with subprocess.Popen([*COMMAND, "--until", "10m", "--swap"], stdout=subprocess.DEVNULL) as run:
        assert until(lambda: swapping_to(run.pid) != "" and len(below(run.pid)) > 2)
        family, device = below(run.pid), swapping_to(run.pid)
        run.kill()
    assert until(lambda: not any(map(runs, family)))
    still_on = swapping_to(run.pid) == device
    done = subprocess.run([*COMMAND, "--steps", "50"], capture_output=True, text=True, check=True)
    if still_on:  # no other test, which ran at the same time, has undone it
        said = " ".join(done.stdout.split())
        assert f"swap to {device} turned off, left behind by process {run.pid}" in said
        assert f"/proc/sys/vm/page-cluster set back to {page_cluster}, left behind by process {run.pid}" in said
    with machine_state():
        assert cluster.read_text().strip() == page_cluster
    assert swapping_to(run.pid) == ""


def swapping_to(pid: int) -> str:
    """The swap device that a process has turned on, by the journal; empty if it has none."""
    swaps = Path("/proc/swaps").read_text()
    paths = [json.loads(note.read_text())["change"]["path"] for note in journal_folder().glob(f"{pid}-*.undo")]
    return next((path for path in paths if path in swaps), "")
