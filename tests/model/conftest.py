"""Machines for the named tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rmap import Kernel


def machine(design: str = "anon_vma_chain", profile: str = "6.18") -> Kernel:
    """A small machine."""
    return Kernel(design, profile, 4096, nr_swap=256, nr_tables=256)


@pytest.fixture
def k() -> Iterator[Kernel]:
    """A machine with today's reverse map; checked once more at the end of the test."""
    kernel = machine()
    yield kernel
    kernel.check()


@pytest.fixture(params=["anon_vma_chain", "pte_chain"])
def any_k(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A machine with each design in turn."""
    kernel = machine(request.param)
    yield kernel
    kernel.check()
