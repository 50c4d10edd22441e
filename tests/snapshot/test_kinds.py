"""Kinds of frames are said in one place: a kind that is added there is known everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from rmap.errors import SnapshotError, UntrackedPage
from rmap.kernel import Kernel
from rmap.kernel.entries import KINDS as REPLAYED
from rmap.live.lookup.bad_frames import recorded_frames
from rmap.live.sources.kpage_columns import kinds
from rmap.show.badframe import bad_frames
from rmap.show.family import family
from rmap.show.who import who
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.snapshot.kind_columns import among, of_each
from rmap.snapshot.kinds import KINDS, Fate, FrameKind
from rmap.snapshot.questions.badframe import verdict
from rmap.snapshot.questions.family import family_of
from rmap.snapshot.questions.freed import freed_by
from rmap.snapshot.questions.usage import usage
from tests.support import PAGE
from tests.support.snapshot_worlds import HEAP, RW, column

BIT = 1 << 60
NUMBER = len(KINDS)
BALLOON = FrameKind(
    number=NUMBER,
    name="balloon",
    bits=BIT,
    mapping=f.MAPPING_UNKNOWN,
    tracked=False,
    walked=False,
    modelled=True,
    counted=False,
    backing="",
    of_file=False,
    fates=(Fate("given to the host", "nothing: the host has it"),),
    words="given to the host",
    uncounted="a page that the host has: its mappings are not counted",
    replayed="kernel page",
    never_reclaimed="the host has it already",
    unmapped="is the host's",
)
"""One that no reverse map leads back from."""
GUEST = KINDS[k.ANON]._replace(
    number=NUMBER,
    name="guest",
    bits=BIT,
    words="memory of a guest",
    fates=(Fate("memory of a guest", "tells the guest", True, True),),
)
"""One that hangs on an anon_vma, and of which all is known."""


@pytest.fixture(params=[BALLOON, GUEST], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Iterator[FrameKind]:
    with KINDS.extended(request.param):
        yield request.param


def snapshot_of(kind: FrameKind, mapcount: int) -> Snapshot:
    """One page of that kind and one anonymous one, both mapped by a process and its child."""
    builder = SnapshotBuilder("model", topology="model", release="6.18", anon_exclusive=True, pte_write=True)
    root = builder.add_anon_vma(num_children=1, num_active_vmas=2, refcount=1)
    for number in range(2):
        process = builder.add_process(10 + number, ppid=9 + number, start_time=number, page_table_bytes=PAGE)
        vma = builder.add_vma(process, HEAP, HEAP + 2 * PAGE, RW, pgoff=HEAP >> 12, anon_vma=root)
        builder.add_chain(vma, [root])
        special = 0 if kind.tracked else f.PTE_SPECIAL
        flags = column(f.PTE_PRESENT | special, f.PTE_PRESENT)
        builder.add_ptes(vma, column(HEAP, HEAP + PAGE), column(100, 200), flags)
    on_anon_vma = {"index": HEAP >> 12, "anon_vma": root} if kind.mapping == f.MAPPING_ANON else {}
    builder.set_frames(
        column(100), kind=kind.number, flags=kind.bits, mapping=kind.mapping, mapcount=mapcount, **on_anon_vma
    )
    index = (HEAP >> 12) + 1
    builder.set_frames(
        column(200), kind=k.ANON, flags=1 << 12, mapping=f.MAPPING_ANON, mapcount=2, index=index, anon_vma=root
    )
    return builder.build()


def test_a_new_kind_is_told_by_its_bit(kind: FrameKind) -> None:
    assert KINDS.kind_of(BIT) == KINDS.kind_of(BIT | 1 << 12) == NUMBER
    assert kinds(column(BIT, 0, 1 << 12)).tolist() == [NUMBER, k.FILE, k.ANON]
    assert KINDS.kept_bits & BIT
    assert KINDS.named(kind.name) is KINDS[NUMBER] is kind


def test_a_new_kind_is_saved_and_answered_for_in_its_own_words(kind: FrameKind, tmp_path: Path) -> None:
    saved = snapshot_of(kind, mapcount=2 if kind.tracked else 0)
    saved.save(tmp_path / "new.rmap")
    snapshot = Snapshot.load(tmp_path / "new.rmap")
    answer = snapshot.who(100)
    assert (answer.kind, answer.found, answer.flags) == (kind.name, 2, BIT)
    assert (answer.status, answer.note) == (("complete", "") if kind.tracked else ("approximate", kind.uncounted))
    assert kind.words in " ".join(who(answer, origin="a test", limit=None))
    (judged,) = recorded_frames(snapshot, [100])
    assert (judged.verdict.what, judged.verdict.kills) == (kind.fates[0].what, kind.fates[0].kills)
    assert kind.fates[0].does in " ".join(bad_frames([judged], limit=None))


def test_a_new_kind_counts_as_its_row_says(kind: FrameKind) -> None:
    snapshot = snapshot_of(kind, mapcount=2 if kind.tracked else 0)
    pages = 2 if kind.counted else 1
    table = usage(snapshot)
    assert table.rss.tolist() == [pages * PAGE] * 2 and table.pss.tolist() == [pages * PAGE // 2] * 2
    both = freed_by(snapshot, np.array([True, True]))
    assert both.anonymous == pages * PAGE and both.frames.tolist() == [100, 200][-pages:]
    one = freed_by(snapshot, np.array([True, False]))
    assert one.anonymous == 0 and sum(held.bytes for held in one.others) == pages * PAGE


def test_a_new_kind_is_checked_if_it_is_tracked(kind: FrameKind) -> None:
    lines = {line.invariant: line for line in snapshot_of(kind, mapcount=2 if kind.tracked else 7).check()}
    assert lines["I19"].checked == (2 if kind.tracked else 1)
    assert lines["I14"].checked == (4 if kind.mapping == f.MAPPING_ANON else 2)


def test_what_stands_around_a_page_of_a_new_kind(kind: FrameKind) -> None:
    snapshot = snapshot_of(kind, mapcount=2)
    if kind.walked:
        drawn = family_of(snapshot, 100)
        assert (drawn.kind, drawn.hits, drawn.anchor) == (kind.name, 2, "A0")
        assert kind.words in " ".join(family(drawn, origin="a test", limit=None))
    else:
        with pytest.raises(UntrackedPage, match=f"{kind.name}.*nothing to draw"):
            family_of(snapshot, 100)
    with KINDS.extended(kind._replace(number=NUMBER + 1, name="stray", tracked=True, walked=False, no_walk="its list")):
        strays = snapshot_of(KINDS[NUMBER + 1], mapcount=2)
        with pytest.raises(UntrackedPage, match="does not hold its list"):
            family_of(strays, 100)


def test_the_model_leaves_out_what_it_does_not_have(kind: FrameKind) -> None:
    with KINDS.extended(GUEST._replace(number=NUMBER + 1, name="far", modelled=False, left_out="far pages")):
        adoption = Kernel.adopt(snapshot_of(KINDS[NUMBER + 1], mapcount=2), "anon_vma_chain").adoption
        assert adoption is not None and adoption.left_out == {"far pages": 2}
    adoption = Kernel.adopt(snapshot_of(kind, mapcount=2), "anon_vma_chain").adoption
    assert adoption is not None and adoption.left_out == {}


def test_outside_the_block_nobody_knows_it() -> None:
    with KINDS.extended(GUEST):
        snapshot = snapshot_of(GUEST, mapcount=2)
    assert KINDS.kind_of(BIT) == k.FILE and len(KINDS) == NUMBER
    with pytest.raises(SnapshotError, match=r"unknown code \(D4\)"):
        Snapshot(snapshot.tables, snapshot.about)


def test_rows_are_sound() -> None:
    assert [kind.number for kind in KINDS] == list(range(len(KINDS)))
    names = ("anon", "file", "shmem", "ksm", "hugetlb", "zero", "kernel", "device")  # by their numbers in files
    assert KINDS.names == names
    for kind in KINDS:
        assert bool(kind.bits) == (kind.number != KINDS.rest)
        assert kind.words and kind.replayed in REPLAYED and kind.fates
        assert kind.modelled != bool(kind.left_out) and kind.tracked != bool(kind.uncounted)
        assert bool(kind.no_walk) == (kind.tracked and not kind.walked)
        assert bool(kind.never_reclaimed) == (not kind.backing)
        last = kind.fates[-1]
        assert not last.with_bits and not last.without_bits, "every frame has a fate"


def test_columns_and_single_kinds_say_the_same() -> None:
    column_of = np.array([-1, *range(len(KINDS))], np.int8)
    for numbers in (KINDS.untracked, KINDS.cached, ()):
        assert among(column_of, numbers).tolist() == [number in numbers for number in column_of.tolist()]
    assert of_each(lambda kind: kind.mapping).tolist() == [kind.mapping for kind in KINDS]
    for bits in range(1 << len(KINDS.tests)):
        flags = sum(tests for at, (tests, _) in enumerate(KINDS.tests) if bits >> at & 1)
        assert kinds(column(flags)).tolist() == [KINDS.kind_of(flags)]


def test_nobody_is_killed_who_does_not_map_the_page() -> None:
    for kind, flags, order in product(KINDS, (0, 1 << 4, 1 << 13, 1 << 4 | 1 << 13, 1 << 19), (0, 9)):
        assert not verdict(kind.number, flags, order, False).kills
