"""A picture asked in SQL, by DuckDB. The one module that imports duckdb.

The tables are those of ``docs/data-model.md``, each with an ``id``, and a view ``mappings`` in which every id is
resolved. The database is in memory and sealed: a query sees these tables, and no file, no network, no setting and no
variable of the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rmap.errors import UsageError
from rmap.snapshot import flags as f
from rmap.snapshot.export.arrow import refuse_without, to_arrow
from rmap.snapshot.kinds import KINDS
from rmap.uapi.vm_flags import VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE
from rmap.units import PAGE_SIZE

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

VIEW = "mappings"
_BATCH = 10_000
_QUERIES = ("SELECT", "EXPLAIN")  # of duckdb's statement types; WITH, FROM, DESCRIBE are SELECT there
_CONFIG = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

MACROS = {
    "frame_kind(kind)": "the name of frames.kind: anon, file, shmem, ...",
    "file_kind(kind)": "the name of files.kind",
    "perms(flags)": "vmas.flags as rw-p",
    "hex_of(number)": "a number as 0x1f",
}
"""Functions that the database has besides DuckDB's own, and what each gives."""


def _names(codes: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in codes) + "]"


_LETTERS = " || ".join(
    f"(CASE WHEN flags & {bit} != 0 THEN '{letter}' ELSE '{other}' END)"
    for bit, letter, other in ((VM_READ, "r", "-"), (VM_WRITE, "w", "-"), (VM_EXEC, "x", "-"),
                               (VM_MAYSHARE, "s", "p"))
)  # fmt: skip

_SET_UP = f"""
CREATE MACRO file_kind(kind) AS ({_names(f.FILE_KINDS)})[kind + 1];
CREATE MACRO perms(flags) AS ({_LETTERS});
CREATE MACRO hex_of(number) AS printf('0x%x', number::BIGINT);
CREATE VIEW mappings AS
SELECT p.pid, p.comm, p.uid, p.cgroup, p.exe, e.address, e.count AS pages, e.count::BIGINT * {PAGE_SIZE} AS bytes,
       e.pfn, e.flags & {f.PTE_EXCLUSIVE} != 0 AS mapped_once, e.flags & {f.PTE_SPECIAL} != 0 AS special,
       v.start AS vma_start, v."end" AS vma_end, perms(v.flags) AS perms, v.label,
       i.path AS file, CASE WHEN v.file >= 0 THEN v.pgoff * {PAGE_SIZE} + e.address - v.start END AS file_offset,
       e.vma, v.process, v.file AS file_id
FROM ptes e JOIN vmas v ON e.vma = v.id JOIN processes p ON v.process = p.id LEFT JOIN files i ON v.file = i.id
WHERE e.flags & {f.PTE_PRESENT} != 0;
"""

EXAMPLES = (
    ("the largest by resident pages", "select pid, comm, sum(bytes) from mappings group by all order by 3 desc"),
    ("what is mapped of each file", "select file, sum(pages) from mappings where file is not null group by all"),
    ("frames by kind", "select frame_kind(kind), sum(count) from frames group by all"),
    ("writable and executable", "select * from mappings where perms like '_wx_'"),
)
"""Queries to begin with: what each tells, and its text."""


@dataclass(frozen=True)
class TableOf:
    """One table: its rows, and name and SQL type of each column."""

    name: str
    rows: int
    columns: list[tuple[str, str]]


class Database:
    """The tables of one picture, ready to be asked.

    Raises:
        NotPermitted: duckdb or pyarrow is not installed.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        refuse_without("duckdb", "SQL")
        tables = to_arrow(snapshot)
        import duckdb

        self._error = duckdb.Error
        self._connection = duckdb.connect(":memory:", config=_CONFIG)
        for name, table in tables.items():
            self._connection.register(name, table)
        self._connection.execute(f"CREATE MACRO frame_kind(kind) AS ({_names(KINDS.names)})[kind + 1]")
        self._connection.execute(_SET_UP)
        self._connection.execute("SET lock_configuration = true")
        self._names = [*tables, VIEW]

    def ask(self, query: str) -> SqlAnswer:
        """Run one query.

        Raises:
            UsageError: it is none, or none that DuckDB understands; in DuckDB's words.
        """
        try:
            statements = self._connection.extract_statements(query)
            if len(statements) != 1:
                raise UsageError(f"one query at a time: these are {len(statements)}" if statements else "no query")
            if statements[0].type.name not in _QUERIES:
                raise UsageError("a picture is not changed: only queries (SELECT, WITH, DESCRIBE, EXPLAIN)")
            result = self._connection.execute(statements[0])
        except self._error as error:
            raise UsageError(_message(error)) from None
        if result is None or not result.description:
            return SqlAnswer([], [], iter(()))
        names = _distinct([column[0] for column in result.description])
        types = [str(column[1]) for column in result.description]
        return SqlAnswer(names, types, self._rows(result))

    def tables(self) -> list[TableOf]:
        """What there is to ask."""
        answer = []
        for name in self._names:
            columns = self._connection.execute(f'DESCRIBE "{name}"').fetchall()
            count = self._connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()
            answer.append(TableOf(name, count[0] if count else 0, [(row[0], _type(row[1])) for row in columns]))
        return answer

    def _rows(self, result: Any) -> Iterator[tuple[Any, ...]]:
        try:
            while rows := result.fetchmany(_BATCH):
                yield from rows
        except self._error as error:  # a division, a cast: some errors come with the rows
            raise UsageError(_message(error)) from None


@dataclass(frozen=True)
class SqlAnswer:
    """What a query gives: names and SQL types of the columns, and its rows as they are fetched."""

    names: list[str]
    types: list[str]
    rows: Iterator[tuple[Any, ...]]


def _distinct(names: list[str]) -> list[str]:
    # Two columns of one name would be one in an object of JSON.
    seen: dict[str, int] = {}
    made = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        made.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return made


def _message(error: Exception) -> str:
    """DuckDB's words, without the line of carets: it loses its place when lines are broken."""
    lines = [line.rstrip() for line in str(error).splitlines()]
    return "\n".join(line for line in lines if line.strip(" ^"))


def _type(text: str) -> str:
    # Dictionaries of Arrow arrive as ENUM('...', '...') of every text there is.
    return "VARCHAR" if text.startswith("ENUM") else text
