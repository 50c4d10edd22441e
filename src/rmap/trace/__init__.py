"""THE RECORDED PROGRAM: what it did to its memory: events in order, and pictures between them.

A recorder (``rmap record``) writes one, the lab replays it. ``docs/trace.md`` states every table, column and
requirement; :mod:`rmap.trace.tables` has the kinds of events.
"""

from __future__ import annotations

from rmap.trace.builder import TraceBuilder
from rmap.trace.tables import EventTable, InodeTable, OpenTable
from rmap.trace.trace import Moment, Trace

__all__ = ["EventTable", "InodeTable", "Moment", "OpenTable", "Trace", "TraceBuilder"]
