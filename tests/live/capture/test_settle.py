"""Telling a race from a finding: how often is read, and what remains."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rmap.live.capture.settle import AGAIN, Recurring, read_until, settle_rows


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(1, 8))
def test_it_is_read_until_a_reading_is_settled_and_no_more_often(settled: list[bool], most: int) -> None:
    left = iter(range(9))
    answer = read_until(lambda: next(left), lambda reading: settled[reading], readings=most)
    first = settled.index(True) if True in settled else 8
    assert answer == min(first, most - 1)
    assert next(left) == answer + 1


@given(st.lists(st.integers(0, 6), max_size=12), st.integers(1, 6))
def test_rows_that_contradict_themselves_each_time_remain(changes_in: list[int], most: int) -> None:
    """A row changes in the reading of its number (counted from 0), later ones included: it is asked no more."""
    reading = 0
    asked: list[int] = []
    raced: list[int] = []

    def changed(rows: np.ndarray) -> np.ndarray:
        nonlocal reading
        asked.append(len(rows))
        reading += 1
        return np.array([changes_in[row] == reading - 1 for row in rows.tolist()], np.bool_)

    stay = settle_rows(np.arange(len(changes_in)), changed, lambda rows: raced.extend(rows.tolist()), readings=most)
    assert stay.tolist() == [row for row, when in enumerate(changes_in) if when >= most]
    assert sorted([*raced, *stay.tolist()]) == list(range(len(changes_in)))
    assert len(asked) <= most and 0 not in asked, "nothing is read when no row is left"


def test_a_difference_recurs_only_if_every_reading_has_it() -> None:
    recurring = Recurring({"stays": "a", "moves": "a", "goes": "a", "comes back": "a"}, lambda one, other: one == other)
    recurring.read({"stays": "a", "moves": "b", "comes": "a", "comes back": "a"})
    recurring.read({"stays": "a", "moves": "a", "comes": "a", "goes": "a"})
    assert recurring.there == {"stays": "a", "moves": "a"}
    assert recurring.moved & recurring.there.keys() == {"moves"}, "what said something else once has moved"


def test_one_page_is_settled_without_numpy() -> None:
    script = "import sys, rmap.live.capture.settle; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert AGAIN > 1, "a race that comes twice is still one"
