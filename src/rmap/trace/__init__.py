"""THE FILM: what happened to the memory of a recorded program: events in order, and pictures between them.

A recorder (``rmap record``) writes one, the lab replays it. ``docs/data-model.md`` states every table, column and
requirement; :mod:`rmap.trace.tables` has the kinds of events.
"""

from __future__ import annotations

from rmap.trace.builder import TraceBuilder
from rmap.trace.tables import EventTable, InodeTable, OpenTable
from rmap.trace.trace import Picture, Trace

__all__ = ["EventTable", "InodeTable", "OpenTable", "Picture", "Trace", "TraceBuilder"]
