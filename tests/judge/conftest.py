"""The machines on which every story is told: the model alone, and the model beside the running kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from judge.machines import Model, Pair
from judge.puppets import missing_ability
from judge.swap import NoSwap, swap_file
from needs import need

MACHINES: dict[str, Callable[[], Any]] = {"model": Model, "both": Pair}


@pytest.fixture(params=["model", pytest.param("both", marks=pytest.mark.live)])
def machine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A machine; when the story is over its processes are gone, and the model's invariants hold."""
    if request.param == "both":
        need(missing_ability())
    told_to = MACHINES[request.param]()
    yield told_to
    told_to.close()


@contextmanager
def swap_here(folder: Path) -> Iterator[None]:
    """A swap file for a test, or the reason why there is none. The test holds ``machine_lock``."""
    with ExitStack() as stack:
        try:
            stack.enter_context(swap_file(folder))
        except NoSwap as missing:
            need(str(missing))
        yield
