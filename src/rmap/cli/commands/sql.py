"""Ask a picture in SQL.

The tables are those of docs/data-model.md, each with an `id`; `mappings` and
`pages` are views that join them. Without a query, all are listed with their
columns. The database is DuckDB's, in memory; a query can reach nothing else.

Needs the extra `data`: pip install 'linux-rmap[data]'.

examples
  rmap sql here.rmap
  rmap sql here.rmap "select comm, sum(pages) * 4 as kib from mappings
                      group by comm order by kib desc limit 10"
  rmap sql here.rmap "from pages where mapcount > 100" --csv
  rmap sql here.rmap "select file, count(distinct pid) from mappings
                      group by file" --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("picture", metavar="SNAP", help="a picture (rmap snap)")
    parser.add_argument("query", metavar="QUERY", nargs="?", help="in SQL; none: list the tables")
    parser.add_argument("--csv", action="store_true", help="comma-separated values, with a heading")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object per row")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Load, ask, print."""
    from rmap.show.sql import answer, comma_separated, tables
    from rmap.snapshot import Snapshot
    from rmap.snapshot.sql import Database

    database = Database(Snapshot.load(args.picture))
    if args.query is None:
        found = database.tables()
        emit(args, {"tables": found}, lambda: tables(found), rows=None)
        return status.OK
    told = database.ask(args.query)
    if args.csv:
        print(comma_separated(told), end="")
        return status.OK
    rows = [dict(zip(told.columns, row)) for row in told.rows]
    emit(args, {"rows": rows}, lambda: answer(told), rows="rows")
    return status.OK
