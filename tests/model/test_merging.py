"""Which areas merge: rules 3.1 to 3.12. The layout, and who hangs on which anon_vma afterwards."""

from __future__ import annotations

from rmap import Kernel, Process
from tests.model.words import PAGE, anchor, area, at, chain, counters, layout, living, mapped, write, written


def divided(p: Process, first: int, middle: int, end: int) -> None:
    """Two unfaulted areas side by side, the second with execute permission, so that they do not merge."""
    mapped(p, first, middle)
    mapped(p, middle, end, "rwx")


def test_rule_3_1_two_opens_of_one_file_do_not_merge(any_k: Kernel) -> None:
    p = any_k.spawn()
    one, two = any_k.open("lib", 8 * PAGE), any_k.open("lib")
    mapped(p, 0, 1, file=one)
    mapped(p, 1, 2, file=one, offset=PAGE)
    mapped(p, 2, 3, file=two, offset=2 * PAGE)
    assert layout(p) == "0-2 rw-p, 2-3 rw-p"


def test_rule_3_1_flags_must_be_equal(any_k: Kernel) -> None:
    p = any_k.spawn()
    mapped(p, 0, 1)
    mapped(p, 1, 2, "rwx")
    mapped(p, 2, 3, noreserve=True)
    mapped(p, 3, 4, "rw", "shared")
    assert layout(p) == "0-1 rw-p, 1-2 rwxp, 2-3 rw-p, 3-4 rw-s"


def test_rule_3_2_page_offsets_must_continue(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 1)
    written(p, 10, 11)
    p.mremap(at(10), PAGE, PAGE, at(1))
    assert layout(p) == "0-1 rw-p, 1-2 rw-p"
    lib = any_k.open("lib", 8 * PAGE)
    mapped(p, 4, 5, file=lib)
    mapped(p, 5, 6, file=lib, offset=3 * PAGE)
    assert layout(p).endswith("4-5 rw-p, 5-6 rw-p")


# -- 3.3 ----------------------------------------------------------------------------------------------------------
def test_rule_3_3a_a_faulted_range_joins_an_unfaulted_neighbour(k: Kernel) -> None:
    p = k.spawn()
    divided(p, 0, 1, 2)
    write(p, 1)
    p.mprotect(at(1), PAGE, "rw")
    assert layout(p) == "0-2 rw-p"
    assert (chain(p, 0), anchor(k, p, 1)[0]) == ("[A0]", "A0")
    assert counters(k, "A0") == (1, 1, 1)


def test_rule_3_3a_but_not_if_it_came_through_fork(k: Kernel) -> None:
    p = k.spawn()
    divided(p, 0, 1, 2)
    write(p, 1)
    c = p.fork()
    c.mprotect(at(1), PAGE, "rw")
    assert layout(c) == "0-1 rw-p, 1-2 rw-p"
    assert (chain(c, 0), chain(c, 1)) == ("none", "[A1] A0")
    p.mprotect(at(1), PAGE, "rw")  # the parent's chain is single still
    assert layout(p) == "0-2 rw-p"


def test_rule_3_3b_an_unfaulted_range_joins_a_faulted_neighbour(k: Kernel) -> None:
    p = k.spawn()
    divided(p, 0, 1, 2)
    write(p, 0)
    p.mprotect(at(1), PAGE, "rw")
    assert (layout(p), chain(p, 1)) == ("0-2 rw-p", "[A0]")


def test_rule_3_3b_but_not_one_that_came_through_fork(k: Kernel) -> None:
    p = k.spawn()
    divided(p, 0, 1, 2)
    write(p, 0)
    c = p.fork()
    c.mprotect(at(1), PAGE, "rw")
    assert layout(c) == "0-1 rw-p, 1-2 rw-p"
    assert (chain(c, 0), chain(c, 1)) == ("[A1] A0", "none")


def test_rule_3_3c_equal_anon_vmas_merge_however_long_the_chain(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork().fork()
    c.mprotect(at(1), PAGE, "r")
    assert layout(c) == "0-1 rw-p, 1-2 r--p"
    c.mprotect(at(1), PAGE, "rw")
    assert (layout(c), chain(c, 0)) == ("0-2 rw-p", "[A2] A1 A0")
    assert counters(k, "A2") == (0, 1, 1)


def test_rule_3_3c_different_anon_vmas_do_not(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    mapped(p, 1, 2)
    assert layout(p) == "0-2 rw-p"
    p.munmap(at(1), PAGE)
    written(p, 2, 3)
    mapped(p, 1, 2, "rwx")
    p.madvise(at(1), PAGE, "dontfork")
    write(p, 1)
    assert [chain(p, page) for page in range(3)] == ["[A0]", "[A2]", "[A1]"]
    p.madvise(at(1), PAGE, "dofork")
    p.mprotect(at(1), PAGE, "rw")
    assert layout(p) == "0-1 rw-p, 1-2 rw-p, 2-3 rw-p"


def test_rule_3_3_pte_chains_merge_all_that_is_alike() -> None:
    k = Kernel("pte_chain", nr_pages=256, nr_tables=16)
    p = k.spawn()
    divided(p, 0, 1, 2)
    write(p, 0)
    c = p.fork()
    c.mprotect(at(1), PAGE, "rw")
    assert layout(c) == "0-2 rw-p"
    k.check()


# -- 3.4, 3.5 -----------------------------------------------------------------------------------------------------
def test_rule_3_4_between_two_anon_vmas_the_left_one_wins(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    written(p, 2, 3)
    assert (chain(p, 0), chain(p, 2)) == ("[A0]", "[A1]")
    mapped(p, 1, 2)
    assert (layout(p), chain(p, 1)) == ("0-2 rw-p, 2-3 rw-p", "[A0]")
    write(p, 1)
    assert anchor(k, p, 1)[0] == "A0"


def test_rule_3_4_if_one_has_none_all_three_merge(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 1)
    written(p, 2, 3)
    mapped(p, 1, 2)
    assert (layout(p), chain(p, 0)) == ("0-3 rw-p", "[A0]")


def test_rule_3_5_an_unfaulted_survivor_takes_over_the_chain(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 1)
    written(p, 2, 4)
    pfn = k.pfn(p, at(3))
    mapped(p, 1, 2)
    assert layout(p) == "0-4 rw-p"
    assert counters(k, "A0") == (1, 1, 1)
    assert (k.pfn(p, at(3)), anchor(k, p, 3)) == (pfn, ("A0", at(3) >> 12))
    k.check()


# -- 3.6, 3.7: mremap ---------------------------------------------------------------------------------------------
def test_rule_3_6_moved_back_beside_an_unfaulted_area_it_merges(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 2)
    p.mremap(at(1), PAGE, PAGE, at(10))
    p.munmap(at(10), PAGE)
    written(p, 1, 2, "rwx")
    p.mremap(at(1), PAGE, PAGE, at(20))
    p.mprotect(at(20), PAGE, "rw")
    assert (chain(p, 0), chain(p, 20)) == ("none", "[A0]")
    c = p.fork()
    p.mremap(at(20), PAGE, PAGE, at(1))
    assert (layout(p), chain(p, 0)) == ("0-2 rw-p", "[A0]")
    # The same in the forked child does not merge.
    c.mremap(at(20), PAGE, PAGE, at(1))
    assert layout(c) == "0-1 rw-p, 1-2 rw-p"
    assert (chain(c, 0), chain(c, 1)) == ("none", "[A1] A0")


def test_rule_3_7_growth_in_place_does_not_mind_many_links(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    mapped(c, 2, 3)
    c.mremap(at(0), PAGE, 2 * PAGE)
    assert (layout(c), chain(c, 0)) == ("0-3 rw-p", "[A1] A0")  # and has swallowed its unfaulted successor
    write(c, 2)
    assert anchor(k, c, 2) == ("A1", at(2) >> 12)


def test_rule_3_7_growth_refuses_a_successor_with_another_anon_vma(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    written(c, 2, 3)
    c.mremap(at(0), PAGE, 2 * PAGE)
    assert layout(c) == "0-2 rw-p, 2-3 rw-p"
    assert (chain(c, 0), chain(c, 2)) == ("[A1] A0", "[A2]")


# -- 3.8, 3.9: mmap, brk ------------------------------------------------------------------------------------------
def test_rule_3_8_a_childs_mmap_stays_apart_from_what_it_inherited(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    mapped(c, 1, 2)
    assert layout(c) == "0-1 rw-p, 1-2 rw-p"
    write(c, 1)
    assert (chain(c, 0), chain(c, 1)) == ("[A1] A0", "[A2]")
    mapped(p, 1, 2)
    assert layout(p) == "0-2 rw-p"


def test_rule_3_8_inherited_but_unfaulted_merges(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 1)
    c = p.fork()
    mapped(c, 1, 2)
    assert layout(c) == "0-2 rw-p"


def test_rule_3_9_after_a_fork_the_heap_grows_into_a_second_area(k: Kernel) -> None:
    p = k.spawn()
    start = p.mm.start_brk
    p.brk(start + 2 * PAGE)
    p.write(start, 2 * PAGE)
    c = p.fork()
    p.brk(start + 3 * PAGE)
    c.brk(start + 3 * PAGE)
    assert [(vma.start - start) // PAGE for vma in p.mm.vmas] == [0]
    assert [(vma.start - start) // PAGE for vma in c.mm.vmas] == [0, 2]
    c.write(start + 2 * PAGE)
    assert c.mm.vmas[1].anon.root is c.mm.vmas[1].anon


# -- 3.10 to 3.12: changed flags ----------------------------------------------------------------------------------
def test_rule_3_10_the_middle_splits_and_merges_back(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 3)
    p.mprotect(at(1), PAGE, "r")
    assert layout(p) == "0-1 rw-p, 1-2 r--p, 2-3 rw-p"
    k.check()
    p.mprotect(at(1), PAGE, "rw")
    assert layout(p) == "0-3 rw-p"


def test_rule_3_10_a_part_joins_the_neighbour_it_has_become_like(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 4)
    p.mprotect(at(0), 2 * PAGE, "r")
    assert layout(p) == "0-2 r--p, 2-4 rw-p"
    p.mprotect(at(2), PAGE, "r")  # the left one grows
    assert layout(p) == "0-3 r--p, 3-4 rw-p"
    any_k.check()
    p.mprotect(at(1), 2 * PAGE, "rw")  # the right one grows
    assert layout(p) == "0-1 r--p, 1-4 rw-p"
    any_k.check()
    p.mprotect(at(1), 3 * PAGE, "r")  # the left one takes all
    assert layout(p) == "0-4 r--p"
    any_k.check()


def test_rule_3_10_an_area_between_two_like_it_joins_both(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 6)
    p.mprotect(at(2), 2 * PAGE, "r")
    p.madvise(at(2), 2 * PAGE, "dontfork")
    p.mprotect(at(2), 2 * PAGE, "rw")
    assert len(p.maps()) == 3
    p.madvise(at(2), 2 * PAGE, "dofork")
    assert layout(p) == "0-6 rw-p"


def test_rule_3_10_one_call_over_several_areas(any_k: Kernel) -> None:
    p = any_k.spawn()
    for page in range(0, 6, 2):
        written(p, page, page + 1)
        written(p, page + 1, page + 2, "r" if page == 2 else "rwx") if page != 2 else mapped(p, 3, 4, "r")
    p.mprotect(at(1), 4 * PAGE, "rw")
    any_k.check()
    # Beside each other, with equal flags; what is left apart has different anon_vmas.
    assert {row.prot for row in p.maps()} == {"rw-p", "rwxp"}


def test_rule_3_11_prepared_while_unlike_they_never_merge(k: Kernel) -> None:
    p = k.spawn()
    mapped(p, 0, 2)
    p.madvise(at(1), PAGE, "dontfork")
    write(p, 0, 2)
    assert (chain(p, 0), chain(p, 1)) == ("[A0]", "[A1]")
    p.madvise(at(1), PAGE, "dofork")
    assert layout(p) == "0-1 rw-p, 1-2 rw-p"
    assert area(p, 0).flags == area(p, 1).flags


def test_rule_3_12_locking_splits_and_unlocking_merges(any_k: Kernel) -> None:
    p = any_k.spawn()
    written(p, 0, 3)
    p.mlock(at(1), PAGE)
    assert len(p.maps()) == 3
    p.mlock(at(1), PAGE, onfault=True)  # another flag, the same places
    assert len(p.maps()) == 3
    p.munlock(at(0), 3 * PAGE)
    assert layout(p) == "0-3 rw-p"


# -- 2.20: fork ---------------------------------------------------------------------------------------------------
def test_rule_2_20_what_fork_leaves_out(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    written(p, 2, 3)
    written(p, 4, 5)
    p.madvise(at(2), PAGE, "dontfork")
    p.madvise(at(4), PAGE, "wipeonfork")
    p.mlock(at(0), PAGE)
    c = p.fork()
    assert layout(c) == "0-1 rw-p, 4-5 rw-p"
    assert (chain(c, 0), chain(c, 4)) == ("[A3] A0", "none")
    assert area(c, 4).pgoff == at(4) >> 12
    assert k.pfn(c, at(4)) is None
    assert (area(p, 0).flags & 0x2000, area(c, 0).flags & 0x2000, c.mm.locked_vm) == (0x2000, 0, 0)
    assert living(k) == ["A0", "A1", "A2", "A3"]
