"""Run a program and record every event that changes its memory.

The trace, one file, holds of the program and all its descendants: each system
call that changes a memory map, each page fault, fork, exec and exit, and
pictures of memory: of a process at its exec, of all at --checkpoint times, and
of the last before it ends. `rmap replay` does it all again in the model, `rmap
verify` compares the two at every picture, `rmap compare` takes a trace as a
workload. No page's content is recorded.

Events are seen by BPF; without BPF by perf, which costs more and does not tell
two opens of one file apart. At its execs, and at pictures, the program is
stopped for some milliseconds. It has one tracer, rmap: gdb and strace cannot
trace it meanwhile. The program runs as whoever runs rmap, so as root; `sudo -u
NAME CMD` as the recorded command runs it as somebody else. Set-uid programs
keep their privileges.

Recording ends when the last of the recorded processes has ended, daemons
included. Ctrl-C reaches the program, too, and recording goes on until it ends;
a second Ctrl-C, or SIGTERM to rmap, ends the recording, and the program runs
on. While it runs the recording is in FILE.part; if rmap is killed, that folder
stays: `rmap replay FILE.part` reads it, and the next `rmap record -o FILE`
makes a trace of it, under a name of its own, first.

examples
  sudo rmap record -- sh -c 'sort /etc/passwd | head -3'
  sudo rmap record -o web.trace --checkpoint 2 -- python3 server.py
  sudo rmap record -o cc.trace --checkpoint exit -- make -j4
  rmap verify web.trace

exit status: 1 if something is missing from the trace (it says what), 130 if a
signal ended the recording; the program's own status is told, not returned
"""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from rmap.cli import status
from rmap.cli.output import say
from rmap.cli.parser import add_output_options
from rmap.errors import UsageError
from rmap.units import parse_size

if TYPE_CHECKING:
    from rmap.live.record import Checkpoints

DEFAULT_RING = "64M"


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("-o", "--output", metavar="FILE", help="the trace to write (default: the program's name.trace)")
    parser.add_argument(
        "--checkpoint",
        metavar="WHEN",
        help="further pictures of all: every SECONDS, or at N,N,... seconds after the start, or `exit`: whenever a "
        "process is about to exit",
    )
    parser.add_argument(
        "--recorder",
        choices=("auto", "bpf", "perf"),
        default="auto",
        help="who sees the events (auto: BPF if possible)",
    )
    parser.add_argument(
        "--ring-size",
        metavar="BYTES",
        default=DEFAULT_RING,
        help=f"room for events not read yet, a power of two (BPF; default: {DEFAULT_RING})",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    add_output_options(parser)
    parser.add_argument("command", metavar="-- CMD ARGS", nargs=REMAINDER, help="the program and its arguments")


def run(args: Namespace) -> int:
    """Record, and say what is in the trace."""
    from rmap.live.record import record
    from rmap.show.record import record_facts, record_lines

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no program to record (`rmap record -- CMD ARGS`)")
    target = Path(args.output or f"{Path(command[0]).name}.trace")
    recorded = record(
        command,
        target,
        checkpoints=checkpoints(args.checkpoint),
        recorder=args.recorder,
        ring_bytes=parse_size(args.ring_size),
        force=args.force,
        tell=say,
    )
    facts = record_facts(recorded)
    if args.json:
        from rmap.cli.output import emit

        emit(args, facts, list)
    else:  # stdout is the program's
        for line in record_lines(facts):
            say(line)
    if recorded.interrupted:
        return status.INTERRUPTED
    return status.OK if recorded.trace.about["complete"] else status.NO


def checkpoints(text: str | None) -> Checkpoints:
    """Read ``--checkpoint``.

    Raises:
        UsageError: it is none of the three forms.
    """
    from rmap.live.record import Checkpoints

    if text is None:
        return Checkpoints()
    if text == "exit":
        return Checkpoints(exits=True)
    try:
        times = [float(part) for part in text.split(",")]
    except ValueError:
        times = []
    if not times or not all(0 < time < 1e7 for time in times):
        raise UsageError(f"--checkpoint takes seconds (2), times (1,2.5,10) or `exit`, not {text!r}")
    return Checkpoints(every=times[0]) if len(times) == 1 else Checkpoints(at=tuple(times))
