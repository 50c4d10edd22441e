"""The step rule: cutting extents into pages and joining them again, and asking for one entry, by brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rmap.snapshot import flags as f
from rmap.snapshot.extents import (
    Extents,
    concatenated,
    entries_of_slot,
    entry_at,
    join_extents,
    single_pages,
    step_of,
)
from rmap.snapshot.flags import SWAP_STEP, swap_entry, swap_place
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP

STEPS = {f.PTE_PRESENT: 1, f.PTE_SWAP: 32, f.PTE_GUARD: 0, f.PTE_OTHER: 0}
Row = tuple[int, int, int, int, int]


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Extents in order of VMA and address, with or without holes between them."""
    rows: list[Row] = []
    for vma in range(draw(st.integers(0, 2))):
        page = 0
        for _ in range(draw(st.integers(0, 5))):
            page += draw(st.integers(0, 2))
            flags, count = draw(st.sampled_from(list(STEPS))), draw(st.integers(1, 4))
            number = draw(st.integers(0, 9))
            value = -1 if not STEPS[flags] else number if flags == f.PTE_PRESENT else 1 | number << 5
            rows.append((vma, HEAP + page * PAGE, value, count, flags))
            page += count
    return rows


def extents_of(rows: list[Row]) -> Extents:
    return Extents(*np.array(rows, np.int64).reshape(-1, 5).T)


def pages_of(rows: list[Row]) -> list[Row]:
    return [(v, a + i * PAGE, p + i * STEPS[g], 1, g) for v, a, p, count, g in rows for i in range(count)]


@given(tables())
def test_pages_and_extents(rows: list[Row]) -> None:
    extents = extents_of(rows)
    pages = single_pages(extents)
    assert list(zip(*(column.tolist() for column in pages.columns()))) == pages_of(rows)
    joined = join_extents(pages)
    assert pages_of(list(zip(*(column.tolist() for column in joined.columns())))) == pages_of(rows)
    assert len(join_extents(joined).vma) == len(joined.vma) <= len(extents.vma)
    again = Extents.of(extents.table())
    assert all((a == b).all() for a, b in zip(again.columns(), extents.columns()))
    both = concatenated([extents, pages])
    assert len(both.vma) == len(extents.vma) + len(pages.vma) and not len(concatenated([]).vma)


@given(tables())
def test_one_entry(rows: list[Row]) -> None:
    table = extents_of(rows).table()
    truth = {(vma, address): (flags, value) for vma, address, value, _, flags in pages_of(rows)}
    for vma in range(3):
        for page in range(30):
            assert entry_at(table, vma, HEAP + page * PAGE + 5) == truth.get((vma, HEAP + page * PAGE))
    for slot in range(14):
        found = entries_of_slot(table, 1 | slot << 5)
        named = [place for place, entry in truth.items() if entry == (f.PTE_SWAP, 1 | slot << 5)]
        assert list(zip(table.vma[found[0]].tolist(), found[1].tolist())) == named
        assert not len(entries_of_slot(table, 2 | slot << 5)[0])


def test_a_flag_more_changes_no_step() -> None:
    for flags, step in STEPS.items():
        assert step_of(np.array([flags, flags | f.PTE_EXCLUSIVE])).tolist() == [step, step]


@given(st.integers(0, 31), st.integers(0, 2**50 - 1))
def test_a_swap_entry_names_its_place(area: int, slot: int) -> None:
    entry = swap_entry(area, slot)
    assert swap_place(entry) == (area, slot)
    assert swap_place(entry + SWAP_STEP) == (area, slot + 1), "the next page of an extent is in the next slot"
