"""The words in which the stories are told: places, layouts, and who shares what.

A ``machine`` is a model kernel, a group of real processes, or both at once; the stories do not know which.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

import pytest

from rmap.lab.conform import at, pages
from rmap.lab.conform.scenario import BASE, PAGE


def mapped(process: Any, first: int, end: int, **how: Any) -> int:
    """Map the pages ``first`` to ``end``, exclusive, at exactly that place. Returns the address."""
    address: int = process.mmap(pages(end - first), addr=at(first), noreplace=True, **how)
    return address


def written(process: Any, first: int, end: int, **how: Any) -> int:
    """Map pages and write all of them."""
    address = mapped(process, first, end, **how)
    process.write(address, pages(end - first))
    return address


def layout(machine: Any, process: Any) -> str:
    """The areas of a process as text, in pages of the story: ``"10-12 rw-p, 12-13 r--p lib+3"``.

    Flags of smaps follow, except those of memory accounting.
    """
    words = []
    for area in machine.areas_of(process):
        text = f"{(area.start - BASE) // PAGE}-{(area.end - BASE) // PAGE} {area.perms}"
        if area.file:
            text += f" {area.file}+{area.offset // PAGE}"
        words.append(" ".join([text, *sorted(area.marks - {"ac", "nr"})]))
    return ", ".join(words)


def shared(machine: Any, *places: tuple[Any, int]) -> bool:
    """Whether exactly these ``(process, page)`` places map one page: no other place, and not the zero page."""
    frames = {machine.pfn(process, at(page)) for process, page in places}
    frame = frames.pop()
    if frames or frame is None or machine.is_zero_page(frame):
        return False
    return bool(machine.mapcount(frame) == len(places))


def present(machine: Any, process: Any, first: int, end: int) -> str:
    """Which pages are in memory: ``"x"`` for each that is, ``"0"`` for the zero page, ``"."`` where there is none."""

    def letter(page: int) -> str:
        frame = machine.pfn(process, at(page))
        return "." if frame is None else "0" if machine.is_zero_page(frame) else "x"

    return "".join(map(letter, range(first, end)))


@contextlib.contextmanager
def refused(error: int) -> Iterator[None]:
    """The call inside must fail with this errno."""
    with pytest.raises(OSError) as caught:
        yield
    got = caught.value.errno or 0
    assert got == error, f"expected {errno.errorcode[error]}, got {errno.errorcode.get(got, got)}: {caught.value}"
