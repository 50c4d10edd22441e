"""`rmap file`: residency against mincore, mappers against page tables, by whatever way the file is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rmap.live.capture.capture import capture
from tests.support import PAGE
from tests.support.command import rmap, told
from tests.support.file_cases import clean_file, drop, read_pages, resident
from tests.support.live_family import family
from tests.support.needs import need
from tests.support.proc import mapped_pages

PAGES = 300
pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state")]

MAPPERS = """
fd = os.open({path!r}, os.O_RDWR)
whole = mm(64, mmap.MAP_SHARED, fd)
def child():
    for page in range(8, 24):
        other[page * PAGE]
other = mm(32, mmap.MAP_SHARED, fd, 100 * PAGE)
twice = mm(16, mmap.MAP_SHARED, fd, 4 * PAGE, 1)
private = mm(8, mmap.MAP_PRIVATE, fd, 200 * PAGE)
for page in range(10):
    whole[page * PAGE]
twice[0], twice[5 * PAGE]
private[0] = 1
fork(child)
ready(0)
"""


def by_page(answer: dict[str, Any]) -> list[tuple[bool, list[int]]]:
    """Whether each page is in memory, and who maps it."""
    return [(one["resident"], one["pids"]) for one in answer["ranges"] for _ in range(one["pages"])]


def test_what_is_in_memory_is_what_mincore_says(disk: Path) -> None:
    path = clean_file(disk / "file", PAGES)
    status, answer = told("file", path)
    assert (status, answer["resident"], answer["pages"]) == (1, 0, PAGES)
    for first, count in ((7, 1), (40, 32), (PAGES - 3, 3)):
        read_pages(path, first, count)
    truth = resident(path)
    assert {7, *range(40, 72), PAGES - 1} <= set(truth) and len(truth) < PAGES
    status, answer = told("file", path)
    assert status == 0
    assert [page for page, (there, _) in enumerate(by_page(answer)) if there] == truth
    assert answer["resident"] == len(truth) and answer["path"] == str(path.resolve())
    if shutil.which("fincore"):
        words = ["fincore", "--raw", "--noheadings", "--output", "PAGES", str(path)]
        assert int(subprocess.run(words, capture_output=True, check=True).stdout) == answer["resident"]


def test_dirty_pages_are_counted(disk: Path) -> None:
    path = clean_file(disk / "file", 20)
    with path.open("r+b") as file:
        file.write(b"x" * 5 * PAGE)
    _, answer = told("file", path)
    need(None if answer["dirty"] is not None else "cachestat (Linux 6.5)")
    assert answer["dirty"] + answer["writeback"] == 5
    with path.open("rb") as file:
        os.fsync(file.fileno())
    assert told("file", path)[1]["dirty"] == 0


def test_who_maps_which_pages_is_what_the_page_tables_say(disk: Path) -> None:
    path = clean_file(disk / "file", PAGES)
    read_pages(path, 0, PAGES)
    with family(MAPPERS.format(path=str(path))) as tree:
        inode = path.stat().st_ino
        truth = {pid: mapped_pages(pid, inode) for pid in tree.pids}
        status, answer = told("file", path)
        assert status == 0
        seen = by_page(answer)
        assert len(seen) == PAGES
        for page, (_, pids) in enumerate(seen):
            assert pids == sorted(pid for pid in tree.pids if page in truth[pid]), page
        assert {one["pid"]: one["ptes"] for one in answer["mapped_by"]} == {p: len(t) for p, t in truth.items()}
        assert answer["ptes"] == answer["counted"] == sum(map(len, truth.values()))
        assert answer["status"] == "complete"
        assert len(truth[tree.pid]) > len(set(truth[tree.pid]))  # two areas map the same page: two entries
        assert answer["copies"] == 2  # one page written, one copied by the fork: both have an entry
        holders = {one["pid"]: one["fds"] for one in answer["open_by"]}
        assert sorted(holders) == tree.pids and all(holders.values())


def test_what_a_picture_has_mapped_is_the_same(disk: Path, tmp_path: Path) -> None:
    path = clean_file(disk / "file", PAGES)
    read_pages(path, 0, PAGES)
    with family(MAPPERS.format(path=str(path))) as tree:
        capture(tree.pids).save(tmp_path / "here.rmap")
        live = by_page(told("file", path)[1])
    status, answer = told("file", "-i", tmp_path / "here.rmap", path)
    assert status == 0
    assert [pids for _, pids in by_page(answer)] == [pids for _, pids in live]
    assert {there for there, pids in by_page(answer) if not pids} == {None}  # not known, and not said to be absent
    text = rmap("file", "-i", tmp_path / "here.rmap", path).stdout
    assert "what else of it was in memory is not known" in " ".join(text.split())


NAMED = """
fd = os.open({path!r}, os.O_RDONLY)
area = mm(16, mmap.MAP_SHARED, fd, 0, 1)
for page in range(16):
    area[page * PAGE]
memfd = os.memfd_create("cache")
os.ftruncate(memfd, 8 * PAGE)
os.pwrite(memfd, b"x" * 3 * PAGE, 0)
shared = mm(8, mmap.MAP_SHARED, memfd)
shared[0]
maps = open("/proc/self/maps").read().splitlines()
span = next(line.split()[0] for line in maps if {path!r} in line)
ready([fd, memfd, span])
"""


def test_one_file_by_all_its_names(disk: Path) -> None:
    path = clean_file(disk / "file", 16)
    link = disk / "link"
    os.link(path, link)
    (disk / "soft").symlink_to(path)
    with family(NAMED.format(path=str(path))) as tree:
        fd, memfd, span = tree.value
        link.unlink()
        path.unlink()  # only descriptors and mappings are left
        for name in (f"/proc/{tree.pid}/fd/{fd}", f"/proc/{tree.pid}/map_files/{span}"):
            status, answer = told("file", name)
            assert status == 0
            assert by_page(answer) == [(True, [tree.pid])] * 16
        _, answer = told("file", f"/proc/{tree.pid}/fd/{memfd}")
        assert [there for there, _ in by_page(answer)] == [True] * 3 + [False] * 5
        mapped = mapped_pages(tree.pid, os.stat(f"/proc/{tree.pid}/fd/{memfd}").st_ino)
        assert mapped and [page for page, (_, pids) in enumerate(by_page(answer)) if pids] == mapped
        assert answer["path"].startswith("/memfd:cache")


def test_links_lead_to_the_file(disk: Path) -> None:
    path = clean_file(disk / "file", 16)
    os.link(path, disk / "link")
    (disk / "soft").symlink_to(path)
    with family(NAMED.format(path=str(path))) as tree:
        for name in (disk / "link", disk / "soft", Path(f"/proc/{tree.pid}/root{path}")):
            assert by_page(told("file", name)[1]) == [(True, [tree.pid])] * 16


OVERLAY = """
mount -t overlay overlay -o lowerdir="$1/low",upperdir="$1/up",workdir="$1/work" "$1/over" || exit 77
"$2" -c 'import mmap, sys; f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, 1); m[0]; m[3 * 4096]
print(flush=True); sys.stdin.read()' "$1/over/file" < "$3" > "$1/started" &
while [ ! -s "$1/started" ]; do kill -0 $! || exit 1; sleep 0.02; done
"$2" -m rmap file "$1/over/file" --json
kill $!
"""


def test_a_file_below_an_overlay(disk: Path) -> None:
    """cachestat looks at the overlay's own inode, which has no pages: that is not what is told."""
    for name in ("low", "up", "work", "over"):
        (disk / name).mkdir()
    clean_file(disk / "low" / "file", 8)
    read_pages(disk / "low" / "file", 0, 8)
    os.mkfifo(disk / "fifo")
    writer = os.open(disk / "fifo", os.O_RDWR)
    words = ["unshare", "-m", "sh", "-c", OVERLAY, "sh", str(disk), sys.executable, str(disk / "fifo")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    os.close(writer)
    need(None if done.returncode != 77 else "overlayfs")
    answer = json.loads(done.stdout)
    assert answer["resident"] == 8
    assert answer["dirty"] is None
    assert {page for page, (_, pids) in enumerate(by_page(answer)) if pids} >= {0, 3}
    assert answer["status"] == "complete"


def test_what_is_no_regular_file_is_refused(disk: Path) -> None:
    for name, words in ((disk, "is a directory"), (Path("/dev/null"), "is a character device")):
        done = rmap("file", name)
        assert (done.returncode, done.stdout) == (2, "") and words in " ".join(done.stderr.split())
    done = rmap("file", disk / "nothing")
    assert done.returncode == 4 and "No such file" in " ".join(done.stderr.split())
    (disk / "empty").touch()
    done = rmap("file", disk / "empty")
    assert done.returncode == 1 and "0 of 0 pages" in done.stdout


POWERLESS = """
import contextlib, io, os, sys
from rmap.cli import main
with contextlib.redirect_stdout(io.StringIO()):  # whoever it becomes may not be able to import anything
    main(sys.argv[1:])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def test_nobody_is_told_nothing_rather_than_that_everything_is_in_memory(disk: Path) -> None:
    """mincore claims every page of a file that is not one's own; that is not passed on."""
    path = clean_file(disk / "file", 16)
    path.chmod(0o644)
    fd = os.open(path, os.O_RDONLY)
    try:
        words = [sys.executable, "-c", POWERLESS, "file", f"/dev/fd/{fd}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, pass_fds=[fd])
    finally:
        os.close(fd)
    need(None if "may not read" not in done.stderr else "a folder that others may enter")
    assert done.returncode == 3, done.stderr
    assert "memory    unknown" in done.stdout and "16 of 16" not in done.stdout


def test_the_bar_fits_and_tells(disk: Path) -> None:
    path = clean_file(disk / "file", 640)
    read_pages(path, 0, 320)
    drop_behind = resident(path)
    text = rmap("file", path).stdout
    bar = next(line for line in text.splitlines() if line.startswith("  |")).strip(" |")
    assert len(bar) == 64
    expected = "".join(
        "-" if n == 10 else "," if n else "."
        for n in (sum(cell * 10 <= page < cell * 10 + 10 for page in drop_behind) for cell in range(64))
    )
    assert bar == expected
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("file"))
    drop(path)
