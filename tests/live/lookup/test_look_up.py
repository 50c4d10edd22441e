"""One page of the running machine: what the fast search finds is what all page tables hold, and as many as counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmap.live.lookup.look_up import NoPage, look_up
from rmap.live.sources.pagemap import PagemapFile
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.snapshot import parse_key
from tests.support import PAGE
from tests.support.judged import asked, judged
from tests.support.live_family import family
from tests.support.load import load

pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm")]


SHARED = """
heap = mm(64)
touch(heap, *range(64))
at = address(heap)
fork(lambda: touch(heap, *range(10, 20)))
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
fork(lambda: libc.munmap(at, PAGE))
def move():
    libc.mremap.restype = ctypes.c_void_p
    libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    place = libc.mmap(None, 64 * PAGE, 3, PRIVATE, -1, 0)
    assert libc.mremap(at, 64 * PAGE, 64 * PAGE, 3, place) == place
fork(move)
ready(at)
"""


def test_an_anonymous_page_is_found_in_its_family_and_where_it_was_moved() -> None:
    with family(SHARED) as tree:
        for page, mappers in ((0, 3), (1, 4), (12, 3), (63, 4)):
            answer = judged(f"{tree.pid}:{tree.value + page * PAGE:#x}", tree.pids)
            assert (answer.kind, answer.found) == ("anon", mappers)
            assert answer.found_by == f"same address in the fork family ({mappers - 1}), then a scan of the rest (1)"
        alone = judged(f"{tree.children[0]}:{tree.value + 12 * PAGE:#x}", tree.pids)
        assert (alone.found, alone.found_by) == (1, "same address in the fork family (1)")
        by_frame = judged(f"pfn:{alone.pfn:#x}", tree.pids)
        assert by_frame.mappings == alone.mappings and by_frame.found_by.startswith("a scan ")
        shared = judged(f"{tree.pid}:{tree.value + PAGE:#x}", tree.pids)
        by_frame = judged(f"pfn:{shared.pfn:#x}", tree.pids)
        assert by_frame.mappings == shared.mappings
        assert by_frame.found_by.startswith("a scan until it was found (")
        assert by_frame.found_by.endswith(", then a scan of the rest (1)") or by_frame.found == 4
        assert judged(f"phys:{alone.pfn * PAGE + 5:#x}", tree.pids).mappings == alone.mappings  # type: ignore[operator]


def windows(path: str) -> str:
    return f"""
fd = os.open({path!r}, os.O_RDWR)
first = mm(8, mmap.MAP_SHARED, fd, 0)
first[0], first[2 * PAGE]
copied = mm(8, mmap.MAP_PRIVATE, fd, 0)
copied[2 * PAGE]
copied[3 * PAGE] = 1
def other():
    global kept
    kept = mm(4, mmap.MAP_SHARED, fd, 2 * PAGE, 1)
    kept[0]
fork(other)
fork(other)
ready(address(copied))
"""


def test_a_page_of_a_file_is_found_in_every_area_of_it(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(64 * PAGE))
    with family(windows(str(path))) as tree:
        answer = judged(f"{path}@{2 * PAGE:#x}", tree.pids)
        assert answer.kind in ("file", "shmem")
        assert (answer.found, answer.file) == (6, str(path))  # fork copies no entries of a shared file
        assert answer.file_offset == 2 * PAGE and {one.offset for one in answer.mappings} == {2 * PAGE}
        assert answer.found_by == "dev:inode and offset in every VMA of the file"
        copy = judged(f"{tree.pid}:{tree.value + 3 * PAGE:#x}", tree.pids)
        assert (copy.kind, copy.file) == ("anon", None)
        there = judged(f"{tree.pid}:{tree.value + 2 * PAGE:#x}", tree.pids)
        assert there.pfn == answer.pfn
        nobody = asked(f"{path}@{60 * PAGE:#x}")  # in the cache, as it was written; beyond what a fault brings along
        assert (nobody.status, nobody.found) == ("unmapped", 0)
    beyond = look_up(parse_key(f"{path}@{80 * PAGE:#x}"))
    assert beyond == NoPage(f"{path} has no page 80: it is {64 * PAGE:,} bytes long")


COPIED = """
fd = os.open(PATH, os.O_RDWR)
private = mm(8, mmap.MAP_PRIVATE, fd, 0)
touch(private, 3, 4)
private[5 * PAGE]
fork(lambda: touch(private, 4))
fork(lambda: touch(private, 5))
ready(address(private))
"""


def test_a_copied_page_of_a_private_mapping_is_anonymous_and_found_in_the_family(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(8 * PAGE))
    with family(COPIED.replace("PATH", repr(str(path)))) as tree:
        for page, mappers in ((3, 3), (4, 2)):
            answer = judged(f"{tree.pid}:{tree.value + page * PAGE:#x}", tree.pids)
            assert (answer.kind, answer.file, answer.found) == ("anon", None, mappers)
            assert answer.found_by == f"same address in the fork family ({mappers})"
            assert {one.file for one in answer.mappings} == {str(path)}
        kept = judged(f"{tree.pid}:{tree.value + 5 * PAGE:#x}", tree.pids)
        assert (kept.file, kept.file_offset, kept.found) == (str(path), 5 * PAGE, 2)
        assert judged(f"{path}@{5 * PAGE}", tree.pids).pfn == kept.pfn
        copy = judged(f"{tree.children[1]}:{tree.value + 5 * PAGE:#x}", tree.pids)
        assert (copy.kind, copy.found) == ("anon", 1)


NAMELESS = """
fd = os.open(PATH, os.O_RDWR)
gone = mm(4, mmap.MAP_SHARED, fd)
touch(gone, 1)
os.unlink(PATH)
memfd = os.memfd_create("only-here")
os.ftruncate(memfd, 4 * PAGE)
shared = mm(4, mmap.MAP_SHARED, memfd)
touch(shared, 2)
def other():
    shared[2 * PAGE]
    gone[PAGE]
fork(other)
ready([address(gone), address(shared)])
"""


def test_a_file_without_a_name_is_found_by_the_name_that_maps_shows(tmp_path: Path) -> None:
    path = tmp_path / "gone.bin"
    path.write_bytes(bytes(64 * PAGE))
    with family(NAMELESS.replace("PATH", repr(str(path)))) as tree:
        gone = judged(f"{path}@{PAGE}", tree.pids)
        assert (gone.found, gone.pfn) == (2, judged(f"{tree.pid}:{tree.value[0] + PAGE:#x}", tree.pids).pfn)
        memfd = judged(f"/memfd:only-here@{2 * PAGE}", tree.pids)
        assert (memfd.kind, memfd.found, memfd.file_offset) == ("shmem", 2, 2 * PAGE)
        assert look_up(parse_key(f"{path}@{40 * PAGE}")) == NoPage(
            f"no process maps page 40 of {path} (there is no such file here, but processes map one)"
        )
    with pytest.raises(FileNotFoundError, match="no such file here"):
        look_up(parse_key(f"{path}@0"))


KINDS = """
memfd = os.memfd_create("kind")
os.ftruncate(memfd, 8 * PAGE)
shared = mm(8, mmap.MAP_SHARED, memfd)
touch(shared, 1)
zero = mm(8)
zero[2 * PAGE]
guarded = mm(8)
touch(guarded, *range(8))
refused = libc.madvise(ctypes.c_void_p(address(guarded)), PAGE, 102)
vdso = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "[vdso]" in line)
fork(lambda: shared[PAGE])
ready([address(shared), address(zero), address(guarded), refused, vdso])
"""


def test_every_kind_of_page_is_named() -> None:
    with family(KINDS) as tree:
        shared, zero, guarded, refused, vdso = tree.value
        memory = judged(f"{tree.pid}:{shared + PAGE:#x}", tree.pids)
        assert (memory.kind, memory.found) == ("shmem", 2)
        nothing = asked(f"{tree.pid}:{zero + 2 * PAGE:#x}")
        assert (nothing.kind, nothing.status) == ("zero", "approximate") and "zero page" in nothing.note
        assert tree.pid in {one.pid for one in nothing.mappings}
        assert look_up(parse_key(f"{tree.pid}:{zero:#x}")) == NoPage(
            f"{zero:#x} of process {tree.pid} is mapped, but no page is there yet"
        )
        if not refused:
            marker = look_up(parse_key(f"{tree.pid}:{guarded:#x}"))
            assert isinstance(marker, NoPage)
            assert marker.reason.startswith(f"{guarded:#x} of process {tree.pid} holds a guard marker")
        kernel = asked(f"{tree.pid}:{vdso:#x}")
        assert kernel.kind == "kernel" and set(tree.pids) <= {one.pid for one in kernel.mappings}
        assert look_up(parse_key(f"{tree.pid}:0x1000")) == NoPage(f"process {tree.pid} has nothing at 0x1000")


CLONED = """
heap = mm(4)
touch(heap, 0)
share_mm()
ready(address(heap))
"""


def test_processes_that_share_an_mm_are_one_mapper() -> None:
    with family(CLONED) as tree:
        answer = asked(f"{tree.children[0]}:{tree.value:#x}")
        assert (answer.found, answer.mapcount, answer.status) == (1, 1, "complete")
        assert [one.pid for one in answer.mappings] == [min(tree.pids)]
        scanned = asked(f"pfn:{answer.pfn:#x}")
        assert scanned.mappings == answer.mappings and scanned.status == "complete"


NAMESPACE = """
heap = mm(4)
touch(heap, 0)
libc.unshare.argtypes = [ctypes.c_int]
refused = libc.unshare(0x20000000)
def inside():
    pass
fork(inside)
ready([address(heap), refused])
"""


def test_a_process_of_another_pid_namespace_is_found_from_outside_and_not_from_inside() -> None:
    with family(NAMESPACE) as tree:
        address, refused = tree.value
        if refused:
            pytest.skip("needs the right to make a PID namespace")
        outside = judged(f"{tree.pid}:{address:#x}", tree.pids)
        assert outside.found == 2
        script = f"mount -t proc proc /proc && exec {sys.executable} -m rmap who pfn:{outside.pfn:#x}"
        done = subprocess.run(
            ["unshare", "--fork", "--pid", "--mount", "--mount-proc", "sh", "-c", script],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "unshare:" in done.stderr or "mount" in done.stderr:
            pytest.skip(f"needs unshare --mount-proc: {done.stderr.strip()}")
        assert done.returncode == 1, done.stderr
        assert "mappings  found 0 of 2: 2 hidden" in done.stdout
        assert "2 mappers outside this PID namespace" in done.stdout


def test_it_holds_while_processes_fork_and_exit() -> None:
    statuses = set()
    with load(workers=8, pages=400, vmas=400, busy=4) as busy:
        maps = Path(f"/proc/{busy.server}/maps").read_text()
        libc = next(line.split()[-1] for line in maps.splitlines() if "libc.so" in line)
        for round_ in range(40):
            address = f"{busy.server}:{busy.heap + (260 + round_ % 30) * PAGE:#x}"
            frame = asked(address).pfn
            for key in (address, f"{libc}@0x28000", *([f"pfn:{frame:#x}"] if round_ % 10 == 0 else [])):
                answer = asked(key)
                statuses.add(answer.status)
                assert answer.found <= (answer.mapcount or 0) or answer.status == "raced"
    assert statuses <= {"complete", "raced", "hidden", "unmapped"} and "complete" in statuses


def test_a_refused_process_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with family(SHARED) as tree:
        for where, kind in (("ways", PagemapFile), ("scan", Pagemap)):

            def refusing(pid: int, kind: type[PagemapFile] = kind) -> PagemapFile:
                if pid == tree.children[0]:
                    raise PermissionError(13, "refused")
                return kind(pid)

            monkeypatch.setattr(f"rmap.live.lookup.{where}.{kind.__name__}", refusing)
        answer = asked(f"{tree.pid}:{tree.value + PAGE:#x}")
        assert (answer.status, answer.found, answer.mapcount) == ("hidden", 3, 4)
        reasons = " ".join(answer.hidden)
        assert str(tree.children[0]) in reasons and f"uid {os.getuid()}" in reasons, reasons
        assert "show" in reasons and "not even to root" in reasons
