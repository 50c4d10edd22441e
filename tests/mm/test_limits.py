"""Limits of the model, reached in the midst of an operation: a plain refusal, and nothing left half done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rmap import Kernel
from rmap.errors import LimitError, UsageError
from rmap.kernel.process import Process
from rmap.mm.mm_types import Mm
from rmap.mm.page_tables import PageTables, ensure, ptep_of
from tests.support import PAGE

TABLE = 1 << 21
DESIGNS = ("anon_vma_chain", "pte_chain")
BASE = 0x10000000


@pytest.fixture(params=DESIGNS)
def design(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def in_four_tables(kernel: Kernel) -> Process:
    """A process with a page in each of four page tables, one swapped out."""
    process = kernel.spawn()
    for i in range(4):
        process.mmap(PAGE, addr=BASE + i * TABLE)
        process.write(BASE + i * TABLE)
    kernel.reclaim([kernel.pfn(process, BASE) or 0])
    return process


def entries(kernel: Kernel, process: Process) -> list[int]:
    return [int(kernel.core.tables.ptes[ptep_of(process.mm, row.start)]) for row in process.maps()]


@pytest.mark.parametrize("left", range(4))
def test_fork_is_refused_as_a_whole_where_page_tables_are_short(design: str, left: int) -> None:
    kernel = Kernel(design, nr_pages=64, nr_tables=1 + 4 + left)
    process = in_four_tables(kernel)
    before = entries(kernel, process)
    with pytest.raises(LimitError, match="page tables"):
        process.fork()
    assert entries(kernel, process) == before
    assert len(kernel.processes) == len(kernel.core.mms) == 1
    kernel.check()


def test_fork_needs_page_tables_only_for_what_it_copies(design: str) -> None:
    kernel = Kernel(design, nr_pages=64, nr_tables=1 + 4 + 1)
    process = in_four_tables(kernel)
    process.madvise(BASE, PAGE, "dontfork")
    process.madvise(BASE + TABLE, PAGE, "wipeonfork")
    process.munmap(BASE + 2 * TABLE, PAGE)
    child = process.fork()
    assert len(child.mm.rows) == 1
    kernel.check()


@pytest.mark.parametrize("left", range(3))
@pytest.mark.parametrize("offset", [0, PAGE])
def test_mremap_moves_nothing_where_page_tables_are_short(design: str, left: int, offset: int) -> None:
    kernel = Kernel(design, nr_pages=64, nr_tables=1 + 3 + left)
    process = kernel.spawn()
    process.mmap(3 * TABLE, addr=BASE)
    for i in range(3):
        process.write(BASE + i * TABLE + 17 * PAGE, 2 * PAGE)
    try:
        process.mremap(BASE, 3 * TABLE, 3 * TABLE, BASE + 8 * TABLE + offset)
    except LimitError:
        assert [row.start for row in process.maps()] == [BASE]
    kernel.check()
    assert int(np.count_nonzero(kernel.core.frames.mapcount)) == 6


@pytest.mark.parametrize("kind", ["vdso", "pfnmap"])
def test_pages_of_the_kernel_are_not_mapped_where_page_tables_are_short(kind: str) -> None:
    kernel = Kernel(nr_pages=2048, nr_tables=3)
    process = kernel.spawn()
    with pytest.raises(LimitError, match="page tables"):
        process.map_kernel_pages(600, kind)
    assert not process.maps()
    kernel.check()


def test_scattered_page_tables_serve_a_large_range() -> None:
    tables, mm, other = PageTables(9), Mm(1), Mm(2)
    for region in range(8):
        ensure(tables, mm if region % 2 else other, region * TABLE, region * TABLE + PAGE)
    for region in range(0, 8, 2):
        tables.free(other.rows.pop(region), 1)
    ensure(tables, mm, 0, 8 * TABLE)
    assert sorted(mm.rows) == list(range(8))
    assert sorted(mm.rows.values()) == list(range(1, 9))
    assert tables.addr_of(np.array([row * 512 for row in mm.rows.values()])).tolist() == [r * TABLE for r in mm.rows]
    with pytest.raises(LimitError, match="0 of 9"):
        ensure(tables, mm, 8 * TABLE, 9 * TABLE)


@pytest.mark.parametrize(
    "sizes", [{"nr_tables": 0}, {"nr_swap": -1}, {"nr_pages": 1}, {"nr_pages": 1 << 40}, {"nr_tables": 1 << 40}]
)
def test_a_machine_of_impossible_size(sizes: dict[str, int]) -> None:
    with pytest.raises(LimitError):
        Kernel(**{"nr_pages": 64, **sizes})


def no_room(monkeypatch: pytest.MonkeyPatch, above: int) -> None:
    """A host on which arrays of more than so many elements cannot be had."""
    zeros = np.zeros

    def limited(shape: int, *rest: object, **more: object) -> object:
        if shape > above:
            raise MemoryError
        return zeros(shape, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(np, "zeros", limited)


def test_a_machine_that_the_host_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    no_room(monkeypatch, 1 << 10)
    with pytest.raises(LimitError, match="host"):
        Kernel(nr_pages=1 << 12)


@pytest.mark.parametrize(
    "grow",
    [
        lambda kernel, file: file.truncate(1 << 40),
        lambda kernel, file: kernel.open("larger", 1 << 40),
        lambda kernel, file: kernel.spawn().mmap(1 << 40, flags="shared", locked=True),
    ],
)
def test_files_that_the_host_cannot_hold(grow: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(nr_pages=64)
    file = kernel.open("file", 3 * PAGE)
    file.read_in()
    no_room(monkeypatch, 1 << 20)
    with pytest.raises(LimitError, match="host"):
        grow(kernel, file)
    monkeypatch.undo()
    kernel.check()
    assert file.size == 3 * PAGE and "larger" not in kernel.files
    assert not any(process.mm.locked_vm for process in kernel.processes.values())


def test_a_file_of_negative_size() -> None:
    with pytest.raises(UsageError, match="cannot have"):
        Kernel(nr_pages=64).open("file", -1)
