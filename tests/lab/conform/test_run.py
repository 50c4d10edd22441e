"""A run as a whole: its limits, what it reports, and what becomes of a finding, a lost puppet, an interruption."""

from __future__ import annotations

import os
import runpy
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rmap.errors import NotPermitted, UsageError
from rmap.lab.conform import (
    Diverged,
    Pair,
    PuppetDied,
    ScenarioPlayer,
    at,
    conform,
    missing_ability,
    pages,
    program,
    run,
    scenario,
)
from rmap.lab.conform.play import ScenarioPlayed
from rmap.lab.conform.program import puppet_program
from rmap.lab.conform.puppets import Puppets
from rmap.lab.conform.run import DEFAULT_STEPS
from rmap.lab.conform.swap import swap_to_zram, why_no_zram
from rmap.live.bpf import why_not
from rmap.live.sources import procfs
from rmap.live.undo import undo_left_behind
from rmap.show.conform import conformance
from tests.model.mutants import reuse_with_two_children
from tests.support.needs import need, need_all
from tests.support.swap import need_zram
from tests.support.waiting import until

SOME_SEED = 20_000


@pytest.fixture(autouse=True)
def puppets_can_be_driven(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("live"):
        need_all("puppets")


def puppets(session: int = 0) -> list[int]:
    """Every puppet on this machine, or of a session: each group has its own."""
    found = []
    for pid in procfs.pids():
        try:
            if procfs.read_stat(pid).comm == "rmap-puppet" and session in (0, os.getsid(pid)):
                found.append(pid)
        except OSError:
            continue
    return found


# -- what goes well


@pytest.mark.live
def test_the_model_and_the_kernel_agree() -> None:
    """The judge itself: random scenarios, with everything compared that this machine shows."""
    result = conform(seed=1, steps=3_000)
    assert result.divergence is None, result.divergence.script
    assert not result.lost
    assert result.complete
    assert 3_000 <= result.steps < 3_200
    assert sum(result.calls.values()) == result.steps
    assert result.compared.looks > 0.9 * result.steps
    assert result.bpf == why_not()
    assert result.compared.links > 2_000 or result.bpf
    assert result.costs["fault"]["faults"] > 300
    assert "all equal" in conformance(result)[0]


@pytest.mark.live
def test_the_model_and_the_kernel_agree_with_swap() -> None:
    need_zram()
    result = conform(seed=1, steps=2_500, swap=True)
    assert result.divergence is None, result.divergence.script
    assert 0 < result.swapping < result.scenarios
    assert result.calls["madvise pageout"] > 50
    assert result.compared.swapped > 300


@pytest.mark.live
def test_a_run_ends_when_its_time_is_over() -> None:
    began = time.monotonic()
    result = conform(seed=SOME_SEED, seconds=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert result.complete
    assert result.steps < DEFAULT_STEPS


@pytest.mark.live
def test_a_run_that_is_told_to_stop_ends_with_what_it_has() -> None:
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 40

    result = conform(seed=SOME_SEED, steps=10_000, stopped=stopped)
    assert not result.complete
    assert 0 < result.steps <= 40
    assert "interrupted" in " ".join(conformance(result)[:2])


@pytest.mark.live
def test_no_more_processes_than_asked_for() -> None:
    def most(processes: int) -> int:
        return max(len({step.makes for step in scenario(seed, processes=processes).steps}) for seed in range(5))

    assert most(2) <= most(8)
    assert conform(seed=SOME_SEED, steps=100, processes=2).divergence is None


# -- a finding


@pytest.mark.live
@pytest.mark.needs("kernel_memory")
def test_a_difference_is_repeated_cut_down_and_shown_as_a_script(tmp_path: Path) -> None:
    with reuse_with_two_children():
        result = conform(seed=40, steps=50_000)
        found = result.divergence
        assert found is not None
        assert len(found.steps) <= 12 < found.drawn
        assert "A" in found.why
        script = tmp_path / "shown.py"
        script.write_text(found.script)
        with pytest.raises(Diverged):
            runpy.run_path(str(script))
    assert not puppets_of_this_test()
    runpy.run_path(str(script))  # in a model that is right, it ends well
    text = "\n".join(conformance(result))
    assert "WRONG" in text
    assert found.script.strip() in text


@pytest.mark.live
def test_a_difference_that_does_not_repeat_is_told_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ScenarioPlayer.play
    played = 0

    def wrong_once(self: ScenarioPlayer, steps: Any, totals: Any = None) -> Any:
        nonlocal played
        played += 1
        result = right(self, steps, totals)
        if played == 2:
            result.why = "Diverged: just once"
        return result

    monkeypatch.setattr(ScenarioPlayer, "play", wrong_once)
    result = conform(seed=SOME_SEED, steps=300)
    assert result.divergence is None
    assert [(incident.seed, incident.why) for incident in result.not_seen_again] == [
        (SOME_SEED + 1, "Diverged: just once")
    ]
    text = "\n".join(conformance(result))
    assert "but for 1 difference not seen again" in text.replace("\n", " ")
    assert f"seed {SOME_SEED + 1}: Diverged: just once" in text


# -- faults


def puppets_of_this_test() -> list[int]:
    return [pid for pid in puppets() if procfs.read_stat(pid).ppid == os.getpid()]


@pytest.mark.live
def test_a_puppet_killed_from_outside_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = False
    right = Puppets.spawn

    def spawn(self: Puppets) -> Any:
        nonlocal killed
        puppet = right(self)
        if not killed:
            os.kill(puppet.pid, signal.SIGKILL)
            killed = True
        return puppet

    monkeypatch.setattr(Puppets, "spawn", spawn)
    result = conform(seed=SOME_SEED, steps=200)
    assert result.divergence is None
    assert [incident.seed for incident in result.lost] == [SOME_SEED]
    assert "is gone" in result.lost[0].why or "went away" in result.lost[0].why
    assert "Lost a puppet" in "\n".join(conformance(result))


@pytest.mark.live
def test_a_puppet_that_is_killed_while_it_waits_is_no_difference(pair: Pair) -> None:
    p, q = pair.spawn(), pair.spawn()
    p.mmap(pages(1), addr=at(0))
    os.kill(p.real.pid, signal.SIGKILL)
    until(lambda: not p.real.is_alive, 5)
    with pytest.raises(PuppetDied, match=f"puppet {p.real.pid} is gone|went away"):
        q.mmap(pages(1), addr=at(0))


@pytest.mark.live
def test_a_group_killed_from_outside_is_replaced(player: ScenarioPlayer) -> None:
    steps = scenario(SOME_SEED).steps
    assert player.play(steps).why is None
    puppets = player._puppets
    assert puppets is not None
    os.kill(puppets.pid, signal.SIGKILL)
    assert player.play(steps).lost
    assert player.play(steps).why is None


@pytest.mark.live
def test_when_a_group_is_closed_nothing_is_left() -> None:
    group = Puppets()
    p = group.spawn()
    children = [p.fork(), p.clone_vm(), p.vfork()]
    (session,) = {os.getsid(pid) for pid in puppets_of_this_test()}
    assert len(puppets(session)) == 2 + len(children)
    group.close()
    until(lambda: not puppets(session), 5)


@pytest.mark.live
def test_without_a_program_and_a_compiler_the_refusal_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "SHIPPED", Path("/nowhere"))
    monkeypatch.setattr(program.shutil, "which", lambda name: None)
    program._compiled.cache_clear()
    try:
        with pytest.raises(NotPermitted) as refusal:
            puppet_program()
        assert "a C compiler" in refusal.value.needed
        assert "a C compiler" in (missing_ability() or "")
    finally:
        program._compiled.cache_clear()


@pytest.mark.live
def test_a_program_that_speaks_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "puppet"
    old.write_bytes(puppet_program().read_bytes().replace(program.PROTOCOL, program.PROTOCOL[:-1] + b"0"))
    old.chmod(0o755)
    monkeypatch.setattr(program, "SHIPPED", old)
    assert puppet_program() != old


# -- what makes no sense


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "at least one step"),
        ({"seconds": 0}, "some time"),
        ({"processes": 1}, "2 to 8 processes"),
        ({"processes": 9}, "2 to 8 processes"),
        ({"profile": "2.4"}, "no profile '2.4'"),
        ({"design": "slow"}, "slow"),
    ],
)
def test_an_impossible_run_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        conform(**wrong)


@pytest.mark.live
def test_swap_is_refused_where_the_machine_swaps_already(machine_lock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    undo_left_behind()
    need(why_no_zram())
    with swap_to_zram():
        missing = why_no_zram()
    assert "a machine without swap of its own" in (missing or "")
    assert why_no_zram() is None
    monkeypatch.setattr(run, "_why_no_swap", lambda: missing)
    with pytest.raises(NotPermitted, match="cannot be driven") as refusal:
        conform(steps=10, swap=True)
    assert refusal.value.needed == missing


@pytest.mark.live
def test_a_difference_found_at_the_last_moment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before it was repeated: it may be one, so it is not dropped."""
    told: list[bool] = []

    def wrong(self: ScenarioPlayer, steps: Any, totals: Any = None) -> ScenarioPlayed:
        told.append(True)
        return ScenarioPlayed(why="Diverged: x") if len(told) == 1 else ScenarioPlayed()

    monkeypatch.setattr(ScenarioPlayer, "play", wrong)
    result = conform(seed=SOME_SEED, steps=300, stopped=lambda: bool(told))
    assert not result.complete
    assert [incident.why for incident in result.not_seen_again] == ["interrupted before it was repeated; Diverged: x"]
