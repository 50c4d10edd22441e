"""``isomorphic``: renamed worlds are the same, and every single fact that differs is noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmap.snapshot import Snapshot, SnapshotBuilder, isomorphic
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.uapi.kpageflags import KPF_ANON
from rmap.uapi.vm_flags import VM_LOCKED, VM_READ
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, changed, column, parent_and_child


def test_names_do_not_matter() -> None:
    one = parent_and_child().build()
    two = parent_and_child(first_pid=7000, first_pfn=0x9000).build()
    assert isomorphic(one, two) is None
    assert isomorphic(two, one) is None


def test_the_order_of_frames_does_not_matter() -> None:
    one = parent_and_child().build()
    # Exchange the frames of the parent's first and last page.
    ptes = one.ptes.pfn.copy()
    ptes[[0, 3]] = 0x1003, 0x1000
    frames = one.frames.index.copy()
    frames[[0, 2]] = frames[[2, 0]]
    tables = changed(one, "ptes", "pfn", slice(None), ptes)
    tables["frames"] = changed(one, "frames", "index", slice(None), frames)["frames"]
    assert isomorphic(one, Snapshot(tables, one.about)) is None


DIFFERENT: dict[str, tuple[str, str, int | slice, Any, str]] = {
    "the child is nobody's child": ("processes", "ppid", 1, 0, "parent of process 1"),
    "a VMA is larger": ("vmas", "end", 1, 0x7F10_0000_0000 + 3 * PAGE, "VMA"),
    "a VMA is read-only": ("vmas", "flags", 0, VM_READ, "flags of process 0"),
    "a VMA has no file": ("vmas", "file", 1, -1, "file of process 0"),
    "a VMA shows another part of its file": ("vmas", "pgoff", 1, 2, "file offset"),
    "a page is not shared": ("ptes", "pfn", 5, 0x1010, "which frame is at process 1"),
    "a page is shared": ("ptes", "pfn", 6, 0x1003, "which frame is at process 1"),
    "a page is elsewhere": ("ptes", "address", 6, HEAP + 2 * PAGE, "next page"),
    "a page is writable": ("ptes", "flags", 1, f.PTE_PRESENT | f.PTE_WRITE, "writable at"),
    "a page is guarded": ("ptes", "flags", slice(2, 3), f.PTE_OTHER, "kind of entry"),
    "a mapcount": ("frames", "mapcount", 0, 2, "mapcount of frame number 0"),
    "a kind": ("frames", "kind", 0, k.KSM, "kind of frame number 0"),
    "an order": ("frames", "order", slice(4, 7), 0, "order"),
    "an index": ("frames", "index", 0, 5, "index of frame number 0"),
    "an exclusive page": ("frames", "flags", 0, KPF_ANON, "PG_anon_exclusive of frame number 0"),
    "an anchor": ("frames", "anon_vma", 3, 0, "anon_vma of frame number"),
    "an active anon_vma": ("vmas", "anon_vma", 2, 0, "active anon_vma"),
    "a chain": ("anon_vma_chains", "anon_vma", slice(1, 3), [0, 1], "chain of process 1"),
    "a counter": ("anon_vmas", "num_children", 0, 3, "counters of anon_vma 0"),
    "a parent": ("anon_vmas", "parent", 1, 1, "parent of anon_vma 1"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_noticed_and_named(name: str) -> None:
    table, column_name, row, value, message = DIFFERENT[name]
    one = parent_and_child().build()
    tables = changed(one, table, column_name, row, value)
    if name == "an order":
        tables["frames"].head_offset = np.zeros_like(one.frames.head_offset)
    if name == "a page is guarded":
        tables["ptes"].pfn[2] = -1
    two = Snapshot(tables, one.about)
    assert message in (isomorphic(one, two) or "")
    assert isomorphic(two, one)


def test_more_or_fewer_pages_are_noticed() -> None:
    one = parent_and_child().build()
    builder = parent_and_child()
    builder.add_ptes(1, column(HEAP + 2 * PAGE), column(0x1010), f.PTE_PRESENT)
    assert "next page" in (isomorphic(one, builder.build()) or "")
    less = Snapshot({**one.tables, "ptes": one.ptes.take(np.arange(7))}, one.about)
    assert "no further page" in (isomorphic(one, less) or "")
    assert "no further page" in (isomorphic(less, one) or "")


def test_what_one_side_does_not_know_is_not_compared() -> None:
    one = parent_and_child().build()
    blind = parent_and_child(topology="none", anon_exclusive=False, pte_write=False).build()
    tables = changed(blind, "frames", "index", slice(0, 4), -1)
    tables["frames"].flags[:] = 0
    tables["vmas"].anon_vma[:] = -1
    two = Snapshot(tables, blind.about)
    assert isomorphic(one, two) is None
    more = Snapshot(changed(two, "frames", "mapcount", 5, 4), two.about)
    assert "mapcount" in (isomorphic(one, more) or "")
    assert isomorphic(one, more, mapcount=False) is None
    locked = Snapshot(changed(two, "vmas", "flags", 0, int(two.vmas.flags[0]) | VM_LOCKED), two.about)
    assert isomorphic(one, locked) is None
    assert "flags" in (isomorphic(one, locked, vma_flags=VM_LOCKED) or "")


def test_siblings_are_paired_by_age_not_by_pid() -> None:
    def family(first: int, second: int) -> Snapshot:
        builder = SnapshotBuilder("model")
        parent = builder.add_process(1)
        elder = builder.add_process(first, ppid=1, start_time=10)
        younger = builder.add_process(second, ppid=1, start_time=20)
        for pages, process in enumerate((parent, elder, younger), 1):
            builder.add_vma(process, HEAP, HEAP + pages * PAGE, 3)
        return builder.build()

    assert isomorphic(family(5, 6), family(6, 5)) is None
    assert isomorphic(family(5, 6), family(5, 6)) is None
