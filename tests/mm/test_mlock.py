"""mlock and munlock."""

from __future__ import annotations

import errno

import pytest

from rmap.errors import SyscallError
from rmap.mm.costs import MLOCK
from rmap.mm.frames import PG_MLOCKED
from rmap.mm.mlock import mlock, munlock
from rmap.mm.mm_types import File
from rmap.mm.mmap import mmap
from rmap.mm.page_tables import ptep_of
from rmap.uapi.vm_flags import VM_IO, VM_LOCKED, VM_LOCKED_MASK, VM_MAYREAD, VM_READ
from tests.mm.areas import VM_R, World, at
from tests.support import PAGE


def locked(world: World) -> str:
    """Every page that is mapped: L locked, O locked on fault, - not locked."""
    letters = {0: "-", VM_LOCKED: "L", VM_LOCKED_MASK: "O"}
    return "".join(letters[vma.flags & VM_LOCKED_MASK] * vma.pages for vma in world.mm.vmas)


def lock(world: World, first: int, pages: int, onfault: bool = True) -> None:
    mlock(world.core, world.mm, at(first), pages * PAGE, onfault=onfault)


def test_a_part_is_cut_out_and_merges_again(world: World) -> None:
    """Rule 3.12."""
    world.draw("AAAA")
    lock(world, 1, 2)
    assert (world.snapshot(), locked(world), world.mm.locked_vm) == ("ABBC", "-OO-", 2)
    munlock(world.core, world.mm, at(0), 4 * PAGE)
    assert (world.snapshot(), locked(world), world.mm.locked_vm) == ("AAAA", "----", 0)
    assert world.core.costs.calls[MLOCK] == 2
    world.check()


def test_whole_pages_are_locked(world: World) -> None:
    world.draw("aaaa")
    mlock(world.core, world.mm, at(1) + 4095, 2, onfault=True)
    assert locked(world) == "-OO-"
    mlock(world.core, world.mm, at(0), 0)
    munlock(world.core, world.mm, at(0), 0)
    assert locked(world) == "-OO-"


def test_locked_pages_are_counted_once(world: World) -> None:
    world.draw("aaaa")
    lock(world, 0, 3)
    lock(world, 1, 3)
    assert world.mm.locked_vm == 4
    lock(world, 0, 4, onfault=False)
    assert (locked(world), world.mm.locked_vm) == ("LLLL", 4)


def test_up_to_a_hole(world: World) -> None:
    world.draw("aa.bb")
    for call in (mlock, munlock):
        with pytest.raises(SyscallError) as caught:
            call(world.core, world.mm, at(1), 4 * PAGE)
        assert (caught.value.errno, caught.value.call) == (errno.ENOMEM, call.__name__)
        assert locked(world) == ("-L--" if call is mlock else "----")
    assert world.mm.locked_vm == 0
    with pytest.raises(SyscallError):
        lock(world, 2, 1)


def test_special_mappings_are_passed_over(world: World) -> None:
    world.draw("aabb", a=VM_R | VM_IO)
    lock(world, 0, 4)
    assert locked(world) == "--OO"


@pytest.mark.parametrize("call", [mlock, munlock])
@pytest.mark.parametrize("length", [-1, 1 << 64])
def test_lengths_that_make_no_sense(world: World, call: object, length: int) -> None:
    world.draw("aa")
    with pytest.raises(SyscallError) as caught:
        call(world.core, world.mm, at(0), length)  # type: ignore[operator]
    assert caught.value.errno == errno.EINVAL


def test_too_many_areas() -> None:
    world = World(max_map_count=2)
    world.draw("aaaa")
    with pytest.raises(SyscallError) as caught:
        lock(world, 1, 2)
    assert caught.value.errno == errno.ENOMEM
    assert locked(world) == "----"


# -- pages


def there(world: World, page: int) -> bool:
    ptep = ptep_of(world.mm, at(page))
    return bool(ptep and world.core.tables.ptes[ptep])


def test_locked_pages_are_faulted_in(world: World) -> None:
    mmap(world.core, world.mm, 4 * PAGE, addr=at(0), fixed=True)
    lock(world, 0, 2, onfault=False)
    lock(world, 2, 2, onfault=True)
    assert [there(world, page) for page in range(4)] == [True, True, False, False]


def test_what_cannot_be_faulted_in_is_locked_and_refused(world: World) -> None:
    """PROT_NONE, or beyond the end of the file. What lies behind it is locked, and not faulted in."""
    file = File(world.core.new_mapping("data", PAGE, shmem=False), "data")
    mmap(world.core, world.mm, 2 * PAGE, addr=at(0), fixed=True, file=file, shared=True)
    mmap(world.core, world.mm, 2 * PAGE, addr=at(2), fixed=True, prot=0)
    mmap(world.core, world.mm, 2 * PAGE, addr=at(4), fixed=True)
    for first in (0, 2):
        with pytest.raises(SyscallError) as caught:
            lock(world, first, 6 - first, onfault=False)
        assert caught.value.errno == errno.ENOMEM
    assert locked(world) == "LLLLLL"
    assert [there(world, page) for page in range(6)] == [True, False, False, False, False, False]


def test_unlocked_pages_may_be_evicted_again(world: World) -> None:
    mmap(world.core, world.mm, 2 * PAGE, addr=at(0), fixed=True)
    lock(world, 0, 2, onfault=False)
    flags = world.core.frames.flags
    flags[flags != 0] |= PG_MLOCKED  # as a walk marks what it finds in a locked area
    munlock(world.core, world.mm, at(0), PAGE)
    assert [bool(flags[world.core.tables.ptes[ptep_of(world.mm, at(page))] >> 12] & PG_MLOCKED) for page in (0, 1)] == [
        False,
        True,
    ]


def test_a_read_only_area_is_read(world: World) -> None:
    world.draw("aa", a=VM_READ | VM_MAYREAD)
    lock(world, 0, 2, onfault=False)
    assert not world.mm.vmas[0].faulted
    assert there(world, 0)
