"""Whoever reads the structures of a kernel gets walk, check and drawing: here a source with no kernel behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rmap.live.capture.kernel_view import _unaccounted
from rmap.show.family import family
from rmap.show.kernel_walk import kernel_walk
from rmap.snapshot import flags as f
from rmap.snapshot import parse_key, resolve
from rmap.snapshot.questions.family import family_of
from rmap.snapshot.rules.anon_vmas import WHAT, member_counts
from rmap.snapshot.rules.check import inspect
from rmap.structs.check import inspect_structs, walks
from rmap.structs.memory import KernelMemory
from rmap.structs.snapshot import snapshot_of
from rmap.structs.walk import compare, walk_page
from tests.structs.pretended import (
    BELOW,
    CHILD,
    EMPTIED,
    FILE,
    HEAP,
    KERNEL,
    PAGE,
    PARENT,
    PARENT_MM,
    PRESENT,
    ROOT,
    WRITE,
    AnonVma,
    PretendedMemory,
)  # fmt: skip

Change = Callable[[PretendedMemory], None]


@pytest.fixture
def memory() -> PretendedMemory:
    return PretendedMemory()


def broken(memory: KernelMemory) -> set[str]:
    """The numbers of what the structures alone break."""
    return {violation.invariant for one in inspect_structs(memory).found for violation in one.violations}


# ---- the kernel's walk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pfn", "kind", "parent", "child"),
    [
        (0x500, "anon", "hit", "hit"),
        (0x501, "anon", None, "hit"),
        (0x502, "anon", "hit", "another page"),
        (0x503, "anon", "swapped out", "hit"),
        (0x600, "file", "hit", "hit"),
    ],
)
def test_the_walk_of_a_page(memory: PretendedMemory, pfn: int, kind: str, parent: str | None, child: str) -> None:
    walk = walk_page(memory, pfn)
    assert (walk.kind, walk.anchor & 0xFFF, walk.mapcount) == (kind, memory.pages[pfn].mapping & 0xFF0, len(walk.hits))
    told = {one.pid: one.found for one in walk.candidates}
    assert told == {pid: found for pid, found in ((PARENT, parent), (CHILD, child)) if found is not None}
    mappings = snapshot_of(memory).who(pfn).mappings
    assert compare(walk, {(one.pid, one.address) for one in mappings}).equal
    without = compare(walk, {(one.pid, one.address) for one in mappings if one.pid != CHILD}, own_pid=CHILD)
    assert without.equal and without.own == (child == "hit")


def test_the_walk_as_it_is_shown(memory: PretendedMemory) -> None:
    walk = walk_page(memory, 0x502)
    difference = compare(walk, {(PARENT, HEAP + 2 * PAGE)})
    lines = kernel_walk(walk, difference, {PARENT: "parent", CHILD: "child"}, limit=None)
    assert "anon_vma ffff800000004000, page index 0x12" in lines[1]
    assert [line.split()[:3] for line in lines if line.startswith("  ") and "0x12000" in line] == [
        ["100", "parent", "0x12000"],
        ["101", "child", "0x12000"],
    ]
    assert any("to the page tables of every process: the same 1 entry" in line for line in lines)


def test_pages_without_a_walk_and_entries_that_cannot_be_read(memory: PretendedMemory) -> None:
    assert [walk_page(memory, pfn).kind for pfn in (0x700, 0x999)] == ["none", "none"]
    memory.child_heap.mm = KERNEL + 0x9000
    assert {one.found for one in walk_page(memory, 0x500).candidates} == {"hit", "not readable"}


# ---- the check -------------------------------------------------------------------------------------------------------


def test_the_structures_are_sound(memory: PretendedMemory) -> None:
    structs = inspect_structs(memory)
    assert {one.checked.invariant for one in structs.found} == {*WHAT, "I12", "I22"}
    assert [one.violations for one in structs.found if one.violations] == []
    assert not any(one.checked.note or one.checked.reason for one in structs.found)
    assert all(one.checked.checked for one in structs.found)
    snapshot = snapshot_of(memory)
    assert inspect(snapshot).violations == []
    met = walks(memory, structs.topology, structs.trees, snapshot)
    assert (met.checked.checked, met.violations, met.checked.note) == (5, [], "")


def change(what: str, **fields: Any) -> Change:
    """Give fields of one structure other values."""

    def apply(memory: PretendedMemory) -> None:
        of: dict[str, Any] = {"root": memory.anon_vmas[ROOT], "below": memory.anon_vmas[BELOW], "memory": memory}
        for name, value in fields.items():
            setattr(of.get(what) or getattr(memory, what), name, value)

    return apply


STRUCTS: list[tuple[str, set[str], Change]] = [
    ("no active anon_vma", {"I1", "I6"}, change("parent_heap", anon_vma=0)),
    ("another family", {"I2", "I8", "I9"}, change("below", root=BELOW)),
    ("active not in the chain", {"I3", "I6", "I11"}, change("parent_heap", anon_vma=BELOW)),
    ("the chain the other way round", {"I4"}, change("child_heap", chain=[ROOT, BELOW])),
    ("a link twice", {"I5"}, change("child_heap", chain=[BELOW, BELOW, ROOT])),
    ("active VMAs", {"I6"}, change("root", num_active_vmas=2)),
    ("children", {"I7"}, change("root", num_children=1)),
    ("references of the root", {"I8"}, change("root", refcount=1)),
    ("references below", {"I8"}, change("below", refcount=2)),
    ("its own parent", {"I7", "I9"}, change("below", parent=BELOW)),
    ("no ancestor", {"I4", "I10", "I12"}, change("child_heap", chain=[BELOW])),
    ("subtree_last", {"I12"}, change("memory", misread_reach={KERNEL + 0x5000: 0x12})),
    ("not in the tree", {"I12"}, lambda memory: memory.anon_vmas[ROOT].vmas.pop()),
    ("a stranger in the tree", {"I12"}, lambda memory: memory.anon_vmas[BELOW].vmas.append(memory.parent_heap)),
    ("writers of the file", {"I22"}, change("memory", i_mmap_writable=1)),
    ("not in i_mmap", {"I22"}, lambda memory: memory.i_mmap.pop()),
]


@pytest.mark.parametrize(("numbers", "apply"), [row[1:] for row in STRUCTS], ids=[row[0] for row in STRUCTS])
def test_a_broken_structure_is_named(memory: PretendedMemory, numbers: set[str], apply: Change) -> None:
    apply(memory)
    assert broken(memory) == numbers


def test_chains_end_otherwise_in_a_later_release(memory: PretendedMemory) -> None:
    """Rule 0.3: which release it is, the source says, not the machine that reads it."""
    memory.release, memory.child_heap.chain = "7.1.0", [ROOT, BELOW]
    assert broken(memory) == set()


def test_references_that_ksm_holds(memory: PretendedMemory) -> None:
    memory.anon_vmas[ROOT].refcount += 2
    assert broken(memory) == {"I8"}
    memory.ksm = 2
    assert broken(memory) == set()


def test_who_is_broken_is_said_in_the_words_of_the_source(memory: PretendedMemory) -> None:
    memory.anon_vmas[ROOT].num_active_vmas = 2
    (violation,) = [violation for one in inspect_structs(memory).found for violation in one.violations]
    assert violation.message == "num_active_vmas is 2; VMAs that point at the anon_vma: 1"
    assert violation.objects == (
        "anon_vma ffff800000004000 (root ffff800000004000)",
        "VMA 100 parent 10000-14000, struct ffff800000005000",
        "VMA 101 child 10000-14000, struct ffff800000005100",
    )


def test_an_emptied_anon_vma_counts_nowhere(memory: PretendedMemory) -> None:
    """Rule 2.8: when its tree is empty it is one child less of its parent, though whoever refers to it keeps it."""
    memory.anon_vmas[ROOT].refcount += 1
    read, memory.anon_vmas[EMPTIED] = memory.topology(), AnonVma(ROOT, ROOT, 1, 0, 0, [])
    table = read.anon_vmas
    row = {int(address): row for row, address in enumerate(table.address)}[ROOT]
    more = (EMPTIED, row, row, 1, 0, 0, False)
    columns = {name: np.append(column, last) for (name, column), last in zip(vars(table).items(), more)}
    seen = replace(read, anon_vmas=replace(table, **columns))
    memory.topology = lambda pids=None: seen  # type: ignore[method-assign]
    assert broken(memory) == set()
    assert not _unaccounted(seen).any()
    counted = member_counts(seen.vmas.anon_vma, seen.links.anon_vma, seen.anon_vmas.parent)
    assert (counted.children[row], counted.active[row]) == (2, 1)


WRITABLE = {(PARENT_MM, HEAP + PAGE): 0x500 << 12 | PRESENT | WRITE}
PAGES: list[tuple[str, set[str], Change]] = [
    ("index", {"I14"}, lambda memory: setattr(memory.pages[0x502], "index", 0x11)),
    ("mapcount", {"I19"}, lambda memory: setattr(memory.pages[0x500], "mapcount", 1)),
    ("anon_vma", {"I13"}, lambda memory: setattr(memory.pages[0x502], "mapping", BELOW | 1)),
    ("exclusive", {"I15"}, lambda memory: setattr(memory.pages[0x500], "exclusive", True)),
    ("writable", {"I17"}, lambda memory: memory.page_tables.update(WRITABLE)),
    ("page of the file", {"I21"}, lambda memory: setattr(memory.pages[0x600], "index", 3)),
]


@pytest.mark.parametrize(("numbers", "apply"), [row[1:] for row in PAGES], ids=[row[0] for row in PAGES])
def test_a_broken_page_is_named(memory: PretendedMemory, numbers: set[str], apply: Change) -> None:
    apply(memory)
    assert {violation.invariant for violation in inspect(snapshot_of(memory)).violations} == numbers
    assert broken(memory) == set()


def test_the_walk_misses_an_entry(memory: PretendedMemory) -> None:
    """I19 itself: the page hangs on an anon_vma whose tree has not all that map it."""
    memory.pages[0x500].mapping = BELOW | 1
    structs = inspect_structs(memory)
    (missed,) = walks(memory, structs.topology, structs.trees, snapshot_of(memory)).violations
    assert (missed.invariant, missed.pids) == ("I19", (PARENT,))


# ---- the drawing, and other questions --------------------------------------------------------------------------------

DRAWN = """\
page      pfn 0x500: anonymous, 4 KiB
index     0x11: set when the page became anonymous; splits and moves leave it
mapping   A0: the anon_vma that the page hangs on
mapcount  2, not exclusive: whoever writes looks first whether it must copy

anon_vmas of the family           VMAs active  children  references
A0                                          1         2           2  <- the page
└─ A1                                       1         0           1

The walk from A0 meets 2 VMAs with this index:
V1  100 parent  10000-14000 rw-p
    chain [A0]
    0x10000 + (0x11 - 0x10) pages
      = 0x11000: HIT, page 1 of the VMA
V2  101 child  10000-14000 rw-p
    chain [A1] -> A0
    0x10000 + (0x11 - 0x10) pages
      = 0x11000: HIT, page 1 of the VMA

found     2 entries of 2 that the kernel counts
found by  structures made by hand
"""


def test_a_page_is_drawn(memory: PretendedMemory) -> None:
    snapshot = snapshot_of(memory)
    pfn = resolve(snapshot, parse_key(f"{CHILD}:{HEAP + PAGE:#x}")).pfn
    assert pfn == 0x500
    lines = family(family_of(snapshot, pfn), origin="structures made by hand", limit=None)
    assert "\n".join(lines) + "\n" == DRAWN


def test_what_is_drawn_where_the_page_is_not(memory: PretendedMemory) -> None:
    snapshot = snapshot_of(memory)
    entries = {
        pfn: [(vma.pid, vma.entry, vma.pfn) for vma in family_of(snapshot, pfn).vmas] for pfn in (0x501, 0x502, 0x503)
    }
    assert entries == {
        0x501: [(CHILD, "hit", 0x501)],
        0x502: [(PARENT, "hit", 0x502), (CHILD, "another page", 0x501)],
        0x503: [(PARENT, "swapped out", -1), (CHILD, "hit", 0x503)],
    }
    of_file = family_of(snapshot, 0x600)
    assert (of_file.kind, of_file.file, of_file.index, of_file.hits) == ("file", "inode 12 of device 0x801", 2, 2)
    assert resolve(snapshot, parse_key(f"{PARENT}:{HEAP + 3 * PAGE:#x}")).swap == (2, 77)


def test_a_snapshot_of_structures_says_what_they_say(memory: PretendedMemory) -> None:
    snapshot = snapshot_of(memory)
    assert snapshot.processes.comm == ["parent", "child"] and len(snapshot.vmas) == 4
    assert snapshot.about["release"] == memory.release and snapshot.about["topology"] == "kernel"
    assert set(snapshot.anon_vmas.address.tolist()) == {ROOT, BELOW}
    assert snapshot.anon_vmas.whole.all() and snapshot.files.inode.tolist() == [12]
    flags = dict(zip(zip(snapshot.ptes.vma.tolist(), snapshot.ptes.address.tolist()), snapshot.ptes.flags.tolist()))
    assert flags == {
        (0, HEAP + PAGE): f.PTE_PRESENT,
        (0, HEAP + 2 * PAGE): f.PTE_PRESENT | f.PTE_EXCLUSIVE,
        (0, HEAP + 3 * PAGE): f.PTE_SWAP,
        (1, FILE + PAGE): f.PTE_PRESENT | f.PTE_FILE,
        (2, HEAP + PAGE): f.PTE_PRESENT,
        (2, HEAP + 2 * PAGE): f.PTE_PRESENT | f.PTE_EXCLUSIVE | f.PTE_WRITE,
        (2, HEAP + 3 * PAGE): f.PTE_PRESENT | f.PTE_EXCLUSIVE,
        (3, FILE + PAGE): f.PTE_PRESENT | f.PTE_FILE | f.PTE_WRITE,
    }


def test_a_large_empty_area_costs_little(memory: PretendedMemory) -> None:
    """Nothing is asked about what no table stands for."""
    memory.child_file.end += 1 << 40
    snapshot_of(memory)
    assert memory.asked < 4096
