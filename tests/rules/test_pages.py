"""What becomes of pages: rules 4.1 to 4.8 and 4.17, and the consumers of rule 5.8. Told to the model."""

from __future__ import annotations

import pytest

from rmap import Kernel, UntrackedPage
from rmap.mm.pte import RW, SWAP
from tests.rules.words import (
    PAGE,
    anchor,
    area,
    at,
    chain,
    entry,
    exclusive,
    mapcount,
    mapped,
    read,
    reclaim,
    write,
    written,
)


def test_4_1_reading_maps_the_zero_page_which_nobody_counts(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    mapped(p, 0, 2)
    read(p, 0, 2)
    assert k.pfn(p, at(0)) == k.pfn(p, at(1)) == k.zero_pfn
    assert k.core.frames.mapcount[k.zero_pfn] == 0


def test_4_17_no_reverse_map_tracks_the_zero_page(any_k: Kernel) -> None:
    with pytest.raises(UntrackedPage) as why:
        any_k.walk(any_k.zero_pfn)
    assert why.value.kind == "zero"


def test_4_2_writing_makes_an_exclusive_page_on_the_active_anon_vma(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    mapped(p, 1, 2)
    write(c, 0)
    assert (anchor(k, c, 0), anchor(k, p, 0)) == (("A1", at(0) >> 12), ("A0", at(0) >> 12))
    assert exclusive(k, c, 0)
    assert mapcount(k, c, 0) == 1


def test_4_4_only_what_has_an_anon_vma_is_copied_by_fork(any_k: Kernel) -> None:
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


def test_4_5_fork_shares_and_write_protects_on_both_sides(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 20)
    assert exclusive(k, p, 0)
    c = p.fork()
    assert not exclusive(k, p, 0)
    assert (entry(p, 19) & RW, entry(c, 19) & RW, mapcount(k, p, 19)) == (0, 0, 2)


def test_4_7_the_last_user_takes_the_page_over(k: Kernel) -> None:
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


def test_4_7_otherwise_it_is_copied(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 12)
    c = p.fork()
    write(c, 0, 12)
    assert {mapcount(k, process, page) for process in (p, c) for page in range(12)} == {1}
    assert all(k.pfn(p, at(page)) != k.pfn(c, at(page)) for page in range(12))
    assert k.costs.get("cow", "pages_copied") == 12


# -- consumers


def test_5_8_a_locked_area_keeps_the_page(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    c.mlock(at(0), PAGE, onfault=True)
    pfn = k.pfn(c, at(0))
    assert reclaim(k, p, 0) == 0
    assert k.pfn(c, at(0)) == pfn


def test_5_8_a_page_given_up_goes_unless_it_was_written_again(any_k: Kernel) -> None:
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


def test_5_8_referenced_counts_through_how_many_entries(any_k: Kernel) -> None:
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
