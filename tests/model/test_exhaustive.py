"""Every short sequence of calls in the smallest world; the long ones are ``python tests/model/exhaustive.py``."""

from __future__ import annotations

import pytest

from rmap.mm.core import Core
from tests.model.canonical import canonical, digest
from tests.model.exhaustive import DESIGNS, Found, Task, explore, search
from tests.model.mutants import merge_despite_two_links, zap_misses_private_copies_on_truncate
from tests.model.world import ALPHABET, BY_NAME, OPENINGS, World


@pytest.mark.exhaustive
@pytest.mark.timeout(900)  # half a minute on an idle machine
@pytest.mark.parametrize("design", DESIGNS)
def test_every_sequence_of_three_calls(design: str) -> None:
    *_, count = search(design, 3)
    print(f"{design}: {count.calls:,} calls tried, {count.refused:,} refused; {count.states:,} different states")
    assert count.calls > 10_000
    assert count.states > 4_000


@pytest.mark.exhaustive
def test_every_sequence_of_two_calls_under_the_rules_of_7_0() -> None:
    *_, count = search("anon_vma_chain", 2, profile="7.0")
    assert count.states > 250


def test_the_alphabet() -> None:
    assert len(BY_NAME) == len(ALPHABET) >= 20
    calls = {word for name in BY_NAME for word in name.split()}
    assert calls >= {
        "mmap", "munmap", "mremap", "mprotect", "brk", "mlock", "munlock", "fork", "clone_vm", "exit", "write", "read",
        "dontneed", "free", "dontfork", "wipeonfork", "pageout", "populate_write", "truncate", "punch", "reclaim",
    }  # fmt: skip
    assert {name for opening in OPENINGS.values() for name in opening} <= set(BY_NAME)


def played(*letters: str, design: str = "anon_vma_chain") -> World:
    """A world after these letters."""
    world = World(design)
    for letter in letters:
        assert world.play(BY_NAME[letter]) == ""
    return world


@pytest.mark.parametrize("design", DESIGNS)
def test_names_do_not_count_in_a_canonical_state(design: str) -> None:
    """The same state by other ways: pages touched in another order, frames and ids used before."""
    one = played("first mmap 0-4", "first write 0-4", "first fork", design=design)
    two = played(
        "first mmap 0-4", "first fork", "second exit", "first write 1-2", "reclaim all", "first munmap 1-2",
        "first mmap 0-4", "first write 1-2", "first write 0-4", "first fork", design=design,
    )  # fmt: skip
    assert one.second is not None
    assert two.second is not None
    assert one.second.pid != two.second.pid
    assert canonical(one.kernel) == canonical(two.kernel)
    assert digest(canonical(one.kernel)) == digest(canonical(two.kernel))


@pytest.mark.parametrize(
    "letter",
    ["first write 1-2", "first mprotect 1-2 r", "first mlock 1-2", "referenced all", "truncate 1", "second munmap 0-2",
     "unmap first's 0", "first wipeonfork 2-3"],
)  # fmt: skip
def test_what_differs_for_a_program_or_the_kernel_differs_in_the_canonical_state(letter: str) -> None:
    family = OPENINGS["family"]
    assert canonical(played(*family).kernel) != canonical(played(*family, letter).kernel)


def test_the_search_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leak that no invariant of the accounts would miss, two calls deep."""
    with monkeypatch.context() as patch:
        patch.setattr(Core, "swap_put", lambda self, slots: None)
        with pytest.raises(Found, match="swap"):
            list(search("pte_chain", 2, openings=["swapped"], twins=False))


def test_a_refused_call_that_leaves_a_trace_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """mremap that unmaps its target before it finds that the source cannot be moved."""
    right = World.play

    def wrong(self: World, letter: object) -> str:
        refusal = right(self, letter)  # type: ignore[arg-type]
        if refusal and self.first is not None:
            self.first.mmap(4096, addr=1 << 30)
        return refusal

    monkeypatch.setattr(World, "play", wrong)
    with pytest.raises(Found, match="refused"):
        explore(Task("pte_chain", "6.18", False, ((),)))


def test_a_difference_between_the_scalar_twins_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from rmap.mm import fault1

    right = fault1.read1

    def wrong(core: Core, vma: object, addr: int) -> None:
        right(core, vma, addr)  # type: ignore[arg-type]
        core.costs.current[0] += 1

    monkeypatch.setattr("rmap.mm.fault.read1", wrong)
    with pytest.raises(Found, match="costs differ"):
        list(search("anon_vma_chain", 2, openings=["empty"]))


@pytest.mark.parametrize("breaks", [merge_despite_two_links, zap_misses_private_copies_on_truncate])
def test_some_bugs_need_expectations(breaks: object) -> None:
    """Invariants alone do not see these: that is why there are named tests and stories."""
    with breaks():  # type: ignore[operator]
        list(search("anon_vma_chain", 2, openings=["family"]))
