"""Requirements T5 to T9: each contradiction is refused with its number, and whatever is true passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rmap.errors import TraceError
from rmap.trace import Trace, TraceBuilder
from rmap.trace import tables as t
from tests.support.trace_worlds import AT, parent_and_child, snapshot


def broken(table: str, column: str, row: int, value: int) -> Callable[[], Trace]:
    """The small trace with one number changed."""

    def make() -> Trace:
        whole = parent_and_child().build()
        values = getattr(getattr(whole, table), column)
        values[row] = value
        return Trace(whole.about, whole.events, whole.opens, whole.files, whole.moments)

    return make


CONTRADICTIONS: list[tuple[Callable[[], Any], str]] = [
    (broken("opens", "file", 0, 1), "T5"),
    (broken("opens", "file", 0, -1), "T5"),
    (broken("opens", "writable", 0, 2), "T5"),
    (broken("files", "shmem", 0, -1), "T5"),
    (broken("files", "size", 0, -2), "T5"),
    (broken("events", "file", 1, 1), "T5"),
    (broken("events", "file", 1, -2), "T5"),
    (broken("events", "kind", 2, 99), "T6"),
    (broken("events", "time", 2, 5), "T6"),
    (broken("events", "pid", 2, 0), "T6"),
    (broken("events", "tid", 2, -1), "T6"),
    (broken("events", "nr", 1, -1), "T7"),
    (broken("events", "a1", 2, 1 << 20), "T7"),
    (broken("events", "a2", 2, 2), "T7"),
    (broken("events", "a0", 5, 0), "T7"),
    (broken("events", "a4", 5, 7), "T7"),
    (broken("events", "a0", 7, 9), "T7"),
    (broken("events", "file", 4, -1), "T7"),
    (broken("events", "a0", 4, -1), "T7"),
    (broken("events", "a0", 0, 1), "T8"),
    (broken("events", "a0", 0, 5), "T8"),
    (broken("events", "kind", 0, t.CHECKPOINT), "T8"),
    (broken("events", "pid", 0, 7), "T8"),
]


@pytest.mark.parametrize(("make", "number"), CONTRADICTIONS)
def test_a_contradiction_is_refused(make: Callable[[], Any], number: str) -> None:
    with pytest.raises(TraceError, match=rf"the trace is contradictory: .*\({number}\)"):
        make()


def test_there_is_one_end() -> None:
    builder = parent_and_child()
    builder.checkpoint(snapshot(100), end=True)
    with pytest.raises(TraceError, match=r"\(T9\)"):
        builder.build()


def test_an_exec_shows_its_process_alone() -> None:
    builder = TraceBuilder()
    builder.exec(5, snapshot(5, 6))
    with pytest.raises(TraceError, match=r"shows processes 5, 6 \(T8\)"):
        builder.build()


def test_pictures_may_be_named_out_of_order() -> None:
    """A recorder may be told of two execs in another order than they happened in."""
    builder = TraceBuilder()
    builder.exec(5, snapshot(5))
    builder.exec(6, snapshot(6))
    trace = builder.build()
    trace.events.a0[:] = [1, 0]
    trace.events.pid[:] = [6, 5]
    again = Trace(trace.about, trace.events, trace.opens, trace.files, trace.moments)
    assert [again.moments[n].pid for n in again.events.a0.tolist()] == [6, 5]


def test_an_empty_trace_is_one() -> None:
    trace = TraceBuilder(complete=False, why_incomplete="stopped").build()
    assert len(trace.events) == 0 and trace.moments == []
    assert repr(trace) == "Trace(0 events, 0 pictures, incomplete)"


def test_the_builder_fills_in_what_is_not_said() -> None:
    builder = TraceBuilder(step=5)
    builder.fault(3, AT, write=True)
    builder.fork(3, 4, flags=t.CLONE_VM)
    builder.fork(3, 3, tid=9, thread=True)
    events = builder.build().events
    assert events.time.tolist() == [5, 10, 15]
    assert events.a1.tolist() == [t.WRITE | t.USER, 4, 9]
    assert events.a4.tolist() == [0, 1, 1]
    assert all(getattr(events, name).dtype == np.int64 for name in t.EventTable.columns())
