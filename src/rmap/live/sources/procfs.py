"""Reading /proc: processes, their VMAs, their files; and the machine. Text in, small objects out; no judgement.

A process may end between any two reads: what then raises is ``FileNotFoundError`` or ``ProcessLookupError``, and
``PermissionError`` where this user may not look. The caller decides what that means. Where a function takes a pid,
:data:`SELF` is this process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rmap.live.sources.root import root_path
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

SELF = "self"
"""In the place of a pid: the process that asks."""

FIRST_NAMESPACES = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}
"""The numbers of the namespaces that the machine booted with (include/linux/proc_ns.h)."""

_PF_KTHREAD = 0x200000
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


class Stat(NamedTuple):
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
    return sorted(int(name) for name in os.listdir(root_path("/proc")) if name.isdigit())


def owner_of(pid: int) -> int:
    """The uid that a process runs as, as the owner of its folder shows it."""
    return os.stat(root_path(f"/proc/{pid}")).st_uid


def read_stat(pid: int) -> Stat:
    """Read /proc/PID/stat."""
    text = Path(root_path(f"/proc/{pid}/stat")).read_text(errors="replace")
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


def major_faults(pid: int) -> int:
    """How often a process had to wait for a page to be read; 0 if it has ended."""
    try:
        with open(root_path(f"/proc/{pid}/stat"), "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[9])
    except (OSError, ValueError, IndexError):
        return 0


def read_status(pid: int | str) -> dict[str, str]:
    """Read /proc/PID/status: name to value."""
    lines = Path(root_path(f"/proc/{pid}/status")).read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capabilities() -> int:
    """The effective capabilities of this process, a bit for each (include/uapi/linux/capability.h)."""
    return int(read_status(SELF)["CapEff"], 16)


def threads_of(pid: int) -> list[int]:
    """The threads of a process, ascending."""
    return sorted(int(name) for name in os.listdir(root_path(f"/proc/{pid}/task")))


def run_times(pid: int) -> tuple[str, ...]:
    """For each thread of a process what grows whenever it runs."""
    return tuple(_run_time(root_path(f"/proc/{pid}/task/{tid}")) for tid in os.listdir(root_path(f"/proc/{pid}/task")))


def _run_time(task: str) -> str:
    # Nanoseconds on a CPU; where the kernel does not count them, switches to another task.
    try:
        return Path(f"{task}/schedstat").read_text().split()[0]
    except FileNotFoundError:
        lines = Path(f"{task}/status").read_text().splitlines()
        return "".join(line for line in lines if "ctxt_switches" in line)


# -- memory maps -------------------------------------------------------------------------------------------------------


def read_maps(pid: int, *, vm_flags: bool = False) -> list[MapsLine]:
    """Read a process's VMAs, in order of address; ``[vsyscall]`` is left out (it lies beyond every offset).

    Args:
        vm_flags: read /proc/PID/smaps, which shows every flag, and walks all page tables to do so. Without, the flags
            that /proc/PID/maps does not show are as a plain mapping has them.
    """
    # The kernel writes the list a page at a time: a process that maps meanwhile can make it contradict itself.
    for _ in range(3):
        text = Path(root_path(f"/proc/{pid}/{'smaps' if vm_flags else 'maps'}")).read_bytes().decode(errors="replace")
        lines = parse_smaps(text) if vm_flags else [parse_maps_line(line) for line in text.split("\n") if line]
        vmas = [line for line in lines if line.path != "[vsyscall]"]
        if all(left.end <= right.start for left, right in pairwise(vmas)):
            return vmas
    raise ProcessLookupError(f"the memory map of process {pid} does not hold still")


def maps_text(pid: int) -> bytes:
    """/proc/PID/maps as it is: for those who look for a few lines of it."""
    with open(root_path(f"/proc/{pid}/maps"), "rb", buffering=0) as file:
        return file.readall()


def has_memory(pid: int) -> bool:
    """Whether a process has any VMA; a thread of the kernel and a zombie have none.

    Raises:
        FileNotFoundError, ProcessLookupError: there is no such process.
        PermissionError: this user may not see its VMAs.
    """
    with open(root_path(f"/proc/{pid}/maps"), "rb", buffering=0) as file:
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


@cache
def _flags_of(perms: str) -> int:
    # There are few different ones, and thousands of lines.
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


def areas_with_anonymous_pages() -> int:
    """How many VMAs of this process have anonymous pages."""
    with open(root_path("/proc/self/smaps"), "rb") as smaps:
        return sum(line.split()[1] != b"0" for line in smaps if line.startswith(b"Anonymous:"))


# -- cgroups and namespaces --------------------------------------------------------------------------------------------


def read_cgroup(pid: int) -> str:
    """The path of the cgroup that a process's memory is charged to: of the v1 memory hierarchy, else of v2."""
    unified = ""
    for line in Path(root_path(f"/proc/{pid}/cgroup")).read_text(errors="replace").splitlines():
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


def namespace(pid: int | str, kind: str) -> int | None:
    """The number of a namespace (``pid``, ``user``, ``mnt``) that a process is in.

    Returns:
        None if it has ended, or this user may not see it.
    """
    number = read_link(root_path(f"/proc/{pid}/ns/{kind}")).strip(f"{kind}:[]")
    return int(number) if number.isdigit() else None


# -- files of a process ------------------------------------------------------------------------------------------------


def exe(pid: int) -> str:
    """The program that a process runs, as :func:`read_link` gives it."""
    return read_link(root_path(f"/proc/{pid}/exe"))


def map_file(pid: int, start: int, end: int) -> str:
    """The link that leads to the file of a VMA, deleted or of another mount namespace as it may be; bytes."""
    return root_path(f"/proc/{pid}/map_files/{start:x}-{end:x}")


def descriptor(pid: int, number: int | str) -> str:
    """The link that leads to an open file of a process."""
    return root_path(f"/proc/{pid}/fd/{number}")


def below_root(pid: int, path: str) -> str:
    """The path by which a file is reached that a process in another mount namespace calls by an absolute path."""
    return root_path(f"/proc/{pid}/root{path}")


def descriptors(pid: int) -> list[tuple[str, os.stat_result]]:
    """The open files of a process, number and stat; what may not be seen, or is closed meanwhile, is left out."""
    seen = []
    try:
        names = os.listdir(root_path(f"/proc/{pid}/fd"))
    except OSError:
        return []
    for name in names:
        try:
            seen.append((name, os.stat(descriptor(pid, name))))
        except OSError:
            continue
    return seen


def own_descriptor(fd: int) -> str:
    """The link that leads to an open file of this process: on the running machine, wherever else is read."""
    return f"/proc/self/fd/{fd}"


def read_link(path: str) -> str:
    """A link's target, ``""`` if this user may not see it or it is gone."""
    try:
        return os.fsencode(os.readlink(path)).decode(errors="replace")
    except OSError:
        return ""


# -- the machine -------------------------------------------------------------------------------------------------------


def file_systems() -> dict[int, str]:
    """The type of the file system behind each device number, of the mounts this process sees."""
    types: dict[int, str] = {}
    for line in Path(root_path("/proc/self/mountinfo")).read_text(errors="replace").splitlines():
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
    from rmap.uapi.mman import SHM_DEST

    try:
        lines = Path(root_path("/proc/sysvipc/shm")).read_text().splitlines()[1:]
    except OSError:
        return set()
    return {int(fields[1]) for fields in map(str.split, lines) if int(fields[2], 8) & SHM_DEST}


def swap_areas() -> list[str]:
    """The devices and files that are swapped to.

    Raises:
        FileNotFoundError: this kernel cannot swap.
    """
    return [line.split()[0] for line in Path(root_path("/proc/swaps")).read_text().splitlines()[1:]]


def nr_swap_areas() -> int:
    """How many swap areas are in use."""
    try:
        return len(swap_areas())
    except OSError:
        return 0


def meminfo(name: str) -> int:
    """A line of /proc/meminfo, in bytes; 0 if there is none of this name."""
    with open(root_path("/proc/meminfo")) as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:")), 0)


def vmstat() -> dict[str, int]:
    """/proc/vmstat: name to value.

    Raises:
        OSError: this kernel does not count events.
    """
    lines = Path(root_path("/proc/vmstat")).read_text().splitlines()
    return {name: int(number) for name, number in map(str.split, lines)}


def sysctl(name: str) -> str:
    """A setting of the kernel, ``vm/page-cluster``.

    Raises:
        OSError: there is none of this name, or this user may not read it.
    """
    return Path(root_path(f"/proc/sys/{name}")).read_text().strip()


def cpu_flags() -> set[str]:
    """What the processor can do, by the names that x86 has for it; none of another architecture."""
    text = Path(root_path("/proc/cpuinfo")).read_text(errors="replace")
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set() if flags is None else set(flags[1].split())


def own_mount_options() -> list[str] | None:
    """The options that /proc itself is mounted with; None if the list of mounts does not have it."""
    for line in Path(root_path("/proc/self/mounts")).read_text(errors="replace").splitlines():
        _, place, kind, options, *_ = line.split()
        if (place, kind) == ("/proc", "proc"):
            return options.split(",")
    return None
