"""What every area of the tests shares: the lock on the machine's global state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rmap.live.undo import machine_state


@pytest.fixture
def machine_lock() -> Iterator[None]:
    """Held by a test that changes state of the whole machine (swap, KSM, cgroups): one at a time."""
    with machine_state():
        yield
