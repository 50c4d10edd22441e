"""LegoOS's page cache: sets, ways, policies, and that the reverse map is right after evictions."""

from __future__ import annotations

import pytest

from rmap import Kernel
from rmap.consumers.pcache import Pcache
from rmap.errors import UsageError
from tests.support import PAGE

BASE = 1 << 30


def machine(design: str = "lego_pcache", **options: object) -> tuple[Kernel, Pcache]:
    k = Kernel(design, nr_pages=1 << 10, nr_tables=64, nr_swap=512)
    return k, Pcache(k.core, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["fifo", "lru", "random"])
@pytest.mark.parametrize("design", ["lego_pcache", "pte_chain", "anon_vma_chain"])
def test_a_set_never_holds_more_than_its_ways(design: str, policy: str) -> None:
    k, cache = machine(design, sets=4, ways=2, policy=policy)
    p = k.spawn()
    p.mmap(64 * PAGE, addr=BASE)
    for page in [*range(20), *range(0, 20, 3), 7, 7, 19]:
        cache.access(p.mm, BASE + page * PAGE, write=True)
        assert all(len(lines) <= 2 for lines in cache.lines)
        k.check()
    assert int((k.core.frames.mapcount > 0).sum()) <= 8
    assert cache.counts["evictions"] >= 12 and cache.counts["flushes"] == cache.counts["evictions"]
    assert cache.counts["hits"] >= 1


def conflict(cache: Pcache, k: Kernel, order: list[int], used: list[int]) -> int:
    """Fill one set in this order, use some lines, bring in another: which page went?"""
    p = k.spawn()
    p.mmap(1 << 20, addr=BASE)
    for number in order:
        cache.access(p.mm, BASE + number * 4 * PAGE, write=True)
    for pfn in [k.pfn(p, BASE + number * 4 * PAGE) for number in order]:
        assert pfn is not None
        k.folio_referenced(pfn)
    for number in used:
        cache.access(p.mm, BASE + number * 4 * PAGE)
    cache.sweep()
    cache.access(p.mm, BASE + 9 * 4 * PAGE, write=True)
    (gone,) = (number for number in order if k.pfn(p, BASE + number * 4 * PAGE) is None)
    return gone


def test_fifo_takes_the_first_and_lru_the_unused() -> None:
    k, cache = machine(sets=4, ways=3, policy="fifo")
    assert conflict(cache, k, [2, 0, 1], []) == 2
    k, cache = machine(sets=4, ways=3, policy="lru")
    assert conflict(cache, k, [2, 0, 1], [2, 1]) == 0


def test_random_is_fixed_by_its_seed() -> None:
    def evicted(seed: int) -> list[int]:
        k, cache = machine(sets=1, ways=4, policy="random", seed=seed)
        p = k.spawn()
        p.mmap(64 * PAGE, addr=BASE)
        for page in range(24):
            cache.access(p.mm, BASE + page * PAGE, write=True)
        return [page for page in range(24) if k.pfn(p, BASE + page * PAGE) is not None]

    assert evicted(3) == evicted(3)
    assert len({tuple(evicted(seed)) for seed in range(6)}) > 1


def test_a_victim_comes_back_without_a_fetch() -> None:
    k, cache = machine(sets=1, ways=2, policy="fifo", victims=2)
    p = k.spawn()
    p.mmap(64 * PAGE, addr=BASE)
    for page in (0, 1, 2):
        cache.access(p.mm, BASE + page * PAGE, write=True)
    cache.access(p.mm, BASE)
    assert cache.counts["victim_hits"] == 1
    k.check()


def test_a_line_that_a_family_shares_goes_from_all_of_them() -> None:
    k, cache = machine(sets=1, ways=2, policy="fifo")
    p = k.spawn()
    p.mmap(8 * PAGE, addr=BASE)
    cache.access(p.mm, BASE, write=True)
    child = p.fork()
    cache.access(p.mm, BASE + PAGE, write=True)
    cache.access(p.mm, BASE + 2 * PAGE, write=True)
    assert k.pfn(p, BASE) is None and k.pfn(child, BASE) is None
    k.check()


@pytest.mark.parametrize("options", [{"sets": 3}, {"ways": 0}, {"policy": "clock"}, {"victims": -1}])
def test_nonsense_is_no_cache(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        machine(**options)
