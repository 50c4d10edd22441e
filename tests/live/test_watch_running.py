"""Watching a family: exactly the pages that its children write become private, by area; and who comes and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rmap.cli import main
from rmap.live.watch import Round, Watch, family_of
from tests.support.live_family import Family, family
from tests.support.proc import EXCLUSIVE, FRAME, OF_FILE, PRESENT, entries, kpage
from tests.support.waiting import until

pytestmark = [pytest.mark.live, pytest.mark.needs("frames")]

# An area between inaccessible pages: the kernel merges it with no other, and so it is called by its own address.
APART = """
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def apart(pages):
    whole = mm(pages + 2)
    for page in (0, pages + 1):
        assert libc.mprotect(address(whole) + page * PAGE, PAGE, 0) == 0
    return whole
def name(area):
    return f"anonymous {address(area) + PAGE:#x}"
pause = signal.pause
signal.pause = lambda: [pause() for _ in range(1 << 20)]  # a child goes on waiting after each signal
"""

WRITERS = (
    APART
    + """
heap, other = apart(256), apart(64)
touch(heap, *range(1, 257))
touch(other, *range(1, 65))
def writer(number):
    def work():
        def go(*_):
            global done
            first = 1 + 16 * done
            touch(heap, *range(first, first + 16))
            if number == 0 and done == 0:
                touch(other, 5)
            done += 1
        global done
        done = 0
        signal.signal(signal.SIGUSR1, go)
    return work
fork(writer(0))
fork(writer(1))
ready([name(heap), name(other)])
"""
)

ZERO_PAGES = (
    APART
    + """
small, huge = apart(2000), mm(2048)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise(address(huge), len(huge), mmap.MADV_HUGEPAGE)
for page in range(1, 2001):
    assert small[page * PAGE] == 0
for page in range(2048):
    assert huge[page * PAGE] == 0
def work():
    def go(*_):
        touch(small, *range(1, 2001))
        touch(huge, *range(2048))
    signal.signal(signal.SIGUSR1, go)
fork(work)
ready([name(small), f"anonymous {address(huge):#x}"])
"""
)

SHARER = (
    APART
    + """
heap = apart(300)
touch(heap, *range(1, 301))
def idle():
    pass
fork(idle)
share_mm()
signal.signal(signal.SIGUSR1, lambda *_: touch(heap, *range(1, 301)))
ready(name(heap))
"""
)

Seen = dict[int, dict[int, tuple[int, bool]]]
"""Of each process, by address: its frame, and whether it is this process's own."""
ZERO_PAGE = 1 << 24


def read(pids: list[int]) -> Seen:
    """The anonymous pages of some processes but zero pages, entry by entry: what a round is held against."""
    return {pid: dict(anonymous_pages(pid)) for pid in pids}


def anonymous_pages(pid: int) -> Iterator[tuple[int, tuple[int, bool]]]:
    for address, entry in entries(pid).items():
        frame = entry & FRAME
        if entry & PRESENT and not entry & OF_FILE and frame and not kpage("kpageflags", frame) & ZERO_PAGE:
            yield address, (frame, bool(entry & EXCLUSIVE))


def judge(one: Round | None, before: Seen, after: Seen) -> Round:
    """Hold a round against the entries before and after it."""
    assert one is not None
    fates = {"unshared": 0, "left": 0, "gone": 0}
    for pid in before.keys() & after.keys():
        for address, (frame, own) in before[pid].items():
            now = after[pid].get(address)
            if not own and (now is None or now[1]):
                fates["gone" if now is None else "left" if now[0] == frame else "unshared"] += 1
    assert {name: getattr(one, name) for name in fates} == fates
    owns = [own for pages in after.values() for _, own in pages.values()]
    assert (one.shared, one.private) == (owns.count(False), owns.count(True))
    assert sum(one.by_area.values()) == one.unshared
    return one


def tell(pids: list[int]) -> None:
    """Each of them does its next piece of work; they rest when this returns."""
    for pid in pids:
        os.kill(pid, signal.SIGUSR1)
    rest(pids)


def rest(pids: list[int]) -> None:
    """Wait until each of them has done what it was told, and waits again."""
    until(lambda: not any(map(busy, pids)), 60, "the family does not come to rest")


def busy(pid: int) -> bool:
    """Whether a process does anything: to be signalled wakes it at once, and it sleeps only where it waits."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = [int(status.partition(name)[2].split()[0], 16) for name in ("SigPnd:", "ShdPnd:")]
    return any(pending) or "State:\tS" not in status


def end(pid: int) -> None:
    """Kill a process; it has let go of its memory when this returns, and its parent has not asked for it yet."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: "State:\tZ" in Path(f"/proc/{pid}/status").read_text(), 60, "the process does not end")


@contextmanager
def at_rest(script: str) -> Iterator[Family]:
    """A family that does nothing unless told."""
    with family(script) as tree:
        rest(tree.pids)
        yield tree


def test_exactly_what_is_written_is_unshared_by_area() -> None:
    with at_rest(WRITERS) as tree:
        heap, other = tree.value
        watch = Watch(tree.pid)
        seen = [read(tree.pids)]
        first = judge(watch.look(), seen[0], seen[0])
        assert first.processes == 3
        rounds = []
        for _ in range(2):
            tell(tree.children)
            seen.append(read(tree.pids))
            rounds.append(judge(watch.look(), *seen[-2:]))
        assert [(one.by_area[heap], one.by_area.get(other, 0)) for one in rounds] == [(32, 1), (32, 0)]
        # The parent is the last that maps what both children have copied.
        assert all(one.left >= 16 for one in rounds)
        end(tree.children[0])
        fourth = judge(watch.look(), seen[-1], read([tree.pid, tree.children[1]]))
        assert fourth.went == [tree.children[0]] and fourth.processes == 2


def test_the_first_write_to_a_zero_page_is_no_copy() -> None:
    with at_rest(ZERO_PAGES) as tree:
        watch = Watch(tree.pid)
        before = read(tree.pids)
        judge(watch.look(), before, before)
        tell(tree.children)
        after = read(tree.pids)
        second = judge(watch.look(), before, after)
        assert not second.by_area.keys() & set(tree.value)
        assert second.private >= 2000 + 2048


def test_processes_that_share_an_mm_are_counted_once() -> None:
    with at_rest(SHARER) as tree:
        idle, sharer = tree.children
        watch = Watch(tree.pid)
        before = read([tree.pid, idle])
        first = judge(watch.look(), before, before)
        assert first.processes == 3
        tell([tree.pid])
        after = read([tree.pid, idle])
        second = judge(watch.look(), before, after)
        assert second.by_area[tree.value] == 300
        end(sharer)
        third = judge(watch.look(), after, read([tree.pid, idle]))
        assert (third.went, third.gone) == ([sharer], 0)


def test_a_family_is_found_by_its_parents() -> None:
    with family(WRITERS) as tree:
        assert [pid for pid, _ in family_of(tree.pid)] == sorted(tree.pids)
        assert [pid for pid, _ in family_of(tree.children[0])] == [tree.children[0]]
    assert family_of(tree.pid) == []


def test_the_command_counts_rounds_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with family(WRITERS) as tree:
        words = ["watch", "--tree", str(tree.pid), "--every", "50ms", "--count", "3", "--full-speed"]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80 and "UNSHARED" in out and "unshared  " in out
        assert main([*words, "--jsonl"]) == 0
        rounds = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(rounds) == 3 and all(one["processes"] == 3 for one in rounds)
        assert main([*words, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["rounds"]) == 3
        for wrong in (["--count", "1"], ["--every", "0"], ["--every", "x"]):
            assert main(["watch", "--tree", str(tree.pid), *wrong]) == 2
    assert main(["watch", "--tree", str(tree.pid), "--count", "2"]) == 1


def test_an_interrupt_ends_it_with_the_sums() -> None:
    with family(WRITERS) as tree:
        command = [sys.executable, "-m", "rmap", "watch", "--tree", str(tree.pid), "--every", "100ms", "--full-speed"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for _ in range(4):
                running.stdout.readline()
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=30)
        assert running.returncode == 0, err
        assert "cost      " in out
