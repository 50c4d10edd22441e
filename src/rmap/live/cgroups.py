"""Memory cgroups, v1 and v2: which one a page is charged to, what it holds, and pushing its memory out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rmap.errors import SourceError


@dataclass(frozen=True)
class Cgroup:
    """A memory cgroup.

    Attributes:
        path: as /proc/PID/cgroup has it; ``/`` is the root.
        folder: where its files are.
        version: 1 or 2.
    """

    path: str
    folder: Path
    version: int

    @property
    def is_root(self) -> bool:
        """Whether it is the root, whose memory is everybody's."""
        return self.path == "/"

    def usage(self) -> int:
        """What is charged to it and to those below it; bytes, 0 if it does not say."""
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError):
            return 0

    @property
    def means(self) -> str:
        """The file that pushes its memory out."""
        return "memory.reclaim" if self.version == 2 else "memory.force_empty"

    def push_out(self) -> str:
        """Ask the kernel to push out its memory, all of it; what the kernel answered, ``""`` if nothing.

        An error of the kernel is not raised: what went and what stayed is to be looked at anyway.
        """
        request = f"{self.usage()}\n" if self.version == 2 else "0\n"
        try:
            (self.folder / self.means).write_text(request)
        except OSError as error:
            return error.strerror or str(error)
        return ""


@cache
def hierarchy() -> tuple[Path, int]:
    """Where the memory hierarchy is mounted, and its version.

    Raises:
        SourceError: nowhere that this process sees.
    """
    unified = None
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(place), 1
        if kind == "cgroup2":
            unified = Path(place)
    if unified is None:
        raise SourceError("no memory cgroup hierarchy is mounted here")
    return unified, 2


def by_inode(inodes: set[int]) -> dict[int, Cgroup]:
    """The cgroups that /proc/kpagecgroup names by their inodes; those without a path any more are left out.

    Raises:
        SourceError: no hierarchy is mounted.
    """
    top, version = hierarchy()
    found: dict[int, Cgroup] = {}
    for folder, names, _ in os.walk(top):
        try:
            inode = os.stat(folder).st_ino
        except OSError:
            continue
        if inode in inodes:
            below = os.path.relpath(folder, top)
            found[inode] = Cgroup("/" if below == "." else "/" + below, Path(folder), version)
        if len(found) == len(inodes):
            break
        names.sort()
    return found
