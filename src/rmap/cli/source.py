"""The picture that a command asks: a recorded one, or the running machine."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from rmap.cli.output import say, waiting
from rmap.show.picture import capture_notes

if TYPE_CHECKING:
    from rmap.snapshot import Snapshot


def picture_of(args: Namespace) -> Snapshot:
    """The picture of ``-i``; without it, one taken of the running machine.

    Raises:
        TraceError: the file is no picture.
        NotPermitted: this user may not see page frames.
    """
    from rmap.snapshot import Snapshot

    return capture() if args.input is None else Snapshot.load(args.input)


def capture(pids: list[int] | None = None, **options: Any) -> Snapshot:
    """Take a picture of the running machine, saying on stderr what it could not see.

    Args:
        pids: only these processes; None for all.
        options: as for ``rmap.live.capture``.

    Raises:
        NotPermitted: this user may not see page frames.
    """
    from rmap.snapshot import Snapshot

    with waiting() as doing:
        picture = Snapshot.capture(
            pids, progress=lambda done, total: doing(f"reading process {done} of {total}"), **options
        )
    for line in capture_notes(picture.about):
        say(line)
    return picture


def origin_of(args: Namespace, picture: Snapshot) -> str:
    """Where an answer comes from, in words: the end of every answer."""
    if args.input is None:
        return "every page table of this machine, read just now"
    about = picture.about
    recorded = " ".join(str(about[key]) for key in ("host", "time") if about[key])
    return f"the page tables recorded in {args.input}" + (f" ({recorded})" if recorded else "")
