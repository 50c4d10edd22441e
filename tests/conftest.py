"""What every area of the tests shares: the lock on the machine's global state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rmap.live.undo import machine_state


@pytest.fixture(scope="session", autouse=True)
def _results_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test believes what an earlier run of the tests, or the user, has kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def machine_lock() -> Iterator[None]:
    """Held by a test that changes state of the whole machine (swap, KSM, cgroups): one at a time."""
    with machine_state():
        yield
