"""What is compared, and in what words a difference is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rmap.lab.conform.differences import differences
from rmap.lab.conform.observed import (
    NOT_SEEN,
    NUMBER_SHIFT,
    PAGE,
    SWAP_SLOT,
    ZERO_PAGE,
    Area,
    Observed,
    SeenMm,
    observed_of,
)

RW = 0x100073
AREA: Area = (0x1000, 0x4000, RW, 1, NOT_SEEN, NOT_SEEN, 70, (70,))
FILE_AREA: Area = (0x8000, 0x9000, 0x71, 5, 900, 90, NOT_SEEN, ())


def entries(*pages: int) -> list[int]:
    return [page << NUMBER_SHIFT | PAGE if page else 0 for page in pages]


def seen(*mms: list[int], area: Area = AREA, facts: tuple[int, int, int, int, int] = (70, 70, 1, 1, 1)) -> Observed:
    """Processes with one area of three pages each."""
    known = {number: (number, number, *facts[2:]) for number in (70, 71)}
    return observed_of(
        range(len(mms)),
        {number: SeenMm([area], list(found), [10 + number]) for number, found in enumerate(mms)},
        known,
        lambda pfns: [(1, True, True, False, 70, index) for index, _ in enumerate(pfns)],
        lambda is_anon, tree: [(10 + number, number) for number in range(len(mms))],
        lambda mapping: "lib",
    )


def test_numbers_of_the_machine_do_not_matter() -> None:
    one = seen(entries(7, 9, 0), entries(7, 9, 0))
    other = observed_of(
        [4, 8],
        {mm: SeenMm([(*AREA[:6], 3, (3,))], entries(100, 3, 0), [mm]) for mm in (4, 8)},
        {3: (3, 3, 1, 1, 1)},
        lambda pfns: [(1, True, True, False, 3, index) for index, _ in enumerate(pfns)],
        lambda is_anon, tree: [(4, 0), (8, 1)],
        lambda mapping: "lib",
    )
    assert one == other


def test_who_shares_with_whom_matters() -> None:
    (text,) = differences(seen(entries(7, 9, 0), entries(7, 9, 0)), seen(entries(7, 9, 0), entries(9, 7, 0)))
    assert text.startswith("mm 1, pages:\n  kernel * 0x1000: page 0, page 1, -\n  model  * 0x1000: page 1, page 0, -")


@pytest.mark.parametrize("other", [0, ZERO_PAGE, 9 << NUMBER_SHIFT | SWAP_SLOT], ids=["none", "zero page", "swap"])
def test_what_is_there_matters(other: int) -> None:
    first, _, last = entries(7, 9, 0)
    assert differences(seen(entries(7, 9, 0)), seen([first, other, last]))


def test_swap_slots_are_told_apart_by_who_shares_them() -> None:
    def slots(*numbers: int) -> list[int]:
        return [number << NUMBER_SHIFT | SWAP_SLOT for number in numbers]

    assert differences(seen(slots(1, 1, 3)), seen(slots(1, 2, 3)))
    assert not differences(seen(slots(1, 2, 3)), seen(slots(5, 1, 9)))


@pytest.mark.parametrize(
    "other",
    [
        (0x1000, 0x5000, *AREA[2:]),
        (*AREA[:2], RW & ~2, *AREA[3:]),
        (*AREA[:2], RW | 0x2000, *AREA[3:]),
        (*AREA[:3], 2, *AREA[4:]),
        (*AREA[:4], 900, 90, *AREA[6:]),
        (*AREA[:4], 900, *AREA[5:]),
        (*AREA[:6], NOT_SEEN, ()),
        (*AREA[:6], 70, (70, 71)),
        (*AREA[:6], 70, (71, 70)),
    ],
    ids=["end", "permissions", "locked", "pgoff", "file", "open file", "no anon_vma", "a link more", "chain order"],
)
def test_areas_matter(other: Area) -> None:
    assert differences(seen(entries(7, 9, 0)), seen(entries(7, 9, 0), area=other))[0].startswith("mm 0, areas:")


def test_the_number_of_areas_matters() -> None:
    areas = SeenMm([AREA, FILE_AREA], [0] * 4, [10, 11])
    known = {70: (70, 70, 1, 1, 1)}
    both = observed_of([0], {0: areas}, known, lambda pfns: [], lambda is_anon, tree: [], lambda mapping: "lib")
    (text,) = differences(both, seen([0, 0, 0]))
    assert "kernel * 0x8000-0x9000 r--p unaccounted pgoff 0x5 lib (0) open 0" in text


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ((2, True, True, False, 0, 0), "mapped 2 times, exclusive, index 0x0 of A0 in the kernel"),
        ((1, False, True, False, 0, 0), "mapped 1 time, not exclusive, index 0x0 of A0 in the kernel"),
        ((1, True, True, True, 0, 0), "mapped 1 time, exclusive, in the swap cache, index 0x0 of A0 in the kernel"),
        ((1, True, True, False, NOT_SEEN, 0), "mapped 1 time, exclusive in the kernel"),
        ((1, True, True, False, 0, 3), "index 0x3 of A0 in the kernel"),
    ],
    ids=["mapcount", "exclusive", "swap cache", "anon_vma", "index"],
)
def test_pages_matter(facts: tuple[int, bool, bool, bool, int, int], said: str) -> None:
    model = seen(entries(7, 9, 0))
    (text,) = differences(replace(model, pages=[facts, *model.pages[1:]]), model)
    assert text.startswith("page 0 (mm 0, 0x1000): ")
    assert said in text


@pytest.mark.parametrize("at", range(5), ids=["root", "parent", "refcount", "children", "active VMAs"])
def test_anon_vmas_matter(at: int) -> None:
    model = seen(entries(7, 9, 0))
    changed = [value + 1 if place == at else value for place, value in enumerate(model.anon_vmas[0])]
    (text,) = differences(replace(model, anon_vmas=[tuple(changed)]), model)
    assert text.startswith("A0: root A")


@pytest.mark.parametrize("tree", [[(1, 0), (0, 1)], [(0, 1), (1, 0)], [(0, 0)]], ids=["order", "shape", "members"])
def test_the_trees_of_a_walk_matter(tree: list[tuple[int, int]]) -> None:
    model = seen(entries(7, 9, 0), entries(7, 9, 0))
    (text,) = differences(replace(model, trees=[tree, *model.trees[1:]]), model)
    assert text.startswith("A0, areas in its tree: ")
    assert text.endswith(" in the kernel, 0 (depth 0) 1 (depth 1) in the model")


def test_the_address_spaces_of_processes_matter() -> None:
    assert differences(seen([0, 0, 0], [0, 0, 0]), seen([0, 0, 0])) == [
        "address spaces of the processes: 0 1 in the kernel, 0 in the model"
    ]
