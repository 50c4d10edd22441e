"""What stands around a page, gathered from a picture."""

from __future__ import annotations

from typing import Any

import pytest

from rmap.errors import UntrackedPage, UsageError
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.questions.family import PageFamily, family_of
from rmap.uapi.kpageflags import KPF_ANON
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, LIBC, RW, changed, column, parent_and_child

INDEX = HEAP >> 12


def test_a_page_that_parent_and_child_share() -> None:
    drawn = family_of(parent_and_child().build(), 0x1001)
    assert (drawn.kind, drawn.index, drawn.mapcount, drawn.exclusive) == ("anon", INDEX + 1, 2, False)
    assert drawn.anchor == "A0"
    assert [(one.name, one.parent, one.depth) for one in drawn.anon_vmas] == [("A0", "", 0), ("A1", "A0", 1)]
    assert [(one.refcount, one.num_children, one.num_active_vmas) for one in drawn.anon_vmas] == [(2, 2, 1), (1, 0, 1)]
    parent, child = drawn.vmas
    assert (parent.name, parent.pid, parent.active, parent.chain) == ("V1", 100, "A0", ("A0",))
    assert (child.name, child.pid, child.active, child.chain) == ("V2", 101, "A1", ("A1", "A0"))
    assert parent.address == child.address == HEAP + PAGE
    assert child.start == HEAP + PAGE, "the offset differs, the address does not"
    assert [one.entry for one in drawn.vmas] == ["hit", "hit"]
    assert (drawn.hits, drawn.met, drawn.passed, drawn.others) == (2, 2, 0, 0)


def test_a_page_that_the_child_copied_is_looked_for_in_vain_there() -> None:
    drawn = family_of(parent_and_child().build(), 0x1003)
    assert [(one.entry, one.pfn) for one in drawn.vmas] == [("hit", 0x1003), ("another page", 0x1008)]
    copy = family_of(parent_and_child().build(), 0x1008)
    assert (copy.anchor, copy.exclusive, copy.hits) == ("A1", True, 1)
    assert [one.pid for one in copy.vmas] == [101], "the walk of the copy goes through the child's anon_vma only"


def test_a_vma_without_the_index_is_passed_by() -> None:
    drawn = family_of(parent_and_child().build(), 0x1000)
    assert ([one.pid for one in drawn.vmas], drawn.passed) == ([100], 1)


def test_a_swapped_page_and_an_empty_place_are_told_apart() -> None:
    builder = parent_and_child()
    more = builder.add_vma(1, HEAP + 8 * PAGE, HEAP + 12 * PAGE, RW, pgoff=INDEX, anon_vma=1)
    builder.add_chain(more, [1, 0])
    builder.rows("anon_vmas")[1]["num_active_vmas"] = 2
    builder.add_ptes(more, column(HEAP + 8 * PAGE), column(2 | 90 << 5), f.PTE_SWAP)
    snapshot = builder.build()
    assert [one.entry for one in family_of(snapshot, 0x1000).vmas] == ["hit", "swapped out"]
    assert [one.entry for one in family_of(snapshot, 0x1001).vmas] == ["hit", "hit", "nothing"]


def test_a_page_of_a_file() -> None:
    drawn = family_of(parent_and_child().build(), 0x1011)
    assert (drawn.kind, drawn.index, drawn.order, drawn.exclusive) == ("file", 1, 2, None)
    assert (drawn.anchor, drawn.anon_vmas, drawn.file) == ("", (), "/lib/libc.so.6")
    assert [(one.pid, one.address, one.entry) for one in drawn.vmas] == [(100, LIBC, "hit"), (101, LIBC, "hit")]


def three_generations() -> Snapshot:
    """A0, A1, A2 in a line, A3 beside A1; the middle of the line is taken up again by a fourth process (rule 2.7)."""
    builder = SnapshotBuilder("model", topology="model", release="6.18", anon_exclusive=True)
    a0 = builder.add_anon_vma(refcount=5, num_children=3, num_active_vmas=1)
    a1 = builder.add_anon_vma(root=a0, parent=a0, num_children=1, num_active_vmas=1)
    a3 = builder.add_anon_vma(root=a0, parent=a0, num_active_vmas=1)
    a2 = builder.add_anon_vma(root=a0, parent=a1, num_active_vmas=1)
    builder.add_anon_vma(root=a0, parent=a0)  # in no chain of these
    chains = ((a0, [a0]), (a2, [a2, a1, a0]), (a1, [a2, a1, a0]), (a3, [a3, a0]))
    for pid, (active, chain) in enumerate(chains, 1):
        vma = builder.add_vma(builder.add_process(pid, comm=f"p{pid}"), HEAP, HEAP + PAGE, 3, pgoff=7, anon_vma=active)
        builder.add_chain(vma, chain)
        builder.add_ptes(vma, column(HEAP), column(0x50), f.PTE_PRESENT)
    facts: dict[str, Any] = {"kind": k.ANON, "mapping": f.MAPPING_ANON, "index": 7, "anon_vma": a0}
    builder.set_frames(column(0x50), mapcount=4, flags=KPF_ANON, **facts)
    return builder.build()


def names(drawn: PageFamily) -> list[tuple[str, str, int]]:
    return [(one.name, one.parent, one.depth) for one in drawn.anon_vmas]


def test_anon_vmas_are_named_from_the_root_down_parents_first() -> None:
    drawn = family_of(three_generations(), 0x50)
    assert names(drawn) == [("A0", "", 0), ("A1", "A0", 1), ("A2", "A1", 2), ("A3", "A0", 1)]
    assert [(one.active, one.chain) for one in drawn.vmas] == [
        ("A0", ("A0",)),
        ("A2", ("A2", "A1", "A0")),
        ("A1", ("A2", "A1", "A0")),
        ("A3", ("A3", "A0")),
    ]
    assert drawn.others == 1


def test_the_first_few_keep_the_counts_of_all() -> None:
    drawn = family_of(three_generations(), 0x50).first(2)
    assert [one.name for one in drawn.vmas] == ["V1", "V2"]
    assert (drawn.met, drawn.hits, drawn.others) == (4, 4, 2)
    assert [one[0] for one in names(drawn)] == ["A0", "A1", "A2"]


def test_what_cannot_be_drawn_says_why() -> None:
    snapshot = parent_and_child().build()
    with pytest.raises(UsageError, match="0x9999 is not in the picture"):
        family_of(snapshot, 0x9999)
    for kind, says in ((k.ZERO, "rmap who"), (k.KSM, "KSM's stable nodes"), (k.HUGETLB, "hugetlb")):
        with pytest.raises(UntrackedPage, match=says):
            family_of(Snapshot(changed(snapshot, "frames", "kind", 0, kind), snapshot.about), 0x1000)
    bare = Snapshot(changed(snapshot, "frames", "anon_vma", 0, -1), {**snapshot.about, "topology": "none"})
    with pytest.raises(UsageError, match="/proc alone"):
        family_of(bare, 0x1000)
