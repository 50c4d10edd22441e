"""A picture as one file, ``NAME.rmap``: a zip of one ``.npy`` per column, and ``about.json``.

NumPy and the standard library read and write it, without pickles. Integer columns lie in the file in the smallest
type that holds them; columns marked ``delta`` as the difference from the row before; text as row codes into a list of
distinct strings (UTF-8 bytes and their offsets). The same picture gives the same bytes: members have a fixed order
and date. ``docs/data-model.md`` describes the format, with the requirements D1 to D3 that are checked here.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from rmap.errors import RmapError, SnapshotError, UsageError
from rmap.snapshot.tables import TABLES, Column, Numbers, Table

FORMAT = 3
"""The format this release writes; every format up to it is read."""
_ABOUT = "about.json"
_DATE = (1980, 1, 1, 0, 0, 0)
_SMALL = (np.int8, np.int16, np.int32)
_MAX_MEMBER = 1 << 34  # bytes; a column of 2^31 rows, more than any machine has
_MAX_DEPTH = 50  # of JSON: what is read can be written again, which recurses

T = TypeVar("T", bound=Table)


@dataclass(frozen=True)
class Form:
    """What a file should be that is read here.

    Attributes:
        what: as errors call it.
        newest: the newest format that is read.
        error: what is raised of a file that cannot be used.
    """

    what: str
    newest: int
    error: type[RmapError]


PICTURE = Form("a picture of memory", FORMAT, SnapshotError)


def save(path: str | os.PathLike[str], tables: dict[str, Table], about: dict[str, Any], *, force: bool = False) -> None:
    """Write a picture. The file appears whole or not at all.

    Args:
        path: where; the name should end in ``.rmap``.
        tables: every table by name.
        about: the provenance; its ``format`` is set here.
        force: replace a file that exists.

    Raises:
        UsageError: the file exists and ``force`` is false, or the directory does not exist.
    """
    write_whole(path, lambda stream: write(stream, tables, about), force=force)


def refuse_target(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse a place where no file can or may be written; asked before the work that is to be written there.

    Args:
        path: where.
        force: a file that exists may be replaced. A device, a pipe or a directory never is.

    Raises:
        UsageError: something is in the way, or there is no such directory.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is not a file: choose another name")
    if target.exists() and not force:
        raise UsageError(f"{target} exists already (replace it: --force)")
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}")


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], None], *, force: bool = False) -> None:
    """Write a file that appears whole or not at all.

    Args:
        path: where.
        write: writes the content to a binary stream.
        force: replace a file that exists.

    Raises:
        UsageError: as :func:`refuse_target`.
    """
    refuse_target(path, force=force)
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=target.name, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        Path(temporary).chmod(0o644)
        if force:
            os.replace(temporary, target)
        else:
            _publish(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _publish(temporary: str, target: Path) -> None:
    # A link, unlike a rename, fails where somebody else has made the file meanwhile.
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise UsageError(f"{target} exists already: choose another name, or ask to replace it") from None
    except OSError:  # a file system without hard links
        os.replace(temporary, target)


def write(stream: IO[bytes], tables: dict[str, Table], about: dict[str, Any], *, nested: bool = False) -> None:
    """Write a picture to a stream.

    Args:
        stream: a binary stream that can seek.
        tables: every table by name.
        about: the provenance; its ``format`` is set here.
        nested: the picture will lie within an archive that compresses it, so its own members are not compressed.
    """
    method = zipfile.ZIP_STORED if nested else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(stream, "w", method, compresslevel=9) as archive:
        write_about(archive, {**about, "format": FORMAT})
        for table in TABLES:
            write_table(archive, tables[table.name])


def write_about(archive: zipfile.ZipFile, about: dict[str, Any]) -> None:
    """Write ``about.json``."""
    text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False)
    write_member(archive, _ABOUT, _utf8(text))


def write_table(archive: zipfile.ZipFile, table: Table) -> None:
    """Write the columns of one table, as ``TABLE/COLUMN.npy``."""
    for name, column in table.columns().items():
        values = getattr(table, name)
        parts = _encode_text(values) if column.dtype == "text" else {"": _encode(values, column)}
        for part, array in parts.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            write_member(archive, f"{table.name}/{name}{part}.npy", buffer.getvalue())


def write_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Write one member, always with the same date and mode, compressed as the archive is."""
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = archive.compression
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


def _smallest(values: Numbers) -> Numbers:
    if not len(values):
        return values.astype(np.int8)
    low, high = int(values.min()), int(values.max())
    for dtype in _SMALL:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.int64)


def _encode(values: Numbers, column: Column) -> Numbers:
    wide = values.astype(np.int64)
    return _smallest(np.diff(wide, prepend=np.int64(0)) if column.delta else wide)


def _decode(stored: Numbers, column: Column) -> Numbers:
    wide = stored.astype(np.int64)
    return np.cumsum(wide) if column.delta else wide


def _utf8(text: str) -> bytes:
    # Linux's names are any bytes; Python has those that are no UTF-8 as lone surrogates.
    return text.encode(errors="backslashreplace")


def _encode_text(values: list[str]) -> dict[str, Numbers]:
    distinct = list(dict.fromkeys(values))
    number = {text: code for code, text in enumerate(distinct)}
    coded = [_utf8(text) for text in distinct]
    ends = np.cumsum(np.array([0, *map(len, coded)], np.int64))
    return {
        ".code": _smallest(np.array([number[text] for text in values], np.int64)),
        ".offset": _smallest(ends),
        ".data": np.frombuffer(b"".join(coded), np.uint8),
    }


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Table], dict[str, Any]]:
    """Read a picture's tables as they are written: requirements D1 to D3.

    Raises:
        SnapshotError: not a picture, damaged, or of a newer format. One sentence says which.
    """
    source = Path(path)
    with opened(source, source, PICTURE) as archive:
        return _read(archive, source)


def read(stream: IO[bytes], source: str) -> tuple[dict[str, Table], dict[str, Any]]:
    """As :func:`load`, from a stream; ``source`` names it in errors."""
    with opened(stream, source, PICTURE) as archive:
        return _read(archive, source)


def _read(archive: zipfile.ZipFile, source: object) -> tuple[dict[str, Table], dict[str, Any]]:
    about = read_about(archive, source, PICTURE)
    return {table.name: read_table(archive, table, source, PICTURE, about["format"]) for table in TABLES}, about


@contextmanager
def opened(file: Path | IO[bytes], source: object, form: Form) -> Iterator[zipfile.ZipFile]:
    """An archive, open for reading; whatever is wrong with it while it is read is the error of its form.

    Args:
        file: its path, or a stream.
        source: what names it in errors.
        form: what it should be.
    """
    if isinstance(file, Path) and file.exists() and not file.is_file() and not file.is_dir():
        raise form.error(f"{source} is not {form.what}: it is a device or a pipe")
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except FileNotFoundError:
        raise form.error(f"there is no file {source}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise form.error(f"{source} cannot be read: {error.strerror}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise form.error(f"{source} is not {form.what}, or is cut off (D1: {error})") from None


def read_about(archive: zipfile.ZipFile, source: object, form: Form) -> dict[str, Any]:
    """Read ``about.json``.

    Args:
        archive: of a picture, or of something else that has one.
        source: what names it in errors.
        form: what it should be.

    Raises:
        RmapError: the form's error: it is not there, not readable, or of a newer format (D1, D2).
    """
    if _ABOUT not in archive.namelist():
        raise form.error(f"{source} is a zip, but not {form.what}: it has no {_ABOUT} (D1)")
    about = read_json(archive.read(_ABOUT), f"{source}: {_ABOUT}", "D1", form.error)
    number = about.get("format") if isinstance(about, dict) else None
    if type(number) is not int or number < 1:
        raise form.error(f"{source}: {_ABOUT} gives no format number (D2)")
    if number > form.newest:
        raise form.error(
            f"{source} has format {number}; this rmap reads up to format {form.newest}. A newer rmap wrote it (D2)"
        )
    return dict(about)


def read_json(text: bytes, source: object, number: str, error: type[RmapError]) -> Any:
    """Read JSON that anybody may have written.

    Args:
        text: UTF-8.
        source: what names it in errors.
        number: of the requirement that it be JSON.
        error: what is raised.

    Raises:
        RmapError: that error: it is none, or lists and objects are nested too deeply.
    """
    try:
        data = json.loads(text)
    except ValueError as wrong:
        raise error(f"{source} is not readable JSON ({number}: {wrong})") from None
    except RecursionError:
        raise error(f"{source} is not readable JSON ({number}: nested too deeply)") from None
    level = [data]
    for _ in range(_MAX_DEPTH):
        nested = [value for value in level if isinstance(value, dict | list)]
        level = [inner for value in nested for inner in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return data
    raise error(f"{source} is not readable JSON ({number}: nested too deeply)")


def read_table(
    archive: zipfile.ZipFile, table: type[T], source: object, form: Form, written: int = FORMAT
) -> T:
    """Read one table's columns.

    Args:
        archive: of a picture, or of something else that has tables.
        table: which one.
        source: what names the archive in errors.
        form: what the archive should be.
        written: the format it was written in; columns that came later have their default in every row.

    Raises:
        RmapError: the form's error: a column is missing, or is not what its description says (D1, D3).
    """

    def read(member: str) -> Numbers:
        return _read_array(archive, f"{table.name}/{member}.npy", source, form)

    columns: dict[str, Any] = {}
    later: dict[str, Column] = {}
    for name, column in table.columns().items():
        if column.since > written:
            later[name] = column
            continue
        where = f"{source}: {table.name}.{name}"
        if column.dtype == "text":
            columns[name] = _read_text(read, name, where, form)
            continue
        wide = _decode(read(name), column)
        bounds = (0, 1) if column.dtype == "bool" else (np.iinfo(column.dtype).min, np.iinfo(column.dtype).max)
        if len(wide) and not (bounds[0] <= int(wide.min()) and int(wide.max()) <= bounds[1]):
            raise form.error(f"{where} has numbers that do not fit {column.dtype} (D3)")
        columns[name] = wide.astype(column.dtype)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise form.error(f"{source}: the columns of {table.name} differ in length: {lengths} (D3)")
    rows = next(iter(lengths.values()))
    columns.update({name: np.full(rows, column.default, column.dtype) for name, column in later.items()})
    return table(**columns)


def _read_array(archive: zipfile.ZipFile, member: str, source: object, form: Form) -> Numbers:
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise form.error(f"{source} lacks the column {member} (D1)") from None
    if info.file_size > _MAX_MEMBER:
        raise form.error(f"{source}: {member} claims {info.file_size:,} bytes (D1)")
    try:
        array = np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)
    except ValueError as error:
        raise form.error(f"{source}: {member} is not a NumPy column (D1: {error})") from None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise form.error(f"{source}: {member} is {array.ndim}-dimensional {array.dtype}, not a column of integers (D1)")
    return array


def _read_text(read: Callable[[str], Numbers], name: str, where: str, form: Form) -> list[str]:
    code, offset, data = (read(f"{name}.{part}").astype(np.int64) for part in ("code", "offset", "data"))
    ordered = len(offset) and offset[0] == 0 and offset[-1] == len(data) and bool((np.diff(offset) >= 0).all())
    if not ordered or (len(data) and (data.min() < 0 or data.max() > 255)):
        raise form.error(f"{where}: the offsets do not fit the text (D3)")
    whole = data.astype(np.uint8).tobytes()
    ends = offset.tolist()
    try:
        distinct = [whole[low:high].decode() for low, high in pairwise(ends)]
    except UnicodeDecodeError:
        raise form.error(f"{where} is not UTF-8 (D3)") from None
    if len(code) and (code.min() < 0 or code.max() >= len(distinct)):
        raise form.error(f"{where}: a row names a string that is not there (D3)")
    return [distinct[i] for i in code.tolist()]
