"""Random calls, checked after each one; with and without scalar twins; with so little memory that faults evict."""

from __future__ import annotations

import pytest

from rmap import Kernel
from rmap.designs import DEFAULT_DESIGNS, design_names
from rmap.snapshot.rules.isomorphic import isomorphic
from tests.model.player import Call, Player, shortened
from tests.model.random_calls import designs_differ, failure, random_calls, twins_differ

DESIGNS = tuple(design_names())
ALL = tuple(design_names(variants=True))
COPYING = {"anonmm", "lego_pcache"}
"""Designs that copy pages of their own accord: the machine is then another one."""
TIGHT = {"nr_pages": 56, "nr_swap": 40}


def lives(designs: tuple[str, ...], first: int, often: int, else_: int) -> list[tuple[str, int]]:
    """Designs and seeds: so many of each default design, and of each other."""
    return [(d, first + n) for d in designs for n in range(often if d in DEFAULT_DESIGNS else else_)]


@pytest.mark.parametrize(("design", "seed"), lives(ALL, 0, 8, 4))
def test_random_calls_break_nothing(design: str, seed: int) -> None:
    assert failure(random_calls(seed, 150, design), design) == ""


@pytest.mark.parametrize(("design", "seed"), lives(ALL, 100, 6, 3))
def test_random_calls_break_nothing_when_memory_is_short(design: str, seed: int) -> None:
    assert failure(random_calls(seed, 150, design, **TIGHT), design, **TIGHT) == ""


@pytest.mark.parametrize("seed", range(200, 204))
def test_random_calls_break_nothing_under_the_rules_of_7_0(seed: int) -> None:
    calls = random_calls(seed, 150, "anon_vma_chain", profile="7.0")
    assert failure(calls, "anon_vma_chain", profile="7.0") == ""


@pytest.mark.parametrize(("design", "seed"), lives(ALL, 300, 8, 3))
def test_scalar_twins_make_no_difference(design: str, seed: int) -> None:
    assert twins_differ(random_calls(seed, 200, design), design) == ""


@pytest.mark.parametrize("design", [name for name in DESIGNS if name not in COPYING | {"anon_vma_chain"}])
def test_designs_differ_in_nothing_but_themselves(design: str) -> None:
    """Presence, sharing, exclusive marks, swap and files do not depend on the design, while areas are alike."""
    compared = 0
    for seed in range(400, 415 if design in DEFAULT_DESIGNS else 405):
        calls = [call for call in random_calls(seed, 200) if call[0] != "mlock" and call[-1] != "locked"]
        wrong, n = designs_differ(calls, ("anon_vma_chain", design))
        assert wrong == ""
        compared += n
    assert compared > (1500 if design in DEFAULT_DESIGNS else 400)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_picture_of_any_state_is_sound_and_loads_into_every_design(design: str) -> None:
    for seed in range(500, 506 if design in DEFAULT_DESIGNS else 502):
        player = Player(design)
        player.play_all([call for call in random_calls(seed, 90, design) if call[0] != "special"])
        snapshot = player.kernel.snapshot()
        snapshot.check()
        for other in DESIGNS if design in DEFAULT_DESIGNS else DEFAULT_DESIGNS:
            loaded = Kernel.adopt(snapshot, design=other)
            loaded.check()
            if design == other == "anon_vma_chain":
                assert isomorphic(snapshot, loaded.snapshot()) is None


def test_most_calls_do_something() -> None:
    """Sequences that are refused throughout would prove nothing."""
    done = shared = 0
    for seed in range(10):
        player = Player("anon_vma_chain")
        for call in random_calls(seed, 100):
            done += not player.play(call)
            shared += int((player.kernel.core.frames.mapcount > 1).any())
    assert done > 600
    assert shared > 100


def test_a_failing_sequence_is_cut_down_to_what_it_needs() -> None:
    calls: list[Call] = [("write", 0, n, 1) for n in range(40)]

    def fails(part: object) -> bool:
        return ("write", 0, 7, 1) in part and ("write", 0, 31, 1) in part  # type: ignore[operator]

    assert shortened(calls, fails) == [("write", 0, 7, 1), ("write", 0, 31, 1)]
