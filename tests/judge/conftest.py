"""The machines on which every story is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import need
from judge.puppets import Stage, missing_ability


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.live)])
def machine(request: pytest.FixtureRequest) -> Iterator[Any]:
    need(missing_ability())
    stage = Stage()
    yield stage
    stage.close()
