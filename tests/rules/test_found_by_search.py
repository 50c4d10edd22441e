"""Bugs that the random and the exhaustive search found in the model, each as the shortest story that shows it."""

from __future__ import annotations

import pytest

from rmap import Kernel, SyscallError
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import DIRTY
from tests.rules.words import PAGE, at, layout, mapped, read, write, written


def test_a_write_over_a_hole_between_two_stacks_grows_the_upper_one_over_the_hole_only(any_k: Kernel) -> None:
    p = any_k.spawn()
    mapped(p, 4, 24, growsdown=True)
    p.munmap(at(14), PAGE)
    p.write(at(12), 5 * PAGE)
    assert layout(p) == "4-14 rw-p gd, 14-24 rw-p gd"


def test_a_stack_does_not_grow_for_a_write_that_is_refused_further_up(any_k: Kernel) -> None:
    p = any_k.spawn()
    mapped(p, 8, 9, growsdown=True)
    mapped(p, 9, 10, "r")
    with pytest.raises(SyscallError):
        p.write(at(6), 4 * PAGE)
    assert layout(p) == "8-9 rw-p gd, 9-10 r--p"


@pytest.mark.parametrize("scalar_twins", [True, False])
def test_an_access_to_device_memory_marks_its_entries(scalar_twins: bool) -> None:
    k = Kernel(nr_pages=64, nr_tables=16, scalar_twins=scalar_twins)
    p = k.spawn()
    address = p.map_kernel_pages(2, "pfnmap")
    p.write(address, 2 * PAGE)
    assert int(k.core.tables.ptes[ptep_of(p.mm, address + PAGE)]) & DIRTY
    assert k.costs.get("fault", "faults") == 0
    p.mprotect(address, PAGE, "r")
    with pytest.raises(SyscallError):
        p.write(address, 2 * PAGE)


def test_a_page_given_up_is_not_taken_for_a_page_of_a_file_when_it_is_evicted(any_k: Kernel) -> None:
    k = any_k
    lib = k.open("lib", 2 * PAGE)
    lib.read_in()
    p = k.spawn()
    written(p, 0, 2)
    p.madvise(at(0), 2 * PAGE, "free")
    assert k.reclaim([k.pfn(p, at(0)) or 0]) == 1
    k.check()
    mapped(p, 4, 6, "r", file=lib)
    read(p, 4, 6)
    assert k.pfn(p, at(5)) is not None


def test_a_picture_of_a_machine_that_has_swapped_nearly_everything_loads(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 4)
    k.reclaim([k.pfn(p, at(page)) or 0 for page in range(4)])
    again = Kernel.adopt(k.snapshot(), design=k.design.name)
    again.check()
    assert again.core.swap.used == 4


def test_the_last_user_of_a_page_in_the_swap_cache_takes_it_where_it_hangs(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    k.reclaim([k.pfn(p, at(0)) or 0])
    write(p, 0)  # reads the page into the swap cache, on the root, and copies it
    write(c, 0)  # takes it out, exclusively; it stays on the root (rule 4.12)
    k.check()
    assert k.core.swap.used == 0
    # The same in a machine that is loaded from a picture of this one.
    Kernel.adopt(k.snapshot(), design=k.design.name).check()
