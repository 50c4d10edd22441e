"""The parts of the fast search one by one: the scan of everything, single frames, the start of the command."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rmap.live.lookup import mappings, scan, search
from rmap.live.lookup.look_up import look_up
from rmap.live.lookup.search import Hit
from rmap.live.sources.kpage import count_of, page_at
from rmap.live.sources.kpage_columns import kinds, read_page_state
from rmap.snapshot import Who, parse_key
from tests.support import PAGE
from tests.support.live_family import family
from tests.support.proc import PRESENT, brute, entries, frame_of

MASK = (1 << 55) - 1
pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm")]


SCATTERED = """
memfd = os.memfd_create("one")
os.ftruncate(memfd, PAGE)
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
big = mm(20000)  # over several buffers; the page lies at the borders of them
start = address(big)
places = [0, 1, 255, 256, 257, 8191, 8192, 8193, 16383, 16384, 19999]
for place in places:
    assert libc.mmap(start + place * PAGE, PAGE, 3, mmap.MAP_SHARED | 0x10, memfd, 0) == start + place * PAGE
    ctypes.string_at(start + place * PAGE, 1)
sparse = mm(1 << 24, PRIVATE | 0x4000)  # 64 GiB, hardly any of it there
touch(sparse, 5, 1 << 20, (1 << 24) - 1)
fork(lambda: None)
ready([start, places, address(sparse)])
"""


def test_a_scan_finds_every_entry_however_it_lies() -> None:
    with family(SCATTERED) as tree:
        start, places, sparse = tree.value
        pfn = frame_of(tree.pid, start)
        looked = search.for_page(pfn)
        scan.everywhere(looked, tree.pids)
        assert {(hit.pid, hit.address) for hit in looked.hits} == {(tree.pid, start + at * PAGE) for at in places}
        for page in (5, 1 << 20, (1 << 24) - 1):
            looked = search.for_page(frame_of(tree.pid, sparse + page * PAGE))
            scan.everywhere(looked, tree.pids)
            assert looked.hits == {Hit(pid, sparse + page * PAGE) for pid in tree.pids}
        assert looked.scanned == set(tree.pids)
        scan.everywhere(looked, [2**22 + 1])  # there is none of that number
        assert looked.unread.empty == {2**22 + 1} and looked.unread.ended() == 1


def test_a_scan_that_has_enough_ends_with_the_process_it_is_at() -> None:
    with family("area = mm(4)\ntouch(area, 0)\nfork(lambda: None)\nfork(lambda: None)\nready(address(area))") as tree:
        pfn = frame_of(tree.pid, tree.value)
        looked = search.for_page(pfn)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})  # one thread: nobody is further on
        try:
            scan.everywhere(looked, tree.pids, lambda: True)
        finally:
            os.sched_setaffinity(0, before)
        assert looked.hits == {Hit(tree.pid, tree.value)} and looked.scanned == {tree.pid}
        scan.everywhere(looked, tree.pids)
        assert {(hit.pid, hit.address) for hit in looked.hits} == brute(tree.pids, pfn)


def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*rest: object) -> set[Hit]:
        raise MemoryError

    monkeypatch.setattr(scan, "_scan", broken)
    with pytest.raises(MemoryError):
        scan.everywhere(search.for_page(1), [os.getpid()])


def test_single_frames_are_described_as_columns_of_them_are() -> None:
    with family("area = mm(64)\ntouch(area, *range(64))\nready(0)") as tree:
        pfns = sorted({entry & MASK for entry in entries(tree.pid).values() if entry & PRESENT})
        column = np.array(pfns, np.int64)
        state = read_page_state(column, np.ones(len(column), np.int64))
        row = np.searchsorted(state.pfn, column)
        kind, large = kinds(state.flags), 0
        for pfn, at in zip(pfns, row.tolist()):
            one = page_at(pfn)
            if one.torn or state.raced[at]:
                continue
            large += one.order > 0
            assert (one.kind, one.order, one.head) == (kind[at], state.order[at], pfn - state.head_offset[at])
        assert large or all(state.order == 0)
        assert count_of(1 << 60) == 0 == count_of(1 << 50)


def test_a_pid_that_was_given_away_is_a_race() -> None:
    with family("area = mm(4)\ntouch(area, 0)\nready(address(area))") as tree:
        looked = search.for_page(frame_of(tree.pid, tree.value))
        known, gone = mappings.mappings_of([Hit(tree.pid, tree.value)])
        assert not gone and not mappings.changed(looked, known)
        assert mappings.changed(looked, [known[0]._replace(start_time=known[0].start_time - 1)])
        assert mappings.changed(search.for_page(1), known)
    assert mappings.changed(looked, known)  # it has ended
    assert mappings.mappings_of([Hit(tree.pid, tree.value)]) == ([], True)


def test_the_zero_page_may_be_mapped_by_very_many_entries() -> None:
    script = "area = mm(20000)\nfor page in range(0, 20000, 2): area[page * PAGE]\ntouch(area, 1)\nready(address(area))"
    with family(script) as tree:
        answer = look_up(parse_key(f"{tree.pid}:{tree.value:#x}"))
        assert isinstance(answer, Who) and answer.pfn is not None
        assert answer.kind == "zero"
        ours = {(one.pid, one.address) for one in answer.mappings if one.pid == tree.pid}
        assert ours == brute([tree.pid], answer.pfn) and len(ours) >= 10000
        assert all(one.vma_start <= one.address < one.vma_end for one in answer.mappings)


def test_the_command_answers_without_numpy() -> None:
    with family("area = mm(4)\ntouch(area, 0)\nready(address(area))") as tree:
        script = (
            "import sys\nfrom rmap.cli import main\n"
            f"assert main(['who', '{tree.pid}:{tree.value:#x}']) == 0\n"
            f"assert main(['who', '{os.path.realpath(sys.executable)}@0', '--json']) == 0\n"
            "assert not {'numpy', 'rich', 'subprocess', 'tempfile'} & set(sys.modules), sorted(sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "found 1 of 1: complete" in done.stdout
