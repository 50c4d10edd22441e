"""Sums over extents and rows, exact in int64 (the weights of ``bincount`` are floats)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.columns import I64


def over_extents(of_frame: I64, first: I64, behind: I64) -> I64:
    """What a column over frames adds up to within each range of dense numbers ``[first, behind)``; int64."""
    before: I64 = np.concatenate(([0], np.cumsum(of_frame)))
    return before[behind] - before[first]


def by_row(row: npt.NDArray[Any], value: npt.NDArray[Any], n: int) -> I64:
    """What the values of each row number (0 to n - 1) add up to; int64[n]."""
    total = np.zeros(n, np.int64)
    np.add.at(total, row, value)
    return total
