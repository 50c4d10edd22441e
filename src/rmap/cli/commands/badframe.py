"""Whom a bad page frame hits, and what the kernel can do.

For each frame with a memory error: what it holds, what the kernel could do
about it (drop a clean page and read it again, take a free one out of use, kill
those who map it, nothing), and every process and address that maps it.

A frame is a physical address (0x18b562000), or pfn:N. Without any, a kernel log
is read from stdin: lines of memory failure, soft offline, EDAC, APEI and
machine checks name frames; other lines are passed over. The kernel's part needs
CONFIG_MEMORY_FAILURE (`rmap doctor`).

examples
  sudo rmap badframe 0x18b562000
  sudo rmap badframe pfn:0x18b562 pfn:0x18b563 --json
  dmesg | sudo rmap badframe
  rmap badframe -i here.rmap 0x18b562000

exit status: 1 if a process is hit or data is lost, or if that is not known
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit, say, waiting
from rmap.cli.parser import add_input_option, add_output_options
from rmap.errors import UsageError

ROWS = 20


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("frames", metavar="FRAME", nargs="*", help="0xPHYS or pfn:N; none: a kernel log on stdin")
    parser.add_argument("--all", action="store_true", help=f"every mapping, not only {ROWS} of each frame")
    add_input_option(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Find the frames, and judge them."""
    from rmap.cli.source import snapshot_of
    from rmap.live.lookup.bad_frames import bad_frames, recorded_frames
    from rmap.show.badframe import bad_frames as lines

    pfns = _frames(args)
    if not pfns:
        say("rmap: no line of this log names a bad frame")
        return status.OK
    if args.input is not None:
        frames = recorded_frames(snapshot_of(args), pfns)
    else:
        from rmap.live.doctor.abilities import refuse_without_frames

        refuse_without_frames()
        with waiting() as doing:
            frames = bad_frames(pfns, say=doing)
    data = [{"pfn": one.pfn, "verdict": one.verdict, "who": one.who.to_json()} for one in frames]
    limit = None if args.all else ROWS
    emit(args, {"frames": data}, lambda: lines(frames, limit=limit))
    harmless = all(not (one.verdict.loses or one.verdict.kills) and one.who.kind != "unknown" for one in frames)
    return status.OK if harmless else status.NO


def _frames(args: Namespace) -> list[int]:
    from rmap.snapshot.questions.badframe import frame_of, frames_of_log

    if args.frames:
        return list(dict.fromkeys(frame_of(text) for text in args.frames))
    if sys.stdin.isatty():
        raise UsageError("name a frame (0x18b562000, pfn:0x18b562), or give a kernel log on stdin")
    return frames_of_log(sys.stdin)
