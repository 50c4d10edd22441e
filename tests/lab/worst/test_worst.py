"""The search for bad sequences: the same everywhere for a seed, and it finds what is known in a small space."""

from __future__ import annotations

import json

import pytest

from rmap.cli import main
from rmap.designs import DESIGNS, design_names
from rmap.errors import UsageError
from rmap.lab.worst import COSTS, search
from rmap.lab.worst.adversaries import BY_COST, BY_DESIGN
from rmap.lab.worst.arena import MOVES, Arena


@pytest.mark.parametrize("design", design_names(variants=True))
@pytest.mark.parametrize("cost", ["memory", "walk"])
def test_every_design_can_be_searched(design: str, cost: str) -> None:
    found = search(design, cost, evaluations=15, seed=3)
    assert found.evaluations == 15 and found.figure > 0 and 0 < len(found.sequence) <= 10


def test_a_seed_and_a_number_of_evaluations_fix_the_result() -> None:
    one, two = (search("pte_chain", "exit", evaluations=60, seed=5) for _ in range(2))
    assert one == two
    assert one != search("pte_chain", "exit", evaluations=60, seed=6)


def test_it_finds_what_is_known() -> None:
    """Under anonmm a move copies what is shared: with three moves that is as much as one fork of four allows."""
    found = search("anonmm", "move", evaluations=250, seed=1, length=4)
    assert {"everybody moves the heap", "the youngest moves the heap"} & set(found.sequence)
    assert any("fork" in move for move in found.sequence) and found.figure >= 16


def test_more_evaluations_are_never_worse() -> None:
    figures = [search("objrmap", "walk", evaluations=n, seed=2).figure for n in (10, 60, 120)]
    assert figures == sorted(figures)


def test_moves_leave_a_sound_machine_whatever_comes() -> None:
    arena = Arena("anon_vma_chain")
    arena.play(tuple(MOVES) + tuple(reversed(MOVES)))
    arena.kernel.check()
    assert arena.processes


def test_adversaries_are_made_of_moves() -> None:
    assert BY_DESIGN.keys() == DESIGNS.keys() and BY_COST.keys() <= COSTS.keys()
    for moves in (*BY_DESIGN.values(), *BY_COST.values()):
        assert set(moves) <= set(MOVES)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worst", "anon_vma", "--cost", "in-vain", "--evaluations", "30"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("WORST FOUND for anon_vma: ") and "KNOWN ADVERSARY" in text and "30 sequences" in text
    assert main(["worst", "anon_vma", "--evaluations", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["worst"]["evaluations"] == 3


@pytest.mark.parametrize(
    "words",
    [["nope"], ["pte_chain", "--cost", "beauty"], ["pte_chain", "--seconds", "0"], ["pte_chain", "--length", "0"]],
)
def test_nonsense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worst", *words]) == 2
    with pytest.raises(UsageError):
        search("pte_chain", "walk", evaluations=0)
    capsys.readouterr()
