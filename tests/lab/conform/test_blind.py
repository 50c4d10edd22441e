"""What is not seen is not called equal: refusals of looking are no answers of calls."""

from __future__ import annotations

import errno

import pytest

from rmap.errors import InvariantError, LimitError, SourceError
from rmap.lab.conform import pair as machines
from rmap.lab.conform import play
from rmap.lab.conform.observe_kernel import KernelObserver
from rmap.lab.conform.observed import MARK, NUMBER_SHIFT, PAGE
from rmap.lab.conform.play import ScenarioPlayer
from rmap.lab.conform.run import conform
from rmap.lab.conform.scenario import scenario
from rmap.live.bpf import BpfMemory
from rmap.mm.pte import RW
from tests.support.needs import need

pytestmark = [pytest.mark.live, pytest.mark.needs("puppets")]


def test_a_look_that_fails_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for a call that both refuse, and the run ended with "all equal" without having seen anything."""

    def fails(self: KernelObserver) -> None:
        raise OSError(errno.EFAULT, "no kernel memory today")

    monkeypatch.setattr(KernelObserver, "observe", fails)
    with pytest.raises(SourceError, match=r"cannot be looked at: .*no kernel memory today"):
        conform(steps=5)


def test_after_every_step_both_are_looked_at() -> None:
    found = conform(steps=60)
    if not (found.not_seen_again or found.lost):
        assert found.compared.looks == found.steps


@pytest.mark.parametrize("error", [LimitError("too small"), SourceError("no puppets")])
def test_what_is_no_difference_is_not_called_one(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuses(self: machines.Pair, what: str) -> None:
        raise error

    monkeypatch.setattr(machines.Pair, "compare", refuses)
    with ScenarioPlayer() as player, pytest.raises(type(error)):
        player.play(scenario(1).steps)


def test_a_broken_model_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: machines.Pair, what: str) -> None:
        raise InvariantError("I13", "on purpose")

    monkeypatch.setattr(machines.Pair, "compare", broken)
    with ScenarioPlayer() as player:
        played = player.play(scenario(1).steps)
    assert (played.kind, played.lost) == ("InvariantError", False)
    assert play.FINDINGS[1] is InvariantError


def test_a_missed_write_protection_is_seen_at_once(memory: BpfMemory, pair: machines.Pair) -> None:
    """Rule 4.5: were the parent's entry still writable after a fork, no later write would be needed to notice."""
    need(memory.why_no_ptes)
    parent = pair.spawn()
    at = parent.mmap(4096)
    parent.write(at, 4096)
    assert pair.model.observe().entries[0] == [0 << NUMBER_SHIFT | MARK | PAGE]
    parent.fork()
    tables = pair.model.kernel.core.tables
    tables.ptes[tables.ptes != 0] |= RW
    with pytest.raises(machines.Diverged, match="page 0 writable"):
        pair.compare("a fork that write-protects nothing")
