"""What a recorder hands over: rows of eleven numbers, before they are events of a trace.

``recorder.bpf.c`` writes them as they are; the reader of perf makes the same.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rmap.columns import I64

WIDTH = 11
TIME, KIND_NR, TGID_TID, A0, RESULT, FILE_PTR = 0, 1, 2, 3, 9, 10
"""Columns. KIND_NR and TGID_TID each hold two numbers of 32 bits, the first in the low half; A0 to A0 + 5."""
NAME, FILE = 100, 101
"""Kinds besides those of :mod:`rmap.trace.tables`: what is known of a ``struct file`` that the next rows mention.

NAME: a0 to a5 are 48 bytes of its path, or of the last part of it, up to a NUL; further rows go on. FILE: a0 device as
the kernel numbers it, a1 inode, a2 size, a3 bits (1 writable, 2 shmem, 4 device), a4 descriptor or -1, a5 generation of
the inode; nr = 1 if a call that sets the size follows. Both have the file's address as FILE_PTR."""


class Recorder(Protocol):
    """Sees what recorded processes do to their memory.

    Attributes:
        name: ``"bpf"`` or ``"perf"``.
        late: it hands over nothing before :meth:`finish`, and wants hints.
    """

    name: str
    late: bool

    def follow(self, pid: int) -> None:
        """Record this process, from its next exec on, and its descendants."""

    def hint(self, child: int, flags: int, shared: bool) -> None:
        """How a process was made, as its tracer saw it: clone flags, whether it uses its parent's mm."""

    def take(self) -> I64:
        """What was seen and is ready, in order; rows as above."""

    def take_until_now(self) -> I64:
        """As :meth:`take`, and nothing seen before this call is missing."""

    def finish(self) -> I64:
        """Stop recording; the rest."""

    def lost(self) -> int:
        """Events seen but not kept."""

    def unseen(self) -> str:
        """What else was not seen, in words; empty if nothing."""

    def close(self) -> None:
        """Give everything back. May be called at any time, more than once."""


def empty() -> I64:
    """No rows."""
    return np.empty((0, WIDTH), np.int64)


def low(values: I64) -> I64:
    """The low halves, as signed numbers of 32 bits."""
    return (values << 32) >> 32


def high(values: I64) -> I64:
    """The high halves."""
    return values >> 32
