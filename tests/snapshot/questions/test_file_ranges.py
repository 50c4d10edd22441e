"""A file cut into ranges and into the cells of a bar, against one page at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rmap.columns import runs
from rmap.snapshot.questions.file_ranges import cells_of, ranges_of, ranges_of_view
from rmap.snapshot.questions.file_view import FileView, MappedRange

PAGES = 40
_sets = st.sets(st.integers(0, PAGES - 1))


@given(st.none() | _sets, st.dictionaries(st.integers(1, 9), st.lists(st.integers(0, PAGES - 1)), max_size=5))
def test_ranges_say_of_each_page_what_is_true_of_it(resident: set[int] | None, mapped: dict[int, list[int]]) -> None:
    there = None if resident is None else runs(np.array(sorted(resident), np.int64))
    ranges = ranges_of(PAGES, there, [(pid, np.array(pages, np.int64)) for pid, pages in mapped.items()])
    seen = [one for one in ranges for _ in range(one.pages)]
    assert len(seen) == PAGES
    for page, one in enumerate(seen):
        assert one.pids == sorted(pid for pid, pages in mapped.items() if page in pages)
        if resident is None:
            assert one.resident is (True if one.pids else None)
        else:
            assert one.resident is (page in resident or bool(one.pids))
    assert all((a.resident, a.pids) != (b.resident, b.pids) for a, b in pairwise(ranges))


@given(_sets, st.dictionaries(st.integers(1, 9), st.lists(st.integers(0, PAGES - 1)), max_size=5), st.integers(1, 64))
def test_cells_share_the_file_out(resident: set[int], mapped: dict[int, list[int]], width: int) -> None:
    there = runs(np.array(sorted(resident), np.int64))
    ranges = ranges_of(PAGES, there, [(pid, np.array(pages, np.int64)) for pid, pages in mapped.items()])
    cells = cells_of(ranges, PAGES, width)
    assert len(cells) == min(width, PAGES) and sum(cell.pages for cell in cells) == PAGES
    page = 0
    for cell in cells:
        inside = range(page, page + cell.pages)
        mappers = [sum(p in pages for pages in mapped.values()) for p in inside]
        assert cell.most == max(mappers)
        assert cell.resident == sum(p in resident or n > 0 for p, n in zip(inside, mappers))
        assert cell.unknown == 0
        page += cell.pages


def test_a_file_without_pages_has_no_cells() -> None:
    assert ranges_of(0, None, []) == [] and cells_of([], 0, 64) == []


def test_of_a_picture_only_mapped_pages_are_known() -> None:
    view = FileView("/f", 10 * 4096, 3, [1, 2], [], 0, [MappedRange(2, 1, [1], 1), MappedRange(5, 2, [1, 2], 4)])
    ranges = ranges_of_view(view)
    assert [(one.first, one.pages, one.resident, one.pids) for one in ranges] == [
        (0, 2, None, []),
        (2, 1, True, [1]),
        (3, 2, None, []),
        (5, 2, True, [1, 2]),
        (7, 3, None, []),
    ]
