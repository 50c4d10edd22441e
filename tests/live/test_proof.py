"""A family with every kind of sharing at once: `who` by both ways, and the sums, against the kernel."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rmap.live.capture.capture import capture
from rmap.live.lookup.look_up import look_up
from rmap.snapshot import Key, Snapshot, Who
from rmap.snapshot.questions.groups import groups
from rmap.snapshot.questions.usage import usage
from tests.support import PAGE
from tests.support.live_family import Family, family
from tests.support.proc import FRAME, PRESENT, brute, count_of, entries

pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm")]

MENAGERIE = """
heap = mm(1024)
touch(heap, *range(1024))
huge = mm(1024)
start = (address(huge) + (2 << 20) - 1) >> 21 << 21
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise(start, 2 << 20, 14)
ctypes.memset(start, 1, 2 << 20)
fd = os.open(PATH, os.O_RDWR)
file = mm(64, mmap.MAP_SHARED, fd)
[file[page * PAGE] for page in range(64)]
private = mm(64, mmap.MAP_PRIVATE, fd)
[private[page * PAGE] for page in range(64)]
touch(private, 3, 5)
memfd = os.memfd_create("menagerie")
os.ftruncate(memfd, 64 * PAGE)
shared = mm(64, mmap.MAP_SHARED, memfd)
touch(shared, *range(32))
both = mm(16, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
touch(both, *range(16))
zero = mm(16)
[zero[page * PAGE] for page in range(16)]
libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
segment = libc.shmget(0, 16 * PAGE, 0o1600)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
sysv = libc.shmat(segment, None, 0)
libc.shmctl(segment, 0, None)
ctypes.memset(sysv, 1, 16 * PAGE)
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mremap.restype = ctypes.c_void_p
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
at = address(heap)
def offset():
    global kept
    kept = mm(8, mmap.MAP_SHARED, fd, 16 * PAGE, 1)
    [kept[page * PAGE] for page in range(8)]
    touch(shared, 1)
def without_the_first():
    libc.munmap(at, PAGE)
    touch(heap, *range(64, 128))
def moved():
    place = libc.mmap(None, 64 * PAGE, 3, PRIVATE, -1, 0)
    assert libc.mremap(at + 512 * PAGE, 64 * PAGE, 64 * PAGE, 3, place) == place
def splits_the_huge():
    libc.madvise(start + (1 << 20), PAGE, 4)
for work in (offset, without_the_first, moved, splits_the_huge):
    fork(work)
libc.unshare(0x20000000)
fork(lambda: touch(heap, 900))
ready([at, start, address(file), address(private), address(shared), address(both), address(zero), sysv])
"""


@pytest.fixture(scope="module")
def menagerie() -> Iterator[Family]:
    path = Path(__file__).parent / f".menagerie-{os.getpid()}.bin"
    try:
        path.write_bytes(os.urandom(64 * PAGE))
        with family(MENAGERIE.replace("PATH", repr(str(path)))) as tree:
            yield tree
    finally:
        path.unlink(missing_ok=True)


def by_search(snapshot: Snapshot, pfn: int) -> Who:
    answer = look_up(Key("pfn", pfn=pfn))
    assert isinstance(answer, Who)
    return answer


def by_picture(snapshot: Snapshot, pfn: int) -> Who:
    return snapshot.who(pfn)


def frames_of(tree: Family) -> dict[int, set[tuple[int, int]]]:
    """Every frame of the family, and the entries that map it; read here."""
    found: dict[int, set[tuple[int, int]]] = {}
    for pid in tree.pids:
        for address, entry in entries(pid).items():
            if entry & PRESENT:
                found.setdefault(entry & FRAME, set()).add((pid, address))
    return found


@pytest.mark.parametrize("ask", [by_picture, by_search])
def test_who_is_exact_for_every_kind(menagerie: Family, ask: Callable[[Snapshot, int], Who]) -> None:
    """The picture for every frame; the search, which may read everything for each, for some of each area."""
    snapshot = capture(bpf=False)
    mine = frames_of(menagerie)
    areas = dict.fromkeys(range(len(menagerie.value)), 0)
    judged = Counter()
    for pfn, there in sorted(mine.items()):
        area = next((n for n, at in enumerate(menagerie.value) if any(at <= a < at + (2 << 20) for _, a in there)), -1)
        if ask is by_search:
            if area < 0 or areas[area] >= 4:
                continue
            areas[area] += 1
        answer = ask(snapshot, pfn)
        found = {(one.pid, one.address) for one in answer.mappings}
        assert {one for one in found if one[0] in menagerie.pids} == there, (hex(pfn), answer.kind)
        if answer.kind == "anon":  # libraries have other mappers, which come and go
            assert answer.status == "complete" and answer.found == count_of(pfn)
        judged[answer.kind, answer.status] += 1
    kinds = {kind for kind, _ in judged}
    assert {"anon", "shmem", "zero"} <= kinds and kinds & {"file", "shmem"}, judged


def test_an_anonymous_page_has_as_many_mappers_as_counted(menagerie: Family) -> None:
    heap = menagerie.value[0]
    for page, mappers in ((0, 5), (1, 6), (70, 5), (520, 6), (900, 5)):
        entry = entries(menagerie.pid)[heap + page * PAGE]
        pfn = entry & FRAME
        assert len(brute(menagerie.pids, pfn)) == count_of(pfn) == mappers
        answer = by_search(capture(menagerie.pids, bpf=False), pfn)
        assert (answer.found, answer.status) == (mappers, "complete")


@pytest.mark.alone
def test_sums_are_those_of_the_kernel_to_the_kib(menagerie: Family) -> None:
    """RSS, PSS, USS of each against smaps_rollup; libraries of others may come and go, so it may take a second look."""
    wrong: list[tuple[int, object, object]] = []
    for _ in range(5):
        snapshot = capture(bpf=False)
        table = usage(snapshot)
        rows = {pid: row for row, pid in enumerate(snapshot.processes.pid.tolist())}
        wrong = []
        for pid in menagerie.pids:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            sums = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
            theirs = (sums["Rss"], sums["Pss"], sums["Private_Clean"] + sums["Private_Dirty"])
            ours = tuple(int(getattr(table, name)[rows[pid]]) // 1024 for name in ("rss", "pss", "uss"))
            if ours != theirs:
                wrong.append((pid, ours, theirs))
        if not wrong:
            return
    assert wrong == []


def test_the_group_is_counted_frame_by_frame(menagerie: Family) -> None:
    mine = frames_of(menagerie)
    (group,) = (one for one in groups(capture(bpf=False), "tree") if menagerie.pid in one.pids)
    zero = entries(menagerie.pid)[menagerie.value[6]] & FRAME
    once = [pfn for pfn in mine if pfn != zero]
    assert group.each_once == pytest.approx(len(once) * PAGE, abs=4 * PAGE)  # vvar and the like have no mapcount
    assert group.only_here <= group.sum_pss <= group.each_once <= group.sum_rss
    assert set(menagerie.pids) <= set(group.pids)


def test_merged_pages_are_found_wherever_they_lie(merged: Family) -> None:
    """KSM: addresses and areas have nothing to do with each other; only the search through everything finds them."""
    pfns = {entry & FRAME for entry in entries(merged.pid).values() if entry & PRESENT}
    snapshot = capture(bpf=False)
    found = [pfn for pfn in sorted(pfns) if snapshot.frame_run(pfn) >= 0 and snapshot.who(pfn).kind == "ksm"]
    assert found
    for pfn in found[:3]:
        answer = by_search(snapshot, pfn)
        assert (answer.kind, answer.status) == ("ksm", "complete")
        assert {(one.pid, one.address) for one in answer.mappings} == brute(merged.pids, pfn)
        assert answer.found == count_of(pfn) > 1
