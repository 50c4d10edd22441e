"""How fast the model is, beside the running kernel: see README.md in this directory.

python benchmarks/speed.py [--json] [--pages N] [--rounds N] [--design NAME] [--no-kernel]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby

import bounds
import model_side
from bounds import Row
from kernel_side import KernelTimes, NoYardstick
from kernel_side import measure as measure_kernel

DESIGNS = ("anon_vma_chain", "pte_chain")
LAYOUTS = ("contiguous", "shuffled")
MAPPERS = 100
VMAS = 1000
PER_FORK = ("fork_vmas", "fork_nothing")


def main() -> int:
    """Measure, print, and answer 0 if every bound is kept, else 1."""
    options = parse()
    quiet_down(options.cpu)
    if (load := os.getloadavg()[0]) > 1:
        say(f"the machine is busy (load {load:.1f}): expect worse and wider figures")
    kernel = None
    if not options.no_kernel:
        say("the running kernel ...")
        try:
            kernel = measure_kernel(options.pages, options.rounds, VMAS)
        except NoYardstick as why:
            say(f"without the running kernel: {why}")
    rows = list(measurements(options, kernel))
    if options.json:
        about = {"schema": 1, "kernel": kernel.release if kernel else None, "pages": options.pages}
        rows_out = [asdict(row) | {"ratio": row.ratio, "ok": row.ok} for row in rows]
        print(json.dumps(about | {"rounds": options.rounds, "rows": rows_out}, indent=1))
    else:
        print(table(rows, kernel, options.pages))
    return int(any(row.ok is False for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast the model is, beside the running kernel.")
    parser.add_argument("--pages", type=int, default=65536, help="pages per operation (default 65536)")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds; one more warms up (default 9)")
    parser.add_argument("--design", choices=DESIGNS, action="append", help="only this design; may be repeated")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="the CPU to stay on")
    parser.add_argument("--no-kernel", action="store_true", help="measure the model alone: no ratios")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def quiet_down(cpu: int) -> None:
    """What would disturb a measurement, as far as we may: other CPUs, other programs, the garbage collector."""
    os.sched_setaffinity(0, {cpu})
    with contextlib.suppress(PermissionError):
        os.nice(-10)
    gc.disable()


def say(text: str) -> None:
    print(f"speed: {text}", file=sys.stderr, flush=True)


def measurements(options: argparse.Namespace, kernel: KernelTimes | None) -> Iterator[Row]:
    designs = options.design or DESIGNS
    for layout in LAYOUTS:
        for design in designs:
            say(f"{design}, {layout} ...")
            for name, value in model_side.measure(design, layout, options.pages, options.rounds, VMAS).items():
                yield compared(name, design, layout, value, kernel, options.pages)
            gc.collect()
            walk = model_side.measure_walk(design, layout, options.pages, MAPPERS, max(1, options.rounds // 3))
            for name, value in walk.items():
                bound = bounds.WALK_NS[design] if name == "walk_stream" else None
                yield Row(name, design, layout, "ns", value, bound=bound, absolute=True)
            gc.collect()
    say("memory, loading, start ...")
    for design in designs:
        frames, pte = model_side.frame_mib(design), model_side.pte_bytes(design)
        load = model_side.load_s(design, max(1, options.rounds // 3))
        yield Row("1 Mi frames", design, "", "MiB", frames, bound=bounds.FRAMES_MIB, absolute=True)
        yield Row("a PTE in a full table", design, "", "bytes", pte, bound=bounds.PTE_BYTES, absolute=True)
        yield Row("load the picture", design, "", "s", load, bound=bounds.LOAD_S, absolute=True)
    yield Row("rmap --help", "", "", "ms", model_side.help_ms(options.rounds), bound=bounds.HELP_MS, absolute=True)


def compared(name: str, design: str, layout: str, value: float, kernel: KernelTimes | None, pages: int) -> Row:
    """One operation beside the kernel's."""
    its = kernel.ns.get(name) if kernel else None
    unit = "ns" if name not in PER_FORK else "us"
    if unit == "us":
        value, its = value / 1000, its and its / 1000
    if name == "mremap_tables" and design == "anon_vma_chain":
        return Row(name, design, layout, unit, value, its, bounds.WHOLE_TABLES_NS / pages, absolute=True)
    return Row(name, design, layout, unit, value, its, bounds.RATIOS.get((design, layout, name)))


def table(rows: list[Row], kernel: KernelTimes | None, pages: int) -> str:
    """The rows as text, a block for each design and layout."""
    release = f"Linux {kernel.release}" if kernel else "no running kernel"
    lines = [f"{pages:,} pages, medians, one CPU; {release}; ns per page unless a unit is given"]
    for (design, layout), block in groupby(rows, key=lambda row: (row.design, row.layout)):
        lines += ["", f"{design or 'any design'}{', ' + layout if layout else ''}"]
        lines.append(f"  {'operation':22}{'kernel':>10}{'model':>14}{'ratio':>9}{'at most':>14}")
        lines += [line(row) for row in block]
    over = [row for row in rows if row.ok is False]
    lines += ["", f"{sum(row.ok is True for row in rows)} bounds kept, {len(over)} exceeded"]
    return "\n".join(lines)


def line(row: Row) -> str:
    kernel = "" if row.kernel is None else f"{row.kernel:,.1f}"
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    unit = "" if row.unit == "ns" else f" {row.unit}"
    bound = "" if row.bound is None else f"{row.bound:,.2f}{unit if row.absolute else ' x'}"
    verdict = {True: "ok", False: "OVER", None: ""}[row.ok]
    return f"  {row.name:22}{kernel:>10}{f'{row.value:,.2f}{unit}':>14}{ratio:>9}{bound:>14}  {verdict}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
