"""What the tests of the judge share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rmap.lab.conform import ScenarioPlayer
from rmap.live.bpf import BpfMemory
from tests.support.needs import need_all


@pytest.fixture
def player(request: pytest.FixtureRequest) -> Iterator[ScenarioPlayer]:
    """What plays scenarios to the model and to real processes, seen whole."""
    need_all("puppets", "kernel_memory")
    memory: BpfMemory = request.getfixturevalue("memory")
    with ScenarioPlayer(memory=memory) as one:
        yield one
