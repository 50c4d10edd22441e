"""Fixtures every area of the tests shares: abilities of the machine, and the lock on its global state."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def need(missing: str | None) -> None:
    """Skip the calling test if an ability is missing, or fail it where ``RMAP_LIVE=1`` promises all of them.

    Args:
        missing: what is missing, in words a reader of the test report understands; None if nothing is.
    """
    if missing is None:
        return
    if os.environ.get("RMAP_LIVE") == "1":
        pytest.fail(f"RMAP_LIVE=1, but this machine lacks: {missing}")
    pytest.skip(f"needs {missing}")


@pytest.fixture
def machine_lock() -> Iterator[None]:
    """Held by a test that changes state of the whole machine (swap, KSM, cgroups): one at a time."""
    path = Path(tempfile.gettempdir()) / "rmap-machine-state.lock"
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
