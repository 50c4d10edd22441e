"""The reverse map of a picture against brute force, the completeness of its answers, and what KEYs name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.errors import UsageError
from rmap.snapshot import Key, Resolved, Snapshot, SnapshotBuilder, parse_key, resolve
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, LIBC, RW, changed, column, parent_and_child

NR_FRAMES = 40


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, NR_FRAMES - 6), st.integers(1, 6)), max_size=30
    ),
    st.lists(st.integers(-2, NR_FRAMES + 5), max_size=20),
    st.sets(st.integers(0, NR_FRAMES)),
)
def test_every_entry_is_found_and_no_other(
    pieces: list[tuple[int, int, int, int]], asked: list[int], cuts: set[int]
) -> None:
    builder = SnapshotBuilder("model")
    vmas = [builder.add_vma(builder.add_process(10 + i), HEAP, HEAP + 100 * PAGE, RW) for i in range(4)]
    truth: dict[tuple[int, int], int] = {}
    for process, page, pfn, count in pieces:
        for i in range(count):
            if (process, page + i) not in truth:
                truth[process, page + i] = 1000 + pfn + i
                builder.add_ptes(vmas[process], column(HEAP + (page + i) * PAGE), column(1000 + pfn + i), f.PTE_PRESENT)
    for pfn in range(NR_FRAMES):  # the runs of the frame table begin and end anywhere
        builder.set_frames(column(1000 + pfn), cgroup=sum(cut <= pfn for cut in cuts))
    snapshot = builder.build()
    for pfn in range(NR_FRAMES):
        want = [(10 + p, HEAP + page * PAGE) for (p, page), frame in sorted(truth.items()) if frame == 1000 + pfn]
        assert [(m.pid, m.address) for m in snapshot.who(1000 + pfn).mappings] == want
    pfns = np.array(asked, np.int64) + 1000
    walk = snapshot.walk_many(pfns)
    rows = [
        (pfn, 10 + p, HEAP + page * PAGE)
        for pfn in pfns.tolist()
        for (p, page), frame in sorted(truth.items())
        if frame == pfn
    ]
    assert list(zip(walk.pfn.tolist(), walk.pid.tolist(), walk.address.tolist())) == rows
    assert snapshot.nr_mapped == len(set(truth.values()))


def test_who_tells_everything_about_a_page() -> None:
    snapshot = parent_and_child().build()
    answer = snapshot.who(0x1011)
    assert (answer.kind, answer.mapcount, answer.found, answer.status) == ("file", 2, 2, "complete")
    assert (answer.order, answer.head, answer.file, answer.file_offset) == (2, 0x1010, "/lib/libc.so.6", PAGE)
    assert answer.to_json() == {
        "schema": 1,
        "pfn": 0x1011,
        "kind": "file",
        "mapcount": 2,
        "found": 2,
        "status": "complete",
        "mappings": [
            {
                "pid": pid,
                "comm": comm,
                "address": LIBC,
                "vma_start": LIBC,
                "vma_end": LIBC + 2 * PAGE,
                "perms": "r-xp",
                "file": "/lib/libc.so.6",
                "offset": PAGE,
            }
            for pid, comm in ((100, "server"), (101, "worker"))
        ],
        "file": {"path": "/lib/libc.so.6", "offset": PAGE},
        "folio": {"order": 2, "head": 0x1010},
    }


def test_the_same_page_lies_at_different_offsets() -> None:
    mappings = parent_and_child().build().who(0x1001).mappings
    assert [m.address - m.vma_start for m in mappings] == [PAGE, 0]
    assert {m.address for m in mappings} == {HEAP + PAGE}
    assert [(m.file, m.offset) for m in mappings] == [(None, None)] * 2


def status(table: str = "frames", name: str = "mapcount", row: int = 4, value: int = 0, **about: str) -> str:
    """The status of libc's page 0x1011, after one change of the picture."""
    snapshot = parent_and_child().build()
    tables = changed(snapshot, table, name, row, value)
    return Snapshot(tables, {**snapshot.about, **about}).who(0x1011).status


def test_status() -> None:
    # Row 5 of frames is pages 1 and 2 of libc's folio, row 4 its unmapped head.
    assert status() == "complete"
    assert status(row=5, value=3) == "hidden"
    assert status(row=5, value=1) == "raced"
    assert status(name="raced", row=5, value=1) == "raced"
    assert status(mapcount="average") == "approximate"
    assert status(name="own", row=5, value=1) == "raced"
    snapshot = parent_and_child().build()
    tables = changed(snapshot, "frames", "mapcount", 5, 3)
    own = Snapshot(
        {**tables, "frames": changed(Snapshot(tables, snapshot.about), "frames", "own", 5, 1)["frames"]}, snapshot.about
    )
    assert own.who(0x1011).status == "complete"
    assert own.who(0x1011).own == 1
    assert snapshot.who(0x1010).status == "unmapped"
    assert snapshot.who(0x9999).kind == "unknown"
    zero = Snapshot(changed(snapshot, "frames", "kind", 5, k.ZERO), snapshot.about)
    assert zero.who(0x1011).status == "complete"
    zero = Snapshot(changed(zero, "frames", "mapcount", 5, 0), snapshot.about)
    assert (zero.who(0x1011).status, zero.who(0x1011).found) == ("approximate", 2)


def test_a_swap_slot_has_a_reverse_map_too() -> None:
    snapshot = parent_and_child().build()
    answer = snapshot.who_swap(2, 50)
    assert (answer.kind, answer.status) == ("swap", "approximate")
    assert [(m.pid, m.address) for m in answer.mappings] == [(100, HEAP + 2 * PAGE)]
    assert snapshot.who_swap(1, 50).status == snapshot.who_swap(2, 51).status == "unmapped"
    assert answer.to_json()["swap"] == {"type": 2, "offset": 50}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pfn:0x2f8443", Key("pfn", pfn=0x2F8443)),
        ("pfn:12", Key("pfn", pfn=12)),
        ("phys:0x2f8443fff", Key("pfn", pfn=0x2F8443)),
        ("swap:1:0x10", Key("swap", swap=(1, 16))),
        ("4711:0x7f5a176cb000", Key("address", pid=4711, address=0x7F5A176CB000)),
        ("4711", Key("process", pid=4711)),
        ("/lib/libc.so.6@0x28000", Key("file", path="/lib/libc.so.6", offset=0x28000)),
        ("/srv/m@1.5M", Key("file", path="/srv/m", offset=3 << 19)),
        ("/srv/a@b", Key("file", path="/srv/a@b", whole=True)),
        ("/srv/a@b@4096", Key("file", path="/srv/a@b", offset=4096)),
        ("name", Key("file", path="name", whole=True)),
        ("file:4711", Key("file", path="4711", whole=True)),
        ("file:pfn:1@8K", Key("file", path="pfn:1", offset=8192)),
        ("x:0x10", Key("file", path="x:0x10", whole=True)),
    ],
)
def test_keys(text: str, key: Key) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["pfn:", "pfn:x", "pfn:-1", "phys:1.5", "swap:1", "swap:a:2", "swap:1:", "file:", ""])
def test_nonsense_keys(text: str) -> None:
    with pytest.raises(UsageError):
        parse_key(text)


def test_what_keys_name() -> None:
    snapshot = parent_and_child().build()

    def named(text: str) -> Resolved:
        return resolve(snapshot, parse_key(text))

    assert named("phys:0x1001fff").pfn == 0x1001
    assert named(f"100:{HEAP + PAGE + 5:#x}").pfn == 0x1001
    assert named(f"101:{HEAP + 3 * PAGE:#x}").pfn == 0x1008
    assert named(f"102:{HEAP + 3 * PAGE:#x}").pfn == 0x1008  # shares the mm of 101
    assert named(f"100:{HEAP + 2 * PAGE:#x}") == Resolved(swap=(2, 50))
    assert named("swap:2:50").swap == (2, 50)
    assert named("/lib/libc.so.6").pfn == 0x1010
    assert named("/lib/libc.so.6@0x2fff").pfn == 0x1012
    for text, reason in (
        (f"99:{HEAP:#x}", "process 99 is not in the picture"),
        (f"101:{HEAP:#x}", "has nothing at"),
        (f"101:{HEAP + 2 * PAGE:#x}", "no page is there yet"),
        (f"101:{HEAP + 4 * PAGE:#x}", "has nothing at"),
        ("100:0x0", "has nothing at"),
        ("/lib/other", "maps a file /lib/other"),
        ("/lib/libc.so.6@16K", "maps page 4 of"),
    ):
        assert reason in named(text).reason
        assert named(text).pfn is None
    with pytest.raises(UsageError, match="many pages"):
        named("100")


def test_a_deleted_file_is_found_by_its_name_and_the_most_mapped_of_several_wins() -> None:
    builder = parent_and_child()
    other = builder.add_file("/lib/libc.so.6 (deleted)", inode=8)
    builder.set_frames(column(0x2000), kind=k.FILE, file=other, index=0, mapcount=0)
    builder.set_frames(column(0x2005), kind=k.FILE, file=other, index=1, mapcount=0)
    snapshot = builder.build()
    assert resolve(snapshot, parse_key("/lib/libc.so.6@4096")).pfn == 0x1011
    assert resolve(snapshot, parse_key("/lib/libc.so.6 (deleted)@4096")).pfn == 0x2005


def test_what_lies_under_a_guard_is_said() -> None:
    builder = parent_and_child()
    vma = builder.add_vma(0, HEAP - PAGE, HEAP, RW)
    builder.add_ptes(vma, column(HEAP - PAGE), column(-1), f.PTE_GUARD)
    assert "guard marker" in resolve(builder.build(), parse_key(f"100:{HEAP - PAGE:#x}")).reason
