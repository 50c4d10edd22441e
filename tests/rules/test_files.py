"""Files: private copies, fault-around, truncation and holes, and shared memory (rules 4.4, 4.10, 4.11, 5.8)."""

from __future__ import annotations

from errno import EFAULT
from typing import Any

import pytest

from rmap import Kernel
from rmap.mm.pte import RW
from tests.rules.words import (
    PAGE,
    anchor,
    at,
    entry,
    layout,
    mapped,
    pages,
    present,
    read,
    refused,
    shared,
    write,
    written,
)


def test_a_read_fault_maps_what_is_cached_around_it(machine: Any) -> None:
    """Rule 4.10: an aligned window of 16 pages, cut by the area."""
    f = machine.open("lib", size=pages(64))
    p = machine.spawn()
    mapped(p, 0, 40, file=f, prot="r")
    p.read(at(20), 1)
    assert present(machine, p, 0, 40) == "." * 16 + "x" * 16 + "." * 8
    p.read(at(39), 1)
    assert present(machine, p, 0, 40) == "." * 16 + "x" * 24


def test_a_write_to_a_shared_page_maps_only_that(machine: Any) -> None:
    f = machine.open("data", size=pages(32), shmem=True)
    p = machine.spawn()
    mapped(p, 0, 32, file=f, flags="shared")
    p.write(at(5), 1)
    assert present(machine, p, 0, 32) == "....." + "x" + "." * 26


def test_a_write_to_a_private_page_copies_only_that(machine: Any) -> None:
    f = machine.open("lib", size=pages(16))
    p, q = machine.spawn(), machine.spawn()
    mapped(p, 0, 16, file=f)
    mapped(q, 0, 16, file=f)
    q.read(at(0), 1)
    p.write(at(5), 1)
    assert present(machine, p, 0, 16) == "....." + "x" + "." * 10
    assert shared(machine, (p, 5))
    assert shared(machine, (q, 5))
    p.read(at(0), 1)
    assert shared(machine, (p, 4), (q, 4))
    assert shared(machine, (p, 5))


def test_a_mapped_file_page_is_replaced_by_the_private_copy(machine: Any) -> None:
    f = machine.open("lib", size=pages(2))
    p, q = machine.spawn(), machine.spawn()
    for process in (p, q):
        mapped(process, 0, 2, file=f)
        process.read(at(0), pages(2))
    assert shared(machine, (p, 0), (q, 0))
    p.write(at(0), 1)
    assert shared(machine, (p, 0))
    assert shared(machine, (q, 0))
    assert shared(machine, (p, 1), (q, 1))


def test_4_4_fork_copies_file_entries_only_of_an_area_with_private_pages(machine: Any) -> None:
    f = machine.open("lib", size=pages(4))
    p = machine.spawn()
    mapped(p, 0, 4, file=f)
    p.read(at(0), 1)
    assert present(machine, p.fork(), 0, 4) == "...."
    p.write(at(2), 1)
    c = p.fork()
    assert present(machine, c, 0, 4) == "xxxx"
    assert shared(machine, (p, 0), (c, 0))
    assert shared(machine, (p, 2), (c, 2))


def test_truncation_takes_private_copies_too(machine: Any) -> None:
    """Rule 5.8, even_cows."""
    f = machine.open("data", size=pages(4))
    p, q = machine.spawn(), machine.spawn()
    written(p, 0, 4, file=f)
    mapped(q, 0, 4, file=f, flags="shared")
    q.write(at(0), pages(4))
    f.truncate(pages(2))
    assert present(machine, p, 0, 4) == "xx.."
    assert present(machine, q, 0, 4) == "xx.."
    for process in (p, q):
        with refused(EFAULT):
            process.read(at(2), 1)
    f.truncate(pages(4))
    p.write(at(3), 1)
    assert present(machine, p, 0, 4) == "xx.x"


def test_a_hole_leaves_private_copies(machine: Any) -> None:
    f = machine.open("data", size=pages(4), shmem=True)
    p, q = machine.spawn(), machine.spawn()
    mapped(p, 0, 4, file=f)
    p.write(at(1), 1)
    p.read(at(2), 1)
    mapped(q, 0, 4, file=f, flags="shared")
    q.read(at(0), 1)
    assert present(machine, p, 0, 4) == "xxxx"
    f.punch_hole(pages(1), pages(2))
    assert present(machine, p, 0, 4) == "xx.x"
    assert present(machine, q, 0, 4) == "x..x"
    q.read(at(1), 1)
    assert shared(machine, (q, 1))


def test_two_processes_share_through_a_file_at_different_places(machine: Any) -> None:
    f = machine.open("data", size=pages(8), shmem=True)
    p = machine.spawn()
    written(p, 0, 8, file=f, flags="shared")
    c = p.fork()
    c.mremap(at(4), pages(4), pages(4), at(20))
    c.read(at(20), pages(4))
    assert layout(c) == "0-4 rw-s data+0, 20-24 rw-s data+4"
    assert shared(machine, (p, 5), (c, 21))


@pytest.mark.parametrize("advice", ["populate_read", "populate_write"])
def test_populating(machine: Any, advice: str) -> None:
    p = machine.spawn()
    mapped(p, 0, 4)
    p.madvise(at(1), pages(2), advice)
    assert present(machine, p, 0, 4) == (".00." if advice == "populate_read" else ".xx.")


def test_mmap_populate(machine: Any) -> None:
    p = machine.spawn()
    mapped(p, 0, 3, populate=True)
    mapped(p, 10, 13, populate=True, prot="r")
    assert present(machine, p, 0, 3) == "xxx"
    assert present(machine, p, 10, 13) == "000"


def test_a_borrowed_address_space_is_the_same_one(machine: Any) -> None:
    """CLONE_VM: what one does, the other sees, and every page is mapped once."""
    p = machine.spawn()
    written(p, 0, 4)
    t = p.clone_vm()
    t.munmap(at(0), pages(1))
    assert layout(p) == layout(t) == "1-4 rw-p"
    assert machine.mapcount(machine.pfn(p, at(1))) == 1
    t.exit()
    assert layout(p) == "1-4 rw-p"


def test_vfork_borrows_until_exit(machine: Any) -> None:
    p = machine.spawn()
    written(p, 0, 2)
    v = p.vfork()
    v.write(at(0), pages(1))
    v.mprotect(at(1), pages(1), "r")
    v.exit()
    assert layout(p) == "0-1 rw-p, 1-2 r--p"
    assert machine.mapcount(machine.pfn(p, at(0))) == 1


# -- on the model alone: entries, anchors, walks


def test_4_10_a_read_fault_maps_what_is_cached_around(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    lib = k.open("lib", 64 * PAGE)
    lib.read_in()
    mapped(p, 0, 40, "r", file=lib)
    read(p, 20)
    assert [page for page in range(40) if k.pfn(p, at(page))] == list(range(16, 32))


def test_4_10_a_private_copy_has_the_files_page_index(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 2, file=k.open("lib", 8 * PAGE), offset=5 * PAGE)
    write(p, 1)
    assert anchor(k, p, 1) == ("A0", 6)


def test_4_10_a_shared_write_is_noticed_on_a_disk_and_not_on_tmpfs(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    disk, shm = k.open("disk", 4 * PAGE), k.open("shm", 4 * PAGE, shmem=True)
    mapped(p, 0, 1, "rw", "shared", file=disk)
    mapped(p, 2, 3, "rw", "shared", file=shm)
    read(p, 0)
    read(p, 2)
    assert (entry(p, 0) & RW, entry(p, 2) & RW) == (0, RW)


def test_5_8_mkclean_protects_shared_mappings_only(any_k: Kernel) -> None:
    k = any_k
    p, q = k.spawn(), k.spawn()
    lib = k.open("lib", 4 * PAGE)
    written(p, 0, 1, "rw", "shared", file=lib)
    mapped(q, 0, 1, file=lib)
    read(q, 0)
    pfn = k.pfn(p, at(0))
    assert pfn == k.pfn(q, at(0))
    assert k.folio_mkclean(pfn or 0) == 1
    assert entry(p, 0) & RW == 0


def test_5_8_truncation_takes_private_copies_and_a_hole_does_not(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    lib = k.open("lib", 4 * PAGE)
    mapped(p, 0, 4, file=lib)
    read(p, 0, 4)
    write(p, 1, 3)
    lib.punch_hole(0, 4 * PAGE)
    assert [k.pfn(p, at(page)) is not None for page in range(4)] == [False, True, True, False]
    k.check()
    lib.truncate(2 * PAGE)
    assert [k.pfn(p, at(page)) is not None for page in range(4)] == [False, True, False, False]


def test_5_8_truncation_finds_every_window(any_k: Kernel) -> None:
    k = any_k
    lib = k.open("lib", 8 * PAGE)
    lib.read_in()
    processes = [k.spawn() for _ in range(3)]
    for n, p in enumerate(processes):
        mapped(p, 10 * n, 10 * n + 4, "r", file=lib, offset=2 * n * PAGE)
        read(p, 10 * n, 10 * n + 4)
    processes[1].mremap(at(12), 2 * PAGE, 2 * PAGE, at(30))
    lib.truncate(5 * PAGE)
    assert k.pfn(processes[1], at(30)) is not None
    assert k.pfn(processes[1], at(31)) is None
    assert [k.pfn(processes[2], at(20 + page)) is not None for page in range(4)] == [True, False, False, False]
    assert layout(processes[2]) == "20-24 r--p lib+4"
