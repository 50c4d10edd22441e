"""``check``: sound pictures pass, and for each invariant a picture that breaks it is caught under its number."""

from __future__ import annotations

from typing import Any

import pytest

from rmap.errors import InvariantError
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, changed, parent_and_child


def test_a_sound_picture_is_checked_whole() -> None:
    lines = {line.invariant: line for line in parent_and_child().build().check()}
    numbers = [*range(1, 12), 13, 14, 15, 16, 17, 19, 20, 21]
    assert list(lines) == [f"I{number}" for number in numbers] + ["8.2"]
    assert all(line.checked or line.reason for line in lines.values())
    counted = {name: line.checked for name, line in lines.items()}
    assert counted["I1"] == 4  # VMAs
    assert counted["I13"] == counted["I14"] == 5  # anonymous entries
    assert counted["I15"] == counted["I16"] == counted["I17"] == 3
    assert counted["I19"] == 8  # frames
    assert counted["I21"] == 4
    assert [name for name, line in lines.items() if line.reason] == ["8.2"]


def test_what_cannot_be_checked_says_why() -> None:
    snapshot = parent_and_child(topology="none", anon_exclusive=False, pte_write=False).build()
    reasons = {line.invariant: line.reason for line in snapshot.check()}
    assert "no anon_vmas" in reasons["I1"]
    assert "PG_anon_exclusive" in reasons["I15"]
    assert "writable" in reasons["I17"]
    assert not reasons["I19"]
    later = {line.invariant: line.reason for line in parent_and_child(release="7.0").build().check()}
    assert "since Linux 7.0" in later["I4"]


def three_generations(**changes: Any) -> Snapshot:
    """A0, A1, A2 in a line, each with one VMA; ``changes`` replaces a chain."""
    builder = SnapshotBuilder("model", topology="model", release="6.18")
    a0 = builder.add_anon_vma(refcount=3, num_children=2, num_active_vmas=1)
    a1 = builder.add_anon_vma(root=a0, parent=a0, num_children=1, num_active_vmas=1)
    a2 = builder.add_anon_vma(root=a0, parent=a1, num_active_vmas=1)
    for pid, active, chain in ((1, a0, [a0]), (2, a1, [a1, a0]), (3, a2, changes.get("chain", [a2, a1, a0]))):
        vma = builder.add_vma(builder.add_process(pid), HEAP, HEAP + PAGE, 3, anon_vma=active)
        builder.add_chain(vma, chain)
    return builder.build()


def test_a_chain_holds_its_ancestors() -> None:
    three_generations().check()
    with pytest.raises(InvariantError, match="I10"):
        three_generations(chain=[2, 0]).check()


def test_a_page_that_came_back_from_swap_may_keep_its_anon_vma() -> None:
    lines = {line.invariant: line for line in parent_and_child(swapped=True).build().check()}
    assert not lines["I16"].checked and "swap" in lines["I16"].reason


def test_the_kernels_pictures_may_lack_mappers_but_never_have_too_many() -> None:
    facts = {"source": "kernel", "topology": "none", "anon_exclusive": False, "pte_write": False}
    snapshot = parent_and_child().build()
    exclusive = [f.PTE_PRESENT | (f.PTE_EXCLUSIVE if k in (0, 3, 6) else 0) for k in range(8)]
    exclusive[2] = f.PTE_SWAP
    tables = changed(snapshot, "ptes", "flags", slice(0, 8), exclusive)
    Snapshot(tables, {**snapshot.about, **facts}).check()
    kernel = Snapshot(tables, {**snapshot.about, **facts})
    more = Snapshot(changed(kernel, "frames", "mapcount", 5, 9), kernel.about)
    assert {line.invariant: line.checked for line in more.check()}["I20"] == 6
    few = Snapshot(changed(kernel, "frames", "mapcount", 5, 1), kernel.about)
    with pytest.raises(InvariantError, match=r"8\.2|I19"):
        few.check()
    bit = Snapshot(changed(kernel, "ptes", "flags", 0, f.PTE_PRESENT), kernel.about)
    with pytest.raises(InvariantError, match=r"8\.2"):
        bit.check()
    raced = Snapshot(changed(few, "frames", "raced", 5, True), few.about)
    raced.check()


def test_a_violation_names_its_objects() -> None:
    snapshot = parent_and_child().build()
    broken = Snapshot(changed(snapshot, "frames", "index", 1, (HEAP >> 12) + 2), snapshot.about)
    with pytest.raises(InvariantError, match=rf"I14: .*pfn 0x1001 .* at {HEAP + PAGE:#x} of 100 server, VMA {HEAP:x}-"):
        broken.check()
