"""Reading /proc: processes, their VMAs, their files. Text in, small objects out; no judgement.

A process may end between any two reads: what then raises is ``FileNotFoundError`` or ``ProcessLookupError``, and
``PermissionError`` where this user may not look. The caller decides what that means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rmap.uapi.vm_flags import (
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
)

_PF_KTHREAD = 0x200000
_SHM_DEST = 0o1000
_OCTAL = re.compile(r"\\([0-7]{3})")

_LETTERS = (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC))
_MAY = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC

# The two-letter codes of the VmFlags line of smaps.
_VM_FLAGS = {
    "rd": VM_READ,
    "wr": VM_WRITE,
    "ex": VM_EXEC,
    "sh": VM_SHARED,
    "mr": VM_MAYREAD,
    "mw": VM_MAYWRITE,
    "me": VM_MAYEXEC,
    "ms": VM_MAYSHARE,
    "gd": VM_GROWSDOWN,
    "pf": VM_PFNMAP,
    "lo": VM_LOCKED,
    "io": VM_IO,
    "sr": VM_SEQ_READ,
    "rr": VM_RAND_READ,
    "dc": VM_DONTCOPY,
    "de": VM_DONTEXPAND,
    "lf": VM_LOCKONFAULT,
    "ac": VM_ACCOUNT,
    "nr": VM_NORESERVE,
    "ht": VM_HUGETLB,
    "wf": VM_WIPEONFORK,
    "dd": VM_DONTDUMP,
    "mm": VM_MIXEDMAP,
    "hg": VM_HUGEPAGE,
    "nh": VM_NOHUGEPAGE,
    "mg": VM_MERGEABLE,
}


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat tells. ``start_time`` in clock ticks since boot, ``rss`` in pages."""

    pid: int
    comm: str
    ppid: int
    pgid: int
    start_time: int
    rss: int
    kernel_thread: bool


class MapsLine(NamedTuple):
    """One VMA. ``flags`` are ``VM_*`` bits, ``offset`` bytes into the file, ``path`` also ``[heap]`` and the like."""

    start: int
    end: int
    flags: int
    offset: int
    dev: int
    inode: int
    path: str


def pids() -> list[int]:
    """Every process this /proc shows, ascending."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def read_stat(pid: int) -> Stat:
    """Read /proc/PID/stat."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    before, _, after = text.rpartition(")")
    rest = after.split()
    return Stat(
        pid=pid,
        comm=before.partition("(")[2],
        ppid=int(rest[1]),
        pgid=int(rest[2]),
        start_time=int(rest[19]),
        rss=int(rest[21]),
        kernel_thread=bool(int(rest[6]) & _PF_KTHREAD),
    )


def read_status(pid: int) -> dict[str, str]:
    """Read /proc/PID/status: name to value."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def read_maps(pid: int, *, vm_flags: bool = False) -> list[MapsLine]:
    """Read a process's VMAs, in order of address; ``[vsyscall]`` is left out (it lies beyond every offset).

    Args:
        vm_flags: read /proc/PID/smaps, which shows every flag, and walks all page tables to do so. Without, the flags
            that /proc/PID/maps does not show are as a plain mapping has them.
    """
    # The kernel writes the list a page at a time: a process that maps meanwhile can make it contradict itself.
    for _ in range(3):
        text = Path(f"/proc/{pid}/{'smaps' if vm_flags else 'maps'}").read_bytes().decode(errors="replace")
        lines = parse_smaps(text) if vm_flags else [parse_maps_line(line) for line in text.split("\n") if line]
        vmas = [line for line in lines if line.path != "[vsyscall]"]
        if all(left.end <= right.start for left, right in pairwise(vmas)):
            return vmas
    raise ProcessLookupError(f"the memory map of process {pid} does not hold still")


def has_memory(pid: int) -> bool:
    """Whether a process has any VMA; a thread of the kernel and a zombie have none.

    Raises:
        FileNotFoundError, ProcessLookupError: there is no such process.
        PermissionError: this user may not see its VMAs.
    """
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        return bool(file.read(1))


def parse_maps_line(line: str) -> MapsLine:
    """Read one line of /proc/PID/maps."""
    span, perms, offset, dev, inode, *path = line.split(maxsplit=5)
    start, _, end = span.partition("-")
    name = path[0] if path else ""
    return MapsLine(
        start=int(start, 16),
        end=int(end, 16),
        flags=_flags_of(perms),
        offset=int(offset, 16),
        dev=_device_of(dev),
        inode=int(inode),
        path=_OCTAL.sub(lambda code: chr(int(code[1], 8)), name) if "\\" in name else name,
    )


# There are few different ones, and thousands of lines.
@cache
def _flags_of(perms: str) -> int:
    flags = sum(bit for letter, bit in _LETTERS if letter in perms) | _MAY
    return flags | VM_SHARED | VM_MAYSHARE if perms[3] == "s" else flags


@cache
def _device_of(dev: str) -> int:
    major, _, minor = dev.partition(":")
    return os.makedev(int(major, 16), int(minor, 16))


def parse_smaps(text: str) -> list[MapsLine]:
    """Read /proc/PID/smaps: the same lines, each followed by its counters and its VmFlags."""
    vmas: list[MapsLine] = []
    for line in text.split("\n"):
        head = line.partition(" ")[0]
        if head == "VmFlags:":
            last = vmas.pop()
            flags = vm_flags_of(line.split()[1:])
            vmas.append(MapsLine(last.start, last.end, flags, last.offset, last.dev, last.inode, last.path))
        elif "-" in head and not head.endswith(":"):
            vmas.append(parse_maps_line(line))
    return vmas


def vm_flags_of(codes: Iterable[str]) -> int:
    """The ``VM_*`` bits behind the two-letter codes of a VmFlags line; codes of other flags count as none."""
    return sum(_VM_FLAGS.get(code, 0) for code in codes)


def read_cgroup(pid: int) -> str:
    """The path of the cgroup that a process's memory is charged to: of the v1 memory hierarchy, else of v2."""
    unified = ""
    for line in Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
        if not controllers:
            unified = path
    return unified


def pids_of_cgroup(path: str) -> list[int]:
    """The processes of a cgroup, named as by :func:`read_cgroup`, and of those below it; ascending."""
    top = "/" + path.strip("/")
    inside = []
    for pid in pids():
        try:
            cgroup = read_cgroup(pid)
        except OSError:
            continue
        if cgroup == top or cgroup.startswith(top.rstrip("/") + "/"):
            inside.append(pid)
    return inside


def read_link(path: str) -> str:
    """A link's target, ``""`` if this user may not see it or it is gone."""
    try:
        return os.fsencode(os.readlink(path)).decode(errors="replace")
    except OSError:
        return ""


def file_systems() -> dict[int, str]:
    """The type of the file system behind each device number, of the mounts this process sees."""
    types: dict[int, str] = {}
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields = line.split()
        major, _, minor = fields[2].partition(":")
        types[os.makedev(int(major), int(minor))] = fields[fields.index("-") + 1]
    return types


def shmem_devices() -> set[int]:
    """Device numbers of shared memory: the kernel's own tmpfs, where memfds live, and those that are mounted."""
    fd = os.memfd_create("rmap")
    try:
        return {os.fstat(fd).st_dev, *(dev for dev, kind in file_systems().items() if kind in ("tmpfs", "devtmpfs"))}
    finally:
        os.close(fd)


def doomed_segments() -> set[int]:
    """SysV segments that go with their last mapping (IPC_RMID was asked for): their numbers, which are their inodes."""
    try:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except OSError:
        return set()
    return {int(fields[1]) for fields in map(str.split, lines) if int(fields[2], 8) & _SHM_DEST}


def nr_swap_areas() -> int:
    """How many swap areas are in use."""
    try:
        return max(0, len(Path("/proc/swaps").read_text().splitlines()) - 1)
    except OSError:
        return 0
