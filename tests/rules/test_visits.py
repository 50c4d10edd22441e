"""Where a walk looks, counted: rules 5.2, 5.5, 5.7. A walk that finds everything may still look too far."""

from __future__ import annotations

import numpy as np
import pytest

from rmap import Kernel
from tests.model.player import Player
from tests.model.random_calls import random_calls
from tests.rules.words import PAGE, anchor, at, looked_at, mapped, read, write, written


def in_full(k: Kernel, pfn: int) -> tuple[int, int]:
    """A walk that goes on after the last mapping: entries looked at, and in vain."""
    from rmap.mm.walk import walk_many

    before = k.costs["walk"]
    walk_many(k.core, np.array([pfn]), stop_at_mapcount=False)
    after = k.costs["walk"]
    return after["ptes_checked"] - before["ptes_checked"], after["ptes_in_vain"] - before["ptes_in_vain"]


def test_5_2_a_page_on_the_root_is_looked_for_in_the_whole_family(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    for _ in range(3):
        write(p.fork(), 0)
    assert anchor(k, p, 0)[0] == "A0"
    assert in_full(k, k.pfn(p, at(0)) or 0) == (4, 3)
    assert looked_at(k, p, 0) == (1, 0)  # the oldest VMA comes first, and the mapcount says that this is all


def test_5_2_a_page_on_a_leaf_is_looked_for_in_that_leaf_only(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    children = [p.fork() for _ in range(3)]
    for n, child in enumerate(children):
        write(child, 0)
        assert anchor(k, child, 0)[0] == f"A{n + 1}"
        assert in_full(k, k.pfn(child, at(0)) or 0) == (1, 0)


def test_5_2_what_a_child_has_unmapped_is_not_looked_at(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 4)
    c = p.fork()
    c.munmap(at(0), 2 * PAGE)
    assert in_full(k, k.pfn(p, at(0)) or 0) == (1, 0)
    assert in_full(k, k.pfn(p, at(2)) or 0) == (2, 0)


def test_4_8_the_last_user_of_an_ancestors_page_is_found_behind_those_who_have_copied_it(k: Kernel) -> None:
    p = k.spawn()
    written(p, 0, 1)
    children = [p.fork() for _ in range(5)]
    for process in (p, *children[:4]):
        write(process, 0)
    # All write but the last child; it alone maps the page now.
    assert looked_at(k, children[4], 0) == (6, 5)


def test_5_5_a_page_of_a_file_is_looked_for_where_its_index_is_mapped(k: Kernel) -> None:
    lib = k.open("lib", 16 * PAGE)
    lib.read_in()
    p, q, r = k.spawn(), k.spawn(), k.spawn()
    mapped(p, 0, 4, "r", file=lib)
    mapped(q, 0, 4, "rw", "shared", file=lib, offset=2 * PAGE)
    mapped(r, 0, 4, file=lib, offset=3 * PAGE)  # private, and in the same index
    read(p, 0, 4)
    write(r, 0)
    assert in_full(k, k.pfn(p, at(0)) or 0) == (1, 0)
    assert in_full(k, k.pfn(p, at(2)) or 0) == (2, 1)
    assert in_full(k, k.pfn(p, at(3)) or 0) == (3, 2)


def test_pte_chains_look_at_nothing_in_vain() -> None:
    k = Kernel("pte_chain", nr_pages=256, nr_tables=32)
    p = k.spawn()
    written(p, 0, 4)
    for _ in range(9):
        c = p.fork()
        write(c, 1, 3)
    assert looked_at(k, p, 0) == (10, 0)
    assert looked_at(k, p, 1) == (1, 0)


def test_5_7_a_consumer_skips_areas_before_it_looks() -> None:
    k = Kernel(nr_pages=256, nr_tables=32)
    lib = k.open("lib", 4 * PAGE)
    p, q = k.spawn(), k.spawn()
    written(p, 0, 1, "rw", "shared", file=lib)
    mapped(q, 0, 1, file=lib)
    read(q, 0)
    k.folio_mkclean([k.pfn(p, at(0)) or 0])
    assert k.costs["mkclean"]["ptes_checked"] <= 2
    assert k.costs["mkclean"]["ptes_in_vain"] <= 1
    k.check()


def test_5_7_a_locked_area_ends_the_walk(any_k: Kernel) -> None:
    k = any_k
    p = k.spawn()
    written(p, 0, 1)
    p.mlock(at(0), PAGE)
    for _ in range(4):
        p.fork()
    k.reclaim([k.pfn(p, at(0)) or 0])
    assert k.core.frames.mapcount[k.pfn(p, at(0)) or 0] >= 1
    assert k.pfn(p, at(0)) is not None


@pytest.mark.parametrize("design", ["anon_vma_chain", "pte_chain"])
@pytest.mark.parametrize("seed", range(500, 506))
def test_a_walk_of_many_pages_costs_what_the_walks_of_each_cost(design: str, seed: int) -> None:
    player = Player(design)
    player.play_all(random_calls(seed, 120, design))
    k = player.kernel
    pages = np.flatnonzero(k.core.frames.mapcount)

    def spent() -> np.ndarray:
        return np.array(list(k.costs["walk"].values()))

    start = spent()
    for pfn in pages.tolist():
        k.walk(pfn)
    singly = spent()
    k.walk_many(pages)
    assert (spent() - singly).tolist() == (singly - start).tolist()
