"""Pushing pages out: what is said to have gone is gone, by mincore and pagemap; and what stays is said."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_family import Family, family

from needs import need
from rmap.cli import main
from rmap.live import abilities, procfs
from rmap.live.cgroups import by_inode, hierarchy
from rmap.live.evict import Evicted, FileTarget, evict
from rmap.live.file_pages import file_pages, opened

PAGE = 4096
PAGES = 64
pytestmark = pytest.mark.live


@pytest.fixture(autouse=True)
def _able() -> None:
    need(abilities().missing("frames", "page_state"))


@pytest.fixture
def path() -> Iterator[Path]:
    """A file on a disk, all in memory, nothing dirty."""
    made = Path(__file__).parent / f".evict-{os.getpid()}.bin"
    try:
        made.write_bytes(os.urandom(PAGES * PAGE))
        with made.open("rb") as file:
            os.fsync(file.fileno())
        if os.stat(made).st_dev in procfs.shmem_devices():
            pytest.skip("needs the tests on a file system with a disk")
        yield made
    finally:
        made.unlink(missing_ok=True)


def mapper(path: Path, *, others: int = 0, busy: bool = False) -> str:
    return f"""
fd = os.open({str(path)!r}, os.O_RDONLY)
area = mm({PAGES}, mmap.MAP_SHARED, fd, 0, 1)
for page in range({PAGES}):
    area[page * PAGE]
def same():
    global mine
    mine = mm({PAGES}, mmap.MAP_SHARED, fd, 0, 1)
    for page in range({PAGES}):
        mine[page * PAGE]
for _ in range({others}):
    fork(same)
if {busy}:
    def touching():
        import threading, time
        def again():
            while True:
                for page in range({PAGES}):
                    area[page * PAGE]
                time.sleep(0.001)
        threading.Thread(target=again, daemon=True).start()
    touching()
ready(address(bytearray(1)))
"""


def in_memory(path: Path) -> int:
    return int(file_pages(str(path)).resident.sum())


def gone(path: Path, **options: bool) -> Evicted:
    with opened(str(path)) as fd:
        return evict(FileTarget(str(path), fd), **options)


def test_a_file_that_nobody_maps_goes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_memory(path) == PAGES
    assert main(["evict", str(path)]) == 0
    out, err = capsys.readouterr()
    assert f"fadvise DONTNEED          {PAGES} pages went" in out
    assert err == f"rmap: evicted: {PAGES} pages went, none stayed\n"
    assert in_memory(path) == 0
    assert main(["evict", str(path)]) == 0
    assert "nothing of it was in memory" in capsys.readouterr().err


def test_dirty_pages_are_written_first(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"new" * 2000)
    assert main(["evict", str(path)]) == 0
    assert in_memory(path) == 0
    assert path.read_bytes().startswith(b"newnew")


def test_one_page_goes_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evict", f"{path}@0x5000", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["all_gone"] and told["pages"] == 1
    assert not file_pages(str(path)).resident[5]
    assert PAGES - in_memory(path) == 1 + told["neighbours"]


def test_a_file_with_one_mapper_goes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with family(mapper(path)) as tree:
        assert len(file_pages(str(path)).mapped[tree.pid]) == PAGES
        assert main(["evict", str(path)]) == 0
        assert "process_madvise PAGEOUT" in capsys.readouterr().out
        found = file_pages(str(path))
        assert not found.resident.any() and not found.mappers.any()


def test_a_shared_file_stays_and_nobody_is_told_otherwise(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with family(mapper(path, others=2)):
        assert main(["evict", str(path)]) == 1
        out, err = capsys.readouterr()
        assert err == f"rmap: nothing was evicted: {PAGES} pages stayed\n"
        assert "several entries map the same page" in " ".join(out.split())
        assert in_memory(path) == PAGES
        assert max(map(len, out.splitlines())) <= 80


def test_a_dry_run_changes_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with family(mapper(path)) as tree:
        assert main(["evict", "--dry-run", str(path)]) == 0
        out, err = capsys.readouterr()
        assert "would try" in out and err == ""
        assert (in_memory(path), len(file_pages(str(path)).mapped[tree.pid])) == (PAGES, PAGES)


def test_what_is_used_all_the_time_comes_back(path: Path) -> None:
    with family(mapper(path, busy=True)):
        time.sleep(0.05)
        done = gone(path)
        assert done.after.resident > 0
        assert not done.all_gone


ANON = """
heap = mm(4)
touch(heap, 0, 1)
fork(lambda: touch(heap, 1))
memfd = os.memfd_create("held")
os.ftruncate(memfd, 4 * PAGE)
shared = mm(4, mmap.MAP_SHARED, memfd)
touch(shared, 0)
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
locked = mm(1)
touch(locked, 0)
refused = libc.mlock(address(locked), PAGE)
zero = mm(1)
zero[0]
ready([address(heap), address(shared), address(locked), address(zero)])
"""


def test_refusals_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    with family(ANON) as tree:
        heap, shared, locked, zero = tree.value
        swap = procfs.nr_swap_areas()
        for address, why in (
            (heap, None if swap else "there is no swap"),
            (shared, None if swap else "there is no swap"),
            (locked, "locked (mlock)" if swap else "there is no swap"),
            (zero, "the zero page stays"),
        ):
            code = main(["evict", f"{tree.pid}:{address:#x}"])
            out = " ".join(capsys.readouterr().out.split())
            if why is not None:
                assert code == 1 and why in out
    for words, code in ((["evict", "4711111"], 2), (["evict", "swap:0:1"], 2), (["evict", "/no/such"], 4)):
        assert main(words) == code


@contextlib.contextmanager
def a_cgroup(name: str) -> Iterator[Path]:
    top, version = hierarchy()
    folder = top / name
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs the right to make a memory cgroup: {error}")
    if version == 2 and not (folder / "memory.reclaim").exists():
        folder.rmdir()
        pytest.skip("needs the memory controller in the root's subtree_control")
    try:
        yield folder
    finally:
        for _ in range(100):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)


def in_cgroup(folder: Path, script: str) -> subprocess.Popen[str]:
    inside = f"import os; open({str(folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    from live_family import PRELUDE

    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", inside + PRELUDE + script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_whole_cgroup_is_pushed_out_only_if_allowed(
    machine_lock: None, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is read in by processes of a cgroup of their own, so that its pages are charged there."""
    gone(path)
    with a_cgroup(f"rmap-test-{os.getpid()}") as folder:
        process = in_cgroup(folder, mapper(path, others=1))
        try:
            assert process.stdout is not None
            tree = Family(json.loads(process.stdout.readline()))
            assert set(tree.pids) <= set(file_pages(str(path)).mapped)
            assert main(["evict", str(path)]) == 1
            out = " ".join(capsys.readouterr().out.split())
            assert "allow it: --whole-cgroup" in out and folder.name in out
            assert in_memory(path) == PAGES
            main(["evict", "--whole-cgroup", str(path)])
            out = " ".join(capsys.readouterr().out.split())
            assert f"of /{folder.name}, with" in out
            assert in_memory(path) == 0 or "came back" in out or "stays" in out
            assert in_memory(path) < PAGES
        finally:
            process.kill()
            process.communicate()
            for pid in tree.children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)


def test_the_root_cgroup_is_refused(path: Path) -> None:
    top, _ = hierarchy()
    found = by_inode({os.stat(top).st_ino})
    assert next(iter(found.values())).is_root
    done = gone(path)
    assert done.all_gone
