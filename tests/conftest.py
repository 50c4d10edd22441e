"""What every area of the tests shares: a cache of their own, interrupts, abilities, the reader of the kernel's memory,
the lock on the machine's global state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from rmap.live.undo import machine_state
from tests.support.needs import need_all

if TYPE_CHECKING:
    from rmap.lab.conform import Pair
    from rmap.live.bpf import BpfMemory


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail, what needs an ability that this machine lacks, before any fixture is set up."""
    for mark in item.iter_markers("needs"):
        need_all(*mark.args)


@pytest.fixture(scope="session", autouse=True)
def _results_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test believes what an earlier run of the tests, or the user, has kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_not_ignored() -> None:
    """A shell without job control starts what is in the background with SIGINT ignored, and that is inherited."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def machine_lock() -> Iterator[None]:
    """Held by a test that changes state of the whole machine (swap, KSM, cgroups): one at a time."""
    with machine_state():
        yield


@pytest.fixture(scope="session")
def memory() -> Iterator[BpfMemory]:
    """What reads the running kernel's structures, loaded once."""
    from rmap.live.bpf import BpfMemory

    need_all("frames", "page_state", "kernel_memory")
    with BpfMemory() as opened:
        yield opened


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The model and real processes, seen whole."""
    from rmap.lab.conform import Pair

    need_all("puppets", "kernel_memory")
    with Pair(memory=request.getfixturevalue("memory")) as both:
        yield both
