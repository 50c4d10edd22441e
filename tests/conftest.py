"""What every area of the tests shares: a cache of their own, interrupts, the lock on the machine's global state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from rmap.live.undo import machine_state


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
