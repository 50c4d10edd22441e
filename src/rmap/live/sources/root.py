"""Where what the kernel shows is read: on the running machine, or in a folder that was recorded of another.

Every reader in ``rmap.live.sources`` asks :func:`root_path` for its path, and nothing outside that package reads /proc
or /sys; who writes there, or hands a path to a library, stands in a list in ``tests/live/sources/test_root.py``. So a
folder with files of the same names (``FOLDER/proc/PID/maps`` and so on) can stand for a machine.
"""

from __future__ import annotations

from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_folder = ""


def root_path(path: str) -> str:
    """The path to read, for an absolute path of the kernel's (``/proc/...``, ``/sys/...``)."""
    return _folder + path


@contextmanager
def rooted(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Read below a folder while the block runs.

    It holds for the whole process, so that the threads that readers start read there as well. For that reason one
    thread at a time may use it.
    """
    global _folder
    before = _folder
    _folder = str(folder)
    try:
        yield
    finally:
        _folder = before
