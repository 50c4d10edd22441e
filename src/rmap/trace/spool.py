"""A recording while it runs: the folder ``NAME.trace.part``, to which is only ever appended.

If the recorder is killed, everything is there but what it had not yet written, and the last line of each file may be
cut off; :func:`load` leaves that out. In the folder:

* ``about.json``, written once at the beginning, before anything else;
* ``events.i64``: one event after the other, each its 13 columns as little-endian int64;
* ``opens.jsonl``, ``files.jsonl``, ``pictures.jsonl``: one JSON object a line, a row of the table;
* ``pictures/0000.rmap``: each written whole before its line in ``pictures.jsonl``.

Rows are written before the events that name them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from rmap.errors import TraceError, UsageError
from rmap.snapshot import Snapshot
from rmap.snapshot import storage as picture_storage
from rmap.snapshot.tables import Table
from rmap.trace import storage
from rmap.trace.tables import CHECKPOINT, EXEC, EventTable, InodeTable, OpenTable, PictureTable

SUFFIX = ".part"
NOT_ENDED = "the recorder was killed before it could finish the trace"
_WIDTH = len(EventTable.columns())


def part_of(path: str | os.PathLike[str]) -> Path:
    """The folder of a recording that will become ``path``."""
    return Path(f"{os.fspath(path)}{SUFFIX}")


class Spool:
    """Writes the folder. What a method has written is with the kernel when it returns, so it outlives this process.

    Args:
        folder: made here.
        about: what is known at the beginning; ``complete`` is set to false.

    Raises:
        UsageError: the folder exists already, or its directory does not.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        if not folder.parent.is_dir():
            raise UsageError(f"there is no directory {folder.parent}")
        try:
            folder.mkdir()
        except FileExistsError:
            raise UsageError(f"{folder} exists: an earlier recording did not come to its end, or still runs") from None
        self.folder = folder
        self.about = {**about, "format": storage.FORMAT, "complete": False, "why_incomplete": NOT_ENDED}
        (folder / "pictures").mkdir()
        (folder / "about.json").write_text(json.dumps(self.about, indent=1, sort_keys=True))
        self._rows = {"opens": 0, "files": 0, "pictures": 0}
        self._events: IO[bytes] = (folder / "events.i64").open("ab", buffering=0)
        self._lines: dict[str, IO[bytes]] = {
            name: (folder / f"{name}.jsonl").open("ab", buffering=0) for name in self._rows
        }

    def add_file(self, *, dev: int, inode: int, path: str, size: int, shmem: bool, device: bool) -> int:
        """Add an inode; returns its id."""
        return self._line(
            "files",
            {"dev": dev, "inode": inode, "path": path, "size": size, "shmem": int(shmem), "device": int(device)},
        )

    def add_open(self, file: int, *, writable: bool) -> int:
        """Add a ``struct file`` of an inode; returns its id."""
        return self._line("opens", {"file": file, "writable": int(writable)})

    def add_picture(self, snapshot: Snapshot, cause: int, pid: int) -> int:
        """Add a picture; returns its number, for the event that is to name it."""
        number = self._rows["pictures"]
        with (self.folder / storage.picture_name(number)).open("xb") as stream:
            picture_storage.write(stream, snapshot.tables, snapshot.about, nested=True)  # quickly: somebody is stopped
        return self._line("pictures", {"cause": cause, "pid": pid})

    def add_events(self, rows: npt.NDArray[np.int64]) -> None:
        """Add events: a 2-D int64 array, one row each, in the order of the table's columns."""
        if len(rows):
            _write_all(self._events, np.ascontiguousarray(rows, "<i8").tobytes())

    def replace_events(self, rows: npt.NDArray[np.int64]) -> None:
        """Write these events in place of all that were added; the folder is never without the one or the other."""
        path = self.folder / "events.i64"
        fresh = path.with_suffix(".new")
        with fresh.open("xb", buffering=0) as stream:
            _write_all(stream, np.ascontiguousarray(rows, "<i8").tobytes())
        self._events.close()
        fresh.replace(path)
        self._events = path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the files; the folder stays."""
        self._events.close()
        for stream in self._lines.values():
            stream.close()

    def remove(self) -> None:
        """Close, and remove the folder."""
        self.close()
        shutil.rmtree(self.folder)

    def _line(self, name: str, row: dict[str, Any]) -> int:
        _write_all(self._lines[name], json.dumps(row).encode() + b"\n")
        self._rows[name] += 1
        return self._rows[name] - 1


def _write_all(stream: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def load(folder: Path) -> storage.Parts:
    """Read the folder of a recording, whole lines and whole events only.

    Raises:
        TraceError: it is no such folder, or holds something no recorder writes.
    """
    try:
        about = _about(folder)
        files = _table(folder, InodeTable, {"path": ""})
        opens = _table(folder, OpenTable, {})
        table = _table(folder, PictureTable, {})
        data = (folder / "events.i64").read_bytes()
        storage.check_causes(table, folder)
        pictures = []
        for number, (cause, pid) in enumerate(zip(table.cause.tolist(), table.pid.tolist())):
            name = storage.picture_name(number)
            with (folder / name).open("rb") as stream:
                pictures.append((storage.nested(stream, f"{folder}: {name}"), cause, pid))
    except FileNotFoundError as error:
        raise TraceError(f"{folder} is no unfinished recording: {Path(error.filename).name} is missing (T1)") from None
    except PermissionError as error:
        raise TraceError(f"{error.filename} cannot be read: {error.strerror}") from None
    rows = np.frombuffer(data[: len(data) - len(data) % (8 * _WIDTH)], "<i8").reshape(-1, _WIDTH)
    rows, pictures = _known_only(rows, len(opens), pictures)
    events = EventTable.of(dict(zip(EventTable.columns(), rows.T.copy())))
    return storage.Parts(about, events, opens, files, pictures)


def _about(folder: Path) -> dict[str, Any]:
    about = picture_storage.read_json((folder / "about.json").read_bytes(), f"{folder}: about.json", "T1", TraceError)
    number = about.get("format") if isinstance(about, dict) else None
    if type(number) is not int or number < 1:
        raise TraceError(f"{folder}: about.json gives no format number (T2)")
    if number > storage.FORMAT:
        raise TraceError(
            f"{folder} has format {number}; this rmap reads up to format {storage.FORMAT}. A newer rmap wrote it (T2)"
        )
    return dict(about)


def _table(folder: Path, table: type[Any], texts: dict[str, str]) -> Any:
    path = folder / f"{table.name}.jsonl"
    columns: dict[str, list[Any]] = {name: [] for name in table.columns()}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1]):  # what follows the last newline is cut off
        row = picture_storage.read_json(line, f"{path}: line {number + 1}", "T3", TraceError)
        try:
            for name, values in columns.items():
                if type(row[name]) is not (str if name in texts else int):
                    raise TypeError(name)
                values.append(row[name])
        except (KeyError, TypeError) as error:
            raise TraceError(f"{path}: line {number + 1} is no row of {table.name} (T3: {error})") from None
    try:
        made: Table = table.of(columns)
    except OverflowError:
        raise TraceError(f"{path} has numbers that do not fit 64 bits (T3)") from None
    return made


def _known_only(rows: npt.NDArray[np.int64], nr_opens: int, pictures: list[Any]) -> tuple[Any, list[Any]]:
    # Up to the first event that names what was not written any more; and the pictures that remain named.
    names = list(EventTable.columns())
    kind, a0, file = (rows[:, names.index(name)] for name in ("kind", "a0", "file"))
    shows = np.isin(kind, (EXEC, CHECKPOINT))
    unknown = (file >= nr_opens) | (shows & (a0 >= len(pictures)))
    end = int(np.argmax(unknown)) if unknown.any() else len(rows)
    return rows[:end], pictures[: int(np.count_nonzero(shows[:end]))]
