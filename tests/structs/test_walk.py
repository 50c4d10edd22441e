"""The kernel's own walk, from BPF, against the page tables: equal for every page of a load."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from rmap.cli import main
from rmap.live.bpf import BpfMemory
from rmap.live.capture.capture import capture
from rmap.snapshot import Snapshot
from rmap.snapshot import kinds as k
from rmap.snapshot.questions.family import family_of
from rmap.structs.check import walks
from rmap.structs.page import anchors
from rmap.structs.trees import read_trees
from rmap.structs.walk import compare, walk_page
from tests.support import PAGE
from tests.support.load import Load, load

pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm", "kernel_memory")]


@pytest.fixture(scope="module")
def still() -> Iterator[Load]:
    with load(workers=20, pages=4000, vmas=2400, seed=4) as up:
        yield up


@pytest.fixture(scope="module")
def snapshot(still: Load, memory: BpfMemory) -> Snapshot:
    return capture(still.pids, memory=memory)


def test_the_walk_meets_every_entry_of_every_page(still: Load, memory: BpfMemory, snapshot: Snapshot) -> None:
    """Every anonymous and file page of the load, as ``rmap check`` asks it. Without a walk: the zero page, the vDSO."""
    kind = snapshot.per_frame("kind")
    mapped = snapshot.reverse.found > 0
    unwalked = np.isin(kind, (*k.KINDS.untracked, k.KSM))
    assert mapped[unwalked].any(), "the zero page and the vDSO are among them"
    pfns = snapshot.pfns()[mapped & ~unwalked]
    assert Counter(np.unique(kind[mapped & ~unwalked]).tolist()).keys() <= {k.ANON, k.FILE, k.SHMEM}
    anonymous, of_file, anchor = anchors(memory.struct_pages(pfns).mapping)
    assert (anonymous | of_file).all()
    topology = memory.topology()
    trees = tuple(
        read_trees(memory, np.unique(anchor[which]), of_anon_vmas=is_anon)
        for which, is_anon in ((anonymous, True), (of_file, False))
    )
    found = walks(memory, topology, (trees[0], trees[1]), snapshot)
    assert found.checked.checked > 8000 and len(snapshot.walk_many(pfns).pfn) > 50_000
    assert found.violations == [] and not found.checked.note
    # Were the trees those of other pages, nothing would be met.
    other = replace(trees[0], start=trees[0].start + PAGE)
    assert walks(memory, topology, (other, trees[1]), snapshot).checked.violations > 5000


def test_a_single_walk_equals_the_page_tables(still: Load, memory: BpfMemory, snapshot: Snapshot) -> None:
    kind = snapshot.per_frame("kind")
    pages = snapshot.pfns()[np.isin(kind, (k.ANON, k.SHMEM)) & (snapshot.reverse.found > 0)]
    kinds = Counter()
    for pfn in np.random.default_rng(2).choice(pages, 200, replace=False).tolist():
        walk = walk_page(memory, pfn)
        there = {(one.pid, one.address) for one in snapshot.who(pfn).mappings}
        assert compare(walk, there).missed == [] and {p for p in walk.hits if p[0] in still.pids} == there
        assert len(walk.hits) <= len(walk.candidates) <= walk.visited <= walk.nodes
        kinds[walk.kind] += 1
    assert kinds["anon"]


def test_what_is_drawn_of_a_page_is_what_maps_it(snapshot: Snapshot) -> None:
    """The drawing goes by chains and indexes, ``who`` by the page tables."""
    kind = snapshot.per_frame("kind")
    pages = snapshot.pfns()[np.isin(kind, (k.ANON, k.FILE, k.SHMEM)) & (snapshot.reverse.found > 0)]
    for pfn in np.random.default_rng(3).choice(pages, 300, replace=False).tolist():
        drawn, answer = family_of(snapshot, pfn), snapshot.who(pfn)
        hits = {(vma.pid, vma.address) for vma in drawn.vmas if vma.entry == "hit"}
        assert hits == {(one.pid, one.address) for one in answer.mappings}
        assert drawn.hits == len(hits) and drawn.met == len(drawn.vmas)


def test_the_zero_page_has_no_walk(memory: BpfMemory, snapshot: Snapshot) -> None:
    zero = snapshot.pfns()[snapshot.per_frame("kind") == k.ZERO]
    assert walk_page(memory, int(zero[0])).kind == "none"


def test_who_by_the_kernel(still: Load, capsys: pytest.CaptureFixture[str]) -> None:
    key = f"{still.server}:{still.heap + 300 * PAGE:#x}"
    assert main(["who", "--kernel", key, "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["page", "mapping", "tree", "found", "equal"]
    assert "to the page tables of every process" in lines[4]
    assert max(map(len, lines)) <= 80
    assert main(["who", "--kernel", key, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["walk"]["kind"] == "anon" and told["difference"]["missed"] == []
    hit = {(one["pid"], one["address"]) for one in told["walk"]["candidates"] if one["found"] == "hit"}
    assert (still.server, still.heap + 300 * PAGE) in hit
    assert len(hit) == told["difference"]["common"]


def test_who_by_the_kernel_says_why_there_is_no_walk(capsys: pytest.CaptureFixture[str], snapshot: Snapshot) -> None:
    zero = int(snapshot.pfns()[snapshot.per_frame("kind") == k.ZERO][0])
    assert main(["who", "--kernel", f"pfn:{zero:#x}"]) == 1
    assert "no reverse map leads back" in capsys.readouterr().out
    assert main(["who", "--kernel", "-i", "x.rmap", "pfn:1"]) == 2
    assert "the running kernel's own trees" in " ".join(capsys.readouterr().err.split())
    assert main(["who", "--kernel", "swap:0:1"]) == 1
