"""Usage, groups, sharing, what is freed: against brute force over single entries, on pictures drawn at random."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.errors import UsageError
from rmap.snapshot import SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.questions.freed import Freed, freed_by
from rmap.snapshot.questions.groups import WAYS, count, groups
from rmap.snapshot.questions.selection import of_cgroup, of_pids, row_of, with_descendants
from rmap.snapshot.questions.sharing import sharing
from rmap.snapshot.questions.usage import usage
from tests.support import PAGE
from tests.support.random_snapshots import World, counted, worlds
from tests.support.snapshot_worlds import HEAP, RW, column, parent_and_child


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_usage_is_what_the_kernel_would_add_up(world: World) -> None:
    table = usage(world.snapshot)
    for row in range(len(world.snapshot.processes)):
        mine = [frame for process, frame in world.entries if process == row and frame in counted(world)]
        assert table.rss[row] == PAGE * len(mine)
        assert table.pss[row] == sum((PAGE << 12) // world.mapcount[frame] for frame in mine) >> 12
        assert table.uss[row] == PAGE * sum(world.mapcount[frame] == 1 for frame in mine)
        others = {process for process, frame in world.entries if frame in mine and process != row}
        assert table.shared_with[row] == len(others)


@settings(max_examples=200, deadline=None)
@given(worlds(), st.data())
def test_groups_against_fractions_of_single_pages(world: World, data: st.DataObject) -> None:
    snapshot = world.snapshot
    number = [data.draw(st.integers(-1, 2)) for _ in range(len(snapshot.processes))]
    for name, group in enumerate(count(snapshot, np.array(number, np.int32), ["a", "b", "c"])):
        inside = Counter(f_ for p, f_ in world.entries if number[p] == name and f_ in counted(world))
        assert group.sum_rss == PAGE * sum(inside.values())
        assert group.each_once == PAGE * len(inside)
        assert group.only_here == PAGE * sum(n == world.mapcount[frame] for frame, n in inside.items())
        pss = sum(n / world.mapcount[frame] for frame, n in inside.items()) * PAGE
        assert group.sum_pss == pytest.approx(pss, abs=1)
        assert group.only_here <= group.sum_pss <= group.each_once <= group.sum_rss


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_sharing_is_the_intersection_of_what_two_map(world: World) -> None:
    snapshot = world.snapshot
    rows = np.arange(len(snapshot.processes), dtype=np.int32)
    found = sharing(snapshot, rows)
    maps = {row: {f_ for p, f_ in world.entries if p == row and f_ in counted(world)} for row in rows.tolist()}
    for at, row in enumerate(found.rows.tolist()):
        for place, other in enumerate(found.columns.tolist()):
            assert found.shared[at, place] == PAGE * len(maps[row] & maps[other])
        others = set().union(*(maps[other] for other in maps if other != row))
        assert found.alone[at] == PAGE * len(maps[row] - others)
        assert all(not maps[row] & maps[other] for other in maps if other not in found.columns)


@settings(max_examples=200, deadline=None)
@given(worlds(), st.data())
def test_freed_is_what_nobody_else_maps(world: World, data: st.DataObject) -> None:
    snapshot = world.snapshot
    chosen = np.array([data.draw(st.booleans()) for _ in range(len(snapshot.processes))], np.bool_)
    found = freed_by(snapshot, chosen)
    ours = Counter(frame for process, frame in world.entries if chosen[process])
    only = {frame for frame, n in ours.items() if n == world.mapcount[frame]}
    anonymous = {frame for frame in only if world.kind[frame] in (k.ANON, k.KSM)}
    assert found.anonymous == PAGE * len(anonymous)
    assert set(found.frames.tolist()) == anonymous  # nothing is known to be the only holder of an unknown file
    touched = {frame for frame in ours if frame in counted(world)}
    assert found.comes_back + found.stays == PAGE * len(touched) + max(0, found.page_tables)
    assert found.unmapped == PAGE * sum(world.kind[frame] in (k.FILE, k.SHMEM) for frame in only)


@pytest.mark.parametrize("by", WAYS)
def test_every_process_is_in_one_group(by: str) -> None:
    snapshot = parent_and_child().build()
    found = groups(snapshot, by)
    assert sorted(pid for group in found for pid in group.pids) == snapshot.processes.pid.tolist()
    assert len(groups(snapshot, by, of_pids(snapshot, [101]))) == 1


def test_selection_knows_sharers_and_refuses_strangers() -> None:
    snapshot = parent_and_child().build()
    assert row_of(snapshot, 102) == row_of(snapshot, 101) == 1 and row_of(snapshot, 7) == -1
    assert of_pids(snapshot, [102]).tolist() == [False, True]
    assert with_descendants(snapshot, of_pids(snapshot, [100])).all()
    with pytest.raises(UsageError, match="process 7 is not in the picture"):
        of_pids(snapshot, [7])
    with pytest.raises(UsageError, match="no process of the picture is in a cgroup /none"):
        of_cgroup(snapshot, "none")


def shared_file(*, path: str, kind: int = f.FILE_SHMEM, **frames: int) -> tuple[SnapshotBuilder, int, int]:
    """Two processes; the first alone maps two pages of a file of four that are allocated."""
    builder = SnapshotBuilder("model")
    first, second = builder.add_process(1, comm="one", page_table_bytes=8192), builder.add_process(2, comm="two")
    file = builder.add_file(path, dev=1, inode=5, size=4 * PAGE, allocated=4 * PAGE, kind=kind)
    vma = builder.add_vma(first, HEAP, HEAP + 2 * PAGE, RW, pgoff=0, file=file)
    builder.add_ptes(vma, column(HEAP, HEAP + PAGE), column(16, 17), f.PTE_PRESENT | f.PTE_FILE)
    frame_kind = k.SHMEM if kind == f.FILE_SHMEM else k.FILE
    described = {"mapcount": 1, "kind": frame_kind, "file": file, "mapping": f.MAPPING_FILE, **frames}
    builder.set_frames(column(16, 17), index=column(0, 1), **described)
    return builder, file, second


def one_ends(builder: SnapshotBuilder) -> Freed:
    snapshot = builder.build()
    return freed_by(snapshot, of_pids(snapshot, [1]))


def test_shared_memory_that_nothing_holds_comes_back_whole() -> None:
    """Also the pages of it that are not mapped: the file goes."""
    builder, _, _ = shared_file(path="/memfd:cache (deleted)")
    found = one_ends(builder)
    assert (found.shared, found.page_tables, found.stays) == (4 * PAGE, 8192, 0)


def test_shared_memory_stays_by_whatever_holds_it() -> None:
    for hold, why in (
        (lambda b, file, second: b.add_holder(file, f.HOLDER_FD, second), "2 two, open"),
        (lambda b, file, second: b.add_holder(file, f.HOLDER_SYSV), "its SysV identifier (ipcrm)"),
        (lambda b, file, second: b.add_holder(file, f.HOLDER_PATH), "its name"),
    ):
        builder, file, second = shared_file(path="/dev/shm/x")
        hold(builder, file, second)
        found = one_ends(builder)
        assert found.shared == 0
        assert [(item.path, item.bytes, item.why) for item in found.held] == [("/dev/shm/x", 2 * PAGE, why)]


def test_a_descriptor_of_one_that_ends_holds_nothing() -> None:
    builder, file, _ = shared_file(path="/memfd:cache (deleted)")
    builder.add_holder(file, f.HOLDER_FD, 0)
    assert one_ends(builder).shared == 4 * PAGE


def test_page_cache_stays_unless_its_file_is_deleted() -> None:
    builder, file, _ = shared_file(path="/srv/model.bin", kind=f.FILE_REGULAR)
    builder.add_holder(file, f.HOLDER_PATH)
    found = one_ends(builder)
    assert ([item.path for item in found.cache], found.deleted, found.unmapped) == (["/srv/model.bin"], 0, 2 * PAGE)
    builder, _, _ = shared_file(path="/srv/old.bin (deleted)", kind=f.FILE_REGULAR)
    found = one_ends(builder)
    assert (found.cache, found.deleted, found.frames.tolist()) == ([], 2 * PAGE, [16, 17])


def test_a_folio_that_others_map_in_part_stays_whole() -> None:
    builder = SnapshotBuilder("model")
    pair = [builder.add_process(pid) for pid in (1, 2)]
    vmas = [builder.add_vma(process, HEAP, HEAP + 4 * PAGE, RW) for process in pair]
    builder.add_ptes(vmas[0], column(*(HEAP + n * PAGE for n in range(4))), column(16, 17, 18, 19), f.PTE_PRESENT)
    builder.add_ptes(vmas[1], column(HEAP), column(16), f.PTE_PRESENT)
    builder.set_frames(column(16, 17, 18, 19), mapcount=column(2, 1, 1, 1), order=2, head_offset=column(0, 1, 2, 3))
    found = one_ends(builder)
    assert (found.anonymous, found.folios, [item.bytes for item in found.others]) == (0, 3 * PAGE, [PAGE])
    snapshot = builder.build()
    assert freed_by(snapshot, of_pids(snapshot, None)).anonymous == 4 * PAGE


def test_a_slot_of_swap_comes_back_with_the_last_that_names_it() -> None:
    builder = SnapshotBuilder("model")
    pair = [builder.add_process(pid) for pid in (1, 2)]
    vmas = [builder.add_vma(process, HEAP, HEAP + 4 * PAGE, RW) for process in pair]
    builder.add_ptes(vmas[0], column(HEAP, HEAP + PAGE), column(8 << 5, 9 << 5), f.PTE_SWAP)
    builder.add_ptes(vmas[1], column(HEAP), column(8 << 5), f.PTE_SWAP)
    assert one_ends(builder).swap == PAGE
    snapshot = builder.build()
    assert freed_by(snapshot, of_pids(snapshot, None)).swap == 2 * PAGE
    assert [group.swap for group in groups(snapshot, "tree")] == [2 * PAGE, PAGE]
