"""`rmap evict` against pagemap and mincore: what goes, what stays and why; nothing is claimed that was not done."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rmap.live.sources.memcg import hierarchy
from tests.support import PAGE
from tests.support.command import rmap, told
from tests.support.file_cases import clean_file, read_pages, resident
from tests.support.live_family import Family, family
from tests.support.needs import need
from tests.support.proc import FRAME, OF_FILE, PRESENT, SWAPPED, entry, mapped_pages
from tests.support.system import swap_file
from tests.support.waiting import until

PAGES = 128
pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state")]


@pytest.fixture
def file(disk: Path) -> Path:
    return clean_file(disk / "file", PAGES)


MAPPED = """
fd = os.open({path!r}, os.O_RDWR)
area = mm({pages}, mmap.MAP_SHARED, fd)
def look():
    for page in range({pages}):
        area[page * PAGE]
look()
for _ in range({children}):
    fork(look)
os.close(fd)
ready(address(area))
"""


@contextmanager
def mapped(path: Path, *, children: int = 0) -> Iterator[Family]:
    with family(MAPPED.format(path=str(path), pages=PAGES, children=children)) as tree:
        yield tree


def classes(answer: dict[str, Any]) -> dict[str, int]:
    """Pages that stayed, by class."""
    return {one["kind"]: one["pages"] for one in answer["stayed"]}


# -- what goes ---------------------------------------------------------------------------------------------------------


def test_a_file_that_nobody_maps_goes(file: Path) -> None:
    read_pages(file, 0, PAGES)
    before = len(resident(file))
    status, answer = told("evict", file)
    assert resident(file) == []
    assert (status, answer["done"]) == (0, True)
    assert answer["before"]["resident"] == answer["went"] == before == PAGES
    assert answer["after"] == {"resident": 0, "ptes": 0, "processes": 0}
    assert [one["how"] for one in answer["tried"]] == ["fadvise DONTNEED"]


def test_dirty_pages_are_written_first_and_nothing_is_lost(file: Path) -> None:
    content = os.urandom(PAGES * PAGE)
    with file.open("r+b") as open_file:
        open_file.write(content)
    status, answer = told("evict", file)
    assert status == 0 and resident(file) == []
    assert answer["written"] in (0, PAGES)  # 0 if the kernel had written them by then
    text = rmap("evict", file).stdout
    assert "0 of 128 pages" in text
    assert file.read_bytes() == content


def test_one_page_goes_and_the_others_stay(file: Path) -> None:
    read_pages(file, 0, PAGES)
    status, answer = told("evict", f"{file}@{5 * PAGE}")
    assert status == 0
    gone = set(range(PAGES)) - set(resident(file))
    assert 5 in gone
    assert len(gone) == 1 + answer["neighbours_went"]  # what shared a folio with it, where there are large ones


def test_a_file_with_one_mapper_goes_from_its_page_tables(file: Path) -> None:
    with mapped(file) as tree:
        assert len(mapped_pages(tree.pid, file.stat().st_ino)) == PAGES
        status, answer = told("evict", file)
        assert mapped_pages(tree.pid, file.stat().st_ino) == [] and resident(file) == []
        assert status == 0 and answer["went"] == PAGES and answer["before"]["ptes"] == PAGES
        assert answer["tried"][0]["how"] == "process_madvise PAGEOUT"


def test_an_address_of_a_mapped_file_names_its_page(file: Path) -> None:
    with mapped(file) as tree:
        address = tree.value + 9 * PAGE
        status, answer = told("evict", f"{tree.pid}:{address:#x}")
        assert status == 0 and answer["went"] == 1
        assert not entry(tree.pid, address) & PRESENT and 9 not in resident(file)
        assert len(resident(file)) == PAGES - 1 - answer["neighbours_went"]


PARTLY = """
fd = os.open({path!r}, os.O_RDWR)
area = mm(32, mmap.MAP_SHARED, fd, 64 * PAGE)
def look():
    for page in range(32):
        area[page * PAGE]
look()
other = mm(8, mmap.MAP_SHARED, fd, 64 * PAGE)
for page in range(8):
    other[page * PAGE]
ready([address(area), address(other)])
"""


def test_each_page_goes_by_its_own_means(file: Path) -> None:
    """Pages that nobody maps, one area maps, two areas of one process map."""
    read_pages(file, 0, PAGES)
    with family(PARTLY.format(path=str(file))) as tree:
        truth = mapped_pages(tree.pid, file.stat().st_ino)
        twice = {page for page in truth if truth.count(page) == 2}
        assert twice
        status, answer = told("evict", file)
        assert status == 1
        assert set(resident(file)) >= twice
        assert len(resident(file)) == sum(classes(answer).values())
        assert classes(answer)["twice"] == len(twice)
        assert answer["went"] == PAGES - len(resident(file)) > 0


# -- what stays --------------------------------------------------------------------------------------------------------


def test_what_several_map_stays_and_is_said_to(file: Path) -> None:
    with mapped(file, children=2) as tree:
        answer_of = rmap("evict", file)
        assert answer_of.returncode == 1
        assert "nothing was evicted: 128 pages stayed" in answer_of.stderr
        assert "not used" in answer_of.stdout  # the whole cgroup, without leave
        status, answer = told("evict", file)
        assert status == 1 and classes(answer) == {"shared": PAGES} and answer["went"] == 0
        assert answer["after"] == {"resident": PAGES, "ptes": 3 * PAGES, "processes": 3}
        for pid in tree.pids:
            assert len(mapped_pages(pid, file.stat().st_ino)) == PAGES
        assert len(resident(file)) == PAGES


BUSY = """
import threading
fd = os.open({path!r}, os.O_RDWR)
area = mm({pages}, mmap.MAP_SHARED, fd)
def look():
    while True:
        for page in range({pages}):
            area[page * PAGE]
threading.Thread(target=look, daemon=True).start()
while not all(area[page * PAGE] + 1 for page in range({pages})):
    pass
ready(address(area))
"""


def test_what_is_used_all_the_time_comes_back(file: Path) -> None:
    with family(BUSY.format(path=str(file), pages=PAGES).replace("-S", "")) as tree:
        status, answer = told("evict", file)
        assert status == 1
        assert answer["came_back"] > 0
        assert answer["came_back"] + answer["went"] + sum(classes(answer).values()) == answer["before"]["resident"]
        assert not answer["done"]
        assert len(mapped_pages(tree.pid, file.stat().st_ino)) > 0


LOCKED = """
fd = os.open({path!r}, os.O_RDWR)
area = mm(16, mmap.MAP_SHARED, fd)
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
assert libc.mlock(address(area), 16 * PAGE) == 0
ready(address(area))
"""


def test_locked_pages_stay(file: Path) -> None:
    with family(LOCKED.format(path=str(file))) as tree:
        status, answer = told("evict", file, "--whole-cgroup")
        assert status == 1 and classes(answer)["locked"] == 16
        assert len(mapped_pages(tree.pid, file.stat().st_ino)) == 16


ANON = """
fd = os.memfd_create("of-a-test")
os.ftruncate(fd, 8 * PAGE)
os.pwrite(fd, b"x" * 4 * PAGE, 0)
alone = mm(4)
touch(alone, 0, 1)
locked = mm(1)
touch(locked, 0)
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mlock(address(locked), PAGE)
unread = mm(2)
unread[0]
both = mm(2)
touch(both, 0)
fork(lambda: None)
other = mm(4)
touch(other, 0)
ready([fd, address(other), address(locked), address(unread), address(both)])
"""


def no_swap() -> str | None:
    areas = len(Path("/proc/swaps").read_text().splitlines()) - 1
    return None if not areas else "a machine without swap"


def test_without_swap_memory_has_nowhere_to_go(machine_lock: None, tmp_path: Path) -> None:
    need(no_swap())
    with family(ANON) as tree:
        fd, other, locked, unread, both = tree.value
        for key, kind, pages in (
            (f"/proc/{tree.pid}/fd/{fd}", "no swap", 4),
            (f"{tree.pid}:{other:#x}", "no swap", 1),
            (f"{tree.pid}:{both:#x}", "no swap", 1),
            (f"{tree.pid}:{locked:#x}", "locked", 1),
            (f"{tree.pid}:{unread:#x}", "zero", 1),
        ):
            status, answer = told("evict", key)
            assert (status, classes(answer), answer["tried"]) == (1, {kind: pages}, []), key
        assert entry(tree.pid, other) & PRESENT and resident(f"/proc/{tree.pid}/fd/{fd}") == [0, 1, 2, 3]


def test_pages_of_the_kernel_stay() -> None:
    with family("ready(0)") as tree:
        lines = Path(f"/proc/{tree.pid}/maps").read_text().splitlines()
        start = next(line.split("-")[0] for line in lines if line.endswith("[vdso]"))
        status, answer = told("evict", f"{tree.pid}:0x{start}")
        assert status == 1 and list(classes(answer)) == ["kernel"]
        assert entry(tree.pid, int(start, 16)) & PRESENT


def test_what_names_no_page_is_refused(file: Path) -> None:
    with family("area = mm(1)\nready(address(area))") as tree:
        for key, status, words in (
            (f"{tree.pid}", 2, "is a process"),
            ("swap:0:1", 2, "is a slot of swap"),
            (f"{tree.pid}:{tree.value:#x}", 1, "no page is there yet"),
            (f"{file}@{PAGES * PAGE}", 1, "has no page"),
            (str(file.parent), 2, "is a directory"),
            (f"{file}.not", 4, "No such file"),
            ("999999999:0x1000", 1, "there is no process"),
        ):
            done = rmap("evict", key)
            assert done.returncode == status, key
            assert words in " ".join(done.stderr.split()), key
            assert done.stdout == ""


def test_nothing_in_memory_is_nothing_to_evict(file: Path) -> None:
    done = rmap("evict", file)
    assert done.returncode == 0 and "nothing to evict" in done.stderr


def test_a_dry_run_changes_nothing(file: Path) -> None:
    read_pages(file, 0, PAGES)
    status, answer = told("evict", "--dry-run", file)
    assert (status, answer["after"], answer["tried"][0]["went"]) == (0, None, None)
    assert len(resident(file)) == PAGES
    with mapped(file, children=1) as tree:
        truth = [mapped_pages(pid, file.stat().st_ino) for pid in tree.pids]  # the kernel may move frames
        status, answer = told("evict", "--dry-run", file)
        assert status == 1 and classes(answer) == {"shared": PAGES}
        done = rmap("evict", "--dry-run", "--whole-cgroup", file)
        assert "nothing was changed" in done.stderr
        assert [mapped_pages(pid, file.stat().st_ino) for pid in tree.pids] == truth == [list(range(PAGES))] * 2
    with file.open("r+b") as open_file:
        open_file.write(b"x" * PAGE)
    assert told("evict", "--dry-run", file)[1]["written"] == 0


# -- a whole cgroup ----------------------------------------------------------------------------------------------------


@contextmanager
def a_cgroup(name: str) -> Iterator[Path]:
    """A memory cgroup of its own."""
    found = hierarchy()
    need(None if found is not None and os.geteuid() == 0 else "a memory cgroup hierarchy, and root")
    assert found is not None
    if found.version == 2:
        control = found.folder / "cgroup.subtree_control"
        need(None if "memory" in control.read_text().split() else "the memory controller below the root")
    folder = found.folder / name
    try:
        folder.mkdir()
    except OSError as error:
        need(f"the right to make a cgroup ({error.strerror})")
    try:
        yield folder
    finally:
        until(lambda: _removed(folder), 5, "the last process of a cgroup did not go")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # the last process is going just now
        return False
    return True


def charged(file: Path, cgroup: Path) -> None:
    """Have a file read by a process of a cgroup, so that its pages are charged there."""
    script = f'echo $$ > "{cgroup}/cgroup.procs"; exec cat "{file}"'
    subprocess.run(["sh", "-c", script], stdout=subprocess.DEVNULL, check=True)


def test_the_whole_cgroup_goes_if_it_may(machine_lock: None, file: Path) -> None:
    with a_cgroup(f"rmap-evict-{os.getpid()}") as cgroup:
        charged(file, cgroup)
        extra = clean_file(file.parent / "extra", PAGES)
        charged(extra, cgroup)
        with mapped(file, children=2) as tree:
            status, answer = told("evict", file)
            assert status == 1 and classes(answer) == {"shared": PAGES}
            (charge,) = answer["charged"]
            assert (charge["pages"], Path(charge["cgroup"]).name) == (PAGES, cgroup.name)
            assert charge["inode"] == cgroup.stat().st_ino
            usage = next(cgroup.glob("memory.usage_in_bytes"), None) or cgroup / "memory.current"
            assert abs(charge["others"] + PAGES * PAGE - int(usage.read_text())) <= 1 << 20
            assert charge["others"] >= PAGES * PAGE  # the other file
            assert len(resident(extra)) == PAGES  # untouched without leave
            done = rmap("evict", file, "--whole-cgroup")
            assert done.returncode == 0, done.stdout
            assert f"reclaiming cgroup /{cgroup.name}: up to" in " ".join(done.stderr.split())
            assert resident(file) == []
            assert not any(mapped_pages(pid, file.stat().st_ino) for pid in tree.pids)


def test_pages_of_the_root_cgroup_are_refused(machine_lock: None, file: Path) -> None:
    found = hierarchy()
    need(None if found is not None and found.whole and os.geteuid() == 0 else "the root of the memory cgroups")
    assert found is not None
    charged(file, found.folder)
    with mapped(file, children=1):
        status, answer = told("evict", file, "--whole-cgroup")
        assert status == 1 and classes(answer) == {"shared": PAGES}
        (unused,) = answer["not_used"]
        assert "the root cgroup" in unused["why"] and answer["tried"] == []
        assert len(resident(file)) == PAGES


def test_pages_charged_elsewhere_are_left_alone(machine_lock: None, file: Path) -> None:
    with a_cgroup(f"rmap-most-{os.getpid()}") as most, a_cgroup(f"rmap-few-{os.getpid()}") as few:
        script = f'echo $$ > "{few}/cgroup.procs"; exec dd if="{file}" bs={PAGE} count=4 status=none'
        subprocess.run(["sh", "-c", script], stdout=subprocess.DEVNULL, check=True)
        first = len(resident(file))
        need(None if first < PAGES // 2 else "a file system that does not read the whole file ahead")
        charged(file, most)
        with mapped(file, children=1):
            status, answer = told("evict", file, "--whole-cgroup")
            assert status == 1
            assert any(few.name in unused["why"] for unused in answer["not_used"])
            assert len(resident(file)) == first == sum(classes(answer).values())


# -- swap --------------------------------------------------------------------------------------------------------------


def test_with_swap_a_page_with_one_mapper_goes_there(machine_lock: None, disk: Path) -> None:
    with swap_file(disk), family(ANON) as tree:
        fd, other, locked, _, both = tree.value
        status, answer = told("evict", f"{tree.pid}:{other:#x}")
        there = entry(tree.pid, other)
        assert status == 0 and answer["went"] == 1 and there & SWAPPED and not there & PRESENT
        again = rmap("evict", f"{tree.pid}:{other:#x}")
        assert again.returncode == 1 and "in swap already" in again.stderr
        status, answer = told("evict", f"{tree.pid}:{both:#x}")
        assert status == 1 and classes(answer) == {"shared": 1}
        assert all(entry(pid, both) & PRESENT for pid in tree.pids)
        assert told("evict", f"{tree.pid}:{locked:#x}")[0] == 1
        status, answer = told("evict", f"/proc/{tree.pid}/fd/{fd}")
        assert status == 0 and answer["went"] == 4
        assert Path(f"/proc/{tree.pid}/fd/{fd}").read_bytes()[: 4 * PAGE] == b"x" * 4 * PAGE


HUGE = """
size = 2 << 20
area = mm(3 * 512)
start = (address(area) + size - 1) // size * size
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise(start, size, 14)
ctypes.memset(start, 1, size)
ready(start)
"""


def test_one_page_of_a_large_folio_and_its_neighbours(machine_lock: None, disk: Path) -> None:
    with swap_file(disk), family(HUGE) as tree:
        frames = [entry(tree.pid, tree.value + page * PAGE) & FRAME for page in range(512)]
        need(None if frames == list(range(frames[0], frames[0] + 512)) else "transparent huge pages")
        status, answer = told("evict", f"{tree.pid}:{tree.value + 7 * PAGE:#x}")
        there = [bool(entry(tree.pid, tree.value + page * PAGE) & PRESENT) for page in range(512)]
        assert status == 0 and not there[7]
        assert answer["neighbours"] == 511
        assert answer["neighbours_went"] == 511 - sum(there)


def test_the_entries_this_file_counts_on() -> None:
    """The test's own reader, against a page it knows."""
    with mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own:
        own[0] = 1
        import ctypes

        found = entry(os.getpid(), ctypes.addressof(ctypes.c_char.from_buffer(own)))
        assert found & PRESENT and not found & OF_FILE and found & FRAME
