"""How long the questions to the running machine take under a load of 18 million entries: see README.md here.

sudo python benchmarks/live.py [--json] [--children N] [--anon-mib N] [--file-mib N] [--rounds N] [--scattered]
                               [--no-capture]

A forked family is set up (1.9 GiB of real memory), asked about, and ended. Every figure that has a bound is held
against a C program that does no more than have the kernel hand over the same bytes, in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

PAGE_SHIFT = 12
PER_MIB = 256  # pages
HEADROOM = 3 << 30  # bytes beyond the load, for pictures of it
WHO_MS, COMMAND_S, SCAN, INDEX, ROLLUP, SHARING = 20.0, 0.2, 1.7, 10.0, 1.2, 10.0

# What a fresh process needs for one question, once it has started: imports are start-up, the rest is not.
ASK = """
import sys, time
from rmap.live.doctor.abilities import refuse_without_frames
from rmap.live.lookup.look_up import look_up
from rmap.snapshot.keys import parse_key
import rmap.cli.output, rmap.show.who, rmap.live.sources.syscalls
began = time.perf_counter()
refuse_without_frames()
answer = look_up(parse_key(sys.argv[1]))
print(time.perf_counter() - began, answer.found, answer.status)
"""


@dataclass(frozen=True)
class Load:
    """A family that is up: the pid of the parent, where its memory and the file are in it, and the file's path."""

    parent: int
    memory: int
    file: int
    path: str


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        seconds: the median of the rounds.
        ratio: the median of the ratios to the reader of the same round, None where an absolute bound holds.
        bound: at most this; seconds, or a ratio.
    """

    name: str
    seconds: float
    ratio: float | None
    bound: float | None

    @property
    def ok(self) -> bool:
        """Whether the bound is kept."""
        return self.bound is None or (self.seconds if self.ratio is None else self.ratio) <= self.bound


def main() -> int:
    """Measure, print, and answer 0 if every bound is kept, else 1."""
    options = parse()
    need = real_memory(options) + HEADROOM
    if options.scattered:  # twice as much, of which half is held; the pictures are the larger, too
        need += real_memory(options) + HEADROOM
    if available() < need:
        print(f"needs {need >> 30} GiB of available memory", file=sys.stderr)
        return 2
    if os.geteuid():
        print("needs root: page frames are hidden from others", file=sys.stderr)
        return 2
    if (busy := os.getloadavg()[0]) > 1:
        print(f"the machine is busy (load {busy:.1f}): expect worse figures", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(Path(folder))
        file = Path(folder) / "file"
        file.write_bytes(bytes(options.file_mib << 20))
        with (
            child(program, "scatter", real_memory(options) >> PAGE_SHIFT) if options.scattered else nullcontext(),
            load(program, file, options) as family,
        ):
            entries, rows = measure(program, family, options)
    if options.json:
        print(json.dumps({"schema": 1, "entries": entries, "rows": [asdict(row) | {"ok": row.ok} for row in rows]}))
    else:
        print(table(entries, options, rows))
    return int(not all(row.ok for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long questions to the running machine take.")
    parser.add_argument("--children", type=int, default=50, help="forked processes (default 50)")
    parser.add_argument("--anon-mib", type=int, default=1120, help="memory that they share (default 1120)")
    parser.add_argument("--file-mib", type=int, default=256, help="size of the file that all map (default 256)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--scattered", action="store_true", help="in single pages, as on a machine long up")
    parser.add_argument("--no-capture", action="store_true", help="leave out pictures of the whole machine")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def real_memory(options: argparse.Namespace) -> int:
    """Bytes that the load takes: what is shared, and what its children have rewritten."""
    mib: int = options.anon_mib + options.file_mib
    return (mib << 20) * 3 // 2


def available() -> int:
    """Bytes, as /proc/meminfo has it."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def compiled(folder: Path) -> str:
    """The program of the other side."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler (gcc or cc) on this machine")
    program = folder / "live_side"
    source = Path(__file__).with_name("live_side.c")
    for options in (["-static"], []):
        if not subprocess.run([compiler, "-O2", *options, source, "-o", program], capture_output=True).returncode:
            return str(program)
    raise SystemExit(f"{compiler} does not compile {source}")


@contextmanager
def load(program: str, file: Path, options: argparse.Namespace) -> Iterator[Load]:
    """Have the family, and end it."""
    pages = options.anon_mib * PER_MIB
    words = [pages, file, options.file_mib * PER_MIB, options.children, pages // 100]
    with child(program, "load", *words) as line:
        yield Load(int(line[0]), int(line[1], 16), int(line[2], 16), str(file))


@contextmanager
def child(program: str, *words: object) -> Iterator[list[str]]:
    """Have the program do something until the end; what it says first. It also dies with this process."""
    process = subprocess.Popen([program, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline().split()
        if not line:
            raise SystemExit(f"{words[0]} did not start")
        yield line
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def measure(program: str, family: Load, options: argparse.Namespace) -> tuple[int, list[Row]]:
    """All rows, and how many entries were read. Each round asks everything once, the readers before and after."""
    # A page that all share still: the parts that the children rewrote lie before it.
    shared = family.memory + ((options.anon_mib * PER_MIB - 1) << PAGE_SHIFT)
    keys = {"anonymous page": f"{family.parent}:{shared:#x}", "page of a file": f"{family.path}@0x100000"}
    frame = f"pfn:{frame_of(family.parent, shared):#x}"
    times: dict[str, list[float]] = {}
    entries = 0
    for _ in range(options.rounds):
        pids = others()
        before, entries = reader(program, "pagemap", pids)
        for name, key in keys.items():
            times.setdefault(f"who: {name}", []).append(asked(key, options.children + 1))
            times.setdefault(f"who: {name}, whole command", []).append(timed(lambda key=key: command("who", key)))
        times.setdefault("who: pfn", []).append(asked(frame, options.children + 1))
        scan_all, scan_one = scans(int(frame[4:], 16), options.children + 1)
        after, _ = reader(program, "pagemap", pids)
        kernel = (before + after) / 2
        times.setdefault("kernel: pagemaps", []).append(kernel)
        times.setdefault("scan, all processors", []).append(scan_all)
        times.setdefault("scan, one processor", []).append(scan_one)
        times.setdefault("kernel: smaps_rollup", []).append(reader(program, "rollup", pids)[0])
        times.setdefault("ps --quick", []).append(quick())
        times.setdefault("watch, a round", []).append(watch_round(family.parent))
        if not options.no_capture:
            for name, seconds in snapshots().items():
                times.setdefault(name, []).append(seconds)
    return entries, rows_of(times)


def rows_of(times: dict[str, list[float]]) -> list[Row]:
    """Medians, ratios to the reader that hands over the same, and bounds."""
    bounds = {
        "who: anonymous page": (WHO_MS / 1000, None),
        "who: page of a file": (WHO_MS / 1000, None),
        "who: anonymous page, whole command": (COMMAND_S, None),
        "who: page of a file, whole command": (COMMAND_S, None),
        "who: pfn": (None, "kernel: pagemaps"),
        "scan, all processors": (SCAN, "kernel: pagemaps"),
        "scan, one processor": (SCAN, "kernel: pagemaps"),
        "ps --quick": (ROLLUP, "kernel: smaps_rollup"),
        "watch, a round": (None, "kernel: pagemaps"),
        "capture": (None, "kernel: pagemaps"),
        "capture and reverse index": (INDEX, "kernel: pagemaps"),
        "capture and ps": (SHARING, "kernel: pagemaps"),
    }
    rows = []
    for name, seconds in times.items():
        bound, reader_name = bounds.get(name, (None, None))
        ratio = None
        if reader_name is not None:
            ratio = statistics.median(one / other for one, other in zip(seconds, times[reader_name]))
        rows.append(Row(name, statistics.median(seconds), ratio, bound))
    return rows


def others() -> list[int]:
    """Every process but this one."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())


def frame_of(pid: int, address: int) -> int:
    """The frame behind an address."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        return int.from_bytes(os.pread(file.fileno(), 8, address >> PAGE_SHIFT << 3), "little") & (1 << 55) - 1


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def reader(program: str, what: str, pids: list[int]) -> tuple[float, int]:
    """Seconds and number of the C program's reader."""
    done = subprocess.run([program, what, *map(str, pids)], capture_output=True, text=True, check=True)
    seconds, number = done.stdout.split()
    return float(seconds), int(number)


def command(*words: str) -> None:
    """One run of the command."""
    subprocess.run([sys.executable, "-m", "rmap", *words, "--json"], stdout=subprocess.DEVNULL, check=True)


def asked(key: str, mappers: int) -> float:
    """Seconds that one question takes in a fresh process, start-up aside."""
    done = subprocess.run([sys.executable, "-c", ASK, key], capture_output=True, text=True, check=True)
    seconds, found, status = done.stdout.split()
    assert (int(found), status) == (mappers, "complete"), done.stdout
    return float(seconds)


def scans(pfn: int, mappers: int) -> tuple[float, float]:
    """Seconds that the search through everything takes, with all processors and with one."""
    from rmap.live.lookup import search
    from rmap.live.lookup.scan import everywhere
    from rmap.live.sources import procfs

    mine = os.sched_getaffinity(0)
    seconds = []
    for allowed in (mine, {min(mine)}):
        os.sched_setaffinity(0, allowed)
        looked = search.for_page(pfn)
        seconds.append(timed(lambda looked=looked: everywhere(looked, procfs.pids())))
        assert len(looked.hits) == mappers, len(looked.hits)
    os.sched_setaffinity(0, mine)
    return seconds[0], seconds[1]


def quick() -> float:
    """Seconds of the kernel's own sums of every process."""
    from rmap.live.sources.rollup import read_rollups

    return timed(read_rollups)


def watch_round(pid: int) -> float:
    """Seconds of a round that is held against one before."""
    from rmap.live.watch import Watch

    watch = Watch(pid)
    watch.look()
    return timed(watch.look)


def snapshots() -> dict[str, float]:
    """Seconds of a picture of the whole machine, and of what is asked of it."""
    from rmap import capture
    from rmap.snapshot.questions.selection import of_pids
    from rmap.snapshot.questions.usage import by_process

    began = time.perf_counter()
    snapshot = capture(bpf=False)
    captured = time.perf_counter() - began
    index = timed(lambda: snapshot.reverse)
    usage = timed(lambda: by_process(snapshot, of_pids(snapshot, None)))
    return {"capture": captured, "capture and reverse index": captured + index, "capture and ps": captured + usage}


def table(entries: int, options: argparse.Namespace, rows: list[Row]) -> str:
    """The rows as text."""
    lines = [
        f"Linux {os.uname().release}, {os.cpu_count()} processors: {options.children + 1} processes share "
        f"{options.anon_mib:,} MiB and a file of {options.file_mib} MiB,",
        f"{entries:,} entries of all processes{', scattered' * options.scattered}; medians of {options.rounds} rounds",
        "",
        f"{'':<38}{'time':>10}  {'ratio':>7}  {'at most':>8}",
    ]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        bound = ""
        if row.bound is not None:
            bound = f"{row.bound * 1000:.0f} ms" if row.ratio is None else f"{row.bound:g}"
        verdict = "" if row.ok else "  EXCEEDED"
        lines.append(f"{row.name:<38}{row.seconds * 1000:>7.1f} ms  {ratio:>7}  {bound:>8}{verdict}")
    return "\n".join([*lines, "", "ratio: to what the kernel needs to hand over the same, read by a C program"])


if __name__ == "__main__":
    raise SystemExit(main())
