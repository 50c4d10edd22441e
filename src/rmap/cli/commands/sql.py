"""Ask a picture in SQL.

The tables of a picture (docs/data-model.md: processes, vmas, files, ptes,
frames, ...), each with an `id` that the others name it by, and the view
`mappings`: one row per run of pages that a process maps, with process, area
and file. Without a query, tables and columns are listed.

DuckDB answers; it comes with the extra: pip install 'linux-rmap[data]'. A query
sees these tables and nothing else: no file, no network. For other programs
there is rmap snap --parquet DIR.

Addresses and frames are shown in hex; --json, --jsonl and --csv have plain
numbers.

examples
  rmap sql here.rmap
  rmap sql here.rmap "select comm, count(*) from processes group by all"
  rmap sql here.rmap "select pid, sum(bytes) from mappings
      where file like '%libc%' group by pid order by 2 desc" --csv
"""

from __future__ import annotations

import csv
import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from rmap.cli import status
from rmap.cli.output import SCHEMA, emit
from rmap.cli.parser import add_output_options, row_limit
from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.snapshot.export.sql import Database, SqlAnswer

ROWS = 50
_COUNTED = 100_000
"""Of an answer longer than what is shown, so many rows are counted."""


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("snapshot", metavar="SNAP", help="the picture")
    parser.add_argument("query", metavar="QUERY", nargs="?", help="one SELECT (default: list the tables)")
    parser.add_argument("--top", type=row_limit, metavar="N", default=ROWS, help=f"show at most N rows ({ROWS})")
    parser.add_argument("--all", dest="top", action="store_const", const=None, help="every row")
    parser.add_argument("--csv", action="store_true", help="every row, as comma-separated values")
    parser.add_argument("--jsonl", action="store_true", help="every row, as one JSON object")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Open, ask, print."""
    from rmap.snapshot import Snapshot
    from rmap.snapshot.export.arrow import refuse_without
    from rmap.snapshot.export.sql import Database

    if args.csv + args.json + args.jsonl > 1:
        raise UsageError("--csv, --json and --jsonl are different formats: choose one")
    refuse_without("duckdb", "SQL")
    database = Database(Snapshot.load(args.snapshot))
    if args.query is None:
        return _list(args, database)
    answer = database.ask(args.query)
    if args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.names)
        writer.writerows([_plain(value) for value in row] for row in answer.rows)
    elif args.jsonl:
        for row in _objects(answer):
            print(json.dumps({"schema": SCHEMA, **row}))
    elif args.json:
        columns = [{"name": name, "type": kind} for name, kind in zip(answer.names, answer.types)]
        emit(args, {"columns": columns, "rows": list(_objects(answer))}, list)
    else:
        _show(args, answer)
    return status.OK


def _show(args: Namespace, answer: SqlAnswer) -> None:
    from rmap.show.sql import table

    shown = list(islice(answer.rows, args.top))
    others = sum(1 for _ in islice(answer.rows, _COUNTED))
    total = None if others == _COUNTED else len(shown) + others
    width = get_terminal_size().columns if sys.stdout.isatty() else get_terminal_size((80, 24)).columns
    emit(args, {}, lambda: table(answer.names, shown, total=total, width=width))


def _list(args: Namespace, database: Database) -> int:
    from rmap.show.sql import contents
    from rmap.snapshot.export.sql import EXAMPLES, MACROS

    tables = database.tables()
    if args.csv or args.jsonl:
        raise UsageError("the list of tables is text or --json; --csv and --jsonl print the rows of a query")
    data = {
        "tables": [
            {"name": one.name, "rows": one.rows, "columns": [{"name": n, "type": t} for n, t in one.columns]}
            for one in tables
        ],
        "functions": MACROS,
        "examples": [query for _, query in EXAMPLES],
    }
    emit(args, data, lambda: contents(tables, MACROS, EXAMPLES))
    return status.OK


def _objects(answer: SqlAnswer) -> Iterator[dict[str, Any]]:
    for row in answer.rows:
        yield {name: _plain(value) for name, value in zip(answer.names, row)}


def _plain(value: Any) -> Any:
    # What JSON and CSV have no word for, as a number or a text.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
