"""How long designs take for workloads at their published sizes, and how much memory: a process for each.

    .venv/bin/python benchmarks/workloads.py                     # what docs/workloads.md tells
    .venv/bin/python benchmarks/workloads.py T1:100% --designs objrmap,anonmm

A run is the workload, the comparison of every walk with the page tables, and the walks of its samples. A walk under
virtual_scan passes every entry of every process, so there only a sample of pages is compared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection

from rmap.designs import DEFAULT_DESIGNS, DESIGNS
from rmap.lab.compare.of_workload import run_workload
from rmap.lab.workloads import WORKLOADS
from rmap.units import parse_share

JOBS = (("T1", 1.0, tuple(DESIGNS)), ("aim7", 1.0, tuple(DESIGNS)), ("decision-support", 1.0, DEFAULT_DESIGNS))


def measure(name: str, scale: float, design: str) -> tuple[float, float, bool, int]:
    """Seconds, peak MiB, right, page-table entries."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(name, scale, design, theirs))
    process.start()
    theirs.close()
    try:
        answer: tuple[float, float, bool, int] = ours.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{name} under {design} ended with {process.exitcode}") from None
    process.join()
    return answer


def _run(name: str, scale: float, design: str, pipe: Connection) -> None:
    begun = time.perf_counter()
    settings = WORKLOADS[name].settings({"scale": scale})
    subject, result = run_workload(name, settings, "6.18", 1, design, lambda what: None)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send((seconds, peak, result.correctness.equal, subject.ptes))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="WORKLOAD:SCALE")
    parser.add_argument("--designs", help="names with commas (default: all, or two where memory is the question)")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    jobs = [(job.partition(":")[0], parse_share(job.partition(":")[2] or "100%"), tuple(DESIGNS)) for job in args.jobs]
    print(f"{'workload':<18}{'design':<16}{'seconds':>9}{'peak MiB':>10}{'entries':>13}  right")
    for name, scale, designs in jobs or JOBS:
        for design in args.designs.split(",") if args.designs else designs:
            runs = [measure(name, scale, design) for _ in range(args.rounds)]
            seconds = statistics.median(run[0] for run in runs)
            _, peak, right, ptes = runs[0]
            verdict = "yes" if right else "NO"
            print(f"{name:<18}{design:<16}{seconds:>9.1f}{peak:>10,.0f}{ptes:>13,}  {verdict}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
