"""What the judge found in the model, or in the rules: each told to the model and to real processes at once."""

from __future__ import annotations

from typing import Any

import pytest

from rmap.lab.conform import Pair, at, pages
from rmap.lab.conform.swap import swap_to_zram, why_no_zram
from rmap.live.undo import undo_left_behind
from rmap.mm.frames import SWAPCACHE
from tests.support.needs import need

pytestmark = pytest.mark.live


def a_file_that_ends_within_its_mapping(pair: Pair, **how: Any) -> Any:
    """A process that maps six pages of a file of four."""
    p = pair.spawn()
    p.mmap(pages(6), addr=at(0), file=pair.open("lib", pages(4)), **how)
    return p


def test_a_private_write_behind_the_end_of_a_file_prepares_the_area(pair: Pair) -> None:
    """Rule 2.2 said: before the first page becomes anonymous. ``do_cow_fault`` prepares before it asks for the page."""
    p = a_file_that_ends_within_its_mapping(pair)
    with pytest.raises(OSError, match="Bad address"):
        p.write(at(5), 1)
    assert p.model.vma(at(5)).faulted


def test_a_shared_write_behind_the_end_of_a_file_leaves_nothing(pair: Pair) -> None:
    p = a_file_that_ends_within_its_mapping(pair, flags="shared")
    with pytest.raises(OSError, match="Bad address"):
        p.write(at(5), 1)
    assert not p.model.vma(at(5)).faulted
    assert pair.pfn(p, at(3)) is None


@pytest.mark.parametrize("flags", ["private", "shared"])
def test_a_read_behind_the_end_of_a_file_maps_what_lies_around(pair: Pair, flags: str) -> None:
    """``do_fault_around`` comes before the fault finds out that there is no such page (rule 4.10)."""
    p = a_file_that_ends_within_its_mapping(pair, flags=flags)
    with pytest.raises(OSError, match="Bad address"):
        p.read(at(5), 1)
    assert [pair.pfn(p, at(page)) is not None for page in range(6)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("shmem", [False, True], ids=["disk", "memory"])
@pytest.mark.parametrize("table", [False, True], ids=["no page table yet", "a page table"])
@pytest.mark.parametrize("first", [2, 3])
def test_of_a_file_on_disk_the_last_page_alone_makes_no_page_table(
    pair: Pair, shmem: bool, table: bool, first: int
) -> None:
    """``filemap_map_pages`` makes a page table only where the first page it finds ends before the file does."""
    p = pair.spawn()
    if table:
        p.mmap(pages(1), addr=at(16))
        p.write(at(16), 1)
    p.mmap(pages(4), addr=at(0), file=pair.open("lib", pages(4), shmem=shmem), offset=pages(first))
    with pytest.raises(OSError, match="Bad address"):
        p.read(at(3), 1)
    assert (pair.pfn(p, at(3 - first)) is not None) == (shmem or table or first < 3)


@pytest.mark.parametrize("call", ["mlock", "populate_read", "populate_write"])
def test_populating_behind_the_end_of_a_file_is_a_fault_too(pair: Pair, call: str) -> None:
    p = a_file_that_ends_within_its_mapping(pair, prot="r" if call == "populate_read" else "rw")
    with pytest.raises(OSError, match=r"Bad address|Cannot allocate memory"):
        if call == "mlock":
            p.mlock(at(4), pages(2))
        else:
            p.madvise(at(4), pages(2), call)
    assert p.model.vma(at(4)).faulted == (call != "populate_read")
    assert (pair.pfn(p, at(0)) is not None) == (call == "populate_read")


@pytest.mark.parametrize("of_file", [False, True], ids=["anonymous", "file"])
def test_two_areas_that_shift_their_boundary_come_back_into_the_trees_together(pair: Pair, of_file: bool) -> None:
    """Rule 1.11 said: out and in again. Of two at once, both are out before either comes back: it shapes the tree."""
    p = pair.spawn()
    p.mmap(pages(6), addr=at(0), **({"file": pair.open("lib", pages(6))} if of_file else {}))
    p.write(at(0), pages(6))
    p.mprotect(at(2), pages(4), "r")
    p.mprotect(at(2), pages(2), "rw")  # the lower one grows
    p.mprotect(at(3), pages(1), "r")  # the higher one grows
    assert [area.end for area in p.maps()] == [at(3), at(6)]


def test_pages_that_dontunmap_leaves_in_an_area_it_unlocks_are_never_paged_out(pair: Pair, machine_lock: None) -> None:
    """Rule 2.14 said: no longer locked. The area is not; pages that were not moved keep PG_mlocked until they go."""
    undo_left_behind()
    need(why_no_zram())
    with swap_to_zram():
        p = pair.spawn()
        p.mmap(pages(4), addr=at(0))
        p.mlock(at(0), pages(4))
        p.mremap(at(3), pages(1), pages(1), at(8), dontunmap=True)
        p.madvise(at(0), pages(1), "pageout")
        assert pair.pfn(p, at(0)) is not None
        p.madvise(at(0), pages(1), "dontneed")
        p.write(at(0), 1)  # a new page, which nobody has locked
        p.madvise(at(0), pages(1), "pageout")
        assert pair.pfn(p, at(0)) is None
        pair.puppets.kill_living()


@pytest.mark.parametrize("call", ["mlock", "munlock", "mprotect", "madvise"])
def test_a_range_of_no_length_in_the_middle_of_an_area_is_fine(pair: Pair, call: str) -> None:
    """mlock of nothing populates nothing, also in an area that could not be populated."""
    p = pair.spawn()
    p.mmap(pages(3), addr=at(0), prot="")
    getattr(p, call)(at(1), 0, *{"mprotect": ("rw",), "madvise": ("dontneed",)}.get(call, ()))


@pytest.mark.parametrize("when", ["before it is swapped in", "afterwards"])
def test_a_page_that_somebody_has_locked_leaves_the_swap_cache_with_its_last_slot_user(
    pair: Pair, machine_lock: None, when: str
) -> None:
    """Rule 4.12 said: into a locked area. It is enough that PG_mlocked stands on the page: mlock sets it, swap-in of a
    page that becomes anonymous only then does not (``folio_add_new_anon_rmap``)."""
    undo_left_behind()
    need(why_no_zram())
    with swap_to_zram():
        p = pair.spawn()
        p.mmap(pages(2), addr=at(0))
        p.write(at(0), pages(2))
        p.madvise(at(0), pages(2), "pageout")
        if when != "afterwards":
            p.mlock(at(0), pages(1), onfault=True)
        c = p.fork()
        p.read(at(0), pages(2))  # through the swap cache: the child names the slots too
        if when == "afterwards":
            p.mlock(at(0), pages(1), onfault=True)
        c.read(at(0), pages(2))
        frames = [pair.pfn(c, at(page)) for page in (0, 1)]
        flags = pair.model.kernel.core.frames.flags
        assert [bool(flags[frame] & SWAPCACHE) for frame in frames] == [when != "afterwards", True]
        pair.puppets.kill_living()


def test_what_lies_before_a_hole_is_prepared_before_a_stack_grows_over_the_hole(pair: Pair) -> None:
    """Rule 2.3: neighbours share an anon_vma only if they touch when the second is prepared. The upper area is prepared
    as it grows, with the hole still there; the model had grown it before a page of the lower one was written."""
    p = pair.spawn()
    p.mmap(pages(512), addr=at(0), growsdown=True)
    p.munmap(at(500), pages(1))
    p.write(at(490), pages(20))
    lower, upper = (p.model.vma(at(page)) for page in (490, 500))
    assert lower.end == upper.start == at(500)
    assert lower.anon is not upper.anon


def test_a_move_that_becomes_one_with_its_source_is_made_once(pair: Pair) -> None:
    """Rule 2.15: a move goes area by area up to the end of its range, which lies before the end of the only area here;
    that area reached further when it had merged with what was moved, and the model moved it again."""
    p = pair.spawn()
    p.mmap(pages(9), addr=at(504))
    p.write(at(507), pages(1))
    p.munmap(at(505), pages(6))
    p.mmap(pages(6), addr=at(504))
    p.mremap(at(507), pages(2), pages(2), at(510), dontunmap=True)
    assert [(area.start, area.end) for area in p.maps()] == [(at(504), at(513))]
