"""The machines on which stories are told: the model alone, under one design or two; the model beside the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rmap import Kernel
from rmap.lab.conform import Model, Pair
from rmap.live.bpf import why_not
from tests.support.needs import need_all
from tests.support.small import small_kernel


@pytest.fixture(params=["model", pytest.param("both", marks=pytest.mark.live)])
def machine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A machine; when the story is over its processes are gone, and the model's invariants hold.

    Where the kernel's structures cannot be read, stories compare what /proc shows.
    """
    if request.param == "model":
        model = Model()
        yield model
        model.close()
        return
    need_all("puppets")
    with Pair(memory=None if why_not() else request.getfixturevalue("memory")) as pair:
        yield pair


@pytest.fixture
def k() -> Iterator[Kernel]:
    """The model with today's reverse map; checked once more at the end of the story."""
    kernel = small_kernel()
    yield kernel
    kernel.check()


@pytest.fixture(params=["anon_vma_chain", "pte_chain"])
def any_k(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """The model with each design in turn."""
    kernel = small_kernel(request.param)
    yield kernel
    kernel.check()
