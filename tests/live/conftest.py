"""What tests of the running kernel share. What of it they need they say by the mark ``needs``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.file_cases import on_disk
from tests.support.live_family import Family, family
from tests.support.needs import need
from tests.support.system import KSM, ksm_at_work, ksm_stops
from tests.support.waiting import until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system with a disk."""
    with on_disk(tmp_path) as folder:
        need(None if folder is not None else "a file system with a disk")
        assert folder is not None
        yield folder


TWINS = 32
MERGING = f"""
twins = mm({TWINS})
twins[:] = b"z" * len(twins)
twins.madvise(12)  # MADV_MERGEABLE
other = mm({TWINS})
touch(other, *range({TWINS}))
fork(lambda: touch(twins, 0))
ready(address(twins))
"""


@pytest.fixture
def merged(machine_lock: None) -> Iterator[Family]:
    """A family of whose pages KSM has merged as many as :data:`TWINS`."""
    with ksm_at_work(), family(MERGING) as tree:
        until(lambda: _merged_pages() >= TWINS - 1, 60, "KSM did not merge")
        ksm_stops()
        yield tree


def _merged_pages() -> int:
    return sum(int((KSM / name).read_text()) for name in ("pages_shared", "pages_sharing"))
