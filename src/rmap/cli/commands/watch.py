"""How the shared memory of a forked family becomes private.

For servers that load first and fork then: each round tells how many anonymous
pages the family still shares, how many became private since the round before
because somebody wrote to them (UNSHARED), because the others let go of them
(LEFT), and how many are not there any more (GONE). At the end: by area.

Only the family's page tables are read; that costs those who are read a little
each time. If a round takes more than a tenth of the interval, the interval is
stretched (unless --full-speed). Ctrl-C ends it, with the sums.

examples
  sudo rmap watch --tree 4711
  sudo rmap watch --tree 4711 --every 5 --count 12
  sudo rmap watch --tree 4711 --count 60 --jsonl > decay.jsonl

exit status: 1 if the family has ended before the second round
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import SCHEMA, emit, say
from rmap.cli.parser import add_output_options
from rmap.cli.source import absence
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.live.watch import Round, Watch

_SHARE = 0.1
"""Of the interval that a round may take."""


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("--tree", metavar="PID", type=int, required=True, help="this process and all below it")
    parser.add_argument("--every", metavar="TIME", default="1", help="between two rounds (default: 1 s; 500ms, 2m)")
    parser.add_argument("--count", metavar="N", type=int, help="end after N rounds")
    parser.add_argument("--full-speed", action="store_true", help="keep the interval, whatever a round costs")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object per round, as it comes")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Look, wait, look again."""
    from rmap.live.doctor.abilities import refuse_without_frames
    from rmap.live.watch import Watch
    from rmap.show.watch import summary

    every = _seconds(args.every)
    if args.count is not None and args.count < 2:
        raise UsageError("--count is at least 2: a change has two ends")
    if (why := absence(args.tree)) is not None:
        say(f"rmap: {why}")
        return status.NO
    refuse_without_frames()
    rounds: list[Round] = []
    try:
        _watch(args, Watch(args.tree), every, rounds)
    except KeyboardInterrupt:
        if len(rounds) < 2:
            raise
    if args.json:
        emit(args, {"rounds": [asdict(one) for one in rounds]}, list)
    elif not args.jsonl and len(rounds) > 1:
        print("\n".join(summary(rounds)))
    return status.OK if len(rounds) > 1 else status.NO


def _watch(args: Namespace, watch: Watch, every: float, rounds: list[Round]) -> None:
    from rmap.show.watch import header, line

    stretched = False
    while args.count is None or len(rounds) < args.count:
        began = time.monotonic()
        one = watch.look()
        if one is None:
            say("rmap: the family has ended")
            return
        rounds.append(one)
        if args.jsonl:
            print(json.dumps({"schema": SCHEMA, **asdict(one)}), flush=True)
        elif not args.json:
            if len(rounds) == 1:
                print(header())
            print(line(one, one.at - rounds[-2].at if len(rounds) > 1 else 0.0), flush=True)
        pause = every
        if not args.full_speed and one.seconds > every * _SHARE:
            pause = one.seconds / _SHARE
            if not stretched:
                say(f"rmap: a round takes {one.seconds:.2f} s: one each {pause:.1f} s now (or --full-speed)")
            stretched = True
        if args.count is None or len(rounds) < args.count:
            time.sleep(max(0.0, began + pause - time.monotonic()))


def _seconds(text: str) -> float:
    from rmap.units import parse_duration

    if text.endswith("ms") and text[:-2].isdigit() and int(text[:-2]):
        return int(text[:-2]) / 1000
    return parse_duration(text)
