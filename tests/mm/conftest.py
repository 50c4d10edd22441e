"""What the tests of the model file by file share."""

from __future__ import annotations

import pytest

from tests.mm.areas import World


@pytest.fixture
def world() -> World:
    """A machine with one process, under a reverse map that keeps a diary."""
    return World()
