"""Two pictures held against each other: by hand, and against brute force over single entries."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.cli import main
from rmap.show.difference import COLUMNS, sorted_changes
from rmap.show.difference import difference as lines_of
from rmap.snapshot import Snapshot, SnapshotBuilder, shipped
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.questions.difference import Difference, ProcessChange, difference
from rmap.snapshot.questions.usage import usage
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, RW, column, parent_and_child

Entries = dict[int, dict[int, int]]  # process -> page -> frame
KIND_OF = (k.ANON, k.ANON, k.ANON, k.FILE, k.ZERO, k.HUGETLB)  # of frame n: KIND_OF[n % 6]


def snapshot_of(entries: Entries, *, start: dict[int, int] | None = None, **about: Any) -> Snapshot:
    """A picture of some processes with one area each."""
    builder = SnapshotBuilder("model", **about)
    found: dict[int, int] = defaultdict(int)
    for pid in sorted(entries):
        process = builder.add_process(pid, comm=f"p{pid}", start_time=(start or {}).get(pid, 10 * pid), exe="/bin/p")
        vma = builder.add_vma(process, HEAP, HEAP + 64 * PAGE, RW)
        for page, frame in sorted(entries[pid].items()):
            builder.add_ptes(vma, column(HEAP + page * PAGE), column(frame), f.PTE_PRESENT)
            found[frame] += 1
    for frame in sorted(found):
        builder.set_frames(column(frame), mapcount=found[frame], kind=KIND_OF[frame % 6])
    return builder.build()


def of(found: Difference, pid: int) -> ProcessChange:
    """The one row of a process."""
    (row,) = [row for row in found.processes if row.pid == pid]
    return row


def test_a_write_unshares_and_a_fork_shares() -> None:
    before = snapshot_of({1: {0: 12, 1: 13, 2: 14}, 2: {0: 12, 1: 13}})
    after = snapshot_of({1: {0: 12, 1: 13, 2: 14}, 2: {0: 18, 1: 13}, 3: {2: 14}})
    found = difference(before, after)
    writer, other, child = of(found, 2), of(found, 1), of(found, 3)
    assert (writer.unshared, writer.replaced, writer.left, writer.gained, writer.lost) == (1, 1, 0, 0, 0)
    assert (other.unshared, other.left, other.newly_shared) == (0, 1, 1)  # alone with page 0; shares page 2
    assert (child.state, child.gained, child.rss_before, child.rss_after) == ("came", 1, 0, PAGE)
    assert found.memory_after - found.memory_before == PAGE


def test_a_page_that_was_private_and_moved_is_no_unsharing() -> None:
    row = of(difference(snapshot_of({1: {0: 12}}), snapshot_of({1: {0: 18}})), 1)
    assert (row.replaced, row.unshared, row.left, row.newly_shared, row.changed) == (1, 0, 0, 0, False)


def test_a_pid_given_again_is_another_process() -> None:
    before, after = snapshot_of({7: {0: 12}}, start={7: 100}), snapshot_of({7: {0: 12, 1: 13}}, start={7: 200})
    went, came = difference(before, after).processes
    assert (went.state, went.start_time, went.reused, went.lost) == ("went", 100, True, 1)
    assert (came.state, came.start_time, came.reused, came.gained) == ("came", 200, True, 2)


def test_pages_that_no_process_owns_do_not_count() -> None:
    row = of(difference(snapshot_of({1: {0: 4}}), snapshot_of({1: {0: 12, 1: 5}})), 1)  # the zero page; hugetlb
    assert (row.rss_before, row.rss_after, row.gained, row.unshared) == (0, PAGE, 1, 0)


def test_what_went_to_swap_is_told_apart() -> None:
    before = parent_and_child().build()
    found = difference(before, before)
    assert all(not row.changed for row in found.processes)
    assert of(found, 100).swap_before == PAGE
    builder = SnapshotBuilder("model")
    process = builder.add_process(100, comm="server", start_time=5)
    vma = builder.add_vma(process, HEAP, HEAP + 4 * PAGE, RW)
    builder.add_ptes(vma, column(HEAP, HEAP + PAGE), column(0 | 7 << 5, 0 | 8 << 5), f.PTE_SWAP)
    row = of(difference(before, builder.build()), 100)
    assert (row.lost, row.swapped_out, row.swap_before, row.swap_after) == (5, 2, PAGE, 2 * PAGE)


def test_files_by_mapped_frames() -> None:
    before, after = parent_and_child().build(), snapshot_of({100: {0: 12}}, start={100: 5})
    assert [(one.path, one.before, one.after) for one in difference(before, after).files] == [
        ("/lib/libc.so.6", 2 * PAGE, 0)
    ]
    assert difference(before, before).files == []


def test_other_machines_are_compared_with_a_warning() -> None:
    here = snapshot_of({1: {0: 12}}, host="a", time="2026-01-01T00:00:00Z")
    there = snapshot_of({1: {0: 12}}, host="b", time="2026-01-02T00:00:00Z")
    assert "different hosts (a, b)" in difference(here, there).warnings[0]
    anew = snapshot_of({1: {0: 12}}, start={1: 5}, host="a", time="2026-01-02T00:00:00Z")
    assert "booted anew" in difference(here, anew).warnings[0]
    later = snapshot_of({2: {0: 12}}, start={2: 5}, host="a")
    assert "no process is in both" in difference(here, later).warnings[0]
    assert difference(here, snapshot_of({1: {0: 12}}, host="a")).warnings == []


def test_the_wrong_order_and_missing_processes_are_said() -> None:
    late = snapshot_of({1: {0: 12}}, time="2026-01-02T00:00:00Z")
    early = snapshot_of({1: {0: 12}, 2: {0: 12}}, time="2026-01-01T00:00:00Z", refused=2)
    (warning,) = difference(late, early).warnings
    assert "taken after the second" in warning
    (warning,) = difference(early, snapshot_of({1: {0: 12}, 2: {0: 12}, 3: {0: 12}})).warnings
    assert "2 refused" in warning and "need not have come" in warning


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Entries, Entries]:
    def one() -> Entries:
        pids = draw(st.sets(st.integers(1, 4), min_size=1))
        return {pid: draw(st.dictionaries(st.integers(0, 20), st.integers(0, 30), max_size=20)) for pid in pids}

    return one(), one()


def shared_in(entries: Entries, frame: int) -> bool:
    return sum(list(pages.values()).count(frame) for pages in entries.values()) > 1


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_every_number_against_brute_force(pair: tuple[Entries, Entries]) -> None:
    before, after = pair
    a, b = snapshot_of(before), snapshot_of(after)
    found = difference(a, b)
    assert {row.pid for row in found.processes} == {*before, *after}
    for row in found.processes:
        old, new = ({page: frame for page, frame in world.get(row.pid, {}).items() if frame % 6 < 4} for world in pair)
        both = old.keys() & new.keys()
        moves = [(shared_in(before, old[p]), shared_in(after, new[p]), old[p] == new[p]) for p in both]
        assert row.state == ("stayed" if row.pid in before and row.pid in after else row.state)
        assert (row.gained, row.lost) == (len(new.keys() - both), len(old.keys() - both))
        assert row.replaced == sum(not same for _, _, same in moves)
        assert row.unshared == sum(was and not now and not same for was, now, same in moves)
        assert row.left == sum(was and not now and same for was, now, same in moves)
        assert row.newly_shared == sum(now and not was for was, now, same in moves)
        assert row.rss_after - row.rss_before == (row.gained - row.lost) * PAGE
    for snapshot, name in ((a, "rss_before"), (b, "rss_after")):
        rss = dict(zip(snapshot.processes.pid.tolist(), usage(snapshot).rss.tolist()))
        assert {row.pid: getattr(row, name) for row in found.processes if row.pid in rss} == rss
    reverse = difference(b, a)
    assert [row.gained for row in found.processes] == [row.lost for row in reverse.processes]


def test_a_real_picture_against_itself_has_no_change() -> None:
    snapshot = Snapshot.load(shipped())
    found = difference(snapshot, snapshot)
    assert not any(row.changed for row in found.processes) and not found.files
    assert [row.rss_after for row in found.processes] == usage(snapshot).rss.tolist()


@pytest.mark.parametrize("column_name", COLUMNS)
def test_every_order_and_lines_that_fit(column_name: str) -> None:
    snapshot = Snapshot.load(shipped())
    found = difference(snapshot, snapshot_of({1: {0: 12}}))
    rows = sorted_changes(found.processes, column_name)
    assert len(rows) == len(found.processes)
    lines = lines_of(found, rows, names="a with b", limit=3)
    assert max(map(len, lines)) <= 80
    assert f"... {len(rows) - 3} more (--all)" in lines


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, entries in (("a", {1: {0: 12, 1: 13}, 2: {0: 12}}), ("b", {1: {0: 12, 1: 13}, 2: {0: 18, 3: 19}})):
        snapshot_of(entries).save(tmp_path / f"{name}.rmap")
    words = ["diff", str(tmp_path / "a.rmap"), str(tmp_path / "b.rmap")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "unshared 4.0 KiB" in out and "p2" in out and "p1 " not in out
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1 and {row["pid"]: row["unshared"] for row in told["processes"]} == {1: 0, 2: 1}
    assert main([*words, "--jsonl", "--pid", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["gained"] == 1
    assert main([*words, "--pid", "99"]) == 2
    assert main([*words, "--cgroup", "/nowhere"]) == 2
    assert main(["diff", str(tmp_path / "missing.rmap")]) == 4
    assert "Traceback" not in capsys.readouterr().err
