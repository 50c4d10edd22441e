"""`rmap files`: every file of the machine's processes once, and how much of it is in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rmap.live.capture.capture import capture
from tests.support import PAGE
from tests.support.command import rmap, told
from tests.support.file_cases import clean_file, read_pages, resident
from tests.support.live_family import family
from tests.support.needs import need

pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state")]

FAMILY = """
fd = os.open({path!r}, os.O_RDONLY)
area = libc.mmap(None, 16 * PAGE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)  # mmap.mmap keeps a descriptor
for page in range(16):
    ctypes.string_at(area + page * PAGE, 1)
os.close(fd)
def by_the_other_name():
    global kept
    kept = os.open({link!r}, os.O_RDONLY)
fork(by_the_other_name)
memfd = os.memfd_create("cache-of-a-test")
os.ftruncate(memfd, 64 * PAGE)
os.pwrite(memfd, b"x" * 40 * PAGE, 0)
gone = os.open({gone!r}, os.O_RDWR | os.O_CREAT)
os.write(gone, b"x" * 9 * PAGE)
os.unlink({gone!r})
ready([memfd, gone])
"""


def row(answer: dict[str, Any], part: str) -> dict[str, Any]:
    """The one file whose path has this in it."""
    (one,) = (file for file in answer["files"] if part in file["path"])
    return dict(one)


def test_every_file_once_with_what_is_in_memory(disk: Path) -> None:
    path, link = clean_file(disk / "file-of-a-test", 64), disk / "link"
    os.link(path, link)
    read_pages(path, 0, 48)
    script = FAMILY.format(path=str(path), link=str(link), gone=str(disk / "gone-of-a-test"))
    with family(script) as tree:
        status, answer = told("files")
        assert status == 0
        names = [file["path"] for file in answer["files"] if file["path"] in (str(path), str(link))]
        assert len(names) == 1  # two names, one file
        one = row(answer, names[0])
        truth = resident(path)
        assert one["resident"] == len(truth) * PAGE and one["size"] == 64 * PAGE
        assert one["mapped_by"] == tree.pids and one["open_by"] == tree.children
        memfd, gone = row(answer, "/memfd:cache-of-a-test"), row(answer, "gone-of-a-test")
        assert memfd["resident"] == 40 * PAGE and memfd["open_by"] == [tree.pid] and not memfd["mapped_by"]
        assert gone["resident"] == 9 * PAGE == gone["size"]
        for file in (one, memfd, gone):  # the handle opens it
            assert len(resident(file["handle"])) * PAGE == file["resident"]
        sizes = [file["resident"] or 0 for file in answer["files"]]
        assert sizes == sorted(sizes, reverse=True)
        assert answer["explained"] == sum(sizes) > 0


def test_the_sum_is_a_part_of_what_the_kernel_counts() -> None:
    _, answer = told("files")
    meminfo = Path("/proc/meminfo").read_text().split()
    cached = int(meminfo[meminfo.index("Cached:") + 1]) * 1024
    assert abs(cached - answer["cached"]) < 256 << 20  # other programs read and write meanwhile
    assert answer["explained"] <= answer["cached"] + (32 << 20)
    text = rmap("files", "--top", "1").stdout
    assert "that nobody has open now: they cannot be named" in " ".join(text.split())


def test_only_files_of_chosen_processes(disk: Path) -> None:
    path = clean_file(disk / "file-of-a-test", 16)
    script = FAMILY.format(path=str(path), link=str(path), gone=str(disk / "gone"))
    with family(script) as tree:
        _, answer = told("files", "--pid", str(tree.children[0]))
        for file in answer["files"]:
            assert tree.children[0] in (*file["mapped_by"], *file["open_by"])
        assert row(answer, "file-of-a-test")["mapped_by"] == tree.pids  # all are counted
        done = rmap("files", "--pid", str(tree.pid), "--jsonl", "--sort", "path")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [one["path"] for one in rows] == sorted(one["path"] for one in rows) and len(rows) > 3
        lines = rmap("files", "--pid", str(tree.pid), "--top", "2").stdout.splitlines()
        assert lines[3] == f"... {len(rows) - 2} more (--all)"
    assert rmap("files", "--pid", "4194304").returncode == 2
    assert rmap("files", "--cgroup", "/no/such/cgroup").returncode == 2


def test_a_picture_knows_what_is_mapped(disk: Path, tmp_path: Path) -> None:
    path = clean_file(disk / "file-of-a-test", 16)
    script = FAMILY.format(path=str(path), link=str(path), gone=str(disk / "gone"))
    with family(script) as tree:
        capture(tree.pids).save(tmp_path / "here.rmap")
        status, answer = told("files", "-i", tmp_path / "here.rmap", "--pid", str(tree.pid))
        assert status == 0
        one = row(answer, "file-of-a-test")
        assert (one["resident"], one["mapped_by"], one["open_by"]) == (16 * PAGE, 2, 1)
        assert "what else of the page cache there was is not known" in " ".join(
            rmap("files", "-i", tmp_path / "here.rmap").stdout.split()
        )


CONTAINERS = """
for n in 1 2; do
  mount -t overlay overlay -o lowerdir="$1/low",upperdir="$1/up$n",workdir="$1/work$n" "$1/over$n" || exit 77
  "$2" -c 'import mmap, sys; f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, 1); m[0]
print(flush=True); sys.stdin.read()' "$1/over$n/file" < "$3" > "$1/started$n" &
  pids="$pids $!"
done
while [ ! -s "$1/started1" ] || [ ! -s "$1/started2" ]; do kill -0 $pids || exit 1; sleep 0.02; done
echo ready
read line
kill $pids
"""


def test_files_of_containers_and_below_overlays_are_found_once(disk: Path) -> None:
    """Two containers run one image: the file is of two overlays, and its pages are there once."""
    for name in ("low", "up1", "up2", "work1", "work2", "over1", "over2"):
        (disk / name).mkdir()
    clean_file(disk / "low" / "file", 32)
    read_pages(disk / "low" / "file", 0, 32)
    os.mkfifo(disk / "fifo")
    writer = os.open(disk / "fifo", os.O_RDWR)
    words = ["unshare", "-m", "sh", "-c", CONTAINERS, "sh", str(disk), sys.executable, str(disk / "fifo")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        ready = process.stdout.readline()
        if not ready:
            assert process.wait(20) == 77
            need("overlayfs")
        _, answer = told("files")
        one = row(answer, f"{disk}/over")
        assert one["path"].startswith("/proc/") and "/root/" in one["path"]
        assert one["resident"] == 32 * PAGE and len(one["mapped_by"]) == 2
        assert len(resident(one["path"])) == 32  # the path shown is one that works from here
    finally:
        process.communicate("done\n", timeout=20)
        os.close(writer)
