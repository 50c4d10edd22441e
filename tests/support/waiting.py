"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 20, otherwise: str = "it did not come true") -> Any:
    """Wait until it is true; its value. The test fails if it takes longer, with ``otherwise`` as the reason."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)
    return value
