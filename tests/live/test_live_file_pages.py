"""Files of the running machine: in memory or not, mapped by whom; against fincore and page tables."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from live_family import family

from needs import need
from rmap.cli import main
from rmap.errors import NotPermitted, SourceError
from rmap.live import abilities
from rmap.live.file_pages import file_pages, opened
from rmap.live.open_files import cached_files, meminfo
from rmap.show.file import bar

PAGE = 4096
PAGES = 128
pytestmark = pytest.mark.live


@pytest.fixture(autouse=True)
def _able() -> None:
    need(abilities().missing("frames", "page_state"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of which pages 0 to 63 are in memory."""
    made = tmp_path / "data.bin"
    made.write_bytes(os.urandom(PAGES * PAGE))
    with made.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 64 * PAGE, 0, os.POSIX_FADV_DONTNEED)
    return made


def readers(path: Path) -> str:
    return f"""
fd = os.open({str(path)!r}, os.O_RDONLY)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def window(first, pages):
    area = mm(pages, mmap.MAP_SHARED, fd, first * PAGE, 1)
    area.madvise(mmap.MADV_RANDOM)
    return area
whole = window(0, 16)
whole[0], whole[3 * PAGE]
def other():
    global kept
    kept = window(3, 2)
    kept[0]
fork(other)
ready(0)
"""


def test_residency_is_that_of_fincore(path: Path) -> None:
    found = file_pages(str(path))
    assert found.resident.tolist()[:64] == [True] * 64
    if shutil.which("fincore"):
        command = ["fincore", "-b", "-n", "-o", "PAGES", str(path)]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(told.stdout) == found.resident.sum()
    if found.cache is not None:
        assert found.cache.cache == found.resident.sum()


def test_mappers_are_those_of_the_page_tables(path: Path) -> None:
    with family(readers(path)) as tree:
        found = file_pages(str(path))
        touched = {
            pid: sorted(set(pages.tolist())) for pid, pages in found.mapped.items() if pid in tree.pids
        }
        assert set(touched) == set(tree.pids)
        assert {0, 3} <= set(touched[tree.pid]) and 3 in touched[tree.children[0]]
        assert found.mappers[3] == sum(3 in pages for pages in touched.values())
        assert sorted(found.open_by) == sorted(tree.pids)
        for one in found.ranges():
            for page in range(one.first, one.first + one.pages):
                assert one.resident == found.resident[page]
                assert one.pids == sorted(pid for pid, pages in touched.items() if page in pages)
        assert sum(one.pages for one in found.ranges()) == PAGES


def test_a_deleted_file_is_asked_through_its_descriptor(path: Path) -> None:
    with family(readers(path)) as tree:
        folder = f"/proc/{tree.pid}/fd"
        fd = next(name for name in os.listdir(folder) if "data.bin" in os.readlink(f"{folder}/{name}"))
        found, _ = cached_files(tree.pids)
        mine = next(one for one in found if one.path == str(path))
        assert (mine.mapped_by, mine.open_by, mine.size) == (2, 2, PAGES * PAGE)
        assert mine.resident >= 64 * PAGE
        path.unlink()
        found, _ = cached_files(tree.pids)
        assert any(one.path == f"{path} (deleted)" for one in found)
        assert main(["file", f"/proc/{tree.pid}/fd/{fd}"]) in (0, 1, 4)


def test_what_is_no_regular_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a regular file"), opened(str(tmp_path)):
        pass
    with pytest.raises(SourceError, match="No such file"), opened(str(tmp_path / "none")):
        pass
    (tmp_path / "empty").write_bytes(b"")
    assert file_pages(str(tmp_path / "empty")).ranges() == []
    assert main(["file", str(tmp_path / "empty")]) == 1


def test_a_stranger_is_not_told(path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    path.chmod(0o644)
    for parent in list(path.parents)[:4]:
        if str(parent).count("/") > 1:
            parent.chmod(0o755)
    pid = os.fork()
    if not pid:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            with opened(str(path)):
                os._exit(1)
        except NotPermitted:
            os._exit(0)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_commands_tell_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with family(readers(path)) as tree:
        assert main(["file", str(path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["size"], sorted(told["mapped_by"])) == (PAGES * PAGE, sorted(tree.pids))
        assert main(["file", str(path)]) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80 and "[" in out
        for words in ([], ["--sort", "path", "--top", "3"], ["--pid", str(tree.pid)]):
            assert main(["files", *words]) == 0
            out = capsys.readouterr().out
            assert max(map(len, out.splitlines())) <= 80
        assert main(["files", "--pid", str(tree.pid), "--jsonl"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert str(path) in {row["path"] for row in rows} and all(row["schema"] == 1 for row in rows)
    assert meminfo("Cached") > 0


def test_a_bar_shows_the_most_of_each_cell() -> None:
    import numpy as np

    resident = np.array([True] * 4 + [False] * 4)
    mappers = np.array([0, 0, 12, 3, 0, 0, 0, 0])
    assert bar(resident, mappers) == "--#3...."
    assert bar(resident, mappers, cells=4) == "-#.."
    assert bar(resident, mappers, cells=1) == "#"


def test_the_own_mapping_touches_nothing(path: Path) -> None:
    """Looking at a file must not bring it in."""
    before = int(file_pages(str(path)).resident.sum())
    for _ in range(3):
        file_pages(str(path))
    assert int(file_pages(str(path)).resident.sum()) == before
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as own:
        assert len(own) == PAGES * PAGE
