"""What the tests of the judge share: puppets for the whole module, and the reader of the kernel's structures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from needs import need
from rmap.lab.conform import Pair, ScenarioPlayer, missing_ability
from rmap.lab.conform.swap import why_no_zram
from rmap.live.bpf import KernelMemory, why_not
from rmap.live.undo import machine_state, undo_left_behind


def need_zram() -> None:
    """Skip where there can be no swap to zram, apart from what other tests do to the machine's swap just now."""
    need(missing_ability())
    with machine_state():
        undo_left_behind()
        need(why_no_zram())


@pytest.fixture(scope="session")
def kernel_memory() -> Iterator[KernelMemory]:
    need(missing_ability())
    need(why_not())
    with KernelMemory() as memory:
        yield memory


@pytest.fixture
def pair(kernel_memory: KernelMemory) -> Iterator[Pair]:
    """The model and real processes, seen whole."""
    with Pair(memory=kernel_memory) as both:
        yield both


@pytest.fixture
def player(kernel_memory: KernelMemory) -> Iterator[ScenarioPlayer]:
    with ScenarioPlayer(memory=kernel_memory) as one:
        yield one
