"""Files, and readings of them that share no code with rmap: for the tests of file, files and evict."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import PAGE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def file_system(path: Path) -> str:
    """The type of the file system that a path is on."""
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def on_disk(preferred: Path) -> Iterator[Path | None]:
    """A folder on a file system with a disk: the preferred one, else one of /var/tmp; None if neither is."""
    if file_system(preferred) not in ("tmpfs", "ramfs", "overlayfs"):
        yield preferred
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name) if file_system(Path(name)) not in ("tmpfs", "ramfs", "overlayfs") else None


def clean_file(path: Path, pages: int) -> Path:
    """A file of random pages, on the disk, and none of it in memory."""
    path.write_bytes(os.urandom(pages * PAGE))
    drop(path)
    return path


def drop(path: Path) -> None:
    """Nothing of a file in memory; nobody may map it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not resident(path)


def read_pages(path: Path, first: int, count: int) -> None:
    """Have these pages in memory, and no others."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), count * PAGE, first * PAGE)


def resident(path: Path | str) -> list[int]:
    """Which pages of a file are in memory, by mincore."""
    fd = os.open(path, os.O_RDONLY)
    try:
        length = -(-os.fstat(fd).st_size // PAGE) * PAGE
        if not length:
            return []
        address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        vector = (ctypes.c_ubyte * (length // PAGE))()
        assert _libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), vector) == 0
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
        return [page for page, byte in enumerate(vector) if byte & 1]
    finally:
        os.close(fd)
