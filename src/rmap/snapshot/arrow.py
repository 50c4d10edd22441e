"""A picture as Arrow tables, and as a folder of Parquet files for DuckDB, Polars and Spark.

The one module that needs pyarrow (extra ``data``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmap.errors import NotPermitted, UsageError

if TYPE_CHECKING:
    from rmap.snapshot.picture import Snapshot


def arrow_tables(picture: Snapshot) -> dict[str, Any]:
    """Every table as a ``pyarrow.Table``, by name; ``id`` is the row number that other tables' columns name.

    ``about`` has one row per fact: ``name`` and ``value``, as text.

    Raises:
        NotPermitted: pyarrow is not installed.
    """
    arrow = _pyarrow()
    tables = {}
    for name, table in picture.tables.items():
        columns = {"id": arrow.array(range(len(table)), arrow.int64())}
        for column in table.columns():
            values = getattr(table, column)
            columns[column] = arrow.array(values, arrow.string()) if isinstance(values, list) else arrow.array(values)
        tables[name] = arrow.table(columns)
    facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in picture.about.items()}
    tables["about"] = arrow.table({"name": list(facts), "value": list(facts.values())})
    return tables


def write_parquet(picture: Snapshot, folder: str | os.PathLike[str], *, force: bool = False) -> int:
    """Write one Parquet file per table into a folder, which is made.

    Args:
        force: write into a folder that has something in it.

    Returns:
        bytes written.

    Raises:
        UsageError: the folder is not empty, or is no folder.
        NotPermitted: pyarrow is not installed.
    """
    tables = arrow_tables(picture)
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise UsageError(f"{target} is not empty (write into it: --force)")
    target.mkdir(parents=True, exist_ok=True)
    parquet: Any = __import__("pyarrow.parquet").parquet
    written = 0
    for name, table in tables.items():
        parquet.write_table(table, target / f"{name}.parquet", compression="zstd")
        written += (target / f"{name}.parquet").stat().st_size
    return written


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise NotPermitted(
            "pyarrow is not installed",
            needed="the extra: pip install 'linux-rmap[data]'",
            works="rmap snap -o FILE.rmap, which needs nothing else",
        ) from None
    return pyarrow
