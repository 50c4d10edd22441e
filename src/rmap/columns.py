"""The array types that every layer speaks: one-dimensional NumPy columns, one per field.

There is no structured dtype and no object per page anywhere (``docs/architecture.md``, "State").
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

I8: TypeAlias = npt.NDArray[np.int8]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
F64: TypeAlias = npt.NDArray[np.float64]
U64: TypeAlias = npt.NDArray[np.uint64]
Bool: TypeAlias = npt.NDArray[np.bool_]


def scalar_view(column: npt.NDArray[Any]) -> memoryview[int]:
    """The same memory for single accesses: a read costs 27 ns, an element of an array 130."""
    return memoryview(cast("memoryview[int]", column))


def keep_temporaries() -> None:
    """Teach the C library to keep the memory of array temporaries instead of giving it back at each operation.

    glibc maps blocks above a threshold afresh, and trims its heap above twice that threshold; a temporary of 512 KiB
    then costs 128 page faults each time, several times the operation itself. The threshold rises to the largest mapped
    block that was ever freed, up to 32 MiB: so one such block, never touched, settles it. Elsewhere this does nothing.
    """
    block = np.empty((32 << 20) - (64 << 10), np.uint8)
    del block


def runs(values: I64) -> tuple[I64, I64]:
    """Cut an ascending int64 column into runs of consecutive numbers.

    Returns:
        ``(first, count)``: where each run begins (the value) and how long it is.
    """
    if not len(values):
        return values.copy(), values.copy()
    cut = np.flatnonzero(np.diff(values) != 1) + 1
    first = np.concatenate((values[:1], values[cut]))
    bounds = np.concatenate((np.array([0], np.int64), cut, np.array([len(values)], np.int64)))
    return first, np.diff(bounds)


def expand(first: I64, count: I64) -> I64:
    """The inverse of :func:`runs`: every number of every run, in order."""
    total = int(count.sum())
    if not total:
        return np.empty(0, np.int64)
    ends = np.cumsum(count)
    step = np.ones(total, np.int64)
    step[0] = first[0]
    step[ends[:-1]] = first[1:] - (first[:-1] + count[:-1] - 1)
    return np.cumsum(step)


def rows_of(column: I64, values: I64, *, ascending: bool = False) -> I64:
    """For each value the row of a column that holds it, -1 where none does.

    Args:
        column: int64, in any order; where it holds a value twice, one of the two rows is taken.
        values: int64.
        ascending: whether the column is.
    """
    if not len(column):
        return np.full(len(values), -1, np.int64)
    order = None if ascending else np.argsort(column, kind="stable")
    at = np.minimum(np.searchsorted(column, values, sorter=order), len(column) - 1)
    row: I64 = at if order is None else order[at]
    return np.where(column[row] == values, row, -1)
