"""What a test needs of the machine, and what happens where it is missing.

A test, or a module of tests, names the abilities: ``pytestmark = [pytest.mark.live, pytest.mark.needs("frames")]``.
What is asked in the middle of a test, or of a thing that only one test needs, goes through :func:`need`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import pytest


def need(missing: str | None) -> None:
    """Skip the calling test if an ability is missing, or fail it where ``RMAP_LIVE=1`` promises all of them.

    Args:
        missing: what is missing, in words a reader of the test report understands; None if nothing is.
    """
    if missing is None:
        return
    if os.environ.get("RMAP_LIVE") == "1":
        pytest.fail(f"RMAP_LIVE=1, but this machine lacks: {missing}")
    pytest.skip(f"needs {missing}")


def need_all(*names: str) -> None:
    """Need these abilities: fields of ``rmap.live.doctor.abilities.Abilities``, or names in :data:`OTHERS`."""
    need("; ".join(filter(None, map(_missing, names))) or None)


@lru_cache
def _missing(name: str) -> str | None:
    # Whether the machine has an ability does not change while the tests run.
    if name in OTHERS:
        return OTHERS[name]()
    from rmap.live.doctor.abilities import Abilities, abilities

    assert name in {field.name for field in fields(Abilities)}, f"no ability: {name}"
    return abilities().missing(name)


def _puppets() -> str | None:
    from rmap.lab.conform import missing_ability

    return missing_ability()


def _recording() -> str | None:
    from rmap.live.record import why_not

    return why_not()


def _perf() -> str | None:
    from rmap.errors import NotPermitted
    from rmap.live.doctor.abilities import missing_frames
    from rmap.live.record.by_perf import PerfRecorder

    if (missing := missing_frames()) is not None:
        return missing
    with tempfile.TemporaryDirectory() as folder:
        try:
            PerfRecorder(Path(folder) / "unused").close()
        except NotPermitted as error:
            return error.needed
    return None


OTHERS: dict[str, Callable[[], str | None]] = {
    "puppets": _puppets,
    "recording": _recording,
    "perf": _perf,
    "setpriv": lambda: None if os.geteuid() == 0 and shutil.which("setpriv") else "root, and setpriv",
    "compiler": lambda: None if shutil.which("cc") else "a C compiler",
}
"""Abilities that are no field of ``Abilities``, and what asks for each: to drive puppets; to record by BPF, by perf; to
act as another user; to compile."""
