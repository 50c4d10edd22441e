"""What is said to come back, judged by really ending the family: /proc/meminfo and the kernel's count of each frame."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rmap.live.capture.capture import capture
from rmap.snapshot import Snapshot
from rmap.snapshot.questions.freed import Freed, freed_by
from rmap.snapshot.questions.groups import groups
from rmap.snapshot.questions.selection import of_pids
from rmap.snapshot.questions.usage import usage
from tests.support.live_family import Family, family
from tests.support.proc import count_of

KIB = 1024
TOLERANCE = 256 * KIB
CLASSES = ("AnonPages", "Shmem", "Mapped", "PageTables")
QUIET = 2048 * KIB
ATTEMPTS = 12
pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm")]

SERVER = """
heap = mm(8192)
touch(heap, *range(8192))
memfd = os.memfd_create("cache")
os.ftruncate(memfd, 2048 * PAGE)
cache = mm(1024, mmap.MAP_SHARED, memfd)
touch(cache, *range(1024))
os.pwrite(memfd, b"x" * PAGE * 256, 1500 * PAGE)  # in memory, and mapped by nobody
both = mm(512, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
touch(both, *range(512))
for number in range(6):
    fork(lambda: touch(heap, *range(number * 512, number * 512 + 512)))
ready(0)
"""


def meminfo() -> dict[str, int]:
    """The classes, in bytes; the counters of every CPU folded in first (sysctl vm.stat_refresh)."""
    Path("/proc/sys/vm/stat_refresh").write_text("1\n")
    text = Path("/proc/meminfo").read_text()
    return {name: int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * KIB for name in CLASSES}  # type: ignore[index]


def noise() -> dict[str, int]:
    """By how much each class moves while nothing is done, in a quarter of a second."""
    samples = []
    for _ in range(6):
        samples.append(meminfo())
        time.sleep(0.05)  # how much the machine moves in this time is what is asked
    return {name: max(s[name] for s in samples) - min(s[name] for s in samples) for name in CLASSES}


@contextmanager
def a_server() -> Iterator[tuple[Family, Snapshot, Freed]]:
    with family(SERVER) as server:
        snapshot = capture()
        yield server, snapshot, freed_by(snapshot, of_pids(snapshot, server.pids))


def said(pids: list[int]) -> dict[str, int]:
    """What the command says: a process of its own, so that this one, which goes on, is an ordinary mapper."""
    command = [sys.executable, "-m", "rmap", "freed", *map(str, pids), "--json"]
    answer: dict[str, int] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return answer


@pytest.mark.alone
def test_what_is_freed_comes_back_class_by_class() -> None:
    """Other programs move the same counters: an attempt counts when they are quiet before and after."""
    wrong: list[str] = []
    for _ in range(ATTEMPTS):
        with family(SERVER) as server:
            found = said(server.pids)
            before_noise, before = noise(), meminfo()
        after, after_noise = meminfo(), noise()
        expected = {
            "AnonPages": found["anonymous"],
            "Shmem": found["shared"],
            "Mapped": found["unmapped"],
            "PageTables": found["page_tables"],
        }
        moved = {name: before_noise[name] + after_noise[name] for name in CLASSES}
        wrong = [
            f"{name}: said {expected[name]:,}, came back {before[name] - after[name]:,} (noise {moved[name]:,})"
            for name in CLASSES
            if abs(before[name] - after[name] - expected[name]) > TOLERANCE + moved[name]
        ]
        if not wrong and max(moved.values()) <= QUIET:
            return
    pytest.fail("; ".join(wrong) or "the machine was never quiet enough to judge")


def test_a_frame_said_to_be_freed_is_mapped_by_nobody_afterwards() -> None:
    with a_server() as (server, _, found):
        assert found.pids == sorted(server.pids)
        pids = set(server.pids)
    counts = np.array([count_of(pfn) for pfn in found.frames.tolist()])
    assert (counts == 0).mean() > 0.5  # the rest was given to others meanwhile, on a busy machine
    again = capture()
    for pfn in found.frames[:: max(1, len(found.frames) // 500)].tolist():
        assert not pids & {mapping.pid for mapping in again.who(pfn).mappings}


def test_what_another_process_holds_open_stays_and_is_named() -> None:
    with a_server() as (server, _, _):
        memfd = next(
            name
            for name in os.listdir(f"/proc/{server.pid}/fd")
            if "cache" in os.readlink(f"/proc/{server.pid}/fd/{name}")
        )
        holder = family(f"held = os.open('/proc/{server.pid}/fd/{memfd}', os.O_RDWR)\nready(0)")
        with holder as other:
            snapshot = capture()
            found = freed_by(snapshot, of_pids(snapshot, server.pids))
            (held,) = found.held
            assert held.path == "/memfd:cache" and held.why.startswith(f"{other.pid} ") and held.why.endswith(", open")
            assert found.shared == 512 * 4096  # the shared anonymous memory, which has no descriptor


def test_sums_are_those_of_smaps_rollup_and_of_a_group() -> None:
    with a_server() as (server, snapshot, found):
        table = usage(snapshot)
        rows = {pid: row for row, pid in enumerate(snapshot.processes.pid.tolist())}
        for pid in server.pids:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            sums = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
            row = rows[pid]
            assert table.rss[row] // KIB == sums["Rss"]
            assert table.pss[row] // KIB == pytest.approx(sums["Pss"], abs=64)  # libraries: others come and go
            assert table.uss[row] // KIB == sums["Private_Clean"] + sums["Private_Dirty"]
        (group,) = (one for one in groups(snapshot, "tree") if server.pid in one.pids)
        assert group.only_here <= group.sum_pss <= group.each_once <= group.sum_rss
        assert group.only_here >= found.anonymous
