"""Hold the machine against the numbered rules of its reverse map.

The kernel's reverse map promises that, for example, a page lies in every VMA
where its index says, that as many entries map a page as its mapcount counts,
and that a walk through its interval trees meets each of them. docs/rules.md
numbers these promises (I1 to I22). All that can be read is checked, over every
process: the kernel's own anon_vmas, chains, interval trees and struct pages
(by BPF), and the page tables. The rest is listed with the reason.

The machine runs on meanwhile. What looks wrong is read again three times; only
what stays exactly so, in processes that did not run meanwhile, is called a
violation. What stays in others is counted as not judged, and the answer is
"unsettled" then, not "sound". For processes that never hold still, --freeze
stops them while they are read.

examples
  sudo rmap check
  sudo rmap check --watch 10
  sudo rmap check --freeze 4711 4712
  rmap check -i here.rmap

exit status: 0 if all that could be judged holds (sound or unsettled), 1 if a
promise is broken: the invariant is named with its objects, ready for a bug
report
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rmap.cli import status
from rmap.cli.output import emit, say, waiting
from rmap.cli.parser import add_input_option, add_output_options
from rmap.cli.source import origin_of, snapshot_of
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.live.soundness import MachineCheck
    from rmap.snapshot.rules.findings import Report
    from rmap.structs.memory import KernelMemory

MOST_KINDS = 4
"""Kinds of differences not judged that are named."""
ORIGIN = "every page table of this machine, and the kernel's own anon_vmas, trees and struct pages, read just now"
ORIGIN_PROC = "every page table of this machine, read just now; not the kernel's own memory"


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    add_input_option(parser)
    parser.add_argument("--watch", metavar="SECONDS", nargs="?", type=float, const=5.0, help="again and again (5)")
    parser.add_argument("--freeze", metavar="PID", nargs="+", type=int, help="stop these processes while they are read")
    parser.add_argument("--all", action="store_true", help="every violation, not only five of each invariant")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Check it."""
    if args.input is not None:
        if args.watch is not None or args.freeze:
            raise UsageError("--watch and --freeze are for the running machine, not for a recorded picture (-i)")
        return _check_snapshot(args)
    if args.watch is not None and not 0 <= args.watch <= 86_400:
        raise UsageError(f"--watch takes seconds, from 0 to 86400: {args.watch:g}")
    with _memory() as memory:
        return _check_machine(args, memory) if args.watch is None else _watch(args, memory)


def _check_snapshot(args: Namespace) -> int:
    from rmap.show.capture_notes import snapshot_facts
    from rmap.show.check import SHOWN, check
    from rmap.snapshot.rules.check import inspect

    snapshot = snapshot_of(args, topology=True)
    facts = snapshot_facts(snapshot)
    report = inspect(snapshot)
    limit = None if args.all else SHOWN
    origin = origin_of(args, snapshot)
    data = {**facts, **_as_data(report)}
    emit(args, data, lambda: check(report.checked, report.violations, facts, origin=origin, limit=limit))
    return status.NO if report.violations else status.OK


def _check_machine(args: Namespace, memory: KernelMemory | None) -> int:
    from rmap.show.check import SHOWN, check

    outcome = _one_round(args, memory)
    limit = None if args.all else SHOWN
    origin = ORIGIN if memory is not None else ORIGIN_PROC
    lines = lambda: check(  # noqa: E731
        outcome.report.checked,
        outcome.report.violations,
        outcome.facts,
        origin=origin,
        readings=outcome.readings,
        limit=limit,
        not_judged=outcome.not_judged,
        moving=outcome.too_much_moved,
    )
    emit(args, _machine_data(outcome), lines)
    for line in _talk(outcome):
        say(line)
    return status.NO if outcome.report.violations else status.OK


def _one_round(args: Namespace, memory: KernelMemory | None) -> MachineCheck:
    from rmap.live.soundness import check_machine

    with _frozen(args.freeze or []), waiting() as doing:
        return check_machine(memory, progress=lambda done, total: doing(f"reading process {done} of {total}"))


def _watch(args: Namespace, memory: KernelMemory | None) -> int:
    from rmap.show.check import watch_line

    broken_ever, number = False, 0
    while True:
        number += 1
        outcome = _one_round(args, memory)
        broken = [violation.invariant for violation in outcome.report.violations]
        broken_ever |= bool(broken)
        clock = time.strftime("%H:%M:%S")
        line = watch_line(number, clock, outcome.facts, broken, outcome)
        emit(args, _machine_data(outcome), lambda line=line: [line])  # type: ignore[misc]
        for violation in outcome.report.violations:
            say(f"      {violation.invariant}  {violation.message}: {', '.join(o.strip() for o in violation.objects)}")
        try:
            time.sleep(args.watch)
        except KeyboardInterrupt:
            if broken_ever:
                return status.NO
            raise


@contextmanager
def _memory() -> Iterator[KernelMemory | None]:
    from rmap.live.bpf import memory_or_none

    memory = memory_or_none()
    if memory is None:
        say("rmap: without BPF: anon_vmas, trees and page indexes are not checked (`rmap doctor`)")
        yield None
        return
    with closing(memory):
        yield memory


def _frozen(pids: list[int]) -> AbstractContextManager[Any]:
    if not pids:
        return nullcontext()
    from rmap.live.sources.ptrace import frozen

    return frozen(pids)


def _as_data(report: Report) -> dict[str, Any]:
    return {
        "checked": [row._asdict() for row in report.checked],
        "violations": [
            {"invariant": v.invariant, "message": v.message, "objects": list(v.objects), "pids": list(v.pids)}
            for v in report.violations
        ],
    }


def _machine_data(outcome: MachineCheck) -> dict[str, Any]:
    from rmap.snapshot.rules.findings import DESCRIBED

    verdict = "unsettled" if outcome.not_judged or outcome.too_much_moved else "sound"
    rest = {
        "verdict": "broken" if outcome.report.violations else verdict,
        "races": outcome.races,
        "unsettled": outcome.not_judged,
        "not_judged": [f"{violation.invariant}: {violation.message}" for violation in outcome.unsettled[:DESCRIBED]],
        "readings": outcome.readings,
    }
    return {**outcome.facts, **_as_data(outcome.report), **rest, "seconds": round(outcome.seconds, 3)}


def _talk(outcome: MachineCheck) -> Iterator[str]:
    # What stands beside the answer, on stderr.
    from rmap.show.capture_notes import capture_notes
    from rmap.show.text import plural, wrap

    yield from capture_notes(outcome.facts)
    if outcome.races:
        gone = f"{plural(outcome.races, 'difference was', 'differences were')} gone when read again: "
        yield from wrap(gone + ("a race, not a violation" if outcome.races == 1 else "races, not violations"), "rmap: ")
    if outcome.unsettled:
        pids = sorted({pid for violation in outcome.unsettled for pid in violation.pids} - {os.getpid()})
        who = " ".join(map(str, pids[:8]))
        text = f"{plural(len(outcome.unsettled), 'difference')} in what did not hold still: not judged"
        yield from wrap(text + (f": add --freeze {who}" if who else ""), "rmap: ")
        for kind, number in Counter((one.invariant, one.message) for one in outcome.unsettled).most_common(MOST_KINDS):
            yield from wrap(f"{kind[0]} {kind[1]}" + (f" ({number:,} such)" if number > 1 else ""), "rmap:   ")
    if outcome.untold:
        yield from wrap(f"{plural(outcome.untold, 'difference')} more than are told apart: not judged", "rmap: ")
    yield f"{'broken' if outcome.report.violations else 'ok' if not outcome.not_judged else 'unsettled'} in " + (
        f"{outcome.seconds:.2f} s"
    )
