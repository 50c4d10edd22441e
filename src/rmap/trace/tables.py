"""The tables of a trace: events in the order they happened, and the files they speak of.

Described like those of a picture (:mod:`rmap.snapshot.tables`): a column's type, what its ids point into, and how it
lies in the file. All columns of numbers are int64 in memory, whatever they need in the file.
"""

# ruff: noqa: RUF009  (every default below is a dataclass field, made by a function)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rmap.columns import I64
from rmap.snapshot.tables import Column, Table

SYSCALL = 1
"""A completed system call, placed where it returned. nr, a0 to a5, result; file = the open that it names."""
FAULT = 2
"""A page fault. a0 address, a1 error code (1 protection, 2 write, 4 user, 16 ifetch), a2 = 1 in kernel mode."""
FORK = 3
"""A new task. a0 child tgid, a1 child tid, a2 clone flags (-1 unknown), a3 = 1 a thread, a4 = 1 the mm is shared."""
EXEC = 4
"""A new address space. a0 = number of the picture that shows it, before its first instruction in user mode."""
EXIT = 5
"""A process lets go of its mm."""
CHECKPOINT = 6
"""Every recorded process was stopped. a0 = number of the picture."""
GONE_ON = 7
"""Somebody else changed memory: pid and tid are -1, a0 = which actor (``ACTORS``), a1 = pages, where known."""
RESIZED = 8
"""A file was found to have another size than was known. file = an open of it, a0 = its size in bytes."""
KINDS = {
    SYSCALL: "syscall",
    FAULT: "fault",
    FORK: "fork",
    EXEC: "exec",
    EXIT: "exit",
    CHECKPOINT: "checkpoint",
    GONE_ON: "gone on",
    RESIZED: "resized",
}

PROTECTION, WRITE, USER, IFETCH = 1, 2, 4, 16
"""Bits of a fault's error code, as x86 has them."""
CLONE_VM, CLONE_VFORK = 0x100, 0x4000

RECLAIM, MIGRATION, COLLAPSE, KSM = 1, 2, 3, 4
ACTORS = {RECLAIM: "reclaim", MIGRATION: "migration", COLLAPSE: "khugepaged", KSM: "ksm"}
"""What GONE_ON may name."""

AT_EXEC, AT_CHECKPOINT, AT_END = 0, 1, 2
CAUSES = ("exec", "checkpoint", "end")
"""Why a picture was taken."""


def _column(dtype: str = "int64", **rest: Any) -> Any:
    column = Column(dtype, **rest)
    return field(
        default_factory=lambda: [] if dtype == "text" else np.empty(0, dtype),
        metadata={"column": column},
    )


@dataclass
class EventTable(Table):
    """What happened, in order."""

    name: ClassVar[str] = "events"

    time: I64 = _column(delta=True)
    kind: I64 = _column()
    pid: I64 = _column()
    tid: I64 = _column()
    nr: I64 = _column()
    a0: I64 = _column()
    a1: I64 = _column()
    a2: I64 = _column()
    a3: I64 = _column()
    a4: I64 = _column()
    a5: I64 = _column()
    result: I64 = _column()
    file: I64 = _column(table="opens", none=True)


@dataclass
class OpenTable(Table):
    """One ``struct file``: what an open made, and what two VMAs must share to be merged."""

    name: ClassVar[str] = "opens"

    file: I64 = _column(table="files")
    writable: I64 = _column()


@dataclass
class InodeTable(Table):
    """One inode."""

    name: ClassVar[str] = "files"

    dev: I64 = _column()
    inode: I64 = _column()
    path: list[str] = _column("text")
    size: I64 = _column()
    shmem: I64 = _column()
    device: I64 = _column()


@dataclass
class MomentTable(Table):
    """Why each picture was taken: the code of ``CAUSES``, and the process, -1 for all."""

    name: ClassVar[str] = "pictures"

    cause: I64 = _column()
    pid: I64 = _column()


TABLES: tuple[type[Table], ...] = (EventTable, OpenTable, InodeTable, MomentTable)
"""Every table, in the order of the documentation."""
