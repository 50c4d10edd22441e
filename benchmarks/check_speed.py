"""How long ``rmap check`` takes over every process of a machine under load: see README.md in this directory.

sudo python benchmarks/check_speed.py [--json] [--workers N] [--pages N] [--vmas N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.load import load

SECONDS_MAX, VMAS, PAGES = 1.0, 7_000, 100_000


def main() -> int:
    """Measure, print, and answer 0 if nothing is broken and the bound is kept, else 1."""
    options = parse()
    if (busy := os.getloadavg()[0]) > 1:
        print(f"the machine is busy (load {busy:.1f}): expect worse figures", file=sys.stderr)
    with load(workers=options.workers, pages=options.pages, vmas=options.vmas):
        time.sleep(0.5)
        rounds = [one_round() for _ in range(options.rounds)]
    row = summary(rounds)
    if options.json:
        print(json.dumps({"schema": 1, **row}))
    else:
        print(table(row))
    return int(not row["ok"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long rmap check takes under a load.")
    parser.add_argument("--workers", type=int, default=50, help="forked workers (default 50)")
    parser.add_argument("--pages", type=int, default=78_000, help="pages of their own, all together (default 78000)")
    parser.add_argument("--vmas", type=int, default=100, help="areas at least, all together (default: as they come)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default 7)")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def one_round() -> dict[str, Any]:
    """One run of the command: what it says, and how long the whole of it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "rmap", "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - began
    if not done.stdout:
        raise SystemExit(done.stderr)
    return {**json.loads(done.stdout), "whole": whole}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median round, and the fastest."""
    last = rounds[-1]
    seconds = statistics.median(one["seconds"] for one in rounds)
    violations = sum(len(one["violations"]) for one in rounds)
    return {
        "release": last["release"],
        "processes": last["processes"],
        "vmas": last["vmas"],
        "anon_vmas": last["anon_vmas"],
        "pages": last["pages"],
        "anon_pages": last["anon_pages"],
        "ptes": last["ptes"],
        "rounds": len(rounds),
        "seconds": round(seconds, 3),
        "seconds_min": round(min(one["seconds"] for one in rounds), 3),
        "whole_command": round(statistics.median(one["whole"] for one in rounds), 3),
        "violations": violations,
        "races": sum(one["races"] for one in rounds),
        "ok": not violations and seconds <= SECONDS_MAX * max(1, last["vmas"] / VMAS, last["anon_pages"] / PAGES),
    }


def table(row: dict[str, Any]) -> str:
    """The figures as text."""
    bound = f"at most {SECONDS_MAX:g} s for {VMAS:,} VMAs and {PAGES:,} pages"
    return "\n".join(
        [
            f"Linux {row['release']}: {row['processes']:,} processes, {row['vmas']:,} VMAs, {row['anon_vmas']:,} "
            f"anon_vmas,",
            f"{row['anon_pages']:,} anonymous of {row['pages']:,} mapped pages, {row['ptes']:,} PTEs",
            "",
            f"rmap check   {row['seconds']:.2f} s median of {row['rounds']}, {row['seconds_min']:.2f} s fastest",
            f"bound        {bound}",
            f"with start   {row['whole_command']:.2f} s the whole command, imports included",
            f"violations   {row['violations']:,}",
            f"races        {row['races']:,} differences, gone when read again",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
