"""Small traces for the tests."""

from __future__ import annotations

from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.trace import TraceBuilder
from rmap.trace import tables as t

RW = 0x73
MMAP, MUNMAP = 9, 11
AT = 0x7F00_0000_0000


def snapshot(*pids: int) -> Snapshot:
    """Processes with one VMA each."""
    builder = SnapshotBuilder("kernel")
    for pid in pids:
        builder.add_vma(builder.add_process(pid, comm="prog"), AT, AT + 0x2000, RW, label="[stack]")
    return builder.build()


def parent_and_child() -> TraceBuilder:
    """An exec, a mapping of a file, a fault, a fork, a checkpoint, two exits, the end; 11 events, 3 pictures."""
    builder = TraceBuilder(command=["prog", "--fast"], host="here")
    file = builder.file("/lib/libc.so.6", dev=os_dev(8, 1), inode=77, size=0x20000)
    opened = builder.open(file, writable=False)
    builder.exec(100, snapshot(100))
    builder.syscall(100, MMAP, 0, 0x2000, 1, 2, 3, 0, result=AT + 0x10000, file=opened)
    builder.fault(100, AT + 0x10000)
    builder.fault(100, AT, write=True, kernel=True, error=t.PROTECTION)
    builder.event(t.RESIZED, 100, 0x30000, file=opened)
    builder.fork(100, 101, flags=t.CLONE_VFORK)
    builder.checkpoint(snapshot(100, 101))
    builder.event(t.GONE_ON, -1, t.RECLAIM, 32, tid=-1)
    builder.exit(101)
    builder.checkpoint(snapshot(100), end=True)
    builder.exit(100)
    return builder


def os_dev(major: int, minor: int) -> int:
    """A device number below 2^16, as the C library makes it."""
    return major << 8 | minor
