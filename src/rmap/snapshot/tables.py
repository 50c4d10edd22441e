"""The tables of a picture: what each column is called, holds, and how it lies in the file.

A table is a dataclass of columns of equal length. A number column is a 1-D NumPy array; a text column is a list of
strings. The id of a row is its number, and ``-1`` means none. Every column carries a :class:`Column` in its field's
metadata: its type, the table its ids point into, whether ``-1`` is allowed, and whether the file holds differences
(``delta``) instead of values. Reading, writing, checking and documenting all go by that one description.
"""

# ruff: noqa: RUF009  (every default below is a dataclass field, made by a function)

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from rmap.columns import I8, I32, I64, Bool

Numbers: TypeAlias = npt.NDArray[Any]
"""A number column of any type."""

T = TypeVar("T", bound="Table")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        dtype: the NumPy type in memory, or ``"text"`` for a list of strings.
        table: the table whose row numbers it holds, or ``""``.
        none: whether -1 (none, unknown) is allowed; asked only of id columns.
        delta: the file holds the difference from the row before.
        default: the value of a row that does not give one.
        since: the first format of the file that has it; in older files every row has the default.
    """

    dtype: str
    table: str = ""
    none: bool = False
    delta: bool = False
    default: int | str | None = None
    since: int = 1


def _empty(column: Column) -> Any:
    return [] if column.dtype == "text" else np.empty(0, column.dtype)


def _column(dtype: str, **rest: Any) -> Any:
    column = Column(dtype, **rest)
    return field(default_factory=lambda: _empty(column), metadata={"column": column})


def _id(table: str, *, none: bool = False, delta: bool = False) -> Any:
    return _column("int32", table=table, none=none, delta=delta, default=-1 if none else None)


class Table:
    """Columns of equal length."""

    name: ClassVar[str]

    @classmethod
    def columns(cls) -> dict[str, Column]:
        """Name and description of every column, in order."""
        return {f.name: f.metadata["column"] for f in fields(cls)}  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(getattr(self, next(iter(self.columns()))))

    @classmethod
    def of(cls: type[T], rows: dict[str, Any]) -> T:
        """Build a table from lists or arrays by column name; numbers get the column's type."""
        made = {}
        for name, column in cls.columns().items():
            values = rows[name]
            made[name] = list(values) if column.dtype == "text" else np.asarray(values, dtype=column.dtype)
        return cls(**made)

    def take(self: T, rows: npt.NDArray[Any]) -> T:
        """The same columns, with only these rows, in this order (int64 row numbers or a mask)."""
        order = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        made: dict[str, Any] = {}
        for name, column in self.columns().items():
            values = getattr(self, name)
            made[name] = [values[i] for i in order.tolist()] if column.dtype == "text" else values[order]
        return type(self)(**made)


@dataclass
class ProcessTable(Table):
    """One row per mm: threads, vfork children and other CLONE_VM sharers are one process, under the lowest pid."""

    name: ClassVar[str] = "processes"

    pid: I32 = _column("int32", delta=True)
    ppid: I32 = _column("int32", default=0)
    pgid: I32 = _column("int32", default=0)
    start_time: I64 = _column("int64", default=0)
    pidns: I64 = _column("int64", default=-1)
    uid: I32 = _column("int32", default=-1)
    comm: list[str] = _column("text", default="")
    exe: list[str] = _column("text", default="")
    cgroup: list[str] = _column("text", default="")
    page_table_bytes: I64 = _column("int64", default=-1)


@dataclass
class SharerTable(Table):
    """One row per further process that shares the mm of a row of ``processes``."""

    name: ClassVar[str] = "sharers"

    process: I32 = _id("processes")
    pid: I32 = _column("int32")


@dataclass
class VmaTable(Table):
    """One VMA, sorted by process and address."""

    name: ClassVar[str] = "vmas"

    process: I32 = _id("processes", delta=True)
    start: I64 = _column("int64", delta=True)
    end: I64 = _column("int64", delta=True)
    flags: I64 = _column("int64")
    pgoff: I64 = _column("int64", default=-1)
    file: I32 = _id("files", none=True)
    anon_vma: I32 = _id("anon_vmas", none=True)
    label: list[str] = _column("text", default="")


@dataclass
class FileTable(Table):
    """One inode."""

    name: ClassVar[str] = "files"

    dev: I64 = _column("int64", default=0)
    inode: I64 = _column("int64", default=0)
    path: list[str] = _column("text", default="")
    size: I64 = _column("int64", default=-1)
    allocated: I64 = _column("int64", default=-1, since=3)
    kind: I8 = _column("int8", default=0)


@dataclass
class HolderTable(Table):
    """What keeps a file's memory alive besides being mapped."""

    name: ClassVar[str] = "holders"

    file: I32 = _id("files")
    kind: I8 = _column("int8")
    process: I32 = _id("processes", none=True)


@dataclass
class PteTable(Table):
    """One extent: page-table entries contiguous in address and in frame (or swap slot), sorted by VMA and address."""

    name: ClassVar[str] = "ptes"

    vma: I32 = _id("vmas", delta=True)
    address: I64 = _column("int64", delta=True)
    pfn: I64 = _column("int64", delta=True)
    count: I32 = _column("int32")
    flags: I32 = _column("int32")


@dataclass
class FrameTable(Table):
    """A run of frames that say the same, sorted by PFN; ``index`` and ``head_offset`` go up with it.

    A run of pages of order 0 may be of any length; a run of a large folio lies within that folio.
    """

    name: ClassVar[str] = "frames"

    pfn: I64 = _column("int64", delta=True)
    count: I32 = _column("int32")
    mapcount: I32 = _column("int32", default=0)
    flags: I64 = _column("int64", default=0)
    kind: I8 = _column("int8", default=0)
    head_offset: I32 = _column("int32", default=0)
    order: I8 = _column("int8", default=0)
    cgroup: I64 = _column("int64", default=0)
    mapping: I8 = _column("int8", default=-1)
    index: I64 = _column("int64", delta=True, default=-1)
    file: I32 = _id("files", none=True)
    anon_vma: I32 = _id("anon_vmas", none=True)
    own: I8 = _column("int8", default=0)
    raced: Bool = _column("bool", default=0)


@dataclass
class AnonVmaTable(Table):
    """One ``struct anon_vma`` (rule 1.9)."""

    name: ClassVar[str] = "anon_vmas"

    root: I32 = _id("anon_vmas")
    parent: I32 = _id("anon_vmas")
    refcount: I32 = _column("int32")
    num_children: I32 = _column("int32")
    num_active_vmas: I32 = _column("int32")
    address: I64 = _column("int64", default=0, since=2)
    whole: Bool = _column("bool", default=1, since=2)


@dataclass
class AnonVmaChainTable(Table):
    """One link of a VMA to an anon_vma (rule 1.10), sorted by VMA and position; position 0 is the chain's first."""

    name: ClassVar[str] = "anon_vma_chains"

    vma: I32 = _id("vmas", delta=True)
    anon_vma: I32 = _id("anon_vmas")
    position: I32 = _column("int32")


TABLES: tuple[type[Table], ...] = (
    ProcessTable,
    SharerTable,
    VmaTable,
    FileTable,
    HolderTable,
    PteTable,
    FrameTable,
    AnonVmaTable,
    AnonVmaChainTable,
)
"""Every table, in the order of the documentation."""
