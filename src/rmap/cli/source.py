"""The picture that a command asks: a recorded one, or the running machine."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from rmap.cli.output import say, waiting
from rmap.errors import NotPermitted

if TYPE_CHECKING:
    from rmap.columns import Bool
    from rmap.snapshot import Snapshot

NICE = 0.1
"""The share of the time that ``--nice`` spends reading."""


def snapshot_of(args: Namespace, *, topology: bool = False) -> Snapshot:
    """The picture of ``-i``; without it, one taken of the running machine.

    Args:
        topology: the kernel's own anon_vmas are wanted, too, where BPF can read them: that takes several times as long.

    Raises:
        SnapshotError: the file is no picture.
        NotPermitted: this user may not see page frames.
    """
    from rmap.snapshot import Snapshot

    if args.input is not None:
        return Snapshot.load(args.input)
    return capture(for_one_page=True, bpf=topology, share_of_time=NICE if getattr(args, "nice", False) else 1.0)


def selected(args: Namespace, snapshot: Snapshot) -> Bool:
    """Which processes of a picture ``--pid`` and ``--cgroup`` choose, as a mask; all, if neither is given.

    Raises:
        UsageError: a process or cgroup that is not in the picture.
    """
    from rmap.snapshot.questions.selection import of_cgroup, of_pids

    chosen = of_pids(snapshot, args.pid)
    return chosen if args.cgroup is None else chosen & of_cgroup(snapshot, args.cgroup)


def capture(pids: list[int] | None = None, *, for_one_page: bool = False, **options: Any) -> Snapshot:
    """Take a picture of the running machine, saying on stderr what it could not see.

    Args:
        pids: only these processes; None for all.
        for_one_page: one page is asked for: how many others changed meanwhile is no news.
        options: as for ``rmap.capture``.

    Raises:
        NotPermitted: this user may not see page frames.
    """
    from rmap.live.capture.capture import capture as take_snapshot
    from rmap.show.capture_notes import capture_notes

    with waiting() as doing:
        snapshot = take_snapshot(
            pids, progress=lambda done, total: doing(f"reading process {done} of {total}"), **options
        )
    for line in capture_notes({**snapshot.about, "raced": 0} if for_one_page else snapshot.about):
        say(line)
    return snapshot


def absence(pid: int) -> str | None:
    """Why a picture of the running machine cannot have a process, None if it can: said before the machine is read.

    Raises:
        NotPermitted: the kernel does not show its memory map to this user.
    """
    from rmap.live.sources import procfs

    if pid == os.getpid():
        return f"process {pid} is rmap itself, which leaves itself out"
    try:
        if procfs.read_stat(pid).kernel_thread:
            return f"process {pid} is a thread of the kernel, with no memory of its own"
        if not procfs.has_memory(pid):
            return f"process {pid} has ended: it has no memory any more"
    except (FileNotFoundError, ProcessLookupError):
        return f"there is no process {pid}"
    except PermissionError:
        raise NotPermitted(
            f"the kernel does not show the memory map of process {pid}"
            + (" even to root: it is protected" if os.geteuid() == 0 else ""),
            needed="" if os.geteuid() == 0 else "CAP_SYS_PTRACE (other users)",
            works="rmap doctor names the processes that refuse",
        ) from None
    return None


def origin_of(args: Namespace, snapshot: Snapshot) -> str:
    """Where an answer comes from, in words: the end of every answer."""
    if args.input is None:
        return "every page table of this machine, read just now"
    about = snapshot.about
    recorded = " ".join(str(about[key]) for key in ("host", "time") if about[key])
    return f"the page tables recorded in {args.input}" + (f" ({recorded})" if recorded else "")
