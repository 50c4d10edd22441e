"""A file cut into ranges: the same mappers, and in memory or not; and the same as a bar of a few cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I64, U64
from rmap.snapshot.questions.file_view import FileView
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class FileRange:
    """Pages of a file that are all in memory or all not, and that the very same processes map.

    Attributes:
        first, pages: where in the file, in pages.
        resident: whether they are in memory; None unknown.
        pids: who maps them, ascending.
    """

    first: int
    pages: int
    resident: bool | None
    pids: list[int]


@dataclass(frozen=True)
class Cell:
    """A part of the bar.

    Attributes:
        pages: of the file.
        resident, unknown: how many of them are in memory, and of how many that is not known.
        most: mappers of the page of it that has most.
    """

    pages: int
    resident: int
    unknown: int
    most: int


def ranges_of(pages: int, resident: tuple[I64, I64] | None, mapped: Sequence[tuple[int, I64]]) -> list[FileRange]:
    """Cut a file into ranges, ascending, without a gap.

    Args:
        pages: of the file.
        resident: ``(first, count)``, int64: runs of pages in memory; None if unknown.
        mapped: of each process its pid and the pages it maps, int64, in any order, also twice.
    """
    page, of_page, members = _classes(mapped)
    first, count, kind = _runs_of(page, of_page)
    there = resident if resident is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
    ends = (first + count, there[0] + there[1])
    edges = np.unique(np.concatenate((np.array([0, pages]), first, there[0], *ends)))
    begin, length = edges[:-1], np.diff(edges)
    at, is_mapped = _covering(begin, first, count)
    _, is_there = _covering(begin, *there)
    sure_of = is_there | is_mapped | (resident is not None)
    return _joined(
        FileRange(a, n, (is_in or is_one) if sure else None, members[c] if is_one else [])
        for a, n, sure, is_in, is_one, c in zip(
            begin.tolist(), length.tolist(), sure_of.tolist(), is_there.tolist(), is_mapped.tolist(),
            (kind[at] if len(kind) else np.zeros(len(begin), np.int64)).tolist(),
        )
    )  # fmt: skip


def _joined(ranges: Iterable[FileRange]) -> list[FileRange]:
    # A page that was mapped just after it was not in memory makes two ranges of one.
    answer: list[FileRange] = []
    for one in ranges:
        last = answer[-1] if answer else None
        if last is not None and (last.resident, last.pids) == (one.resident, one.pids):
            answer[-1] = FileRange(last.first, last.pages + one.pages, one.resident, one.pids)
        else:
            answer.append(one)
    return answer


def distinct(values: I64) -> I64:
    """The values of a column (int64), each once, ascending: quick where it is made of few ascending pieces."""
    ordered = np.sort(values, kind="stable")
    return ordered[np.concatenate((ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]))]


def _classes(mapped: Sequence[tuple[int, I64]]) -> tuple[I64, I64, list[list[int]]]:
    # Pages that somebody maps, ascending; the class of each, by who does; and the pids of each class.
    own = [(pid, distinct(pages)) for pid, pages in mapped if len(pages)]
    if not own:
        return np.empty(0, np.int64), np.empty(0, np.int64), []
    page = distinct(np.concatenate([pages for _, pages in own]))
    # Sums of random numbers, one for each process, are equal only for equal sets of processes.
    sums: U64 = np.zeros(len(page), np.uint64)
    words = np.random.default_rng(0).integers(1, 1 << 63, len(own), np.uint64)
    for (_, pages), word in zip(own, words):
        sums[np.searchsorted(page, pages)] += word
    _, example, of_page = np.unique(sums, return_index=True, return_inverse=True)
    members: list[list[int]] = [[] for _ in example]
    for pid, pages in sorted(own, key=lambda pair: pair[0]):
        for number in np.flatnonzero(np.isin(page[example], pages)).tolist():
            members[number].append(pid)
    return page, of_page.reshape(-1).astype(np.int64), members


def _runs_of(page: I64, of_page: I64) -> tuple[I64, I64, I64]:
    if not len(page):
        return page, page, page
    begins = np.concatenate(([0], np.flatnonzero((np.diff(page) != 1) | (np.diff(of_page) != 0)) + 1))
    return page[begins], np.diff(np.concatenate((begins, [len(page)]))), of_page[begins]


def _covering(places: I64, first: I64, count: I64) -> tuple[I64, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    # For each of some places: the row of the run that covers it, and whether one does.
    if not len(first):
        return np.zeros(len(places), np.int64), np.zeros(len(places), np.bool_)
    at = np.maximum(np.searchsorted(first, places, side="right") - 1, 0)
    return at, (places >= first[at]) & (places < first[at] + count[at])


def ranges_of_view(view: FileView) -> list[FileRange]:
    """The ranges of a file in a picture: mapped pages are in memory; of the others the picture does not know."""
    answer: list[FileRange] = []
    done = 0
    for one in view.ranges:
        if one.first > done:
            answer.append(FileRange(done, one.first - done, None, []))
        answer.append(FileRange(one.first, one.pages, True, one.pids))
        done = one.first + one.pages
    size = (view.size + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT if view.size >= 0 else done
    if size > done:
        answer.append(FileRange(done, size - done, None, []))
    return answer


def cells_of(ranges: Iterable[FileRange], pages: int, width: int) -> list[Cell]:
    """The bar: at most so many cells, each an equal share of the file (a page, if it has fewer)."""
    n = min(width, pages)
    edges = [cell * pages // n for cell in range(n)] + [pages]
    resident, unknown, most = [0] * n, [0] * n, [0] * n
    for one in ranges:
        end = min(one.first + one.pages, pages)
        cell = min(one.first * n // pages, n - 1) if pages else 0
        while cell < n and edges[cell] < end:
            inside = min(end, edges[cell + 1]) - max(one.first, edges[cell])
            if inside > 0:
                resident[cell] += inside if one.resident else 0
                unknown[cell] += inside if one.resident is None else 0
                most[cell] = max(most[cell], len(one.pids))
            cell += 1
    return [Cell(edges[c + 1] - edges[c], resident[c], unknown[c], most[c]) for c in range(n)]
