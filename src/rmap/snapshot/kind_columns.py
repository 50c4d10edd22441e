"""Columns of kinds of frames: what :mod:`rmap.snapshot.kinds` says of one kind, asked of many frames at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from rmap.columns import I8, I64, Bool
from rmap.snapshot.kinds import KINDS, FrameKind


def among(kind: I8 | I64, numbers: Iterable[int]) -> Bool:
    """Which of some frames are of one of these kinds.

    Args:
        kind: int8 or int64, as ``frames.kind``; -1, unknown, is none of them.
        numbers: of kinds, as the properties of :data:`rmap.snapshot.kinds.KINDS` give them.
    """
    wanted = np.zeros(len(KINDS) + 1, np.bool_)  # the last is that of -1
    wanted[list(numbers)] = True
    return wanted[kind]


def of_each(answer: Callable[[FrameKind], int]) -> I64:
    """What is asked of a kind, for each number; int64."""
    return np.array([answer(kind) for kind in KINDS], np.int64)
