"""What becomes of pages: rules 4.1 to 4.12, and the consumers of rule 5.8."""

from __future__ import annotations

import pytest

from rmap import Kernel, Process, UntrackedPage
from rmap.mm.frames import EXCLUSIVE
from rmap.mm.page_tables import ptep_of
from rmap.mm.pte import PRESENT, RW, SWAP, SWP_EXCLUSIVE
from tests.model.words import PAGE, anchor, area, at, chain, layout, mapcount, mapped, read, write, written


def exclusive(k: Kernel, process: Process, page: int) -> bool:
    """Whether the page at this place is exclusive."""
    return bool(k.core.frames.flags[k.pfn(process, at(page)) or 0] & EXCLUSIVE)


def entry(process: Process, page: int) -> int:
    """The page-table entry of this place."""
    return int(process._core.tables.ptes[ptep_of(process.mm, at(page))])


def reclaim(k: Kernel, process: Process, page: int) -> int:
    """Evict the page at this place."""
    return k.reclaim([k.pfn(process, at(page)) or 0])


def test_rule_4_1_reading_maps_the_zero_page_which_nobody_counts(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    mapped(p, 0, 2)
    read(p, 0, 2)
    assert k.pfn(p, at(0)) == k.pfn(p, at(1)) == k.zero_pfn
    assert k.core.frames.mapcount[k.zero_pfn] == 0


def test_rule_4_17_no_reverse_map_tracks_the_zero_page(any_k: Kernel) -> None:
    with pytest.raises(UntrackedPage) as why:
        any_k.walk(any_k.zero_pfn)
    assert why.value.kind == "zero"


def test_rule_4_2_writing_makes_an_exclusive_page_on_the_active_anon_vma(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    mapped(p, 1, 2)
    write(c, 0)
    assert (anchor(k, c, 0), anchor(k, p, 0)) == (("A1", at(0) >> 12), ("A0", at(0) >> 12))
    assert exclusive(k, c, 0)
    assert mapcount(k, c, 0) == 1


def test_rule_4_3_shared_content_comes_back_from_swap_to_the_root(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    write(c, 0)  # on A1
    g = c.fork()
    assert (anchor(k, g, 0)[0], mapcount(k, g, 0)) == ("A1", 2)
    assert reclaim(k, g, 0) == 1
    read(g, 0)
    assert anchor(k, g, 0) == ("A0", at(0) >> 12)
    assert not exclusive(k, g, 0)
    read(c, 0)  # from the swap cache: anonymous already, it keeps its anchor
    assert k.pfn(c, at(0)) == k.pfn(g, at(0))
    assert (anchor(k, c, 0)[0], mapcount(k, c, 0)) == ("A0", 2)


def test_rule_4_4_only_what_has_an_anon_vma_is_copied_by_fork(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    lib = k.open("lib", 8 * PAGE)
    lib.read_in()
    mapped(p, 0, 2, "rw", "shared", file=lib)
    mapped(p, 4, 6, file=lib)
    mapped(p, 8, 10, file=lib)
    for first in (0, 4, 8):
        read(p, first, first + 2)
    write(p, 9)
    c = p.fork()
    assert [k.pfn(c, at(page)) for page in (0, 1, 4, 5)] == [None] * 4
    # A private mapping with one copied page is copied whole, pages of the file included.
    assert k.pfn(c, at(8)) == k.pfn(p, at(8))
    assert k.pfn(c, at(9)) == k.pfn(p, at(9))


def test_rule_4_5_fork_shares_and_write_protects_on_both_sides(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 20)
    assert exclusive(k, p, 0)
    c = p.fork()
    assert not exclusive(k, p, 0)
    assert (entry(p, 19) & RW, entry(c, 19) & RW, mapcount(k, p, 19)) == (0, 0, 2)


def test_rule_4_7_the_last_user_takes_the_page_over(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    pfn = k.pfn(c, at(0))
    p.exit()
    # Rule 4.8: nothing happens before the write.
    assert (anchor(k, c, 0)[0], exclusive(k, c, 0)) == ("A0", False)
    write(c, 0)
    assert k.pfn(c, at(0)) == pfn
    assert (anchor(k, c, 0), exclusive(k, c, 0)) == (("A1", at(0) >> 12), True)


def test_rule_4_7_otherwise_it_is_copied(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 12)
    c = p.fork()
    write(c, 0, 12)
    assert {mapcount(k, process, page) for process in (p, c) for page in range(12)} == {1}
    assert all(k.pfn(p, at(page)) != k.pfn(c, at(page)) for page in range(12))
    assert k.costs.get("cow", "pages_copied") == 12


def test_rule_4_10_a_read_fault_maps_what_is_cached_around(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    lib = k.open("lib", 64 * PAGE)
    lib.read_in()
    mapped(p, 0, 40, "r", file=lib)
    read(p, 20)
    assert [page for page in range(40) if k.pfn(p, at(page))] == list(range(16, 32))


def test_rule_4_10_a_private_copy_has_the_files_page_index(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 2, file=k.open("lib", 8 * PAGE), offset=5 * PAGE)
    write(p, 1)
    assert anchor(k, p, 1) == ("A0", 6)


def test_rule_4_10_a_shared_write_is_noticed_on_a_disk_and_not_on_tmpfs(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    disk, shm = k.open("disk", 4 * PAGE), k.open("shm", 4 * PAGE, shmem=True)
    mapped(p, 0, 1, "rw", "shared", file=disk)
    mapped(p, 2, 3, "rw", "shared", file=shm)
    read(p, 0)
    read(p, 2)
    assert (entry(p, 0) & RW, entry(p, 2) & RW) == (0, RW)


def test_rule_4_12_an_exclusive_page_comes_back_from_swap_exclusive(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    write(c, 0)
    assert reclaim(k, c, 0) == 1
    assert entry(c, 0) & (PRESENT | SWAP | SWP_EXCLUSIVE) == SWAP | SWP_EXCLUSIVE
    read(c, 0)
    assert (anchor(k, c, 0)[0], exclusive(k, c, 0)) == ("A1", True)


def test_rule_4_12_swapping_out_clears_every_entry(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 3)
    c, g = p.fork(), p.fork()
    c.mremap(at(0), 3 * PAGE, 3 * PAGE, at(10))
    g.munmap(at(0), PAGE)
    assert reclaim(k, p, 1) == 1
    for process, page in ((p, 1), (c, 11), (g, 1)):
        assert entry(process, page) & (PRESENT | SWAP) == SWAP
    assert k.core.swap.used == 1
    for process, page in ((p, 1), (c, 11), (g, 1)):
        write(process, page)
    assert k.core.swap.used == 0


def test_rule_4_6_fork_takes_the_exclusive_mark_from_swap_entries(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 1)
    reclaim(k, p, 0)
    c = p.fork()
    assert (entry(p, 0) & SWP_EXCLUSIVE, entry(c, 0) & SWP_EXCLUSIVE) == (0, 0)
    assert k.core.swap.count.max() == 2


def test_rule_4_12_pageout_leaves_shared_pages(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork()
    write(c, 0)
    c.madvise(at(0), 2 * PAGE, "pageout")
    assert k.pfn(c, at(0)) is None
    assert k.pfn(c, at(1)) is not None


def test_rule_4_11_shared_memory_is_swapped_by_the_file(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2, "rw", "shared")
    c = p.fork()
    read(c, 0)
    assert reclaim(k, p, 0) == 1
    assert (entry(p, 0), entry(c, 0)) == (0, 0)
    assert k.core.swap.used == 1
    read(c, 0)
    assert k.core.swap.used == 0
    read(p, 0)
    assert k.pfn(p, at(0)) == k.pfn(c, at(0))


# -- consumers ----------------------------------------------------------------------------------------------------
def test_rule_5_8_a_locked_area_keeps_the_page(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    c.mlock(at(0), PAGE, onfault=True)
    pfn = k.pfn(c, at(0))
    assert reclaim(k, p, 0) == 0
    assert k.pfn(c, at(0)) == pfn


def test_rule_5_8_a_page_given_up_goes_unless_it_was_written_again(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2)
    p.madvise(at(0), 2 * PAGE, "free")
    write(p, 1)
    assert reclaim(k, p, 0) == 1
    assert entry(p, 0) == 0  # no swap slot: the content was given up
    assert reclaim(k, p, 1) == 0  # it is noticed that the entry is dirty: an ordinary page again
    assert reclaim(k, p, 1) == 1
    assert entry(p, 1) & SWAP


def test_rule_5_8_referenced_counts_through_how_many_entries(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    read(c, 0)
    pfn = k.pfn(p, at(0))
    assert pfn
    assert k.folio_referenced(pfn).tolist() == [2]
    assert k.folio_referenced(pfn).tolist() == [0]
    read(c, 0)
    assert k.folio_referenced(pfn).tolist() == [1]


def test_rule_5_8_mkclean_protects_shared_mappings_only(any_k: Kernel) -> None:
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


def test_rule_5_8_truncation_takes_private_copies_and_a_hole_does_not(any_k: Kernel) -> None:
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


def test_rule_5_8_truncation_finds_every_window(any_k: Kernel) -> None:
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
    assert layout(processes[2]) == "20-24 r--p"


def test_a_stack_of_forks_frees_everything_at_the_end(any_k: Kernel) -> None:
    k = any_k
    free = k.core.frames.free_top
    family = [k.spawn()]
    written(family[0], 0, 20)
    for n in range(6):
        child = family[-1].fork()
        write(child, n, n + 3)
        family.append(child)
    for n in (3, 0, 5, 6, 1, 2, 4):
        family[n].exit()
        k.check()
    assert k.core.frames.free_top == free
    assert not any(k.metadata_bytes().values())


def test_clone_vm_shares_one_address_space(k: Kernel) -> None:
    p = k.spawn()
    t = p.clone_vm()
    written(t, 0, 1)
    assert k.pfn(p, at(0)) == k.pfn(t, at(0))
    assert k.walk(k.pfn(p, at(0)) or 0) == [(p.pid, at(0))]
    assert mapcount(k, p, 0) == 1
    p.exit()
    assert k.walk(k.pfn(t, at(0)) or 0) == [(t.pid, at(0))]
    assert chain(t, 0) == "[A0]"
    assert area(t, 0).mm is t.mm
    t.exit()
    assert k.core.frames.mapcount.max() == 0
