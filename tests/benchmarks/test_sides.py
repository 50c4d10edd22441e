"""The benchmarks do the same operations on both sides. What they measure is nobody's business here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import ROOT

BENCHMARKS = ROOT / "benchmarks"
PAGES, ROUNDS, VMAS = 1024, 1, 10


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bounds
    import kernel_side
    import model_side

    return kernel_side, model_side, bounds


def test_the_kernel_and_every_design_do_the_same_operations(sides: Any) -> None:
    kernel_side, model_side, bounds = sides
    try:
        kernel = kernel_side.measure(PAGES, ROUNDS, VMAS).ns
    except kernel_side.NoYardstick as missing:
        pytest.skip(f"needs {missing}")
    bounded = {(design, layout) for design, layout, _ in bounds.RATIOS}
    assert len(bounded) == 4
    for design, layout in bounded:
        model = model_side.measure(design, layout, PAGES, ROUNDS, VMAS)
        assert model.keys() == kernel.keys() - {"fork_nothing"}
        assert {name for d, where, name in bounds.RATIOS if (d, where) == (design, layout)} <= model.keys()


@pytest.mark.parametrize("layout", ["contiguous", "shuffled"])
def test_every_answer_of_the_walk_is_taken(sides: Any, layout: str) -> None:
    _, model_side, _ = sides
    assert model_side.measure_walk("anon_vma_chain", layout, PAGES, 5, 1).keys() == {"walk_stream", "walk_columns"}


def test_a_bound_is_kept_or_not(sides: Any) -> None:
    bounds = sides[2]
    assert bounds.Row("fork", "", "", "ns", 10, kernel=40, bound=0.25).ok
    assert not bounds.Row("fork", "", "", "ns", 11, kernel=40, bound=0.25).ok
    assert bounds.Row("walk", "", "", "ns", 9, bound=10, absolute=True).ok
    assert bounds.Row("fork", "", "", "ns", 10, bound=0.25).ok is None  # no kernel to compare with
    assert bounds.Row("reuse", "", "", "ns", 10, kernel=40).ok is None
