"""A picture's tables for other programs: as Arrow, and as Parquet files. The one module that imports pyarrow.

The id of a row is its number (``docs/data-model.md``); outside a picture rows have no number, so every table gets a
first column ``id``. ``about`` is one row. Texts are dictionary-encoded: they repeat.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmap.errors import NotPermitted, UsageError

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot
    from rmap.snapshot.tables import Table

SUFFIX = ".parquet"
ABOUT = "about"


def refuse_without(package: str, what: str) -> None:
    """Refuse unless a package of the extra ``data`` is installed.

    Args:
        package: to import.
        what: needs it, as the begin of a sentence.

    Raises:
        NotPermitted: it is not.
    """
    if find_spec(package) is None:
        raise NotPermitted(
            f"{what} needs the package {package}, which is not installed",
            needed="the extra `data`: pip install 'linux-rmap[data]'",
            works="rmap who, ps, share, group, freed, files, each with --json",
        )


def to_arrow(snapshot: Snapshot) -> dict[str, Any]:
    """Every table as a ``pyarrow.Table``, and ``about``, by name.

    Raises:
        NotPermitted: pyarrow is not installed.
    """
    refuse_without("pyarrow", "a picture as tables")
    import pyarrow as pa

    made = {name: _table(table) for name, table in snapshot.tables.items()}
    made[ABOUT] = pa.table({key: [value] for key, value in snapshot.about.items()})
    return made


def write_parquet(snapshot: Snapshot, folder: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
    """Write one file per table, ``processes.parquet`` and so on. Each appears whole or not at all.

    Args:
        folder: made if it is not there.
        force: replace files of these names.

    Returns:
        the files.

    Raises:
        UsageError: something is in the way.
        NotPermitted: pyarrow is not installed.
    """
    refuse_folder(folder, force=force)
    tables = to_arrow(snapshot)
    import pyarrow.parquet as pq

    target = Path(folder)
    target.mkdir(exist_ok=True)
    written = []
    for name, table in tables.items():
        part = target / f".{name}{SUFFIX}.{os.getpid()}"
        try:
            pq.write_table(table, part, compression="zstd")
            written.append(part.replace(target / (name + SUFFIX)))
        finally:
            part.unlink(missing_ok=True)
    return written


def refuse_folder(folder: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse a place where no such folder can or may be written; asked before the work.

    Raises:
        UsageError: it is no folder, or holds something already.
    """
    target = Path(folder)
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a directory: choose another name")
    if target.is_dir() and not force and any(target.iterdir()):
        raise UsageError(f"{target} is not empty (replace its tables: --force)")


def _table(table: Table) -> Any:
    import pyarrow as pa

    columns: dict[str, Any] = {"id": pa.array(np.arange(len(table), dtype=np.int64))}
    for name, column in table.columns().items():
        values = getattr(table, name)
        columns[name] = _texts(values) if column.dtype == "text" else pa.array(values)
    return pa.table(columns)


def _texts(values: list[str]) -> Any:
    import pyarrow as pa

    code: dict[str, int] = {}
    codes = np.fromiter((code.setdefault(text, len(code)) for text in values), np.int32, len(values))
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(code), pa.string()))
