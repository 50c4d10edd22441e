"""What recording costs a program: ``python benchmarks/recording.py [--runs N] [--turns N] [--json]``.

The program (``mmops.c``) does nothing but operations on memory, so this is the worst case. Runs with and without a
recorder alternate; the slowdown is the median of the ratios of neighbours. Needs root, a C compiler, and perf for
perf's row. The limits are those the project promises: 1.5 times by BPF, twice by perf.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rmap.errors import NotPermitted
from rmap.live.record import record

LIMITS = {"bpf": 1.5, "perf": 2.0}
SOURCE = Path(__file__).with_name("mmops.c")


def main() -> int:
    """Measure and print; 1 if a limit is exceeded or an event was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--turns", type=int, default=20_000, help="of mmap, touch, mprotect, madvise, munmap")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rmap-recording-") as name:
        folder = Path(name)
        program = folder / "mmops"
        subprocess.run(["cc", "-O2", str(SOURCE), "-o", str(program)], check=True)
        rows = [row for recorder in LIMITS if (row := measure(recorder, program, folder, args.runs, args.turns))]
    if args.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(
                f"{row['recorder']:<5} {row['alone']:7.0f} ns alone  {row['recorded']:7.0f} ns recorded  "
                f"{row['slowdown']:.2f} times ({row['least']:.2f} to {row['most']:.2f}; limit {row['limit']})  "
                f"{row['events']:,} events, {row['lost']:,} lost"
            )
    return int(any(row["slowdown"] > row["limit"] or row["lost"] for row in rows))


def measure(recorder: str, program: Path, folder: Path, runs: int, turns: int) -> dict[str, float | str | int] | None:
    """One recorder's figures; None where it is not permitted."""
    pairs, events, lost = [], 0, 0
    for run in range(runs + 1):
        alone = operation(program, turns, folder / "alone")
        # The program's output is this process's, so a shell puts it into a file.
        script = f"exec {program} {turns} > {folder}/recorded"
        try:
            done = record(["sh", "-c", script], folder / "run.trace", recorder=recorder, force=True)
        except NotPermitted as error:
            print(f"{recorder}: {error} ({error.needed})", file=sys.stderr)
            return None
        if run:  # the first pair warms the memory up
            pairs.append((alone, float((folder / "recorded").read_text())))
            events, lost = len(done.trace.events), lost + done.trace.about["lost"]
    ratios = [recorded / alone for alone, recorded in pairs]
    return {
        "recorder": recorder,
        "alone": statistics.median(alone for alone, _ in pairs),
        "recorded": statistics.median(recorded for _, recorded in pairs),
        "slowdown": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "limit": LIMITS[recorder],
        "events": events,
        "lost": lost,
    }


def operation(program: Path, turns: int, output: Path) -> float:
    """Nanoseconds an operation takes, unrecorded."""
    with output.open("w") as stream:
        subprocess.run(["sh", "-c", f"exec {program} {turns}"], stdout=stream, check=True)
    return float(output.read_text())


if __name__ == "__main__":
    raise SystemExit(main())
