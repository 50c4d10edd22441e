"""Out to swap and back: rules 4.6, 4.11 and 4.12. On the real side, MADV_PAGEOUT to a small zram device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rmap import Kernel
from rmap.lab.conform import Pair
from rmap.mm.pte import PRESENT, SWAP, SWP_EXCLUSIVE
from tests.rules.words import (
    PAGE,
    anchor,
    at,
    entry,
    exclusive,
    layout,
    mapcount,
    mapped,
    pages,
    present,
    read,
    reclaim,
    refused,
    shared,
    write,
    written,
)
from tests.support.swap import swap_here


@pytest.fixture
def swapping(machine: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A machine with swap. The running kernel gets a zram device for the length of the test."""
    if not isinstance(machine, Pair):
        yield machine
        return
    request.getfixturevalue("machine_lock")
    with swap_here():
        yield machine
        machine.puppets.kill_living()


def test_an_exclusive_page_goes_and_comes_back_exclusive(swapping: Any) -> None:
    p = swapping.spawn()
    written(p, 0, 3)
    p.madvise(at(0), pages(2), "pageout")
    assert present(swapping, p, 0, 3) == "..x"
    p.read(at(0), 1)
    frame = swapping.pfn(p, at(0))
    assert present(swapping, p, 0, 3) == "x.x"
    p.write(at(0), 1)
    assert swapping.pfn(p, at(0)) == frame  # no copy
    p.write(at(1), 1)
    assert present(swapping, p, 0, 3) == "xxx"


def test_pageout_skips_what_others_map(swapping: Any) -> None:
    p = swapping.spawn()
    written(p, 0, 2)
    c = p.fork()
    c.write(at(0), 1)
    p.madvise(at(0), pages(2), "pageout")
    assert present(swapping, p, 0, 2) == ".x"
    assert shared(swapping, (p, 1), (c, 1))


def test_fork_shares_a_swapped_page(swapping: Any) -> None:
    """Each side finds the page again, and it is one page."""
    p = swapping.spawn()
    written(p, 0, 1)
    p.madvise(at(0), pages(1), "pageout")
    c = p.fork()
    c.read(at(0), 1)
    assert present(swapping, p, 0, 1) == "."
    assert shared(swapping, (c, 0))
    p.read(at(0), 1)
    assert shared(swapping, (p, 0), (c, 0))


def test_a_write_to_a_shared_swapped_page_copies(swapping: Any) -> None:
    p = swapping.spawn()
    written(p, 0, 1)
    p.madvise(at(0), pages(1), "pageout")
    c = p.fork()
    c.write(at(0), 1)
    assert present(swapping, p, 0, 1) == "."
    p.read(at(0), 1)
    assert shared(swapping, (p, 0))
    assert shared(swapping, (c, 0))


def test_a_swapped_page_moves_with_mremap(swapping: Any) -> None:
    p = swapping.spawn()
    written(p, 0, 2)
    p.madvise(at(0), pages(2), "pageout")
    c = p.fork()
    p.mremap(at(0), pages(2), pages(2), at(20))
    p.read(at(20), pages(2))
    c.read(at(0), pages(2))
    assert layout(p) == "20-22 rw-p"
    assert shared(swapping, (p, 20), (c, 0))
    assert shared(swapping, (p, 21), (c, 1))


def test_4_11_shared_memory_leaves_no_entry_behind(swapping: Any) -> None:
    p = swapping.spawn()
    written(p, 0, 2, flags="shared")
    p.madvise(at(0), pages(2), "pageout")
    assert present(swapping, p, 0, 2) == ".."
    c = p.fork()
    p.read(at(0), 1)
    c.read(at(0), 1)
    assert shared(swapping, (p, 0), (c, 0))


def test_a_private_copy_of_a_file_page_goes_to_swap_and_comes_back_private(swapping: Any) -> None:
    f = swapping.open("lib", size=pages(2))
    p, q = swapping.spawn(), swapping.spawn()
    mapped(p, 0, 2, file=f)
    p.write(at(0), 1)
    p.madvise(at(0), pages(1), "pageout")
    q_place = mapped(q, 0, 2, file=f)
    q.read(q_place, 1)
    p.read(at(0), 1)
    assert shared(swapping, (p, 0))
    assert shared(swapping, (q, 0))


def test_locked_pages_stay(swapping: Any) -> None:
    p = swapping.spawn()
    written(p, 0, 2)
    p.mlock(at(0), pages(2))
    with refused(22):
        p.madvise(at(0), pages(2), "pageout")
    assert present(swapping, p, 0, 2) == "xx"


def test_pages_given_up_are_dropped_not_swapped(swapping: Any) -> None:
    """MADV_FREE: under reclaim the page goes without a trace; the next read finds the zero page."""
    p = swapping.spawn()
    written(p, 0, 2)
    p.madvise(at(0), pages(1), "free")
    assert present(swapping, p, 0, 2) == "xx"
    p.madvise(at(0), pages(2), "pageout")
    p.read(at(0), pages(2))
    assert present(swapping, p, 0, 2) == "0x"


def test_a_page_given_up_and_written_again_stays(swapping: Any) -> None:
    """Reclaim finds it dirty, and makes it an ordinary page again; only the next attempt swaps it out."""
    p = swapping.spawn()
    written(p, 0, 1)
    p.madvise(at(0), pages(1), "free")
    p.write(at(0), 1)
    p.madvise(at(0), pages(1), "pageout")
    assert present(swapping, p, 0, 1) == "x"
    p.madvise(at(0), pages(1), "pageout")
    assert present(swapping, p, 0, 1) == "."
    p.read(at(0), 1)
    assert present(swapping, p, 0, 1) == "x"


# -- on the model alone: entries, anchors, the exclusive marks


def test_4_3_shared_content_comes_back_from_swap_to_the_root(k: Kernel) -> None:
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


def test_4_12_an_exclusive_page_comes_back_from_swap_exclusive(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    c = p.fork()
    write(c, 0)
    assert reclaim(k, c, 0) == 1
    assert entry(c, 0) & (PRESENT | SWAP | SWP_EXCLUSIVE) == SWAP | SWP_EXCLUSIVE
    read(c, 0)
    assert (anchor(k, c, 0)[0], exclusive(k, c, 0)) == ("A1", True)


def test_4_12_swapping_out_clears_every_entry(any_k: Kernel) -> None:
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


def test_4_6_fork_takes_the_exclusive_mark_from_swap_entries(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 1)
    reclaim(k, p, 0)
    c = p.fork()
    assert (entry(p, 0) & SWP_EXCLUSIVE, entry(c, 0) & SWP_EXCLUSIVE) == (0, 0)
    assert k.core.swap.count.max() == 2


def test_4_12_pageout_leaves_shared_pages(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 2)
    c = p.fork()
    write(c, 0)
    c.madvise(at(0), 2 * PAGE, "pageout")
    assert k.pfn(c, at(0)) is None
    assert k.pfn(c, at(1)) is not None


def test_4_11_shared_memory_is_swapped_by_the_file(any_k: Kernel) -> None:
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
