"""Hold the model against the kernel: the same random calls by both.

Real processes ("puppets") and the model make the same calls (mmap, mremap,
fork, writes, ...), and after every call everything that can be seen of both is
compared: answers, areas with flags and page indexes, which entries share a
page, mapcounts, and, read from the kernel by BPF, every anon_vma with its
counters, the order of every chain, and each page's anon_vma and index. Without
BPF: what /proc shows; the answer says so.

A seed gives one scenario of some 40 to 100 calls; a run plays one seed after
the other and stops after --steps calls (5,000 if nothing is said), when
--until is over, or at the first difference. That is repeated, cut down to the
shortest sequence that shows it, and printed as a Python script; the status is
1 then. Needs root. Only puppets are touched; with --swap the machine swaps to
a small zram device meanwhile.

examples
  rmap conform
  rmap conform --until 2m --swap
  rmap conform --seed 1017 --steps 1
  rmap conform --steps 200000 --swap --json
"""

from __future__ import annotations

import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rmap.cli import status
from rmap.cli.output import emit, say, waiting
from rmap.cli.parser import add_output_options
from rmap.errors import UsageError
from rmap.units import parse_duration

PLAIN_INTERVAL = 30.0  # seconds between two lines of progress where there is no terminal


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("--seed", type=_count, default=1, metavar="N", help="the first scenario (default: 1)")
    parser.add_argument("--steps", type=_count, metavar="N", help="stop after so many calls")
    parser.add_argument("--until", type=parse_duration, metavar="TIME", help="stop after this time: 90s, 2m, 1.5h")
    parser.add_argument(
        "--processes", type=_count, default=8, metavar="N", help="at most so many at once, 2 to 8 (default: 8)"
    )
    parser.add_argument("--swap", action="store_true", help="half of the scenarios also send pages to swap (zram)")
    parser.add_argument("--design", default="anon_vma_chain", metavar="NAME", help="the reverse map of the model")
    parser.add_argument(
        "--profile", metavar="RELEASE", help="whose rules the model follows (default: the running kernel's)"
    )
    parser.add_argument("--script", type=Path, metavar="FILE", help="also write the script of a difference there")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Run, and tell what was found, also if interrupted."""
    from rmap.lab.conform import conform
    from rmap.show.conform import conformance

    if args.script is not None and not args.script.absolute().parent.is_dir():
        raise UsageError(f"--script {args.script}: there is no such folder")
    with _told_to_stop() as stopped, _progress() as tell:
        result = conform(
            seed=args.seed,
            steps=args.steps,
            seconds=args.until,
            processes=args.processes,
            swap=args.swap,
            design=args.design,
            profile=args.profile,
            stopped=stopped,
            progress=tell,
        )
    if args.script is not None and result.divergence is not None:
        args.script.write_text(result.divergence.script)
    emit(args, {"conformance": result}, lambda: conformance(result))
    if result.divergence is not None or (result.lost and len(result.lost) == result.scenarios):
        return status.NO
    return status.OK if result.complete else status.INTERRUPTED


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    # Ctrl-C and SIGTERM end the run after the call under way; a second one does not wait for that.
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    if sys.stderr.isatty():
        with waiting() as doing:
            yield doing
        return
    last = time.monotonic()

    def tell(doing: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_INTERVAL:
            last = time.monotonic()
            say(doing)

    yield tell


def _count(text: str) -> int:
    number = text.replace(",", "").replace("_", "")
    if not number.isdigit():
        raise UsageError(f"not a count: {text!r} (examples: 100, 65536)")
    return int(number)
