"""How fast the running machine is asked, beside the kernel's own time for the same bytes: see README.md here.

python benchmarks/live.py [--workers N] [--mib N] [--rounds N] [--json]      (root)

A server that shares touched anonymous memory with its workers, and a file that all of them map and read; each worker
has rewritten two MiB. By default 17 million page-table entries in 51 processes, of 1.5 GiB of memory. Everything dies
with this program.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent

LOAD = """
import ctypes, mmap, os, signal, sys
workers, mib, path, parent = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None)
libc.prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != parent:
    os._exit(1)
PAGE = 4096
heap = mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
heap.madvise(15)  # MADV_NOHUGEPAGE
view = memoryview(heap)
view[::PAGE] = b"x" * (len(heap) // PAGE)
file = os.open(path, os.O_RDONLY)
def read():
    area = mmap.mmap(file, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    bytes(memoryview(area)[::PAGE])
    return area
kept = read()
me = os.getpid()
reader, writer = os.pipe()
pids = []
for number in range(workers):
    pid = os.fork()
    if pid == 0:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        first = (number * 2 << 20) % (len(heap) - (2 << 20))
        view[first:first + (2 << 20):PAGE] = b"y" * 512
        area = read()
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    pids.append(pid)
for _ in range(workers):
    os.read(reader, 1)
print(me, ctypes.addressof(ctypes.c_char.from_buffer(heap)), *pids, flush=True)
sys.stdin.read()
os._exit(0)
"""


@contextmanager
def a_server(workers: int, mib: int) -> Iterator[tuple[list[int], int, str]]:
    """The processes, an address that all share, and the path of the file."""
    with tempfile.NamedTemporaryFile(dir=HERE, prefix=".live-", suffix=".bin") as file:
        for _ in range(max(1, mib // 4)):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        words = [str(workers), str(mib), file.name, str(os.getpid())]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LOAD, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            server, address, *children = (int(word) for word in process.stdout.readline().split())
            yield [server, *children], address, file.name
        finally:
            process.kill()
            process.communicate()


def kernel_seconds(pids: list[int], rounds: int) -> tuple[float, int]:
    """Median seconds to read every pagemap by a program in C, and the entries."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/pagemaps"
        subprocess.run(["cc", "-O2", "-o", program, str(HERE / "pagemaps.c")], check=True)
        out = subprocess.run([program, str(rounds), *map(str, pids)], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in out.splitlines()]
    return statistics.median(float(seconds) for seconds, _ in lines), int(lines[0][1])


def median(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of some rounds, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def command(*words: str) -> Callable[[], object]:
    """The whole command, as a process."""
    return lambda: subprocess.run(
        [sys.executable, "-m", "rmap", *words], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def read_rollups() -> None:
    """Read every smaps_rollup, and do nothing with it."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/smaps_rollup", "rb") as file:
                    file.read()
            except OSError:
                continue


def measure(pids: list[int], address: int, path: str, rounds: int) -> tuple[list[tuple[str, float, float | None]], int]:
    """Rows of what, seconds, and the kernel's seconds that it is held against; and the entries."""
    from rmap.live import capture, procfs, search
    from rmap.live.lookup import Who, look_up
    from rmap.live.rollup import read_rollups as rollups
    from rmap.snapshot import parse_key
    from rmap.snapshot.mapper_sets import MapperSets
    from rmap.snapshot.reverse import Transposed
    from rmap.snapshot.usage import usage

    every = [pid for pid in procfs.pids() if pid != os.getpid()]
    kernel, entries = kernel_seconds(every, rounds)
    anon, file = f"{pids[0]}:{address + (64 << 20):#x}", f"{path}@0x100000"
    answer = look_up(parse_key(anon))
    assert isinstance(answer, Who) and answer.pfn is not None and answer.status == "complete"
    pfn = answer.pfn
    picture = capture(bpf=False)

    def index() -> None:
        taken = capture(bpf=False)
        Transposed(taken.ptes, taken.numbering)

    rows: list[tuple[str, float, float | None]] = [
        ("the kernel: every pagemap, read by C", kernel, None),
        ("who, anonymous page: beyond start-up", median(lambda: look_up(parse_key(anon)), rounds), None),
        ("who, page of a file: beyond start-up", median(lambda: look_up(parse_key(file)), rounds), None),
        ("who, anonymous page: the whole command", median(command("who", anon), rounds), None),
        ("who, page of a file: the whole command", median(command("who", file), rounds), None),
        ("rmap --version: start-up alone", median(command("--version"), rounds), None),
        ("a frame in every page table", median(lambda: search.everywhere(search.for_page(pfn), every), rounds), kernel),
        ("a picture from /proc", median(lambda: capture(bpf=False), rounds), kernel),
        ("a picture with the kernel's own anon_vmas", median(lambda: capture(), rounds), kernel),
        ("who shares: sets of mappers of all frames", median(
            lambda: MapperSets(picture.ptes, picture.vmas, picture.numbering), rounds), kernel),
        ("RSS, PSS, USS of all from a picture", median(lambda: usage(picture), rounds), kernel),
        ("a picture, and its full reverse index", median(index, rounds), kernel),
    ]  # fmt: skip
    floor = median(read_rollups, rounds)
    rows += [
        ("the kernel: every smaps_rollup", floor, None),
        ("ps without who shares: beyond start-up", median(rollups, rounds), floor),
        ("ps with who shares: a picture and its sums", median(lambda: usage(capture(bpf=False)), rounds), kernel),
    ]
    return rows, entries


def main() -> int:
    """Set up, measure, print."""
    parser = argparse.ArgumentParser(description="How fast the running machine is asked.")
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--mib", type=int, default=1024, help="anonymous memory; a quarter as much of a file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with a_server(options.workers, options.mib) as (pids, address, path):
        rows, entries = measure(pids, address, path, options.rounds)
    if options.json:
        told = [{"what": what, "seconds": seconds, "kernel": kernel} for what, seconds, kernel in rows]
        print(json.dumps({"schema": 1, "entries": entries, "rounds": options.rounds, "rows": told}))
        return 0
    print(f"{entries:,} entries in {len(pids)} processes and the others here; medians of {options.rounds} rounds\n")
    for what, seconds, kernel in rows:
        ratio = f"{seconds / kernel:>8.2f} times the kernel" if kernel else ""
        print(f"{what:<46}{seconds * 1000:>10.1f} ms{ratio}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
