"""Watching a family: exactly the pages that its children write become private, by area; and who comes and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from live_family import Family, family

from needs import need
from rmap.cli import main
from rmap.live import abilities
from rmap.live.watch import Watch, family_of

PAGE = 4096
pytestmark = pytest.mark.live

WRITERS = """
pause = signal.pause
signal.pause = lambda: [pause() for _ in range(1 << 20)]  # a child goes on waiting after each signal
heap, other = mm(256), mm(64)
touch(heap, *range(256))
touch(other, *range(64))
def writer(number):
    def work():
        def go(*_):
            global done
            first = 16 * done
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
ready([address(heap), address(other)])
"""


@pytest.fixture(autouse=True)
def _able() -> None:
    need(abilities().missing("frames"))


def write(tree: Family) -> None:
    """Each child writes the next sixteen pages, and pauses again."""
    for pid in tree.children:
        os.kill(pid, signal.SIGUSR1)
    time.sleep(0.3)


def test_exactly_what_is_written_is_unshared_by_area() -> None:
    with family(WRITERS) as tree:
        watch = Watch(tree.pid)
        first = watch.look()
        assert first is not None and first.processes == 3
        write(tree)
        second = watch.look()
        assert second is not None
        heap, other = tree.value
        areas = {name: pages for name, pages in second.by_area.items() if name.startswith("anonymous")}
        wanted = {f"anonymous {heap:#x}": 32, f"anonymous {other:#x}": 1}
        assert {name: areas.get(name, 0) for name in wanted} == wanted or sum(areas.values()) == 33
        assert second.unshared >= 33
        write(tree)
        third = watch.look()
        assert third is not None and third.unshared >= 32
        # The parent is the last that maps what both children have copied.
        assert second.left + third.left >= 32
        assert second.shared < first.shared and third.shared < second.shared
        os.kill(tree.children[0], signal.SIGKILL)
        time.sleep(0.2)
        fourth = watch.look()
        assert fourth is not None and fourth.went == [tree.children[0]] and fourth.processes == 2


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
