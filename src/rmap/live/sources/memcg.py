"""Memory cgroups: by the inode that /proc/kpagecgroup shows, how much is charged, and reclaiming one as a whole.

The memory controller is on the v1 hierarchy or on the unified one; inode numbers are of that hierarchy alone. A
removed cgroup never shows: the kernel names its nearest ancestor that is still there (``page_cgroup_ino``,
``mm/memcontrol.c``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rmap.live.sources.root import root_path

_POLL = 0.005


@dataclass(frozen=True)
class Hierarchy:
    """Where the memory controller is.

    Attributes:
        version: 1 or 2.
        folder: where it is mounted, as the kernel says it.
        whole: from its root on; not so in a namespace of cgroups.
    """

    version: int
    folder: Path
    whole: bool


@dataclass(frozen=True)
class MemCgroup:
    """A cgroup of the memory controller.

    Attributes:
        folder: where its files can be read and written.
        path: as in /proc/PID/cgroup.
        root: the root of all: it has no limit, and is not reclaimed by itself.
    """

    version: int
    folder: Path
    path: str
    root: bool

    @property
    def usage(self) -> int | None:
        """Bytes charged to it and to those below it; None for the root of version 2."""
        name = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        try:
            return int((self.folder / name).read_text())
        except OSError:
            return None

    @property
    def reclaimer(self) -> str:
        """The file that reclaims it when written to."""
        return "memory.force_empty" if self.version == 1 else "memory.reclaim"


def hierarchy() -> Hierarchy | None:
    """The hierarchy with the memory controller, None if none is mounted here."""
    unified = None
    for line in Path(root_path("/proc/self/mountinfo")).read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        fields = before.split()
        if kind == "cgroup" and "memory" in options.split(" ")[-1].split(","):
            return Hierarchy(1, Path(fields[4]), fields[3] == "/")
        if kind == "cgroup2" and unified is None:
            unified = Hierarchy(2, Path(fields[4]), fields[3] == "/")
    if unified is None or "memory" not in _controllers(unified.folder):
        return None
    return unified


def _controllers(folder: Path) -> list[str]:
    try:
        return Path(root_path(f"{folder}/cgroup.controllers")).read_text().split()
    except OSError:
        return []


def cgroup_of(inode: int) -> MemCgroup | None:
    """The cgroup with an inode, None if there is none here."""
    memory = hierarchy()
    if memory is None or not inode:
        return None
    top = Path(root_path(str(memory.folder)))
    for folder, below, _ in os.walk(top):
        path = Path(folder)
        with contextlib.suppress(OSError):
            if path.stat().st_ino == inode:
                relative = path.relative_to(top)
                return MemCgroup(memory.version, path, "/" + ("" if str(relative) == "." else str(relative)),
                                 memory.whole and path == top and not _is_limited(memory, path))  # fmt: skip
        below.sort()
    return None


def _is_limited(memory: Hierarchy, path: Path) -> bool:
    # The root of version 2 has no memory.current; inside a namespace of cgroups the topmost is not the root.
    return memory.version == 2 and (path / "memory.current").exists()


def reclaim(cgroup: MemCgroup, done: Callable[[], bool], *, patience: float) -> str:
    """Push memory of a cgroup out until nothing more goes, or ``done`` says that it is enough.

    A process of its own asks the kernel, which goes on until everything is out: it is ended as soon as it is enough.

    Args:
        patience: seconds after which it is given up.

    Returns:
        what hindered it, in words; ``""`` if nothing.
    """
    wanted = "0" if cgroup.version == 1 else str(cgroup.usage or 0)
    child = os.fork()
    if child == 0:
        _write_and_exit(cgroup.folder / cgroup.reclaimer, wanted)
    end, answer = time.monotonic() + patience, 0
    try:
        while True:
            gone, answer = os.waitpid(child, os.WNOHANG)
            if gone:
                child = 0
                break
            if done():
                return ""
            if time.monotonic() > end:
                return f"given up after {patience:.0f} s"
            time.sleep(_POLL)
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(answer)
    return f"the kernel answered: {os.strerror(number)}" if number > 0 else ""


def _write_and_exit(path: Path, text: str) -> None:
    # The exit status tells the error.
    code = 0
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, text.encode())
    except OSError as error:
        code = error.errno or 1
    finally:
        os._exit(code)
