"""What events have shown of an address space: the facts that every excuse stands on."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.lab.replay.seen import AROUND, Seen
from rmap.units import PAGE_SIZE

PAGE = 0x7F000


def pages(*numbers: int) -> I64:
    """Page numbers from ``PAGE`` on."""
    return PAGE + np.array(numbers, np.int64)


def near(seen: Seen, *numbers: int, index: int = 0, order: int = 0) -> list[bool]:
    """Which of some pages may have been mapped around a fault."""
    n = len(numbers)
    found: list[bool] = seen.near(pages(*numbers), np.full(n, index), np.full(n, order)).tolist()
    return found


def test_a_write_counts_until_the_page_goes() -> None:
    seen = Seen()
    seen.fault(PAGE, 3, True)
    seen.fault(PAGE + 3, 1, False)
    assert seen.written(pages(0, 2, 3, 4)).tolist() == [True, True, False, False]
    assert seen.touched(pages(0, 2, 3, 4)).tolist() == [True, True, True, False]
    seen.forget((PAGE + 1) * PAGE_SIZE, 3 * PAGE_SIZE)
    assert seen.written(pages(0, 1, 2)).tolist() == [True, False, False]
    assert seen.touched(pages(3)).tolist() == [False]
    seen.fault(PAGE + 2, 1, True)
    assert seen.written(pages(1, 2)).tolist() == [False, True] and seen.present(pages(1, 2)).tolist() == [False, True]


def test_after_a_fork_both_have_written_nothing_yet_and_the_child_has_touched_nothing() -> None:
    parent = Seen()
    parent.fault(PAGE, 2, True)
    child = parent.child()
    for seen in (parent, child):
        assert not seen.written(pages(0, 1)).any() and seen.present(pages(0, 1)).all()
    assert parent.touched(pages(0)).all() and not child.touched(pages(0)).any()
    child.fault(PAGE, 1, True)
    assert child.written(pages(0, 1)).tolist() == [True, False] and not parent.written(pages(0)).any()


def test_near_is_less_than_the_window_or_the_same_folio() -> None:
    seen = Seen()
    seen.fault(PAGE + 100, 1, False)
    close = (100 - AROUND + 1, 100, 100 + AROUND - 1)
    assert near(seen, *close) == [True] * 3
    assert near(seen, 100 - AROUND, 100 + AROUND) == [False, False]
    assert near(seen, 100 + AROUND, index=AROUND + 4, order=5) == [True]  # the fault was at index 4 of the same folio
    assert near(seen, 100 + AROUND, index=0, order=5) == [False]
    seen.forget((PAGE + 100) * PAGE_SIZE, PAGE_SIZE)
    assert near(seen, 100, 101) == [False, True]


def test_what_was_populated_is_near() -> None:
    seen = Seen()
    seen.populate((PAGE + 50) * PAGE_SIZE, 10 * PAGE_SIZE)
    assert near(seen, 34, 35, 59, 74, 75) == [False, True, True, True, False]


def test_faults_move_with_their_pages() -> None:
    seen = Seen()
    seen.fault(PAGE, 1, True)
    seen.child()
    seen.fault(PAGE + 1, 1, True)
    seen.forget((PAGE + 200) * PAGE_SIZE, 4 * PAGE_SIZE)
    seen.forget(PAGE * PAGE_SIZE, 4 * PAGE_SIZE)
    seen.move(PAGE * PAGE_SIZE, (PAGE + 200) * PAGE_SIZE, 4 * PAGE_SIZE)
    assert seen.touched(pages(0, 1, 200, 201, 202)).tolist() == [False, False, True, True, False]
    # What was written before the fork is shared still.
    assert seen.written(pages(200, 201)).tolist() == [False, True]


def test_a_refused_fault_is_no_write_but_is_remembered() -> None:
    seen = Seen()
    seen.refuse(PAGE)
    assert not seen.written(pages(0)).any() and not seen.touched(pages(0)).any()
    assert seen.refused(pages(0, 1)).tolist() == [True, False]
    assert not seen.child().refused(pages(0)).any()
    seen.forget(PAGE * PAGE_SIZE, PAGE_SIZE)
    seen.fault(PAGE + 9, 1, False)
    assert seen.refused(pages(0)).tolist() == [True]  # at the very moment: which came first cannot be told
    seen.refuse(PAGE + 5)
    seen.forget((PAGE + 4) * PAGE_SIZE, 4 * PAGE_SIZE)
    seen.restart(pages())
    assert not seen.refused(pages(0, 5)).any()


def test_a_call_that_is_not_modelled_has_its_range() -> None:
    seen = Seen()
    seen.not_modelled(PAGE * PAGE_SIZE, 2 * PAGE_SIZE)
    assert seen.untold(pages(-1, 0, 1, 2)).tolist() == [False, True, True, False]
    start = PAGE * PAGE_SIZE
    assert seen.untold_area(start + 2 * PAGE_SIZE, start + 3 * PAGE_SIZE)  # it touches
    assert not seen.untold_area(start + 3 * PAGE_SIZE, start + 4 * PAGE_SIZE)
    seen.restart(pages())
    assert not seen.untold(pages(0)).any()
    seen.not_modelled()
    assert seen.untold(pages(-1, 0, 9999)).all()
