"""The Trace: what happened to the memory of a program, as columns of events and pictures between them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmap.snapshot import Snapshot
from rmap.trace import spool, storage
from rmap.trace.tables import CAUSES, EventTable, InodeTable, OpenTable
from rmap.trace.validate import validate


@dataclass(frozen=True)
class Moment:
    """A picture within a trace.

    Attributes:
        snapshot: the picture.
        cause: ``"exec"``, ``"checkpoint"`` or ``"end"``.
        pid: whose it is; -1 for every recorded process.
    """

    snapshot: Snapshot
    cause: str
    pid: int


class Trace:
    """A recorded program. It is not changed after it was made.

    Args:
        about: the provenance.
        events, opens, files: the tables of :mod:`rmap.trace.tables`.
        moments: the pictures, as the events number them.

    Raises:
        TraceError: the parts contradict each other (requirements T4 to T9 of ``docs/trace.md``).
    """

    def __init__(
        self, about: dict[str, Any], events: EventTable, opens: OpenTable, files: InodeTable, moments: list[Moment]
    ) -> None:
        self.about = about
        self.events = events
        self.opens = opens
        self.files = files
        self.moments = moments
        validate(about, events, opens, files, [(moment.snapshot, moment.cause, moment.pid) for moment in moments])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace, or the folder ``NAME.trace.part`` of a recording that did not come to its end.

        Raises:
            TraceError: not a trace, damaged, contradictory, or of a newer format.
        """
        source = Path(path)
        parts = spool.load(source) if source.is_dir() else storage.load(source)
        moments = [Moment(snapshot, CAUSES[cause], pid) for snapshot, cause, pid in parts.moments]
        return cls(parts.about, parts.events, parts.opens, parts.files, moments)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the trace to one file, ``NAME.trace``.

        Args:
            force: replace a file that exists.

        Raises:
            UsageError: the file exists, or there is no such directory.
        """
        moments = [(moment.snapshot, CAUSES.index(moment.cause), moment.pid) for moment in self.moments]
        parts = storage.Parts(self.about, self.events, self.opens, self.files, moments)
        storage.save(path, parts, force=force)

    def __repr__(self) -> str:
        whole = "" if self.about["complete"] else ", incomplete"
        return f"Trace({len(self.events):,} events, {len(self.moments)} pictures{whole})"
