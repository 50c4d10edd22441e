"""Files in a recording: which open is behind a mapping, what it is, how large."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from rmap.live.record import raw
from rmap.live.record.actors import Actors
from rmap.live.record.assemble import Assembler, LateAssembler
from rmap.live.record.by_perf import _Reader as PerfReader
from rmap.snapshot import Snapshot, SnapshotBuilder
from rmap.trace import Trace, TraceBuilder
from rmap.trace import tables as t
from rmap.trace.spool import Spool, part_of
from tests.support.recording import calls, python, recorded, rows
from tests.support.waiting import until

MMAP, FTRUNCATE, FALLOCATE, OPENAT, SHMAT = 9, 77, 285, 257, 30
FDS = """
import ctypes, mmap, os, sys
path = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def map(fd, length=4096, prot=1, flags=2):
    at = libc.mmap(None, length, prot, flags, fd, 0)
    assert at not in (None, 2**64 - 1), ctypes.get_errno()
    return at
"""


def program(path: Path, text: str) -> list[str]:
    return [*python(FDS + text), str(path)]


@pytest.mark.needs("recording")
@pytest.mark.live
def test_two_opens_of_one_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(8192))
    text = """
one = os.open(path, os.O_RDONLY); two = os.open(path, os.O_RDWR)
map(one); map(two, prot=3, flags=1); map(one); map(os.dup(two))
"""
    trace, _ = recorded(tmp_path / "t.trace", program(path, text))
    inode = os.stat(path).st_ino
    file = [row for row, number in enumerate(trace.files.inode.tolist()) if number == inode]
    assert len(file) == 1 and trace.files.path[file[0]] == str(path) and trace.files.size[file[0]] == 8192
    assert trace.files.dev[file[0]] == os.stat(path).st_dev
    opens = [
        call["file"] for call in calls(trace, MMAP) if call["file"] >= 0 and trace.opens.file[call["file"]] == file
    ]
    one, two = opens[:2]
    assert one != two and opens == [one, two, one, two]
    assert trace.opens.writable[[one, two]].tolist() == [0, 1]


@pytest.mark.needs("recording")
@pytest.mark.live
def test_the_memory_of_a_struct_file_is_used_again(tmp_path: Path) -> None:
    """A hundred files opened, mapped, unmapped, closed: few addresses for the kernel, a hundred rows in the trace."""
    text = """
for n in range(100):
    name = f"{path}{n}"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT); os.write(fd, bytes(4096 * (n + 1))); os.close(fd)
    fd = os.open(name, os.O_RDONLY); at = map(fd); os.close(fd); libc.munmap(ctypes.c_void_p(at), 4096)
"""
    trace, _ = recorded(tmp_path / "t.trace", program(tmp_path / "many", text))
    mine = {row: size for row, size in enumerate(trace.files.size.tolist()) if "many" in trace.files.path[row]}
    assert sorted(mine.values()) == [4096 * (n + 1) for n in range(100)]
    mapped = [int(trace.opens.file[call["file"]]) for call in calls(trace, MMAP) if call["file"] >= 0]
    assert [row for row in mapped if row in mine] == sorted(mine), "in the order they were opened"


@pytest.mark.needs("recording")
@pytest.mark.live
def test_sizes_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(4096))
    text = """
fd = os.open(path, os.O_RDWR)
map(fd); os.pwrite(fd, b"x", 20000); map(fd)
os.ftruncate(fd, 50000); os.posix_fallocate(fd, 0, 70000); map(fd)
os.close(os.open(path, os.O_RDWR | os.O_TRUNC))
"""
    trace, _ = recorded(tmp_path / "t.trace", program(path, text))
    events = trace.events
    assert events.a0[rows(trace, t.RESIZED)].tolist() == [20001], "by write; what a call says is not said twice"
    (truncated,), (allocated,) = calls(trace, FTRUNCATE), calls(trace, FALLOCATE)
    assert (truncated["a1"], truncated["a5"], allocated["a5"]) == (50000, 50000, 70000)
    assert truncated["file"] == allocated["file"] >= 0
    opened = calls(trace, OPENAT)[-1]
    assert opened["a5"] == 0 and opened["file"] != truncated["file"]
    assert trace.opens.file[opened["file"]] == trace.opens.file[truncated["file"]]


@pytest.mark.needs("recording")
@pytest.mark.live
def test_memory_files_and_devices_are_marked(tmp_path: Path) -> None:
    text = """
fd = os.memfd_create("box"); os.ftruncate(fd, 8192); map(fd, 8192, 3, 1)
map(-1, 8192, 3, 0x21)
map(os.open("/dev/zero", os.O_RDWR), 4096, 3, 2)
key = libc.shmget(0, 4096, 0o1600); libc.shmat.restype = ctypes.c_void_p
libc.shmat(key, None, 0); libc.shmctl(key, 0, None)
"""
    trace, _ = recorded(tmp_path / "t.trace", program(tmp_path, text))

    def kind(call: dict[str, int]) -> tuple[int, int, str]:
        file = int(trace.opens.file[call["file"]])
        return int(trace.files.shmem[file]), int(trace.files.device[file]), trace.files.path[file]

    memfd, shared, zero = (kind(call) for call in calls(trace, MMAP)[-3:])
    assert memfd[:2] == (1, 0) and "box" in memfd[2]
    assert shared[:2] == (1, 0) and "zero" in shared[2]
    assert zero[:2] == (0, 1) and zero[2] == "/dev/zero"
    (attached,) = calls(trace, SHMAT)
    assert kind(attached)[0] == 1 and attached["result"] > 0


@pytest.mark.needs("recording")
@pytest.mark.live
def test_pages_that_reclaim_takes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "clean"
    path.write_bytes(os.urandom(256 * 4096))
    os.sync()
    actors = Actors()
    assert actors.why_not is None

    def paged_out() -> bool:
        """The kernel leaves alone what it finds busy, or used just now: it may take more than one turn."""
        actors.news()
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as area,
        ):
            sum(area[page] for page in range(0, 256 * 4096, 4096))
            area.madvise(21)  # MADV_PAGEOUT
        return actors.news().get(t.RECLAIM, 0) >= 100

    try:
        until(paged_out)
    finally:
        actors.close()


# ---- without a kernel: rows in, trace out


def row(time: int, kind: int, pid: int, *arguments: int, nr: int = 0, tid: int = 0, result: int = 0, file: int = 0):
    padded = [*arguments, *[0] * (6 - len(arguments))]
    return np.array([[time, kind | nr << 32, pid | (tid or pid) << 32, *padded, result, file]], np.int64)


def name_row(address: int, text: str) -> np.ndarray:
    words = np.frombuffer(text.encode().ljust(48, b"\0"), np.int64).tolist()
    return row(1, raw.NAME, 9, *words, file=address)


def file_row(address: int, inode: int, *, size: int = 4096, bits: int = 0, generation: int = 0, nr: int = 0):
    return row(1, raw.FILE, 9, 8 << 20 | 1, inode, size, bits, -1, generation, file=address, nr=nr)


def snapshot(pid: int) -> Snapshot:
    builder = SnapshotBuilder("kernel")
    builder.add_vma(builder.add_process(pid), 0x1000, 0x2000, 3)
    return builder.build()


def mapping(time: int, file: int) -> np.ndarray:
    return row(time, t.SYSCALL, 9, nr=MMAP, file=file)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(part_of(tmp_path / "x.trace"), TraceBuilder(recorder="bpf").about)


def test_an_address_stands_for_what_was_said_last(spool: Spool) -> None:
    whole = Assembler(spool)
    address = -0x77770000
    first = [name_row(address, "a"), file_row(address, 5), mapping(2, address)]
    again = [file_row(address, 6), mapping(3, address), mapping(4, address), file_row(address, 5), mapping(5, address)]
    other = [file_row(address, 5, generation=1), mapping(6, address)]
    writable = [file_row(address, 5, bits=1), mapping(7, address)]
    whole.add(np.concatenate([*first, *again]))
    whole.finish(np.concatenate([*other, *writable]))
    trace = Trace.load(spool.folder)
    assert trace.events.file.tolist() == [0, 1, 1, 0, 2, 3]
    assert trace.opens.file.tolist() == [0, 1, 2, 0] and trace.opens.writable.tolist() == [0, 0, 0, 1]
    assert trace.files.path == ["a", "", ""] and trace.files.dev.tolist() == [os.makedev(8, 1)] * 3


def test_a_size_that_a_call_has_set_is_known(spool: Spool) -> None:
    """So that a later change back to the first size is seen, too."""
    whole = Assembler(spool)
    truncate = row(3, t.SYSCALL, 9, 3, 0, 0, 0, 0, 9000, nr=FTRUNCATE, file=77)
    whole.add(np.concatenate([file_row(77, 5), mapping(2, 77), truncate, file_row(78, 5), mapping(4, 78)]))
    whole.finish(np.concatenate([file_row(79, 5, size=9000), mapping(5, 79)]))
    events = Trace.load(spool.folder).events
    assert events.a0[events.kind == t.RESIZED].tolist() == [4096, 9000]


def test_rows_after_an_exec_wait_for_its_picture(spool: Spool) -> None:
    whole = Assembler(spool)
    rows_in = [row(1, t.EXEC, 5), row(2, t.FAULT, 6), row(3, t.EXEC, 6), row(4, t.FAULT, 5), row(5, t.EXEC, 7)]
    whole.add(np.concatenate(rows_in))
    assert len(Trace.load(spool.folder).events) == 0
    whole.exec_snapshot(6, snapshot(6))
    assert len(Trace.load(spool.folder).events) == 0
    whole.exec_snapshot(5, snapshot(5))
    assert Trace.load(spool.folder).events.kind.tolist() == [t.EXEC, t.FAULT, t.EXEC, t.FAULT]
    whole.checkpoint(snapshot(6), t.AT_CHECKPOINT, 9)
    whole.finish(row(10, t.EXIT, 7))
    trace = Trace.load(spool.folder)
    assert trace.events.kind.tolist() == [t.EXEC, t.FAULT, t.EXEC, t.FAULT, t.CHECKPOINT, t.EXIT], "7 died at its exec"
    assert [p.pid for p in trace.moments] == [5, 6, -1]


def test_an_exec_whose_record_was_lost_has_its_picture_all_the_same(spool: Spool) -> None:
    whole = Assembler(spool)
    whole.add(row(1, t.FAULT, 5))
    whole.exec_snapshot(5, snapshot(5))
    whole.exec_snapshot(6, None)
    whole.add(np.concatenate([row(2**62, t.EXEC, 5), row(2**62, t.FAULT, 5)]))
    whole.exec_snapshot(5, snapshot(5))
    whole.add(np.concatenate([row(2**62, t.EXEC, 7), row(2**62, t.EXIT, 7)]))
    trace = Trace.load(spool.folder)
    assert trace.events.kind.tolist() == [t.FAULT, t.EXEC, t.EXEC, t.FAULT, t.EXIT], "what was killed waits for nothing"
    assert whole.unseen_execs == 1


def test_clocks_of_two_processors_do_not_go_back(spool: Spool) -> None:
    whole = Assembler(spool)
    whole.add(np.concatenate([row(10, t.FAULT, 5), row(8, t.FAULT, 6), row(11, t.FAULT, 5)]))
    whole.finish(row(9, t.FAULT, 6))
    events = Trace.load(spool.folder).events
    assert events.time.tolist() == [10, 10, 11, 11] and events.pid.tolist() == [5, 6, 5, 6]


def test_a_late_recorder_gets_its_pictures_by_time(spool: Spool) -> None:
    whole = LateAssembler(spool)
    whole.exec_snapshot(5, snapshot(5))
    whole.exec_snapshot(6, None)
    whole.exec_snapshot(5, snapshot(5))
    assert Trace.load(spool.folder).events.kind.tolist() == [t.EXEC, t.EXEC], "kept even if the rest never comes"
    late = [row(3, t.FAULT, 5), row(1, t.EXEC, 5), row(2, t.FAULT, 5), row(4, t.EXEC, 6), row(5, t.EXEC, 5)]
    whole.finish(np.concatenate([*late, row(6, t.FAULT, 5)]))
    trace = Trace.load(spool.folder)
    assert trace.events.kind.tolist() == [t.EXEC, t.FAULT, t.FAULT, t.EXEC, t.FAULT]
    assert trace.events.time.tolist() == [1, 2, 3, 5, 6]


REGISTERS = "ABI:2    DX:0x1    SI:0x3000    DI:0xffffffffffff8000    R8:0x3    R9:0x7000   R10:0x2"
PERF = f"""
    7/7       10.000000001:         raw_syscalls:sys_exit: NR 11 = 0 {REGISTERS}
    7/7       10.000000002:       sched:sched_process_exec: filename=/bin/x pid=7 old_pid=7
    7/7       10.000000004: PERF_RECORD_MMAP2 7/7: [0x7f0000000000(0x3000) @ 0 fe:00 41 5]: r--p /lib/a b.so
    7/7       10.000000005:         raw_syscalls:sys_exit: NR 9 = 139637976727552 {REGISTERS}
    7/7       10.000000005:        raw_syscalls:sys_enter: NR 59 (5555, 6666, 7777, 0, 0, 0)
    7/7       10.000000005: exceptions:page_fault_kernel: address=0x5555 ip=copy error_code=0x0 {REGISTERS}
    7/7       10.000000005:         raw_syscalls:sys_exit: NR 59 = -2 {REGISTERS}
    7/7       10.000000006:   exceptions:page_fault_user: address=0x7f0000000010 ip=0x55 error_code=0x4 {REGISTERS}
    7/7       10.000000006:         raw_syscalls:sys_exit: NR 9 = 139637976727552 ABI:0
    7/7       10.000000007:        raw_syscalls:sys_enter: NR 59 (5555, 6666, 7777, 0, 0, 0)
    7/7       10.000000008: exceptions:page_fault_kernel: address=0x7ffc00000000 ip=copy error_code=0x2
    7/8       10.000000009: PERF_RECORD_FORK(9:9):(7:8)
    9/9       10.000000010: exceptions:page_fault_kernel: address=0xffff888000000000 ip=x error_code=0x0
    9/9       10.000000011:      sched:sched_process_exit: comm=x pid=9 prio=120 group_dead=true
    0/0       10.000000012: PERF_RECORD_LOST lost 12
what is no event
"""


def test_what_perf_prints_is_understood() -> None:
    reader = PerfReader({9: (t.CLONE_VFORK, False)}, 7)
    found = reader.read(line.encode() for line in PERF.splitlines())
    kinds = raw.low(found[:, raw.KIND_NR]).tolist()
    assert kinds == [t.EXEC, raw.NAME, raw.FILE, t.SYSCALL, t.FAULT, t.FORK, t.EXIT], "nothing before its exec"
    call = found[3]
    assert raw.high(call[raw.KIND_NR]) == MMAP and call[raw.RESULT] == 0x7F0000000000 and call[raw.FILE_PTR] == 1
    assert call[raw.A0 : raw.A0 + 6].tolist() == [-0x8000, 0x3000, 1, 2, 3, 0x7000]
    assert found[2, raw.A0 : raw.A0 + 2].tolist() == [0xFE << 20, 41] and found[2, raw.TIME] == 10_000_000_005
    assert found[5, raw.A0 : raw.A0 + 5].tolist() == [9, 9, t.CLONE_VFORK, 0, 0]
    assert reader.lost == 12
