"""Taking a picture of the running machine from /proc, and from the kernel's own memory where BPF can read it.

In this order: which processes there are and which share an mm; of each, its VMAs and page-table entries; by BPF, the
chains and anon_vmas of all VMAs; what the kernel says of every frame found; then once more what looked contradictory.
The machine goes on meanwhile. Frames whose numbers are of different moments are marked ``raced``, processes that could
not be read are counted in ``about``.
"""

from __future__ import annotations

import os
import platform
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from rmap.columns import I64, keep_temporaries
from rmap.live.bpf import memory_or_none
from rmap.live.capture.frames import DEVICE_FILE, VmaColumns, describe, mark_races, mark_special
from rmap.live.capture.kernel_view import KernelView, add_topology
from rmap.live.doctor.abilities import refuse_without_frames
from rmap.live.sources import procfs
from rmap.live.sources.kpage_columns import mapcount_kind
from rmap.live.sources.pagemap_columns import Pagemap, decode, ranges_to_read, split_at
from rmap.live.sources.same_mm import compare_mms, groups
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents
from rmap.structs.memory import KernelMemory
from rmap.units import PAGE_SHIFT, PAGE_SIZE

Progress = Callable[[int, int], None]

_BLOCK = 512  # bytes: the unit of st_blocks

# Files of the kernel's own tmpfs mount, which no list of mounts shows.
_SHMEM_PATHS = ("/memfd:", "/SYSV", "/dev/zero (deleted)")


@dataclass
class _World:
    """What has been read so far. Row numbers are those of the builder."""

    builder: SnapshotBuilder
    vm_flags: bool
    swap_areas: int = field(default_factory=procfs.nr_swap_areas)
    file_systems: dict[int, str] = field(default_factory=procfs.file_systems)
    files: dict[tuple[int, int], int] = field(default_factory=dict)
    device_files: set[int] = field(default_factory=set)
    shmem_devices: set[int] = field(default_factory=procfs.shmem_devices)
    vmas: list[tuple[int, int, int]] = field(default_factory=list)  # pid, file, start
    extents: list[tuple[I64, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class _ReadProcess:
    """One process, read whole."""

    stat: procfs.Stat
    status: dict[str, str]
    vmas: list[procfs.MapsLine]
    address: I64
    entry: I64
    count: I64
    cgroup: str


def capture(
    pids: Iterable[int] | None = None,
    *,
    vm_flags: bool = False,
    progress: Progress | None = None,
    bpf: bool = True,
    memory: KernelMemory | None = None,
    share_of_time: float = 1.0,
) -> Snapshot:
    """Take a picture of the running machine, without the process that takes it.

    Args:
        pids: record only these processes; None means all. Mappers outside show as a mapcount above what is found.
        vm_flags: record every flag of every VMA, even where BPF cannot read them: from smaps, which walks all page
            tables once more.
        progress: called with (processes read, processes in all).
        bpf: record the kernel's own anon_vmas, chains and page indexes, where they can be read (``rmap.live.bpf``).
        memory: an open reader of the kernel's memory to use for that; it stays open.
        share_of_time: read page tables for this share of the time only, and sleep between two processes.

    Raises:
        NotPermitted: the kernel hides page frames or page counts from this user, or does not have them.
    """
    refuse_without_frames()
    keep_temporaries()
    with ExitStack() as stack:
        if bpf and memory is None:
            memory = _kernel_memory(stack)
        return _capture(pids, vm_flags, progress, memory if bpf else None, share_of_time)


def _capture(
    pids: Iterable[int] | None,
    vm_flags: bool,
    progress: Progress | None,
    memory: KernelMemory | None,
    share_of_time: float,
) -> Snapshot:
    every = procfs.pids()
    asked = set(every if pids is None else pids) - {os.getpid()}
    system = os.uname()
    smaps = vm_flags and memory is None
    builder = SnapshotBuilder(
        "kernel",
        host=system.nodename,
        release=system.release,
        machine=platform.machine(),
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        vma_flags="smaps" if smaps else "maps",
        mapcount=mapcount_kind(system.release),
        skipped=sum(map(_has_memory, set(every) - asked - {os.getpid()})),
    )
    world = _World(builder, smaps)
    processes = groups([pid for pid in every if pid in asked], compare_mms)
    for done, (pid, read) in enumerate(_read_all(world, list(processes), share_of_time), 1):
        _add_process(world, pid, processes[pid], read)
        if progress is not None:
            progress(done, len(processes))
    _add_holders(world)
    _add_pages(world, None if memory is None else add_topology(memory, builder))
    return builder.build()


def _kernel_memory(stack: ExitStack) -> KernelMemory | None:
    memory = memory_or_none()
    return None if memory is None else stack.enter_context(memory)


def _has_memory(pid: int) -> bool:
    try:
        return not procfs.read_stat(pid).kernel_thread
    except (FileNotFoundError, ProcessLookupError):
        return False


def _read_process(world: _World, pid: int) -> _ReadProcess | None:
    # None for a process without memory of its own: a kernel thread, a zombie.
    before = procfs.read_stat(pid)
    if before.kernel_thread:
        return None
    vmas = procfs.read_maps(pid, vm_flags=world.vm_flags)
    if not vmas:
        return None
    status = procfs.read_status(pid)
    swapped = int(status.get("VmSwap", "0 kB").split()[0]) * 1024 // PAGE_SIZE
    with Pagemap(pid) as pagemap:
        ranges = ranges_to_read(pagemap, [(line.start, line.end) for line in vmas], before.rss + swapped)
        read = pagemap.read_extents(ranges)
    address, entry, count = split_at(*read, np.array([line.start for line in vmas], np.int64))
    cgroup = procfs.read_cgroup(pid)
    if procfs.read_stat(pid).start_time != before.start_time:
        raise ProcessLookupError(f"pid {pid} was given to another process")
    return _ReadProcess(before, status, vmas, address, entry, count, cgroup)


def _read_all(
    world: _World, pids: list[int], share_of_time: float
) -> Iterator[tuple[int, _ReadProcess | Exception | None]]:
    # Every process in order, read on all processors (it is mostly the kernel's work), or one after the other to be
    # gentle.
    def read(pid: int) -> tuple[int, _ReadProcess | Exception | None]:
        began = time.monotonic()
        try:
            answer: _ReadProcess | Exception | None = _read_process(world, pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError) as error:
            answer = error
        time.sleep((time.monotonic() - began) * (1 / share_of_time - 1))
        return pid, answer

    workers = len(os.sched_getaffinity(0)) if share_of_time == 1 else 1
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(read, pids)


def _add_process(world: _World, pid: int, sharers: list[int], read: _ReadProcess | Exception | None) -> None:
    builder = world.builder
    if isinstance(read, Exception):
        builder.about["refused" if isinstance(read, PermissionError) else "ended"] += 1
        return
    if read is None:
        return
    namespace = procfs.namespace(pid, "pid")
    process = builder.add_process(
        pid,
        ppid=read.stat.ppid,
        pgid=read.stat.pgid,
        start_time=read.stat.start_time,
        pidns=-1 if namespace is None else namespace,
        uid=int(read.status["Uid"].split()[0]),
        comm=read.stat.comm,
        exe=procfs.exe(pid),
        cgroup=read.cgroup,
        page_table_bytes=int(read.status["VmPTE"].split()[0]) * 1024 if "VmPTE" in read.status else -1,
        sharers=sharers,
    )
    first = len(world.vmas)
    for line in read.vmas:
        file = _file(world, pid, line)
        pgoff = line.offset >> PAGE_SHIFT if file >= 0 else -1
        label = line.path if file < 0 else ""
        builder.add_vma(process, line.start, line.end, line.flags, pgoff=pgoff, file=file, label=label)
        world.vmas.append((pid, DEVICE_FILE if file in world.device_files else file, line.start))
    starts = np.array([line.start for line in read.vmas], np.int64)
    vma = np.searchsorted(starts, read.address, side="right") - 1 + first
    pfn, flags = decode(read.entry, world.swap_areas)
    world.extents.append((vma, read.address, pfn, read.count, flags.astype(np.int64)))


def _file(world: _World, pid: int, line: procfs.MapsLine) -> int:
    # The file behind a VMA, by device and inode; -1 for none.
    if not line.inode:
        return -1
    key = (line.dev, line.inode)
    if key not in world.files:
        size, allocated, mode = -1, -1, 0
        try:
            status = os.stat(procfs.map_file(pid, line.start, line.end))
            size, allocated, mode = status.st_size, status.st_blocks * _BLOCK, status.st_mode
        except OSError:  # not permitted, or unmapped meanwhile: the size stays unknown
            pass
        shmem = line.path.startswith(_SHMEM_PATHS) or world.file_systems.get(line.dev) in ("tmpfs", "devtmpfs")
        device = stat.S_ISCHR(mode) or line.path.startswith("anon_inode:")
        kind = f.FILE_DEVICE if device else f.FILE_SHMEM if shmem else f.FILE_REGULAR
        world.files[key] = world.builder.add_file(
            line.path, dev=line.dev, inode=line.inode, size=size, allocated=allocated, kind=kind
        )
        if device:
            world.device_files.add(world.files[key])
    return world.files[key]


def _add_holders(world: _World) -> None:
    # What keeps the memory of the mapped files besides their mappings: open descriptors, names, SysV identifiers.
    builder = world.builder
    for process, row in enumerate(builder.rows("processes")):
        pid = row["pid"]
        held = {_open_file(world, procfs.descriptor(pid, fd), status) for fd, status in procfs.descriptors(pid)}
        for file in sorted(held - {-1}):
            builder.add_holder(file, f.HOLDER_FD, process)
    doomed = procfs.doomed_segments()
    for file, row in enumerate(builder.rows("files")):
        if row["path"].startswith("/SYSV"):
            if row["inode"] in doomed:
                continue
            builder.add_holder(file, f.HOLDER_SYSV)
        elif not row["path"].endswith(" (deleted)"):
            builder.add_holder(file, f.HOLDER_PATH)


def _open_file(world: _World, link: str, status: os.stat_result) -> int:
    # The file behind a descriptor: one that somebody maps, or shared memory that nobody does; else -1.
    key = (status.st_dev, status.st_ino)
    if key not in world.files and status.st_dev in world.shmem_devices and stat.S_ISREG(status.st_mode):
        world.files[key] = world.builder.add_file(
            procfs.read_link(link),
            dev=status.st_dev,
            inode=status.st_ino,
            size=status.st_size,
            allocated=status.st_blocks * _BLOCK,
            kind=f.FILE_SHMEM,
        )
    return world.files.get(key, -1)


def _add_pages(world: _World, view: KernelView | None) -> None:
    # The entries found, marked; and the frames they map.
    if not world.extents:
        return
    extents = Extents(*(np.concatenate(column) for column in zip(*world.extents)))
    pid, file, start = (np.array(column, np.int64) for column in zip(*world.vmas))
    pgoff = np.array([row["pgoff"] for row in world.builder.rows("vmas")], np.int64)
    vmas = VmaColumns(pid, file, start, pgoff)
    frames = describe(extents, vmas)
    doubtful = None
    if view is not None:
        doubtful = view.describe(frames)
        if world.builder.about["pte_write"]:
            extents = view.mark_ptes(extents, vmas, frames, doubtful)
    extents = mark_special(extents, frames)
    links = world.builder.rows("anon_vma_chains")
    linked = np.array([link["vma"] << 32 | link["anon_vma"] for link in links], np.int64)
    mark_races(extents, vmas, frames, linked, doubtful, None if view is None else view.changed)
    if view is not None and world.builder.about["pte_write"]:
        view.settle_writable(extents, vmas, frames)
    world.builder.add_ptes(extents.vma, extents.address, extents.pfn, extents.flags, extents.count)
    world.builder.set_frames(frames.state.pfn, **frames.columns())
    world.builder.about["raced"] = int(frames.state.raced.sum())
