"""A picture asked in SQL. The one module that needs duckdb (extra ``data``).

Tables are those of ``docs/data-model.md``, each with an ``id``, and two views that join them:

* ``mappings``: a row per extent of present entries: pid, comm, address, pages, pfn, perms' flags, file, label;
* ``pages``: a row per run of frames with its file and how its kind is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rmap.errors import NotPermitted, UsageError
from rmap.snapshot import flags as f
from rmap.snapshot.arrow import arrow_tables

if TYPE_CHECKING:
    from rmap.snapshot.picture import Snapshot

_MAPPINGS = f"""
create view mappings as
select p.pid, p.comm, e.address, e.count as pages, e.pfn, v.start as vma_start, v."end" as vma_end,
       v.flags as vma_flags, i.path as file,
       nullif(v.label, '') as label, (e.flags & {f.PTE_EXCLUSIVE}) != 0 as exclusive, e.vma, v.process
from ptes e join vmas v on v.id = e.vma join processes p on p.id = v.process left join files i on i.id = v.file
where (e.flags & {f.PTE_PRESENT}) != 0
"""
_KINDS = " ".join(f"when {number} then '{name}'" for number, name in enumerate(f.FRAME_KINDS))
_PAGES = f"""
create view pages as
select r.pfn, r.count as pages, r.mapcount, case r.kind {_KINDS} end as kind, r."order", r.cgroup, i.path as file,
       r."index", r.raced
from frames r left join files i on i.id = r.file
"""


@dataclass(frozen=True)
class Answer:
    """What a query gives: names of its columns, and its rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


class Database:
    """A picture as a database in memory; nothing outside of it can be read or written.

    Raises:
        NotPermitted: duckdb or pyarrow is not installed.
    """

    def __init__(self, picture: Snapshot) -> None:
        self._duckdb = _duckdb()
        self._connection = self._duckdb.connect(":memory:")
        for name, table in arrow_tables(picture).items():
            self._connection.register(f"{name}_arrow", table)
            self._connection.execute(f'create table "{name}" as select * from "{name}_arrow"')
            self._connection.unregister(f"{name}_arrow")
        self._connection.execute(_MAPPINGS)
        self._connection.execute(_PAGES)
        self._connection.execute("set enable_external_access = false")
        self._connection.execute("set lock_configuration = true")

    def ask(self, query: str) -> Answer:
        """Run a query.

        Raises:
            UsageError: it is no SQL, or names what is not there; says what DuckDB says.
        """
        try:
            result = self._connection.execute(query)
            if result.description is None:
                return Answer([], [])
            return Answer([column[0] for column in result.description], result.fetchall())
        except self._duckdb.Error as error:
            raise UsageError(f"SQL: {error}") from None

    def tables(self) -> dict[str, Sequence[str]]:
        """Every table and view, with its columns."""
        answer = self.ask("select table_name, column_name from information_schema.columns order by 1, ordinal_position")
        found: dict[str, list[str]] = {}
        for table, column in answer.rows:
            found.setdefault(table, []).append(column)
        return dict(found)


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise NotPermitted(
            "duckdb is not installed",
            needed="the extra: pip install 'linux-rmap[data]'",
            works="every other question of a picture: rmap who, ps, group, freed -i FILE",
        ) from None
    return duckdb
