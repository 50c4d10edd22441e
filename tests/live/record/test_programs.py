"""Real programs, recorded: nothing is missing, and the program does not notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rmap.live.sources.ptrace import state_of
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.trace import Trace
from rmap.trace import tables as t
from tests.support.needs import need
from tests.support.recording import (
    calls,
    pictures_so_far,
    pid_in,
    python,
    recorded,
    recording,
    rmap,
    rows,
)
from tests.support.waiting import until

pytestmark = pytest.mark.live

PIPELINE = ["sh", "-c", "seq 1 1000 | sort -n | tail -1 | cat"]
MMAP, MUNMAP, BRK, MREMAP, FTRUNCATE, SHMAT, OPENAT = 9, 11, 12, 25, 77, 30, 257


def anonymous_pages(snapshot: Snapshot, pid: int) -> set[int]:
    """The addresses of present pages of one process that belong to no file."""
    ptes, vmas = snapshot.ptes, snapshot.vmas
    pids = snapshot.processes.pid[vmas.process[ptes.vma]]
    chosen = (pids == pid) & (ptes.flags & f.PTE_PRESENT != 0) & (ptes.flags & (f.PTE_FILE | f.PTE_SPECIAL) == 0)
    starts, counts = ptes.address[chosen].tolist(), ptes.count[chosen].tolist()
    return {start + 4096 * n for start, count in zip(starts, counts) for n in range(count)}


def vmas_of(snapshot: Snapshot, pid: int) -> list[tuple[int, int, str]]:
    """Start, end and label of the VMAs of one process."""
    chosen = np.flatnonzero(snapshot.processes.pid[snapshot.vmas.process] == pid).tolist()
    return [(int(snapshot.vmas.start[i]), int(snapshot.vmas.end[i]), snapshot.vmas.label[i]) for i in chosen]


@pytest.mark.needs("recording")
def test_a_pipeline_is_recorded_whole(tmp_path: Path) -> None:
    trace, said = recorded(tmp_path / "p.trace", PIPELINE)
    assert trace.about["complete"] and trace.about["lost"] == 0 and trace.about["exit_status"] == 0
    assert trace.about["command"] == PIPELINE and trace.about["recorder"] == "bpf"
    assert "complete" in said and "ended with status 0" in said
    events = trace.events
    assert (len(rows(trace, t.FORK)), len(rows(trace, t.EXEC)), len(rows(trace, t.EXIT))) == (4, 5, 5)
    assert Counter(moment.cause for moment in trace.moments) == {"exec": 5, "end": 1}
    shell = int(events.pid[rows(trace, t.EXEC)[0]])
    forks = rows(trace, t.FORK)
    assert set(events.pid[forks].tolist()) == {shell}
    children = events.a0[forks].tolist()
    assert {shell, *children} == set(events.pid.tolist()) - {-1}
    for child, forked in zip(children, forks.tolist()):
        own = np.flatnonzero(events.pid == child)
        assert own.min() > forked, "nothing of a child comes before its fork"
        assert own.max() == rows(trace, t.EXIT, child)[-1], "nothing comes after its exit"
    assert not events.a3[forks].any() and not events.a4[forks].any()


@pytest.mark.needs("recording")
def test_exec_made_areas_are_in_the_picture_and_the_rest_in_the_events(tmp_path: Path) -> None:
    """What the kernel shows at the end is the exec's picture, changed by the recorded calls: nothing else."""
    trace, _ = recorded(tmp_path / "s.trace", ["sort", "/etc/passwd"])
    first, last = trace.moments[0], trace.moments[-1]
    pid = first.pid
    made_by_exec = vmas_of(first.snapshot, pid)
    assert {"[stack]", "[vdso]"} <= {label for _, _, label in made_by_exec}
    covered = {page for start, end, _ in made_by_exec for page in range(start, end, 4096)}
    stack = next(start for start, _, label in made_by_exec if label == "[stack]")
    events = trace.events
    for row in rows(trace, t.SYSCALL).tolist():
        nr, result = int(events.nr[row]), int(events.result[row])
        first_arg, second = int(events.a0[row]), int(events.a1[row])
        if nr == MMAP and result >= 0:
            covered |= set(range(result, result + second, 4096))
        elif nr == MUNMAP and result == 0:
            covered -= set(range(first_arg, first_arg + second, 4096))
        elif nr == BRK:
            low = next((start for start, _, label in made_by_exec if label == "[heap]"), 0)
            covered |= set(range(low or (int(events.result[rows(trace, t.SYSCALL)[0]])), result, 4096))
        elif nr == MREMAP and result >= 0:
            covered -= set(range(first_arg, first_arg + second, 4096))
            covered |= set(range(result, result + int(events.a2[row]), 4096))
    shown = {page for start, end, label in vmas_of(last.snapshot, pid) for page in range(start, end, 4096)}
    grown = {page for page in shown if stack - (1 << 20) < page < stack}
    heap = {
        page
        for start, end, label in vmas_of(last.snapshot, pid)
        if label == "[heap]"
        for page in range(start, end, 4096)
    }
    assert shown - grown - heap <= covered
    assert covered - heap <= shown | heap


@pytest.mark.needs("recording")
def test_every_anonymous_page_has_its_fault(tmp_path: Path) -> None:
    work = "x = [bytes([n % 256]) * 5000 for n in range(2000)]; y = bytearray(1 << 20); del x"
    trace, _ = recorded(tmp_path / "f.trace", python(work))
    events, pid = trace.events, trace.moments[0].pid
    faults = rows(trace, t.FAULT)
    faulted = set((events.a0[faults] & ~4095).tolist())
    at_exec, at_end = (anonymous_pages(trace.moments[n].snapshot, pid) for n in (0, -1))
    assert len(at_end) > 500
    assert at_end - at_exec <= faulted
    assert set(np.unique(events.a1[faults] & ~0x17).tolist()) == {0}
    assert set(events.a2[faults].tolist()) <= {0, 1}


@pytest.mark.needs("recording")
def test_threads_vfork_and_exec_by_another_thread(tmp_path: Path) -> None:
    text = """
import os, subprocess, threading
for _ in range(3):
    worker = threading.Thread(target=lambda: bytearray(300000)); worker.start(); worker.join()
subprocess.run(["true"])
threading.Thread(target=lambda: os.execv("/bin/sh", ["sh", "-c", "exit 7"])).start()
threading.Event().wait()
"""
    trace, _ = recorded(tmp_path / "t.trace", python(text))
    events = trace.events
    forks = rows(trace, t.FORK)
    threads = forks[events.a3[forks] == 1]
    assert len(threads) == 4 and (events.a0[threads] == events.pid[threads]).all() and events.a4[threads].all()
    assert (events.a2[threads] & t.CLONE_VM).all()
    vforks = forks[events.a2[forks] & t.CLONE_VFORK != 0]
    assert len(vforks) == 1 and events.a4[vforks[0]] == 1 and events.a3[vforks[0]] == 0
    root = trace.moments[0].pid
    assert [moment.pid for moment in trace.moments if moment.cause == "exec"].count(root) == 2
    assert trace.about["exit_status"] == 7 and trace.about["complete"]


@pytest.mark.needs("recording")
@pytest.mark.parametrize("way", ["os._exit(4)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_end_of_many_threads_is_seen(tmp_path: Path, way: str) -> None:
    """Whichever thread is the last: its process is still in the picture of the end."""
    text = f"""
import os, signal, threading, time
def work():
    while True:
        bytearray(200000)
        time.sleep(0.002)
for _ in range(6):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
{way}
"""
    for turn in range(3):
        trace, told = recorded(tmp_path / f"e{turn}.trace", python(text))
        end = trace.moments[-1]
        assert end.cause == "end" and end.snapshot.processes.pid.tolist() == [trace.moments[0].pid], told
        assert len(end.snapshot.vmas) > 30 and len(rows(trace, t.EXIT)) == 1


@pytest.mark.needs("recording", "compiler")
def test_a_first_thread_that_ends_first(tmp_path: Path) -> None:
    source, program = tmp_path / "m.c", tmp_path / "m"
    source.write_text(
        "#include <pthread.h>\n#include <unistd.h>\n#include <stdlib.h>\n#include <string.h>\n"
        "static void *work(void *main) { pthread_join((pthread_t)main, 0); memset(malloc(1 << 20), 1, 1 << 20);"
        " sleep(1); exit(6); }\n"
        "int main(void) { pthread_t t; pthread_create(&t, 0, work, (void *)pthread_self()); pthread_exit(0); }\n"
    )
    subprocess.run(["cc", "-pthread", str(source), "-o", str(program)], check=True)
    trace, told = recorded(tmp_path / "m.trace", [str(program)], "--checkpoint", "0.7", status=1)
    assert trace.about["exit_status"] == 6
    assert len(rows(trace, t.EXIT)) == 1 and len(rows(trace, t.FAULT)) > 256, "the thread is recorded all the same"
    assert "no picture of the end: no recorded process could be read" in trace.about["why_incomplete"]
    assert "a checkpoint could not be taken: no recorded process could be read" in told.replace("\n      ", " ")


@pytest.mark.needs("recording")
def test_a_program_that_dies_by_a_signal(tmp_path: Path) -> None:
    trace, said = recorded(tmp_path / "k.trace", ["sh", "-c", "kill -SEGV $$"])
    assert trace.about["exit_status"] == -signal.SIGSEGV and trace.about["complete"]
    assert "was ended by SIGSEGV" in said
    assert trace.moments[-1].cause == "end"
    trace, said = recorded(tmp_path / "k9.trace", ["sh", "-c", "kill -KILL $$"])
    assert trace.about["exit_status"] == -signal.SIGKILL and "was ended by SIGKILL" in said


@pytest.mark.needs("recording")
def test_a_thousand_children(tmp_path: Path) -> None:
    text = """
import os
for _ in range(1000):
    if not os.fork():
        os._exit(0)
for _ in range(1000):
    os.wait()
"""
    trace, _ = recorded(tmp_path / "m.trace", python(text))
    assert trace.about["complete"]
    assert len(rows(trace, t.FORK)) == 1000 and len(rows(trace, t.EXIT)) == 1001
    forked = trace.events.a0[rows(trace, t.FORK)].tolist()
    assert set(trace.events.pid[rows(trace, t.EXIT)].tolist()) == {trace.moments[0].pid, *forked}


@pytest.mark.needs("recording", "setpriv")
def test_a_set_uid_program_keeps_its_privileges(tmp_path: Path) -> None:
    need("a temporary folder without nosuid" if os.statvfs(tmp_path).f_flag & os.ST_NOSUID else None)
    program, answer = tmp_path / "id", tmp_path / "answer"
    shutil.copy("/usr/bin/id", program)
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    trace, _ = recorded(tmp_path / "u.trace", ["sh", "-c", f"{program} -u > {answer}; true"])
    assert answer.read_text() == "65534\n"
    assert trace.about["complete"] and len(rows(trace, t.EXEC)) == 2


@pytest.mark.needs("recording")
def test_signals_and_group_stops_reach_the_program(tmp_path: Path) -> None:
    ready, answer = tmp_path / "ready", tmp_path / "answer"
    text = f"""
import os, signal
got = []
signal.signal(signal.SIGUSR1, lambda n, frame: got.append(n))
signal.signal(signal.SIGCONT, lambda n, frame: got.append(n))
open({str(ready)!r}, "w").write(f"{{os.getpid()}}\\n")
while len(got) < 2:
    signal.pause()
open({str(answer)!r}, "w").write(repr(sorted(got)))
"""
    target = tmp_path / "s.trace"
    with recording(target, python(text), "--checkpoint", "0.2") as process:
        pid = pid_in(ready)
        os.kill(pid, signal.SIGSTOP)
        until(lambda: state_of(pid) in "Tt")
        before = pictures_so_far(target)
        until(lambda: pictures_so_far(target) >= before + 3)
        assert state_of(pid) in "Tt", "checkpoints do not wake a stopped process"
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGUSR1)
        assert process.wait(30) == 0
    assert answer.read_text() == repr([int(signal.SIGUSR1), int(signal.SIGCONT)])
    assert len(Trace.load(target).moments) > 3


@pytest.mark.needs("recording", "compiler")
def test_checkpoints_while_a_parent_waits_in_vfork(tmp_path: Path) -> None:
    """Such a parent cannot be stopped, but does nothing; both use one mm, which the picture has once."""
    source, program = tmp_path / "v.c", tmp_path / "v"
    source.write_text(
        "#include <unistd.h>\nint main(void) { if (!vfork()) { sleep(2); _exit(0); } sleep(2); return 3; }\n"
    )
    subprocess.run(["cc", str(source), "-o", str(program)], check=True)
    trace, said = recorded(tmp_path / "v.trace", [str(program)], "--checkpoint", "1,3")
    assert trace.about["exit_status"] == 3 and trace.about["missed_checkpoints"] == 0, said
    first, second = (p.snapshot for p in trace.moments if p.cause == "checkpoint")
    assert (len(first.processes), len(first.sharers)) == (1, 1)
    assert (len(second.processes), len(second.sharers)) == (1, 0)
    fork = rows(trace, t.FORK)[0]
    assert trace.events.a2[fork] == t.CLONE_VM | t.CLONE_VFORK


@pytest.mark.needs("recording")
def test_checkpoint_at_every_exit_shows_the_process_that_ends(tmp_path: Path) -> None:
    trace, _ = recorded(tmp_path / "e.trace", ["sh", "-c", "ls / >/dev/null; ls / >/dev/null"], "--checkpoint", "exit")
    exits = trace.events.pid[rows(trace, t.EXIT)].tolist()
    shown = [set(p.snapshot.processes.pid.tolist()) for p in trace.moments if p.cause != "exec"]
    assert len(exits) == len(shown) == 3
    assert all(pid in pids for pid, pids in zip(exits, shown))


@pytest.mark.needs("recording", "perf")
def test_perf_sees_the_same_calls(tmp_path: Path) -> None:
    traces = [
        recorded(tmp_path / f"{recorder}.trace", PIPELINE, "--recorder", recorder)[0] for recorder in ("bpf", "perf")
    ]
    by_bpf, by_perf = (Counter(trace.events.nr[rows(trace, t.SYSCALL)].tolist()) for trace in traces)
    assert by_bpf == by_perf
    lengths = [Counter((one["a1"], one["a2"], one["a3"]) for one in calls(trace, MMAP)) for trace in traces]
    assert lengths[0] == lengths[1] and len(lengths[0]) > 5, "with the same arguments"
    assert traces[1].about["recorder"] == "perf" and traces[1].about["complete"]
    faults = [len(rows(trace, t.FAULT)) for trace in traces]
    assert abs(faults[0] - faults[1]) < 0.1 * faults[0]
    assert Counter(p.cause for p in traces[1].moments) == Counter(p.cause for p in traces[0].moments)
    libc = [len([path for path in trace.files.path if path.endswith("/libc.so.6")]) for trace in traces]
    assert libc == [1, 1]
    forks = traces[1].events.a3[rows(traces[1], t.FORK)]
    assert len(forks) == 4 and not forks.any()


@pytest.mark.needs("recording")
def test_json_is_the_last_line(tmp_path: Path) -> None:
    words = rmap("record", "--json", "-o", tmp_path / "j.trace", "--", "sh", "-c", "echo mine; exit 3")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    mine, facts = done.stdout.splitlines()
    told = json.loads(facts)
    assert done.returncode == 0 and mine == "mine" and done.stderr == ""
    assert told["schema"] == 1 and told["exit_status"] == 3 and told["complete"] and told["pictures"]["end"] == 1
    assert told["bytes"] == (tmp_path / "j.trace").stat().st_size


@pytest.mark.needs("recording")
def test_the_help_and_a_missing_program(tmp_path: Path) -> None:
    done = subprocess.run(rmap("record", "--"), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no program to record" in done.stderr
    target = tmp_path / "n.trace"
    done = subprocess.run(rmap("record", "-o", target, "--", "no-such"), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no-such: No such file or directory: nothing was recorded" in done.stderr
    assert list(tmp_path.iterdir()) == []
