"""The cost model, row by row: each event is built, and costs exactly what the design's page says."""

from __future__ import annotations

import pytest

from rmap import Kernel
from tests.designs.families import counted, family, machine, walk_costs
from tests.support import PAGE


# -- B: chains ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("sharers", "blocks"), [(1, 0), (2, 1), (7, 1), (8, 2), (14, 2), (15, 3)])
def test_pte_chain_k_mappings_take_k_sevenths_of_a_block(sharers: int, blocks: int) -> None:
    k, members, heap = family("pte_chain", sharers - 1)
    assert k.metadata_bytes()["pte_chain"] == 64 * blocks
    assert k.metadata_bytes(32)["pte_chain"] == 32 * blocks
    assert walk_costs(k, members[0], heap)["blocks_visited"] == blocks
    assert walk_costs(k, members[0], heap)["ptes_in_vain"] == 0


def test_pte_chain_a_fork_writes_an_entry_for_each_page_and_makes_a_block_at_the_first() -> None:
    k, _, _ = family("pte_chain", 2, pages=20)
    assert counted(k, "fork", "entries_written", "objects_made") == (40, 20)


def test_pte_chain_unmapping_looks_up_a_vma_for_each_entry() -> None:
    k, members, heap = family("pte_chain", 4)
    pfn = k.pfn(members[0], heap)
    assert pfn is not None
    k.reclaim([pfn])
    assert counted(k, "unmap_walk", "vmas_looked_up") == (5,)


@pytest.mark.parametrize(("sharers", "cells"), [(1, 0), (2, 2), (3, 3), (9, 9)])
def test_cells_take_two_words_for_each_mapping_from_the_second_on(sharers: int, cells: int) -> None:
    k, members, heap = family("pte_chain:cells", sharers - 1)
    assert k.metadata_bytes()["pte_chain"] == 16 * cells
    assert k.metadata_bytes(32)["pte_chain"] == 8 * cells
    assert walk_costs(k, members[0], heap)["blocks_visited"] == cells
    while len(members) > 1:
        members.pop().exit()
    assert k.metadata_bytes()["pte_chain"] == 0


def test_peter_wongs_chains_in_slabs_of_2_6() -> None:
    """J5: 87 sharers at seven slots: 13 blocks a page; 113 blocks of 32 bytes in a slab of a page."""
    k = Kernel("pte_chain", nr_pages=1 << 12, nr_tables=1 << 10, nr_swap=0)
    file = k.open("buffers", 339 * PAGE)
    file.read_in()
    for _ in range(87):
        process = k.spawn()
        process.read(process.mmap(339 * PAGE, flags="shared", file=file), 339 * PAGE)
    blocks = 339 * 13
    assert k.metadata_bytes(32)["pte_chain"] == 32 * blocks
    assert k.design.slab_bytes(32)["pte_chain"] == pytest.approx(PAGE * blocks / 113, rel=0.06)


# -- C: LegoOS ----------------------------------------------------------------------------------------------------
def test_lego_adds_after_a_search_of_the_whole_list_so_forks_cost_their_square() -> None:
    k, _, _ = family("lego_pcache", 10, pages=3)
    assert counted(k, "fork", "blocks_visited") == (3 * sum(range(1, 11)),)
    assert k.metadata_bytes()["pcache_rmap"] == 64 * 3 * 10  # the first was made at boot


def test_lego_moves_within_a_set_edit_and_into_another_set_copy() -> None:
    k = machine("lego_pcache")
    sets = k.design.nr_sets  # type: ignore[attr-defined]
    p = k.spawn()
    at = p.mmap(PAGE, addr=1 << 30)
    p.write(at)
    p.mremap(at, PAGE, PAGE, addr=at + sets * PAGE)
    assert counted(k, "mremap", "copies_asked") == (0,)
    p.mremap(at + sets * PAGE, PAGE, PAGE, addr=at + (2 * sets + 1) * PAGE)
    assert counted(k, "mremap", "copies_asked") == (1,)
    k.check()


def test_lego_counts_what_it_could_not_do() -> None:
    k = machine("lego_pcache")
    file = k.open("lib", 4 * PAGE)
    file.read_in()
    p, q = k.spawn(), k.spawn()
    for process in (p, q):
        process.read(process.mmap(4 * PAGE, "r", file=file), 4 * PAGE)
    p.read(p.mmap(4 * PAGE, "r", file=file), 4 * PAGE)
    limits = k.design.limits  # type: ignore[attr-defined]
    assert limits == {"shared other than by fork": 8, "mapped twice by one process": 4}


# -- A: nothing ---------------------------------------------------------------------------------------------------
def test_virtual_scan_pays_nothing_until_it_looks_at_everything() -> None:
    k, members, _ = family("virtual_scan", 3, pages=50)
    own = members[-1].mmap(PAGE)
    members[-1].write(own)
    for operation in ("fault", "fork"):
        assert sum(counted(k, operation, "entries_written", "objects_made", "nodes_visited", "blocks_visited")) == 0
    looked = walk_costs(k, members[-1], own)
    assert 0 < looked["ptes_checked"] <= 201 and looked["ptes_in_vain"] == looked["ptes_checked"] - 1
    # In the ring children come right behind their parent: parent, third, second, first.
    assert looked["ptes_checked"] in (50 + 1, 50 + 51)
    assert k.metadata_bytes() == {"mm.swap_address": 8 * 4}


def test_virtual_scan_evicts_by_its_hand_old_entries_first() -> None:
    k = Kernel("virtual_scan", nr_pages=80, nr_tables=16, nr_swap=200)
    p = k.spawn()
    heap = p.mmap(70 * PAGE)
    p.write(heap, 70 * PAGE)
    q = k.spawn()
    more = q.mmap(30 * PAGE)
    q.write(more, 30 * PAGE)  # there is not so much memory: the hand goes round
    assert counted(k, "unmap_walk", "ptes_unmapped")[0] >= 20
    assert counted(k, "unmap_walk", "ptes_in_vain")[0] >= 70  # first it made them old
    for first in range(0, 70, 10):
        p.read(heap + first * PAGE, 10 * PAGE)
    k.check()


# -- D: files by lists, prio_tree, interval tree --------------------------------------------------------------------
def windows(design: str, processes: int, pages: int) -> Kernel:
    """Each process maps each page by itself, holes between; only the last process touches, its last page."""
    k = Kernel(design, nr_pages=1 << 10, nr_tables=1 << 10, nr_swap=0)
    file = k.open("file", 2 * pages * PAGE)
    file.read_in()
    for _ in range(processes):
        process = k.spawn()
        base = process.mmap(2 * pages * PAGE, "")
        for page in range(0, 2 * pages, 2):
            process.mmap(PAGE, flags="shared", file=file, offset=page * PAGE, addr=base + page * PAGE)
        last = process
    last.read(base + (2 * pages - 2) * PAGE)
    k.last = (last, base + (2 * pages - 2) * PAGE)  # type: ignore[attr-defined]
    return k


def test_a_list_asks_every_window_and_a_tree_those_of_the_page() -> None:
    k = windows("objrmap", 10, 20)
    process, address = k.last  # type: ignore[attr-defined]
    assert walk_costs(k, process, address)["nodes_visited"] == 200
    for design in ("objrmap_prio", "objrmap_prio:interval", "anon_vma_chain"):
        k = windows(design, 10, 20)
        process, address = k.last  # type: ignore[attr-defined]
        looked = walk_costs(k, process, address)
        assert looked["ptes_checked"] <= 10 and looked["nodes_visited"] < 40


@pytest.mark.parametrize(
    ("design", "bytes_each"), [("objrmap", 16), ("objrmap_prio", 32), ("objrmap_prio:interval", 32)]
)
def test_a_file_area_pays_for_its_node_and_its_pages_nothing(design: str, bytes_each: int) -> None:
    k = windows(design, 3, 4)
    assert k.metadata_bytes()["vma.shared"] == 12 * bytes_each
    assert k.metadata_bytes(32)["vma.shared"] == 12 * bytes_each // 2
    assert counted(k, "fault", "entries_written", "objects_made") == (0, 0)


def test_a_page_of_a_nonlinear_area_goes_on_a_chain_under_objrmap() -> None:
    k = machine("objrmap")
    file = k.open("file", 8 * PAGE)
    file.read_in()
    p = k.spawn()
    at = p.mmap(8 * PAGE, flags="shared", file=file)
    p.read(at, 8 * PAGE)
    assert k.metadata_bytes()["pte_chain"] == 0
    p.remap_file_pages(at, PAGE, 5)
    k.check()
    assert len(p.maps()) == 1
    # Page 5 is mapped twice now, so its chain has a block; the others have their one entry in the word.
    assert k.metadata_bytes()["pte_chain"] == 64
    assert k.walk(k.pfn(p, at)) == k.oracle(k.pfn(p, at))  # type: ignore[arg-type]


def test_nonlinear_areas_are_unmapped_by_the_cluster_in_2_6_7() -> None:
    k = machine("objrmap_prio")
    file = k.open("file", 64 * PAGE)
    file.read_in()
    p = k.spawn()
    at = p.mmap(64 * PAGE, flags="shared", file=file)
    for page in range(64):
        p.remap_file_pages(at + page * PAGE, PAGE, 63 - page)
    pfn = k.pfn(p, at + 40 * PAGE)
    assert pfn is not None
    k.core.tables.ptes[:] &= ~0x20  # nobody has used them lately
    k.reclaim([pfn])
    assert k.pfn(p, at + 40 * PAGE) == pfn, "its own entry was not looked for"
    assert counted(k, "unmap_walk", "ptes_unmapped") == (32,), "a cluster of others went"
    p.read(at, 64 * PAGE)
    assert [k.pfn(p, at + page * PAGE) for page in (0, 63)] == [file.file.mapping.pages[63], file.file.mapping.pages[0]]  # type: ignore[union-attr]
    k.check()


def test_under_other_designs_each_range_becomes_an_area() -> None:
    k = machine("anon_vma_chain")
    file = k.open("file", 8 * PAGE)
    p = k.spawn()
    at = p.mmap(8 * PAGE, flags="shared", file=file)
    p.remap_file_pages(at + 2 * PAGE, PAGE, 5)
    assert len(p.maps()) == 3
    k.check()


# -- E: anonmm ----------------------------------------------------------------------------------------------------
def test_anonmm_pays_for_each_mm_and_copies_what_moves_while_it_is_shared() -> None:
    k, members, heap = family("anonmm", 5, pages=10)
    assert k.metadata_bytes()["anonmm"] == 40 * 6 and k.metadata_bytes(32)["anonmm"] == 24 * 6
    assert counted(k, "fork", "objects_made") == (5,)
    for child in members[1:]:
        child.mremap(heap, 10 * PAGE, 10 * PAGE, addr=heap - 64 * PAGE)
    assert counted(k, "mremap", "copies_asked") == (5 * 10,)
    members[0].mremap(heap, 10 * PAGE, 10 * PAGE, addr=heap - 64 * PAGE)
    assert counted(k, "mremap", "copies_asked") == (50,), "the last owner moves its pages"
    k.check()


def test_anonmm_an_exclusive_page_takes_one_try_and_a_late_survivor_all() -> None:
    k, members, heap = family("anonmm", 9)
    for member in members[:-1]:
        member.write(heap)
    assert walk_costs(k, members[3], heap)["nodes_visited"] == 1
    assert walk_costs(k, members[-1], heap)["nodes_visited"] == 10
    assert walk_costs(k, members[-1], heap)["ptes_in_vain"] == 9


def test_anonmm_average_walk_of_scattered_survivors_is_half_of_the_family() -> None:
    """Each member keeps a page of the parent's that all others have rewritten."""
    k, members, heap = family("anonmm", 7, pages=8)
    for number, member in enumerate(members):
        for page in range(8):
            if page != number:
                member.write(heap + page * PAGE)
    tries = [walk_costs(k, member, heap + number * PAGE)["nodes_visited"] for number, member in enumerate(members)]
    assert tries == list(range(1, 9))


# -- F: anon_vma --------------------------------------------------------------------------------------------------
def test_anon_vma_asks_the_whole_family_about_a_page_of_one() -> None:
    """J22 in small: 100 children have rewritten their page; each walk asks VMAs until it comes to the right one."""
    k, members, heap = family("anon_vma", 100)
    for member in members[1:]:
        member.write(heap)
    asked = sorted(walk_costs(k, member, heap)["nodes_visited"] for member in members)
    assert asked == list(range(1, 102)), "the newest VMA is at the head of the list"
    assert k.metadata_bytes()["anon_vma"] == 24 and k.metadata_bytes()["vma.anon_vma"] == 24 * 101
    assert k.metadata_bytes(32)["vma.anon_vma"] == 12 * 101


@pytest.mark.parametrize(("design", "nodes"), [("anon_vma", 64), ("anon_vma_chain:2.6.34", 64)])
def test_a_list_of_splits_is_asked_one_by_one(design: str, nodes: int) -> None:
    k = machine(design)
    p = k.spawn()
    heap = p.mmap(64 * PAGE)
    p.write(heap, 64 * PAGE)
    for page in range(0, 64, 2):
        p.mprotect(heap + page * PAGE, PAGE, "r")
    assert len(p.maps()) == 64
    asked = [walk_costs(k, p, heap + page * PAGE)["nodes_visited"] for page in range(64)]
    assert max(asked) == nodes and min(asked) == 1


# -- G: anon_vma_chain --------------------------------------------------------------------------------------------
def fork_line(design: str, depth: int, areas: int, all_live: bool) -> Kernel:
    """A line of processes, each with ``areas`` areas of a page that none merges with."""
    k = machine(design)
    process = k.spawn()
    base = process.mmap(2 * areas * PAGE, "")
    for area in range(areas):
        process.mmap(PAGE, addr=base + 2 * area * PAGE)
        process.write(base + 2 * area * PAGE)
    for _ in range(depth - 1):
        child = process.fork()
        for area in range(areas):
            child.write(base + 2 * area * PAGE)
        if not all_live:
            process.exit()
        process = child
    return k


@pytest.mark.parametrize("design", ["anon_vma_chain:2.6.34", "anon_vma_chain"])
def test_a_fork_line_of_d_processes_and_v_areas_has_v_d_d_plus_1_halves_links(design: str) -> None:
    links = fork_line(design, 12, 3, all_live=True).metadata_bytes()["anon_vma_chain"]
    size = {"anon_vma_chain": 64, "anon_vma_chain:2.6.34": 48}[design]
    assert links == size * 3 * 12 * 13 // 2


def test_where_ancestors_exit_links_grow_in_2_6_34_and_are_bounded_since_4_0() -> None:
    """7a3ef208e662: deserted anon_vmas are taken up again."""
    grown = [fork_line("anon_vma_chain:2.6.34", d, 1, False).metadata_bytes()["anon_vma_chain"] // 48 for d in (5, 10)]
    assert grown == [5, 10]
    bounded = [fork_line("anon_vma_chain", d, 1, False).metadata_bytes()["anon_vma_chain"] // 64 for d in (5, 10, 40)]
    assert max(bounded) <= 3


def test_a_fork_makes_a_link_for_each_ancestor_and_one_more_and_an_anon_vma() -> None:
    k, members, _ = family("anon_vma_chain", 0)
    child = members[0].fork()
    assert counted(k, "fork", "objects_made") == (3,)
    child.fork()
    assert counted(k, "fork", "objects_made") == (3 + 4,)


def test_a_split_copies_the_chain() -> None:
    k, members, heap = family("anon_vma_chain", 0, pages=4)
    child = members[0].fork().fork()
    before = counted(k, "mprotect", "objects_made")[0]
    child.mprotect(heap, 2 * PAGE, "r")
    assert counted(k, "mprotect", "objects_made")[0] - before == 3


def test_a_page_made_in_a_child_is_looked_for_below_the_child_only() -> None:
    k, members, heap = family("anon_vma_chain", 100)
    for member in members[1:]:
        member.write(heap)
    assert {walk_costs(k, member, heap)["ptes_checked"] for member in members} == {1}


# -- the successors -------------------------------------------------------------------------------------------------
def test_cow_context_makes_one_object_for_a_process_and_a_record_for_a_move() -> None:
    k, members, heap = family("cow_context", 4, pages=10)
    assert counted(k, "fork", "objects_made") == (4,)
    members[1].mremap(heap, 10 * PAGE, 10 * PAGE, addr=heap - 64 * PAGE)
    assert counted(k, "mremap", "objects_made") == (1,) and counted(k, "mremap", "copies_asked") == (0,)
    assert k.metadata_bytes()["remap"] == 48
    k.check()
    members[1].exit()
    assert k.metadata_bytes()["remap"] == 0


def test_anon_vma_lazy_has_no_object_before_the_first_fork_and_repoints_then() -> None:
    k = machine("anon_vma_lazy")
    p = k.spawn()
    heap = p.mmap(20 * PAGE)
    p.write(heap, 20 * PAGE)
    assert k.metadata_bytes()["anon_vma"] == k.metadata_bytes()["anon_vma_chain"] == 0
    p.mprotect(heap, 5 * PAGE, "r")
    assert counted(k, "mprotect", "entries_written") == (15,), "the new object is the upper part"
    p.fork()
    assert k.metadata_bytes()["anon_vma"] > 0
    assert counted(k, "fork", "entries_written") == (20,)
    k.check()


def test_pv_chunk_carves_168_entries_from_a_page_of_the_process() -> None:
    k, members, _ = family("pv_chunk", 0, pages=336)
    assert k.metadata_bytes()["pv_chunk"] == 2 * 4096
    assert pytest.approx(24.38, abs=0.01) == 2 * 4096 / 336
    members[0].fork()
    assert k.metadata_bytes()["pv_chunk"] == 4 * 4096, "a child has chunks of its own"


def test_pv_chunk_an_exit_searches_nothing_and_an_unmap_the_whole_list() -> None:
    k, members, heap = family("pv_chunk", 9)
    members[-1].munmap(heap, PAGE)
    assert counted(k, "munmap", "blocks_visited") == (10,), "the youngest is last"
    members[4].exit()
    assert counted(k, "exit", "blocks_visited") == (0,)
