"""mprotect: what it changes, what stays changed when it is refused, and the accounting that decides merges."""

from __future__ import annotations

import errno

import pytest

from rmap.errors import SyscallError
from rmap.mm.costs import MPROTECT
from rmap.mm.fault import touch
from rmap.mm.mlock import mlock
from rmap.mm.mm_types import File
from rmap.mm.mmap import mmap
from rmap.mm.mprotect import mprotect
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import PRESENT, RW
from rmap.uapi.vm_flags import VM_ACCESS, VM_ACCOUNT, VM_EXEC, VM_NORESERVE, VM_READ, VM_WRITE
from tests.mm.areas import VM_R, VM_RW, World, at
from tests.support import PAGE

R, W, RWX = VM_READ, VM_READ | VM_WRITE, VM_ACCESS


def protect(world: World, first: int, pages: int, prot: int) -> None:
    mprotect(world.core, world.mm, at(first), pages * PAGE, prot)


def prots(world: World) -> str:
    """The protection of every page, one letter each: w writable, r readable, x executable too, n none."""
    letters = {0: "n", R: "r", W: "w", RWX: "x"}
    return "".join(letters[vma.flags & VM_ACCESS] * vma.pages for vma in world.mm.vmas)


@pytest.mark.parametrize(
    ("before", "first", "pages", "prot", "after", "now"),
    [
        ("AAAA", 1, 2, R, "ABBC", "wrrw"),
        ("AAAA", 0, 4, RWX, "AAAA", "xxxx"),
        ("aabb", 0, 4, R, "aaaa", "rrrr"),
        ("aaBB", 1, 2, R, "abCD", "wrrw"),
        ("aammbb", 2, 2, W, "aaaaaa", "wwwwww"),
        ("aammbb", 1, 4, R, "abbbbc", "wrrrrw"),
        ("aammbb", 0, 6, W, "aaaaaa", "wwwwww"),
        ("aammbb", 0, 3, W, "aaabcc", "wwwrww"),
        ("aa", 0, 2, W, "aa", "ww"),
    ],
)
def test_ranges(world: World, before: str, first: int, pages: int, prot: int, after: str, now: str) -> None:
    world.draw(before, read_only="m")
    protect(world, first, pages, prot)
    assert prots(world) == now
    assert world.snapshot() == after
    assert world.core.costs.calls[MPROTECT] == 1
    world.check()


def test_up_to_a_hole(world: World) -> None:
    world.draw("aabb.cc", read_only="b")
    with pytest.raises(SyscallError) as caught:
        protect(world, 1, 6, 0)
    assert caught.value.errno == errno.ENOMEM
    assert prots(world) == "wnnn" + "ww"


def test_up_to_the_first_refusal(world: World) -> None:
    file = File(world.core.new_mapping("lib", 8 * PAGE, shmem=False), "lib", writable=False)
    world.draw("aa", read_only="a")
    mmap(world.core, world.mm, 2 * PAGE, addr=at(2), fixed=True, file=file, shared=True, prot=R)
    with pytest.raises(SyscallError) as caught:
        protect(world, 0, 4, W)
    assert caught.value.errno == errno.EACCES
    assert prots(world) == "wwrr"


@pytest.mark.parametrize(
    ("error", "addr", "length", "prot"),
    [
        (errno.EINVAL, at(0) + 1, PAGE, R),
        (errno.ENOMEM, at(0), -PAGE, R),
        (errno.ENOMEM, at(0), (1 << 64) - PAGE, R),
        (errno.EINVAL, at(0), PAGE, 0x10),
        (errno.ENOMEM, at(2), PAGE, R),
        (errno.ENOMEM, at(2), PAGE, W),
    ],
)
def test_refusals(world: World, error: int, addr: int, length: int, prot: int) -> None:
    world.draw("aa.b")
    with pytest.raises(SyscallError) as caught:
        mprotect(world.core, world.mm, addr, length, prot)
    assert caught.value.errno == error
    assert prots(world) == "www"


def test_no_length_is_no_error(world: World) -> None:
    mprotect(world.core, world.mm, at(0), 0, 0x10)


@pytest.mark.parametrize(("limit", "after"), [(1, "aaaa"), (2, "abbb")])
def test_too_many_areas(limit: int, after: str) -> None:
    world = World(max_map_count=limit)
    world.draw("aaaa")
    with pytest.raises(SyscallError) as caught:
        protect(world, 1, 2, R)
    assert caught.value.errno == errno.ENOMEM
    assert world.snapshot() == after
    assert prots(world) == "wwww"


# -- the accounting (VM_ACCOUNT)


def test_an_unfaulted_area_gives_back_what_was_set_aside(world: World) -> None:
    world.draw("aaaa")
    protect(world, 0, 2, R)
    assert world.mm.vmas[0].flags == VM_R
    protect(world, 0, 2, W)
    assert world.snapshot() == "aaaa"


def test_a_faulted_area_does_not(world: World) -> None:
    world.draw("AA..bb", read_only="b")
    protect(world, 0, 2, R)
    assert world.mm.vmas[0].flags == VM_R | VM_ACCOUNT


def test_nor_does_a_private_mapping_of_a_file(world: World) -> None:
    file = File(world.core.new_mapping("data", 8 * PAGE, shmem=False), "data")
    mmap(world.core, world.mm, 2 * PAGE, addr=at(0), fixed=True, file=file)
    protect(world, 0, 2, R)
    assert world.mm.vmas[0].flags & VM_ACCOUNT


def test_what_becomes_writable_is_set_aside(world: World) -> None:
    world.draw("aabb", a=VM_R, b=VM_R | VM_NORESERVE)
    protect(world, 0, 4, W)
    assert [bool(vma.flags & VM_ACCOUNT) for vma in world.mm.vmas] == [True, False]


# -- pages


def entry(world: World, page: int) -> int:
    return int(world.core.tables.ptes[ptep_of(world.mm, at(page))])


def test_write_permission_leaves_entries_at_once_and_returns_to_exclusive_pages(world: World) -> None:
    mmap(world.core, world.mm, 4 * PAGE, addr=at(0), fixed=True)
    touch(world.core, world.mm, at(0), 4 * PAGE, True)
    protect(world, 1, 2, R)
    assert [bool(entry(world, page) & RW) for page in range(4)] == [True, False, False, True]
    protect(world, 0, 4, W)
    assert all(entry(world, page) & RW for page in range(4))


@pytest.mark.parametrize(("onfault", "there"), [(False, True), (True, False)])
def test_a_locked_area_that_becomes_writable_is_copied_now(world: World, onfault: bool, there: bool) -> None:
    mmap(world.core, world.mm, 2 * PAGE, addr=at(0), fixed=True, prot=R)
    mlock(world.core, world.mm, at(0), 2 * PAGE, onfault=onfault)
    assert not world.mm.vmas[0].faulted
    protect(world, 0, 2, W)
    assert world.mm.vmas[0].faulted is there
    assert bool(entry(world, 0) & PRESENT and entry(world, 0) & RW) is there if there else not world.mm.rows


def test_executable_is_a_protection_like_the_others(world: World) -> None:
    world.draw("aa", a=VM_RW)
    protect(world, 0, 1, VM_READ | VM_EXEC)
    assert [vma.flags & VM_ACCESS for vma in world.mm.vmas] == [VM_READ | VM_EXEC, W]
