"""The file format: what is written is read again, and what is broken is refused with its requirement (D1 to D3)."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.errors import SnapshotError, UsageError
from rmap.snapshot import Snapshot, isomorphic
from rmap.snapshot.storage import FORMAT, _encode, _encode_text
from rmap.snapshot.storage import _decode as decode
from rmap.snapshot.tables import TABLES, Column
from tests.support.archives import edit, npy
from tests.support.snapshot_worlds import parent_and_child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "small.rmap"
    parent_and_child().build().save(target)
    return target


def test_what_is_written_is_read_again(path: Path) -> None:
    before, after = parent_and_child().build(), Snapshot.load(path)
    for table in TABLES:
        for name, column in table.columns().items():
            left, right = getattr(before.tables[table.name], name), getattr(after.tables[table.name], name)
            if column.dtype == "text":
                assert left == right
            else:
                assert left.dtype == right.dtype == np.dtype(column.dtype)
                assert np.array_equal(left, right), (table.name, name)
    assert {**before.about, "format": FORMAT} == after.about
    assert isomorphic(before, after) is None


def test_the_same_picture_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.rmap"
    parent_and_child().build().save(again)
    assert again.read_bytes() == path.read_bytes()


def test_every_member_is_a_plain_numpy_column(path: Path) -> None:
    with np.load(path, allow_pickle=False) as archive:
        names = [name for name in archive.files if name != "about.json"]
        assert all(archive[name].ndim == 1 for name in names)
    assert "ptes/pfn" in names


def test_names_that_are_no_utf8_are_written_readably(tmp_path: Path) -> None:
    """A name on Linux is any bytes; Python reads them as lone surrogates."""
    snapshot = parent_and_child().build()
    snapshot.files.path[0] = os.fsdecode(b"/x\xff")
    snapshot.about["host"] = os.fsdecode(b"h\xfe")
    snapshot.save(tmp_path / "odd.rmap")
    again = Snapshot.load(tmp_path / "odd.rmap")
    assert again.files.path[0] == r"/x\udcff" and again.about["host"] == os.fsdecode(b"h\xfe")


def test_a_file_is_not_replaced_unasked(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        parent_and_child(first_pid=7).build().save(path)
    assert path.read_bytes() == before
    parent_and_child(first_pid=7).build().save(path, force=True)
    assert Snapshot.load(path).processes.pid.tolist() == [7, 8]
    assert [file.name for file in path.parent.iterdir()] == ["small.rmap"]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        parent_and_child().build().save(tmp_path / "not there" / "x.rmap")


@pytest.mark.parametrize("share", [0, 1, 10, 50, 90, 99])
def test_a_cut_off_file_is_refused(path: Path, share: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * share // 100])
    with pytest.raises(SnapshotError, match=r"not a picture of memory, or is cut off \(D1"):
        Snapshot.load(path)


def test_a_damaged_file_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = data.index(b"ptes/pfn.npy") + 20
    data[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    with pytest.raises(SnapshotError, match="D1"):
        Snapshot.load(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.rmap"
    text.write_text("not a zip\n" * 100)
    with pytest.raises(SnapshotError, match="not a picture of memory"):
        Snapshot.load(text)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(SnapshotError, match=r"has no about\.json"):
        Snapshot.load(tmp_path / "other.zip")
    with pytest.raises(SnapshotError, match="there is no file"):
        Snapshot.load(tmp_path / "nothing")
    with pytest.raises(SnapshotError, match="cannot be read"):
        Snapshot.load(tmp_path)


def test_a_newer_format_is_refused(path: Path) -> None:
    def newer(members: dict[str, bytes]) -> None:
        members["about.json"] = json.dumps({"format": FORMAT + 1}).encode()

    edit(path, newer)
    with pytest.raises(SnapshotError, match=r"format 4; this rmap reads up to format 3\. A newer rmap wrote it \(D2\)"):
        Snapshot.load(path)


BROKEN: dict[str, tuple[str, bytes | None, str]] = {
    "a column is missing": ("frames/order.npy", None, "lacks the column frames/order.npy .D1."),
    "a column is a pickle": ("frames/order.npy", npy(np.array([{}, 1], object)), "not a NumPy column .D1"),
    "a column is not npy": ("frames/order.npy", b"hello", "not a NumPy column .D1"),
    "a column has two dimensions": ("frames/order.npy", npy(np.zeros((2, 2), np.int8)), "2-dimensional int8.*D1"),
    "a column has fractions": ("frames/order.npy", npy(np.zeros(5)), "1-dimensional float64.*D1"),
    "about is not JSON": ("about.json", b"{", "not readable JSON .D1"),
    "about is nested deeply": ("about.json", b"[" * 200_000, "not readable JSON .D1: nested too deeply"),
    "about is nested, and closed": (
        "about.json",
        b'{"format": 2, "x": %s}' % (b"[" * 400 + b"]" * 400),
        "D1: nested too",
    ),
    "no format number": ("about.json", b"{}", "no format number .D2"),
    "about is not an object": ("about.json", b"[]", "no format number .D2"),
    "the format is not a number": ("about.json", b'{"format": "1"}', "no format number .D2"),
    "columns differ in length": ("frames/order.npy", npy(np.zeros(2, np.int8)), "columns of frames differ.*D3"),
    "a number is too large": ("frames/order.npy", npy(np.full(5, 300)), "do not fit int8 .D3"),
    "a truth value is not one": ("frames/raced.npy", npy(np.full(5, 2)), "do not fit bool .D3"),
    "a code beyond the strings": ("files/path.code.npy", npy(np.array([1])), "a string that is not there .D3"),
    "offsets beyond the text": ("files/path.offset.npy", npy(np.array([0, 99])), "offsets do not fit the text .D3"),
    "offsets not rising": ("files/path.offset.npy", npy(np.array([0, 20, 14])), "offsets do not fit the text .D3"),
    "text is not UTF-8": ("files/path.data.npy", npy(np.full(14, 0xFF, np.uint8)), "not UTF-8 .D3"),
    "text is not bytes": ("files/path.data.npy", npy(np.full(14, 300)), "offsets do not fit the text .D3"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_member_is_refused(path: Path, name: str) -> None:
    member, data, message = BROKEN[name]

    def change(members: dict[str, bytes]) -> None:
        assert member in members
        if data is None:
            del members[member]
        else:
            members[member] = data

    edit(path, change)
    with pytest.raises(SnapshotError, match=message):
        Snapshot.load(path)


def test_a_member_that_claims_to_be_huge_is_not_unpacked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmap.snapshot.storage._MAX_MEMBER", 100)
    with pytest.raises(SnapshotError, match=r"claims .* bytes .D1"):
        Snapshot.load(path)


@given(st.lists(st.integers(-(1 << 61), 1 << 61)), st.booleans())
def test_numbers_survive_their_encoding(values: list[int], delta: bool) -> None:
    column = Column("int64", delta=delta)
    array = np.array(values, np.int64)
    stored = _encode(array, column)
    assert np.array_equal(decode(stored, column), array)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_strings_are_stored_once(values: list[str]) -> None:
    parts = _encode_text(values)
    assert len(parts[".offset"]) == len(set(values)) + 1
    assert len(parts[".data"]) == len("".join(set(values)).encode())
