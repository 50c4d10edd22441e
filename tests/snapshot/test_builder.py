"""The builder: rows in any order become a sorted, joined, renumbered picture with the same facts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.errors import SnapshotError
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, RW, column, parent_and_child

FACTS = st.tuples(
    st.integers(0, 2),  # process
    st.integers(0, 15),  # page
    st.sampled_from([f.PTE_PRESENT, f.PTE_SWAP, f.PTE_GUARD, f.PTE_OTHER]),
    st.integers(0, 7),  # frame or slot
)


def entries(snapshot: Snapshot) -> set[tuple[int, int, int, int]]:
    """Every entry of a picture, taken apart one by one: pid, address, flags, frame or swap entry."""
    found = set()
    ptes = snapshot.ptes
    for row in range(len(ptes)):
        flags = int(ptes.flags[row])
        step = 1 if flags & f.PTE_PRESENT else 32 if flags & f.PTE_SWAP else 0
        pid = int(snapshot.processes.pid[snapshot.vmas.process[ptes.vma[row]]])
        for k in range(ptes.count[row]):
            found.add((pid, int(ptes.address[row]) + k * PAGE, flags, int(ptes.pfn[row]) + k * step))
    return found


@given(st.lists(FACTS, unique_by=lambda fact: fact[:2]), st.permutations(range(3)))
def test_entries_in_any_order_are_kept_exactly(facts: list[tuple[int, int, int, int]], pids: list[int]) -> None:
    builder = SnapshotBuilder("model")
    vmas = []
    for pid in pids:
        process = builder.add_process(10 + pid)
        vmas += [builder.add_vma(process, HEAP + 8 * PAGE * k, HEAP + 8 * PAGE * (k + 1), RW) for k in (1, 0)]
    wanted = set()
    for process, page, flags, number in facts:
        value = number if flags & f.PTE_PRESENT else number << 5 if flags & f.PTE_SWAP else -1
        builder.add_ptes(vmas[2 * process + (page < 8)], column(HEAP + page * PAGE), column(value), flags)
        wanted.add((10 + pids[process], HEAP + page * PAGE, flags, value))
    builder.set_frames(column(*range(8)), mapcount=0)
    snapshot = builder.build()
    assert entries(snapshot) == wanted
    assert snapshot.nr_ptes == sum(flags == f.PTE_PRESENT for _, _, flags, _ in facts)
    assert snapshot.nr_swap_ptes == sum(flags == f.PTE_SWAP for _, _, flags, _ in facts)


def test_neighbours_become_one_extent() -> None:
    builder = SnapshotBuilder("model")
    vma = builder.add_vma(builder.add_process(1), HEAP, HEAP + 12 * PAGE, RW)
    page = HEAP + np.arange(12) * PAGE
    builder.add_ptes(vma, page[:4], np.arange(100, 104), f.PTE_PRESENT)
    builder.add_ptes(vma, page[4:8], column(*(1 | slot << 5 for slot in range(4))), f.PTE_SWAP)
    builder.add_ptes(vma, page[8:10], column(-1, -1), f.PTE_GUARD)
    builder.add_ptes(vma, page[10:], column(104, 106), f.PTE_PRESENT)
    builder.set_frames(np.arange(100, 107), mapcount=1)
    ptes = builder.build().ptes
    assert ptes.count.tolist() == [4, 4, 2, 1, 1]
    assert ptes.pfn.tolist() == [100, 1, -1, 104, 106]


def test_frames_that_say_the_same_become_one_run() -> None:
    builder = SnapshotBuilder("model")
    builder.set_frames(column(12, 10, 11), mapcount=2, index=column(7, 5, 6))
    builder.set_frames(column(13), mapcount=2, index=9)  # the index jumps
    builder.set_frames(column(14, 15), mapcount=column(1, 2))  # the count differs
    builder.set_frames(np.arange(16, 20), order=2, head_offset=np.arange(4))
    builder.set_frames(np.arange(20, 24), order=2, head_offset=np.arange(4))  # another folio
    snapshot = builder.build()
    assert snapshot.frames.pfn.tolist() == [10, 13, 14, 15, 16, 20]
    assert snapshot.frames.count.tolist() == [3, 1, 1, 1, 4, 4]
    assert snapshot.per_frame("index").tolist() == [5, 6, 7, 9] + [-1] * 10
    assert snapshot.per_frame("head_offset").tolist() == [0] * 6 + [0, 1, 2, 3] * 2
    assert snapshot.pfns().tolist() == list(range(10, 24))


def test_ids_follow_their_rows() -> None:
    builder = SnapshotBuilder("model")
    late, early = builder.add_process(9, comm="late"), builder.add_process(3, comm="early", sharers=[4])
    file = builder.add_file("/f")
    builder.add_holder(file, f.HOLDER_FD, late)
    builder.add_holder(file, f.HOLDER_PATH)
    builder.add_vma(late, HEAP, HEAP + PAGE, RW, label="of late")
    builder.add_vma(early, HEAP + PAGE, HEAP + 2 * PAGE, RW, label="of early, high")
    low = builder.add_vma(early, HEAP, HEAP + PAGE, RW, label="of early, low")
    root = builder.add_anon_vma()
    builder.add_chain(low, [root])
    snapshot = builder.build()
    assert snapshot.processes.comm == ["early", "late"]
    assert snapshot.vmas.label == ["of early, low", "of early, high", "of late"]
    assert snapshot.vmas.process.tolist() == [0, 0, 1]
    assert snapshot.sharers.process.tolist() == [0]
    assert snapshot.holders.process.tolist() == [1, -1]
    assert snapshot.anon_vma_chains.vma.tolist() == [0]
    assert (snapshot.anon_vmas.root.tolist(), snapshot.anon_vmas.parent.tolist()) == ([0], [0])


def test_a_contradiction_is_refused() -> None:
    builder = parent_and_child()
    builder.set_frames(column(0x1000), mapcount=1)
    with pytest.raises(SnapshotError, match="D8"):
        builder.build()
    with pytest.raises(TypeError, match="no column colour"):
        builder.set_frames(column(1), colour=3)


def test_parents_are_found_through_shared_mms() -> None:
    builder = parent_and_child()
    builder.add_process(200, ppid=102)  # 102 shares the mm of 101
    builder.add_process(201, ppid=1)
    assert builder.build().parents().tolist() == [-1, 0, 1, -1]
