"""The file of a trace: what is written is read again, and what is broken is refused with its requirement."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmap.errors import TraceError, UsageError
from rmap.snapshot import isomorphic
from rmap.trace import Trace
from rmap.trace.tables import TABLES
from tests.support.archives import Members, edit, npy
from tests.support.trace_worlds import parent_and_child, snapshot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "small.trace"
    parent_and_child().build().save(target)
    return target


def about(members: Members, **changes: Any) -> None:
    members["about.json"] = json.dumps({**json.loads(members["about.json"]), **changes}).encode()


def nest(depth: int) -> Any:
    """A list in a list in a list ..."""
    found: Any = 0
    for _ in range(depth):
        found = [found]
    return found


def deep_picture(members: Members) -> bytes:
    """A picture of the trace with an about.json that never ends to begin."""
    stream = io.BytesIO(members["pictures/0001.rmap"])
    with zipfile.ZipFile(stream) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in {**inner, "about.json": b"[" * 200_000}.items():
            archive.writestr(name, data)
    return out.getvalue()


def same(before: Trace, after: Trace) -> None:
    for table, left, right in ((t, getattr(before, t.name, None), getattr(after, t.name, None)) for t in TABLES[:3]):
        for name, column in table.columns().items():
            values, again = getattr(left, name), getattr(right, name)
            if column.dtype == "text":
                assert values == again
            else:
                assert again.dtype == np.int64
                assert np.array_equal(values, again), (table.name, name)
    assert [(p.cause, p.pid) for p in before.moments] == [(p.cause, p.pid) for p in after.moments]
    for left, right in zip(before.moments, after.moments):
        assert isomorphic(left.snapshot, right.snapshot) is None
        assert left.snapshot.vmas.label == right.snapshot.vmas.label


def test_what_is_written_is_read_again(path: Path) -> None:
    before, after = parent_and_child().build(), Trace.load(path)
    same(before, after)
    assert len(after.events) == 11
    assert {**before.about, "format": 1} == after.about
    assert [(p.cause, p.pid) for p in after.moments] == [("exec", 100), ("checkpoint", -1), ("end", -1)]


def test_the_same_trace_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    parent_and_child().build().save(tmp_path / "again.trace")
    assert (tmp_path / "again.trace").read_bytes() == path.read_bytes()


def test_numpy_alone_reads_the_columns(path: Path) -> None:
    with np.load(path, allow_pickle=False) as archive:
        time = np.cumsum(archive["events/time"].astype(np.int64))
        assert time.tolist() == [1000 * n for n in range(1, 12)]
        assert archive["events/a0"].ndim == 1


def test_a_picture_inside_is_a_picture_by_itself(path: Path, tmp_path: Path) -> None:
    from rmap.snapshot import Snapshot

    with zipfile.ZipFile(path) as archive:
        (tmp_path / "inner.rmap").write_bytes(archive.read("pictures/0001.rmap"))
    assert Snapshot.load(tmp_path / "inner.rmap").processes.pid.tolist() == [100, 101]


def test_a_hundred_pictures_stay_small(tmp_path: Path) -> None:
    builder = parent_and_child()
    for _ in range(100):
        builder.checkpoint(snapshot(100))
    builder.build().save(tmp_path / "many.trace")
    assert (tmp_path / "many.trace").stat().st_size < 100 * 4500


def test_a_file_is_not_replaced_unasked(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        parent_and_child().build().save(path)
    assert path.read_bytes() == before
    parent_and_child().build().save(path, force=True)


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(TraceError, match=r"not a recorded program, or is cut off \(D1"):
            Trace.load(path)


def test_flipped_bytes_are_refused_or_harmless(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    refused = 0
    for at in range(0, len(whole), 53):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        path.write_bytes(broken)
        try:
            Trace.load(path)
        except TraceError:
            refused += 1
    assert refused > len(whole) // 53 // 2


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"", "cut off"), (b"GIF89a" * 100, "cut off"), (b"\x1f\x8b" + bytes(300), "cut off")],
)
def test_foreign_files_are_refused(path: Path, text: bytes, message: str) -> None:
    path.write_bytes(text)
    with pytest.raises(TraceError, match=message):
        Trace.load(path)


def test_a_picture_is_no_trace(tmp_path: Path) -> None:
    snapshot(1).save(tmp_path / "one.rmap")
    with pytest.raises(TraceError, match=r"has no events \(T1\)"):
        Trace.load(tmp_path / "one.rmap")


def test_a_missing_file_and_a_plain_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="there is no file"):
        Trace.load(tmp_path / "nothing.trace")
    with pytest.raises(TraceError, match=r"no unfinished recording: about.json is missing \(T1\)"):
        Trace.load(tmp_path)


def test_a_newer_format_is_refused(path: Path) -> None:
    edit(path, lambda members: about(members, format=2))
    with pytest.raises(TraceError, match=r"has format 2; this rmap reads up to format 1.*\(D2\)"):
        Trace.load(path)


def test_members_of_later_releases_are_ignored(path: Path) -> None:
    edit(path, lambda members: members.update({"events/weather.npy": npy(np.arange(3)), "notes.txt": b"hello"}))
    same(parent_and_child().build(), Trace.load(path))


BROKEN: list[tuple[str, Callable[[Members], Any], str]] = [
    ("no about", lambda m: m.pop("about.json"), "D1"),
    ("about nested deeply", lambda m: m.update({"about.json": b'{"a":' * 200_000}), "D1"),
    ("about nested, and closed", lambda m: about(m, note=nest(400)), "D1"),
    ("a picture's about nested deeply", lambda m: m.update({"pictures/0001.rmap": deep_picture(m)}), "D1"),
    ("a column is missing", lambda m: m.pop("events/a3.npy"), "D1"),
    ("a pickle", lambda m: m.update({"events/a3.npy": npy(np.array([{}] * 11, object))}), "D1"),
    ("floats", lambda m: m.update({"events/a3.npy": npy(np.zeros(11))}), "D1"),
    ("two dimensions", lambda m: m.update({"events/a3.npy": npy(np.zeros((11, 2), int))}), "D1"),
    ("a short column", lambda m: m.update({"events/a3.npy": npy(np.zeros(10, np.int64))}), "D3"),
    ("a picture is missing", lambda m: m.pop("pictures/0001.rmap"), "T3"),
    ("a picture is cut off", lambda m: m.update({"pictures/0001.rmap": m["pictures/0001.rmap"][:900]}), "D1"),
    ("an unknown cause", lambda m: m.update({"pictures/cause.npy": npy(np.array([0, 1, 3]))}), "T3"),
    ("a picture of something else", lambda m: m.update({"pictures/0000.rmap": m["pictures/0001.rmap"]}), "T8"),
    ("no recorder", lambda m: about(m, recorder=None), "T4"),
    ("an unknown recorder", lambda m: about(m, recorder="crystal ball"), "T4"),
    ("a command of numbers", lambda m: about(m, command=[1]), "T4"),
    ("complete, with a reason", lambda m: about(m, why_incomplete="?"), "T4"),
    ("incomplete, without", lambda m: about(m, complete=False), "T4"),
    ("a negative loss", lambda m: about(m, lost=-1), "T4"),
]


@pytest.mark.parametrize(("change", "number"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_file_is_refused_with_its_requirement(
    path: Path, change: Callable[[Members], Any], number: str
) -> None:
    edit(path, change)
    with pytest.raises(TraceError, match=rf"\({number}[:)]"):
        Trace.load(path)
