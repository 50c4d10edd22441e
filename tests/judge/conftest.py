"""The machines on which every story is told: the model alone, and the model beside the running kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pytest

from needs import need
from rmap.lab.conform import Model, Pair, missing_ability
from rmap.lab.conform.swap import swap_to_zram, why_no_zram
from rmap.live.bpf import BpfMemory, why_not
from rmap.live.undo import undo_left_behind


@lru_cache(maxsize=1)
def kernel_memory() -> BpfMemory | None:
    """What reads the kernel's structures, loaded once; None where it cannot: stories then compare what /proc shows."""
    return BpfMemory() if why_not() is None else None


@pytest.fixture(params=["model", pytest.param("both", marks=pytest.mark.live)])
def machine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A machine; when the story is over its processes are gone, and the model's invariants hold."""
    if request.param == "model":
        model = Model()
        yield model
        model.close()
        return
    need(missing_ability())
    with Pair(memory=kernel_memory()) as pair:
        yield pair


@contextmanager
def swap_here() -> Iterator[None]:
    """Swap for a test, or the reason why there is none. The test holds ``machine_lock``."""
    undo_left_behind()
    need(why_no_zram())
    with swap_to_zram():
        yield
