"""Swap to a zram device, for tests of the model beside the running kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rmap.lab.conform.swap import swap_to_zram, why_no_zram
from rmap.live.undo import machine_state, undo_left_behind
from tests.support.needs import need, need_all


@contextmanager
def swap_here() -> Iterator[None]:
    """Swap for a test, or the reason why there is none. The test holds ``machine_lock``."""
    undo_left_behind()
    need(why_no_zram())
    with swap_to_zram():
        yield


def need_zram() -> None:
    """Skip where there can be no swap to zram, apart from what other tests do to the machine's swap just now."""
    need_all("puppets")
    with machine_state():
        undo_left_behind()
        need(why_no_zram())
