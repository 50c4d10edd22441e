"""Which areas are a file's, and where they have a page of it; also where maps shows two files alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmap.live.files.mappers import OpenedFile, mappers_of
from rmap.live.lookup.place import mapped_page
from rmap.live.lookup.search import Hit, for_page
from rmap.live.lookup.ways import InFile
from rmap.live.sources import procfs
from rmap.live.sources.areas import FileIdentity, address_in, area_at, areas_of, identity_at, identity_of, is_device
from rmap.units import PAGE_SIZE
from tests.live.sources.recorded import recorded, unprivileged

A, B, BOTH, REFUSED, GONE = 5000011, 5000012, 5000013, 5000014, 5000015
IN_MAPS = os.makedev(0, 0x2A), 257
FRAME_OF_A, FRAME_OF_B = 0x500, 0x600


@pytest.fixture
def machine() -> Iterator[Path]:
    with recorded("btrfs") as folder:
        yield folder


def identity(machine: Path, name: str) -> FileIdentity:
    status = os.stat(machine / "files" / name)
    return FileIdentity(IN_MAPS, (status.st_dev, status.st_ino))


def starts(pid: int, file: FileIdentity) -> list[int]:
    return [area.start for area in areas_of(pid, file)]


def test_two_files_that_maps_shows_alike_are_told_apart(machine: Path) -> None:
    a, b = identity(machine, "a"), identity(machine, "b")
    assert [starts(pid, a) for pid in (A, B, BOTH)] == [[0x400000, 0x600000], [], [0x600000]]
    assert [starts(pid, b) for pid in (A, B, BOTH)] == [[], [0x400000, 0x600000], [0x400000]]


def test_without_the_numbers_of_stat_every_line_that_looks_like_it_is_taken(machine: Path) -> None:
    for file in (FileIdentity(IN_MAPS), FileIdentity(IN_MAPS, IN_MAPS)):
        assert [starts(pid, file) for pid in (A, B, BOTH)] == [[0x400000, 0x600000]] * 3
    (machine / f"proc/{B}/map_files/400000-404000").unlink()  # as for whoever may not follow it
    assert starts(B, identity(machine, "a")) == [0x400000]


def test_who_has_gone_or_refuses(machine: Path) -> None:
    file = identity(machine, "a")
    for read in (lambda pid: areas_of(pid, file), lambda pid: area_at(pid, 0x400000)):
        with pytest.raises(FileNotFoundError):
            read(GONE)
        with unprivileged(), pytest.raises(PermissionError):
            read(REFUSED)


def test_both_users_of_areas_tell_the_files_apart(machine: Path) -> None:
    for name, frame, hits in (
        ("a", FRAME_OF_A, {Hit(BOTH, 0x600000), Hit(A, 0x403000)}),
        ("b", FRAME_OF_B, {Hit(B, 0x403000), Hit(BOTH, 0x403000)}),
    ):
        file = identity(machine, name)
        search = for_page(frame)
        with unprivileged():
            InFile(file, 3).look(search, procfs.pids(), lambda: False)
            mappers = mappers_of(OpenedFile(-1, name, 0, file, file.of_stat or IN_MAPS))
            assert mapped_page(file, 3) == frame
            assert mapped_page(file, 2) is None
        assert search.hits == hits
        assert search.unread.empty == {GONE} and search.unread.refused == {REFUSED}
        assert {(one.pid, address) for one in mappers.found for address in one.address.tolist()} == {
            (hit.pid, hit.address) for hit in hits
        }
        assert {page for one in mappers.found for page in one.page.tolist()} == {3}
        assert (mappers.ended, mappers.refused) == (1, [REFUSED])


def test_where_an_area_has_a_page(machine: Path) -> None:
    whole, part = areas_of(A, identity(machine, "a"))
    assert [address_in(whole, page) for page in (-1, 0, 3, 4)] == [None, 0x400000, 0x403000, None]
    assert [address_in(part, page) for page in (2, 3, 4, 5)] == [None, 0x600000, 0x601000, None]
    for address, area in ((0x400000, whole), (0x403FFF, whole), (0x404000, None), (0x601FFF, part), (1 << 47, None)):
        assert area_at(A, address) == area
    assert not is_device(A, whole.start, whole.end, whole.path)
    assert is_device(A, 0, 0, "anon_inode:[perf_event]") and not is_device(A, 0, 0, "/gone")


def test_what_a_file_is_known_by_is_asked_of_the_running_kernel(machine: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * PAGE_SIZE)
    status = path.stat()
    with path.open("rb") as file:
        known = identity_of(file.fileno(), status)
    assert known.of_stat == (status.st_dev, status.st_ino)
    assert known == identity_at(str(path), status)
    numbers = known.of_stat
    assert identity_at(str(tmp_path), tmp_path.stat()).of_stat != numbers  # what cannot be mapped has those of stat
    assert identity_at(str(tmp_path / "none"), status) == FileIdentity(numbers, numbers)
