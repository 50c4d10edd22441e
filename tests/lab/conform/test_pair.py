"""The judge itself: does it see what it is there to see?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rmap import Kernel
from rmap.lab.conform import Diverged, Pair, ScenarioPlayer, at, pages, scenario
from rmap.mm.frames import EXCLUSIVE
from tests.model.mutants import ANON_VMA, BOTH, MUTANTS, Mutant

pytestmark = pytest.mark.live

MOST_SCENARIOS = 250
NOT_A_STATE = {"walk stopped one short", "off by one in vma_address"}
"""Mutants of the walk: they change no state of the machine as long as nothing is evicted, so a comparison of states is
blind to them. The oracle is not: ``Kernel.check`` finds them in the same runs."""


def family(pair: Pair) -> Any:
    """A parent and a child that share two of three pages, and a file. Returns the parent."""
    p = pair.spawn()
    p.mmap(pages(2), addr=at(8), file=pair.open("lib", pages(4)), offset=pages(1), flags="shared")
    p.mmap(pages(3), addr=at(0))
    p.write(at(0), pages(3))
    p.fork().write(at(2), pages(1))
    return p


def test_a_step_that_only_one_of_them_makes_is_noticed(pair: Pair) -> None:
    p = family(pair)
    p.model.munmap(at(0), pages(1))
    with pytest.raises(Diverged, match="mm 0, areas"):
        p.read(at(1), 1)


def test_an_answer_that_only_one_of_them_gives_is_noticed(pair: Pair) -> None:
    p = pair.spawn()
    p.real.mmap(pages(1), addr=at(0))
    with pytest.raises(Diverged, match="EEXIST in the kernel, 17592186044416 in the model"):
        p.mmap(pages(1), addr=at(0), noreplace=True)


def vma_of(p: Any) -> Any:
    return p.model.vma(at(0))


def frames_of(p: Any) -> tuple[Any, int]:
    core = p.model._core
    return core.frames, core.tables.mv[p.model.mm.rows[at(0) >> 21] * 512] >> 12


def more_references(p: Any) -> None:
    vma_of(p).anon.refcount += 1


def more_children(p: Any) -> None:
    vma_of(p).anon.num_children += 1


def more_active(p: Any) -> None:
    vma_of(p).anon.num_active_vmas += 1


def other_order(p: Any) -> None:
    child = next(process for process in p.model._machine.processes.values() if process is not p.model)
    child.vma(at(0)).chain.reverse()


def other_pgoff(p: Any) -> None:
    vma_of(p).pgoff += 1


def other_flags(p: Any) -> None:
    vma_of(p).flags ^= 0x2000000


def exclusive(p: Any) -> None:
    frames, pfn = frames_of(p)
    frames.flags[pfn] |= EXCLUSIVE


def other_index(p: Any) -> None:
    frames, pfn = frames_of(p)
    frames.index[pfn] += 1


def other_mapcount(p: Any) -> None:
    frames, pfn = frames_of(p)
    frames.mapcount[pfn] += 1


def other_anchor(p: Any) -> None:
    frames, pfn = frames_of(p)
    child = next(process for process in p.model._machine.processes.values() if process is not p.model)
    frames.mapping[pfn] = child.vma(at(0)).anon.handle


def other_tree(p: Any) -> None:
    node = vma_of(p).anon.tree.root
    node.left, node.right = node.right, node.left


def no_tree_of_a_file(p: Any) -> None:
    p.model._core.mappings[-1].i_mmap.tree.root = None


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (more_references, "A0: .* 2 references, .* in the kernel, .* 3 references"),
        (more_children, "A0: .* 2 children, .* in the kernel, .* 3 children"),
        (more_active, "A0: .* 1 active VMAs in the kernel, .* 2 active VMAs"),
        (other_order, "mm 1, areas"),
        (other_pgoff, r"(?s)kernel \* \S+ rw-p pgoff 0x100000000 .*model  \* \S+ rw-p pgoff 0x100000001 "),
        (other_flags, "flags 0x2100073"),
        (exclusive, "page 0 .*: mapped 2 times, not exclusive, .* in the kernel, mapped 2 times, exclusive"),
        (other_index, "page 0 .*: .* index 0x100000000 of A0 in the kernel, .* index 0x100000001 of A0"),
        (other_mapcount, "page 0 .*: mapped 2 times, .* in the kernel, mapped 3 times"),
        (other_tree, r"A0, areas in its tree: 0 \(depth 0\) 2 \(depth 1\) in the kernel, 2 \(depth 1\) 0 \(depth 0\)"),
        (no_tree_of_a_file, r"lib, areas in its tree: 1 \(depth 0\) 3 \(depth 1\) in the kernel, none in the model"),
        (other_anchor, "page 0 .*: .* of A0 in the kernel, .* of A1"),
    ],
)
def test_every_fact_that_is_wrong_in_the_model_is_noticed(pair: Pair, breaks: Callable[[Any], None], said: str) -> None:
    p = family(pair)
    pair.compare("nothing")
    breaks(p)
    with pytest.raises(Diverged, match=said):
        pair.compare("nothing")


@pytest.mark.needs("puppets")
def test_without_bpf_what_proc_shows_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "check", lambda self: {})
    with Pair() as pair:
        p = family(pair)
        p.read(at(8), 1)
        assert pair.compared.ptes > 0 == pair.compared.anon_vmas
        more_references(p)
        pair.compare("nothing")
        other_mapcount(p)
        with pytest.raises(Diverged, match="page 0"):
            pair.compare("nothing")


@pytest.mark.parametrize(
    "mutant", [m for m in MUTANTS if m.designs in (BOTH, ANON_VMA) and m.name not in NOT_A_STATE], ids=lambda m: m.name
)
def test_the_comparison_alone_notices_every_mutant(
    player: ScenarioPlayer, monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    """Random scenarios find each bug that is put back into the model, with its invariants switched off."""
    monkeypatch.setattr(Kernel, "check", lambda self: {})
    with mutant.breaks():
        assert any(player.play(scenario(seed).steps).why is not None for seed in range(MOST_SCENARIOS))
