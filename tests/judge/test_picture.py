"""The judge itself: does it see what it is there to see?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from judge.machines import Diverged, Pair
from judge.picture import Area, Entry, Picture, differences, picture
from judge.puppets import missing_ability
from judge.words import at, pages, written
from needs import need

AREA = Area(0x1000, 0x4000, "rw-p")
SHARED: list[Entry] = [("page", 7), ("page", 9), None]


def seen(*processes: list[Entry], areas: tuple[Area, ...] = (AREA,), mapcount: int = 1) -> Picture:
    return picture([(areas, entries) for entries in processes], lambda pfn: mapcount)


def test_frame_numbers_do_not_matter() -> None:
    renumbered: list[Entry] = [("page", 100), ("page", 3), None]
    assert differences(seen(SHARED, SHARED), seen(renumbered, renumbered)) == []


def test_who_shares_with_whom_matters() -> None:
    crossed: list[Entry] = [("page", 9), ("page", 7), None]
    (text,) = differences(seen(SHARED, SHARED), seen(SHARED, crossed))
    assert text.startswith("process 1, pages:")


@pytest.mark.parametrize("other", [None, ("zero", 0), ("swap", 9)], ids=["none", "zero page", "swap"])
def test_what_is_there_matters(other: Entry) -> None:
    assert differences(seen(SHARED), seen([("page", 7), other, None]))


def test_swap_slots_are_told_apart_by_who_shares_them() -> None:
    same: list[Entry] = [("swap", 1), ("swap", 1), None]
    two: list[Entry] = [("swap", 1), ("swap", 2), None]
    assert differences(seen(same), seen(two))
    assert not differences(seen(two), seen([("swap", 5), ("swap", 1), None]))


@pytest.mark.parametrize(
    "other",
    [
        (Area(0x1000, 0x5000, "rw-p"),),
        (Area(0x1000, 0x4000, "r--p"),),
        (Area(0x1000, 0x4000, "rw-p", marks=frozenset({"lo"})),),
        (Area(0x1000, 0x4000, "rw-p", 0x1000, "lib"),),
        (Area(0x1000, 0x2000, "rw-p"), Area(0x2000, 0x4000, "rw-p")),
        (),
    ],
    ids=["end", "permissions", "locked", "file", "split", "nothing"],
)
def test_areas_matter(other: tuple[Area, ...]) -> None:
    (text,) = differences(seen(SHARED), seen(SHARED, areas=other))
    assert text.startswith("process 0, areas:")


def test_mapcounts_matter() -> None:
    assert differences(seen(SHARED, mapcount=2), seen(SHARED, mapcount=1)) == [
        "page 0: mapcount 2 in the kernel, 1 in the model",
        "page 1: mapcount 2 in the kernel, 1 in the model",
    ]


def test_the_number_of_processes_matters() -> None:
    assert differences(seen(SHARED, SHARED), seen(SHARED)) == ["the kernel has 2 processes, the model 1"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    need(missing_ability())
    both = Pair()
    yield both
    both.close()


@pytest.mark.live
def test_a_step_that_only_one_of_them_makes_is_noticed(pair: Pair) -> None:
    p = pair.spawn()
    written(p, 0, 2)
    p.model.munmap(at(0), pages(1))
    with pytest.raises(Diverged, match="process 0, areas"):
        p.read(at(1), 1)


@pytest.mark.live
def test_an_answer_that_only_one_of_them_gives_is_noticed(pair: Pair) -> None:
    p = pair.spawn()
    p.real.mmap(pages(1), addr=at(0))
    with pytest.raises(Diverged, match="EEXIST in the kernel, 17592186044416 in the model"):
        p.mmap(pages(1), addr=at(0), noreplace=True)
