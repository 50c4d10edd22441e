"""Changes of the whole machine that must not outlive whoever made them: a journal of what there is to undo.

Before a change is made, a file in the journal's folder says how it is undone, and who makes it. When it has been undone
the file goes. If the maker was killed before that, the next run finds the file, sees that the maker is dead, and
undoes the change in its place (:func:`undo_left_behind`).

Whoever can write a journal decides what is done in root's name, so a folder or a file that belongs to somebody else,
or that others may write, is never read.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmap.errors import SourceError
from rmap.live.sources import procfs, sysfs

LOCK = "machine-state.lock"
_SUFFIX = ".undo"

Change = dict[str, Any]
"""What was changed: ``kind``, one of :data:`UNDO`, and what is needed to undo it."""


def journal_folder() -> Path:
    """Where the journal of this user is kept; made if it is not there.

    Raises:
        SourceError: it belongs to somebody else, or others may write in it.
    """
    folder = Path("/run/rmap") if os.access("/run", os.W_OK) else Path(tempfile.gettempdir()) / f"rmap-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(folder):
        raise SourceError(f"{folder}: not this user's alone, so no journal of changes is kept there")
    return folder


@contextmanager
def machine_state() -> Iterator[None]:
    """One at a time: held by whoever changes state of the whole machine (swap, KSM, cgroups). Waits for its turn."""
    with _alone(journal_folder() / LOCK):
        yield


@contextmanager
def undone_at_last(change: Change) -> Iterator[None]:
    """Note a change before it is made; undo it at the end of the block, or in the next run.

    Args:
        change: its ``kind`` and what that needs; numbers and texts only.
    """
    if change["kind"] not in UNDO:
        raise SourceError(f"nobody knows how to undo {change['kind']!r}")
    note = _note(change)
    try:
        yield
    finally:
        UNDO[change["kind"]](change)
        note.unlink(missing_ok=True)


def undo_left_behind() -> list[str]:
    """Undo what dead makers left; returns what it was, one sentence each."""
    done = []
    folder = journal_folder()
    with _alone(folder / "lock"):  # two runs may begin at once
        for note in sorted(folder.glob(f"*{_SUFFIX}")):
            entry = _read(note)
            if entry is None or _lives(entry):
                continue
            change = entry["change"]
            UNDO[change["kind"]](change)
            note.unlink(missing_ok=True)
            done.append(f"{_SENTENCES[change['kind']].format(**change)}, left behind by process {entry['pid']}")
    return done


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _note(change: Change) -> Path:
    pid = os.getpid()
    text = json.dumps({"pid": pid, "start_time": procfs.read_stat(pid).start_time, "change": change})
    fd, name = tempfile.mkstemp(suffix=".new", prefix=f"{pid}-", dir=journal_folder())
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    note = Path(name).with_suffix(_SUFFIX)
    os.rename(name, note)
    return note


def _read(note: Path) -> dict[str, Any] | None:
    # None: gone meanwhile, not ours, or not a note.
    try:
        if not _is_ours(note):
            return None
        entry = json.loads(note.read_text())
        valid = isinstance(entry, dict) and entry["change"]["kind"] in UNDO and isinstance(entry["pid"], int)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return entry if valid else None


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode) and not status.st_mode & 0o022


def _lives(entry: dict[str, Any]) -> bool:
    # A pid alone may belong to somebody else by now.
    try:
        return procfs.read_stat(entry["pid"]).start_time == entry["start_time"]
    except (OSError, SourceError):
        return False


def _swap_off(change: Change) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    path = Path(change["path"])
    zram = path.name.startswith("zram")
    if zram and int(sysfs.value(f"block/{path.name}/disksize") or 0) not in (0, change["bytes"]):
        return  # somebody else's by now
    # A file that is not a swap area (any more) is none of our business.
    if str(path) in procfs.swap_areas() and libc.swapoff(os.fsencode(path)):
        raise SourceError(f"swapoff {path}: {os.strerror(ctypes.get_errno())}")
    if zram:
        Path(f"/sys/block/{path.name}/reset").write_text("1")
        if change["added"]:
            Path("/sys/class/zram-control/hot_remove").write_text(path.name.removeprefix("zram"))
    else:
        path.unlink(missing_ok=True)


def _set_back(change: Change) -> None:
    Path(change["path"]).write_text(change["value"])


UNDO: dict[str, Callable[[Change], None]] = {
    "swap": _swap_off,
    "setting": _set_back,
}
"""What can be undone: ``swap`` (``path``: a zram device of so many ``bytes``, which is reset, and removed if it was
``added``; or a file, which is removed), ``setting`` (``path`` in /proc/sys or /sys, and the ``value`` it had)."""

_SENTENCES = {
    "swap": "swap to {path} turned off",
    "setting": "{path} set back to {value}",
}
