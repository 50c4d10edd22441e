"""A trace as one file, ``NAME.trace``: a zip of ``about.json``, one ``.npy`` per column, and the pictures.

The same form as a picture's (:mod:`rmap.snapshot.storage`), with the same requirements D1 to D3 on archive, ``about``
and columns. A picture lies within as ``pictures/0000.rmap``; its own members are not compressed, so that the archive
around it compresses all of it at once.
"""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from rmap.errors import SnapshotError, TraceError
from rmap.snapshot import Snapshot
from rmap.snapshot import storage as picture_storage
from rmap.trace.tables import CAUSES, EventTable, InodeTable, OpenTable, PictureTable

FORMAT = 1
"""The format this release writes; every format up to it is read."""
FORM = picture_storage.Form("a recorded program", FORMAT, TraceError)
"""What a file of a trace should be."""
_MAX_PICTURES = 1_000_000


@dataclass
class Parts:
    """What a file holds. Pictures are (snapshot, code of the cause, pid)."""

    about: dict[str, Any]
    events: EventTable
    opens: OpenTable
    files: InodeTable
    pictures: list[tuple[Snapshot, int, int]]


def picture_name(number: int) -> str:
    """``pictures/0000.rmap``: where a picture lies, in the archive and in the folder of an unfinished recording."""
    return f"pictures/{number:04}.rmap"


def save(path: str | os.PathLike[str], parts: Parts, *, force: bool = False) -> None:
    """Write a trace. The file appears whole or not at all.

    Args:
        path: where; the name should end in ``.trace``.
        parts: the content; ``about["format"]`` is set here.
        force: replace a file that exists.

    Raises:
        UsageError: the file exists and ``force`` is false, or the directory does not exist.
    """
    picture_storage.write_whole(path, lambda stream: _write(stream, parts), force=force)


def _write(stream: IO[bytes], parts: Parts) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        picture_storage.write_about(archive, {**parts.about, "format": FORMAT})
        for table in (parts.events, parts.opens, parts.files, pictures_table(parts.pictures)):
            picture_storage.write_table(archive, table)
        for number, (snapshot, _, _) in enumerate(parts.pictures):
            buffer = io.BytesIO()
            picture_storage.write(buffer, snapshot.tables, snapshot.about, nested=True)
            picture_storage.write_member(archive, picture_name(number), buffer.getvalue())


def pictures_table(pictures: list[tuple[Snapshot, int, int]]) -> PictureTable:
    """The table that says why each picture was taken."""
    return PictureTable.of({"cause": [cause for _, cause, _ in pictures], "pid": [pid for _, _, pid in pictures]})


def load(path: Path) -> Parts:
    """Read a trace as it is written: requirements T1 to T3.

    Raises:
        TraceError: not a trace, damaged, or of a newer format. One sentence says which.
    """
    with picture_storage.opened(path, path, FORM) as archive:
        members = archive.namelist()
        if "about.json" in members and "events/time.npy" not in members:
            raise TraceError(f"{path} is a zip with an about.json, but not {FORM.what}: it has no events (T1)")
        about = picture_storage.read_about(archive, path, FORM)
        events, opens, files, table = (
            picture_storage.read_table(archive, EventTable, path, FORM),
            picture_storage.read_table(archive, OpenTable, path, FORM),
            picture_storage.read_table(archive, InodeTable, path, FORM),
            picture_storage.read_table(archive, PictureTable, path, FORM),
        )
        pictures = _read_pictures(archive, table, path)
    return Parts(about, events, opens, files, pictures)


def _read_pictures(archive: zipfile.ZipFile, table: PictureTable, path: Path) -> list[tuple[Snapshot, int, int]]:
    if len(table) > _MAX_PICTURES:
        raise TraceError(f"{path} claims {len(table):,} pictures (T3)")
    check_causes(table, path)
    members = set(archive.namelist())
    pictures = []
    for number, (cause, pid) in enumerate(zip(table.cause.tolist(), table.pid.tolist())):
        name = picture_name(number)
        if name not in members:
            raise TraceError(f"{path} lacks {name} (T3)")
        pictures.append((nested(io.BytesIO(archive.read(name)), f"{path}: {name}"), cause, pid))
    return pictures


def check_causes(table: PictureTable, source: object) -> None:
    """T3: every cause is a known code."""
    wrong = (table.cause < 0) | (table.cause >= len(CAUSES))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TraceError(f"{source}: picture {row} has the unknown cause {table.cause[row]} (T3)")


def nested(stream: IO[bytes], source: str) -> Snapshot:
    """A picture from a stream, with everything checked that is checked on a picture.

    Raises:
        TraceError: it is damaged or contradictory; ``source`` names it.
    """
    # Who reads a trace has a trace that cannot be used, whatever part of it is bad.
    try:
        tables, about = picture_storage.read(stream, source)
    except SnapshotError as error:
        raise TraceError(str(error)) from None
    try:
        return Snapshot(tables, about)
    except SnapshotError as error:
        raise TraceError(f"{source}: {error} (T3)") from None
