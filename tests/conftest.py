"""What every area of the tests shares: the lock on the machine's global state."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def machine_lock() -> Iterator[None]:
    """Held by a test that changes state of the whole machine (swap, KSM, cgroups): one at a time."""
    path = Path(tempfile.gettempdir()) / "rmap-machine-state.lock"
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
