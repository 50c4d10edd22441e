"""Calls that Linux refuses, each with its errno; what it refuses leaves everything as it was."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES, EEXIST, EFAULT, EINVAL, ENOMEM
from typing import Any

import pytest

from tests.rules.words import at, layout, mapped, pages, present, refused, written

TASK_SIZE = 0x7FFFFFFFF000
HUGE = 1 << 47


@pytest.fixture
def p(machine: Any) -> Iterator[Any]:
    """A process with pages 10 to 14 written, and page 20 read-only. After the test it must still be like that."""
    process = machine.spawn()
    written(process, 10, 14)
    mapped(process, 20, 21, prot="r")
    yield process
    assert layout(process) == "10-14 rw-p, 20-21 r--p"
    assert present(machine, process, 10, 14) == "xxxx"


# -- mmap


@pytest.mark.parametrize(
    ("error", "length", "how"),
    [
        (EINVAL, 0, {}),
        (ENOMEM, HUGE, {}),
        (EINVAL, pages(1), {"addr": at(30) + 1}),
        (ENOMEM, pages(1), {"addr": TASK_SIZE}),
        (ENOMEM, pages(2), {"addr": TASK_SIZE - pages(1)}),
        (EEXIST, pages(1), {"addr": at(12), "noreplace": True}),
        (EEXIST, pages(3), {"addr": at(8), "noreplace": True}),
        (EEXIST, pages(2), {"addr": at(13), "noreplace": True}),
        (EINVAL, pages(1), {"flags": "shared", "growsdown": True}),
    ],
)
def test_mmap(machine: Any, p: Any, error: int, length: int, how: dict[str, Any]) -> None:
    with refused(error):
        p.mmap(length, **how)


def test_mmap_of_a_file_at_an_unaligned_offset(machine: Any, p: Any) -> None:
    f = machine.open("data", size=pages(2))
    with refused(EINVAL):
        p.mmap(pages(1), file=f, offset=100, addr=at(30))


def test_mmap_over_something_without_noreplace_replaces_it(machine: Any) -> None:
    q = machine.spawn()
    written(q, 10, 14)
    q.mmap(pages(2), addr=at(11), prot="r")
    assert layout(q) == "10-11 rw-p, 11-13 r--p, 13-14 rw-p"
    assert present(machine, q, 10, 14) == "x..x"


# -- munmap


@pytest.mark.parametrize(
    ("error", "addr", "length"),
    [
        (EINVAL, at(10) + 1, pages(1)),
        (EINVAL, at(10), 0),
        (EINVAL, TASK_SIZE, pages(1)),
        (EINVAL, TASK_SIZE - pages(1), pages(2)),
        (EINVAL, at(10), HUGE),
    ],
)
def test_munmap(machine: Any, p: Any, error: int, addr: int, length: int) -> None:
    with refused(error):
        p.munmap(addr, length)


def test_munmap_of_nothing_succeeds(machine: Any, p: Any) -> None:
    p.munmap(at(30), pages(5))
    p.munmap(at(14), 1)


# -- mprotect


@pytest.mark.parametrize(
    ("error", "addr", "length"),
    [
        (EINVAL, at(10) + 1, pages(1)),
        (ENOMEM, at(30), pages(1)),
        (ENOMEM, at(9), pages(2)),
        (ENOMEM, at(12), (1 << 64) - pages(1)),
    ],
)
def test_mprotect(machine: Any, p: Any, error: int, addr: int, length: int) -> None:
    with refused(error):
        p.mprotect(addr, length, "r")


def test_mprotect_of_no_length_succeeds(machine: Any, p: Any) -> None:
    p.mprotect(at(10), 0, "r")
    p.mprotect(at(30), 0, "r")


# -- mremap


@pytest.mark.parametrize(
    ("error", "old", "old_length", "new_length", "how"),
    [
        (EINVAL, at(10) + 1, pages(1), pages(1), {}),
        (EINVAL, at(10), pages(1), 0, {}),
        (EFAULT, at(30), pages(1), pages(2), {}),
        (EFAULT, at(30), pages(1), pages(1), {"addr": at(40)}),
        (EFAULT, at(12), pages(3), pages(4), {}),
        (EINVAL, at(10), 0, pages(1), {"addr": at(40)}),
        (EINVAL, at(10), pages(2), pages(2), {"addr": at(11)}),
        (EINVAL, at(10), pages(2), pages(2), {"addr": at(40) + 1}),
        (EINVAL, at(10), pages(2), pages(2), {"addr": TASK_SIZE}),
        (EINVAL, at(10), pages(2), HUGE, {"addr": at(40)}),
        (EINVAL, at(10), pages(2), pages(3), {"addr": at(40), "dontunmap": True}),
        (ENOMEM, at(10), pages(2), HUGE - pages(1), {}),
    ],
)
def test_mremap(
    machine: Any, p: Any, error: int, old: int, old_length: int, new_length: int, how: dict[str, Any]
) -> None:
    with refused(error):
        p.mremap(old, old_length, new_length, **how)


# -- madvise


@pytest.mark.parametrize(
    ("error", "addr", "length", "advice"),
    [
        (EINVAL, at(10) + 1, pages(1), "dontneed"),
        (EINVAL, at(10), (1 << 64) - 1, "dontneed"),
        (ENOMEM, at(30), pages(1), "dontneed"),
        (ENOMEM, at(30), pages(1), "dontfork"),
        (ENOMEM, at(30), pages(1), "populate_write"),
        (EINVAL, at(20), pages(1), "populate_write"),  # forbidden by the area: a wrong argument, not a fault
    ],
)
def test_madvise(machine: Any, p: Any, error: int, addr: int, length: int, advice: str) -> None:
    with refused(error):
        p.madvise(addr, length, advice)


def test_madvise_of_no_length_succeeds(machine: Any, p: Any) -> None:
    p.madvise(at(10), 0, "dontneed")
    p.madvise(at(30), 0, "dontneed")


@pytest.mark.parametrize("advice", ["dontneed", "free", "cold", "pageout"])
def test_locked_memory_is_not_given_away(machine: Any, advice: str) -> None:
    q = machine.spawn()
    written(q, 10, 12)
    q.mlock(at(10), pages(2))
    with refused(EINVAL):
        q.madvise(at(10), pages(2), advice)
    assert present(machine, q, 10, 12) == "xx"


@pytest.mark.parametrize("advice", ["free", "wipeonfork"])
def test_advice_for_anonymous_memory_only(machine: Any, advice: str) -> None:
    f = machine.open("data", size=pages(4))
    q = machine.spawn()
    mapped(q, 10, 12, file=f)
    mapped(q, 20, 22, flags="shared")
    for page in (10, 20):
        with refused(EINVAL):
            q.madvise(at(page), pages(2), advice)
    assert layout(q) == "10-12 rw-p data+0, 20-22 rw-s shared memory+0"


# -- mlock


@pytest.mark.parametrize("call", ["mlock", "munlock"])
@pytest.mark.parametrize(("error", "addr", "length"), [(ENOMEM, at(30), pages(1)), (ENOMEM, at(9), pages(2))])
def test_mlock(machine: Any, p: Any, call: str, error: int, addr: int, length: int) -> None:
    with refused(error):
        getattr(p, call)(addr, length)


def test_mlock_rounds_to_whole_pages(machine: Any) -> None:
    q = machine.spawn()
    mapped(q, 10, 14)
    q.mlock(at(11) + 100, 4096)
    assert layout(q) == "10-11 rw-p, 11-13 rw-p lo, 13-14 rw-p"
    q.munlock(at(11) + 4095, 2)
    assert layout(q) == "10-14 rw-p"


# -- touching


@pytest.mark.parametrize(
    ("touch", "addr"),
    [("read", at(30)), ("write", at(30)), ("write", at(20))],
    ids=["read of nothing", "write of nothing", "write of read-only"],
)
def test_a_touch_that_ends_in_a_signal(machine: Any, p: Any, touch: str, addr: int) -> None:
    with refused(EFAULT):
        getattr(p, touch)(addr, 1)


def test_touching_memory_without_permissions(machine: Any) -> None:
    q = machine.spawn()
    mapped(q, 10, 11, prot="")
    for touch in (q.read, q.write):
        with refused(EFAULT):
            touch(at(10), 1)


def test_touching_a_file_behind_its_end(machine: Any) -> None:
    f = machine.open("data", size=pages(2))
    q = machine.spawn()
    mapped(q, 10, 14, file=f, flags="shared")
    q.read(at(11), 1)
    for touch in (q.read, q.write):
        with refused(EFAULT):
            touch(at(12), 1)
    q.write(at(11), 1)
    with refused(EFAULT):
        q.write(at(11), pages(2))


# -- a file opened for reading only


def test_a_file_opened_for_reading_cannot_be_shared_for_writing(machine: Any) -> None:
    f = machine.open("lib", size=pages(2), writable=False)
    q = machine.spawn()
    with refused(EACCES):
        mapped(q, 10, 12, file=f, flags="shared")
    mapped(q, 10, 12, file=f, flags="shared", prot="r")
    with refused(EACCES):
        q.mprotect(at(10), pages(1), "rw")
    mapped(q, 20, 22, file=f, prot="r")
    q.mprotect(at(20), pages(1), "rw")
    assert layout(q) == "10-12 r--s lib+0, 20-21 rw-p lib+0, 21-22 r--p lib+1"
