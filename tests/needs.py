"""What a test needs of the machine, and what happens where it is missing."""

from __future__ import annotations

import os

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
