"""Requirements D4 to D12: for each, a specimen that breaks it and nothing else, and the refusal that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmap.errors import SnapshotError
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, changed, parent_and_child

# Rows of parent_and_child(): VMAs 0 heap and 1 libc of the parent, 2 heap and 3 libc of the child. Extents 0 to 3 the
# parent's heap, 4 its libc, 5 and 6 the child's heap, 7 its libc. Frames 0 to 2 the parent's heap, 3 the child's copy,
# 4 to 6 libc's folio.
BROKEN: dict[str, tuple[str, str, int | slice, Any, str]] = {
    "D4 a VMA of no process": ("vmas", "process", 3, 2, "D4"),
    "D4 an extent of no VMA": ("ptes", "vma", 7, 4, "D4"),
    "D4 an id that must not be none": ("ptes", "vma", 0, -1, "D4"),
    "D4 an id below none": ("vmas", "file", 0, -2, "D4"),
    "D4 a frame of no file": ("frames", "file", 4, 1, "D4"),
    "D4 a frame of no anon_vma": ("frames", "anon_vma", 0, 2, "D4"),
    "D4 a link to no anon_vma": ("anon_vma_chains", "anon_vma", 0, 2, "D4"),
    "D4 an anon_vma without root": ("anon_vmas", "root", 0, 5, "D4"),
    "D4 an unknown kind of frame": ("frames", "kind", 0, 8, "D4"),
    "D4 an unknown kind of file": ("files", "kind", 0, 3, "D4"),
    "D5 a pid twice": ("sharers", "pid", 0, 100, "D5"),
    "D5 a pid of 0": ("processes", "pid", 0, 0, "D5"),
    "D5 processes out of order": ("processes", "pid", 0, 103, "D5"),
    "D6 an empty VMA": ("vmas", "end", 0, HEAP, "D6"),
    "D6 half a page": ("vmas", "end", 0, HEAP + 4 * PAGE + 2048, "D6"),
    "D6 VMAs overlap": ("vmas", "start", 1, HEAP + 3 * PAGE, "D6"),
    "D6 VMAs out of order": ("vmas", "process", 0, 1, "D6"),
    "D6 an impossible page offset": ("vmas", "pgoff", 0, -2, "D6"),
    "D7 an empty extent": ("ptes", "count", 0, 0, "D7"),
    "D7 an extent between pages": ("ptes", "address", 0, HEAP + 1, "D7"),
    "D7 an extent before its VMA": ("ptes", "address", 0, HEAP - PAGE, "D7"),
    "D7 an extent beyond its VMA": ("ptes", "count", 4, 3, "D7"),
    "D7 extents overlap": ("ptes", "count", 0, 2, "D7"),
    "D7 neither present nor swap": ("ptes", "flags", 0, f.PTE_EXCLUSIVE, "D7"),
    "D7 present and swap": ("ptes", "flags", 0, f.PTE_PRESENT | f.PTE_SWAP, "D7"),
    "D7 a guard with a frame": ("ptes", "flags", 0, f.PTE_GUARD, "D7"),
    "D7 present without a frame": ("ptes", "pfn", 0, -1, "D7"),
    "D8 an empty run": ("frames", "count", 3, 0, "D8"),
    "D8 a negative mapcount": ("frames", "mapcount", 3, -1, "D8"),
    "D8 runs overlap": ("frames", "pfn", 3, 0x1003, "D8"),
    "D8 a file without a place in it": ("frames", "index", 4, -1, "D8"),
    "D9 an impossible order": ("frames", "order", 4, 31, "D9"),
    "D9 a small page behind its head": ("frames", "head_offset", 0, 1, "D9"),
    "D9 a run across two folios": ("frames", "head_offset", 6, 4, "D9"),
    "D9 a folio that is not whole": ("frames", "order", slice(4, 7), 3, "D9"),
    "D10 a frame that is not described": ("ptes", "pfn", 6, 0x1009, "D10"),
    "D10 an extent that leaves a run": ("ptes", "pfn", 4, 0x1013, "D10"),
    "D11 a position is missing": ("anon_vma_chains", "position", 2, 2, "D11"),
    "D11 a chain begins late": ("anon_vma_chains", "position", 0, 1, "D11"),
    "D11 links out of order": ("anon_vma_chains", "vma", 0, 3, "D11"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_refused(name: str) -> None:
    table, column, row, value, number = BROKEN[name]
    snapshot = parent_and_child().build()
    tables = changed(snapshot, table, column, row, value)
    with pytest.raises(SnapshotError, match=rf"contradictory: .*\({number}\)"):
        Snapshot(tables, snapshot.about)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", None),
        ("page_size", 16384),
        ("page_size", "4096"),
        ("raced", True),
        ("topology", "guessed"),
        ("mapcount", "exact"),
        ("vma_flags", ""),
        ("pte_write", 1),
        ("swapped", 1),
    ],
)
def test_a_broken_provenance_is_refused(key: str, value: Any) -> None:
    snapshot = parent_and_child().build()
    with pytest.raises(SnapshotError, match=r"\(D12\)"):
        Snapshot(snapshot.tables, {**snapshot.about, key: value})


def test_mapped_frames_must_be_described_at_all() -> None:
    snapshot = parent_and_child().build()
    nothing = snapshot.frames.take(np.empty(0, np.int64))
    with pytest.raises(SnapshotError, match="D10"):
        Snapshot({**snapshot.tables, "frames": nothing}, snapshot.about)


def test_a_broken_file_is_refused_on_load(tmp_path: Any) -> None:
    snapshot = parent_and_child().build()
    snapshot.tables["ptes"] = changed(snapshot, "ptes", "pfn", 6, 0x1009)["ptes"]
    snapshot.save(tmp_path / "broken.rmap")
    with pytest.raises(SnapshotError, match="D10"):
        Snapshot.load(tmp_path / "broken.rmap")


def test_an_empty_picture_is_a_picture(tmp_path: Any) -> None:
    SnapshotBuilder("model").build().save(tmp_path / "empty.rmap")
    empty = Snapshot.load(tmp_path / "empty.rmap")
    assert (empty.nr_ptes, empty.nr_mapped, len(empty.pfns())) == (0, 0, 0)
    assert empty.who(5).status == "unmapped"
    assert len(empty.walk_many(np.array([5])).pfn) == 0
    empty.check()
