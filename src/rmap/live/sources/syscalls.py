"""System calls that Python has no name for. Numbers are those of x86-64 and of the generic table (arm64, riscv64)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import NamedTuple

from rmap.uapi.unistd import NR
from rmap.units import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rmap.columns import Bool

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_MOST_VECTORS = 1024


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def address_of(own: mmap.mmap) -> int:
    """Where a mapping of this process begins, also one that may not be written."""
    import numpy as np

    return int(np.frombuffer(own, np.uint8, 1).__array_interface__["data"][0])


def resident(address: int, length: int) -> Bool:
    """Which pages of a mapping of this process are in memory (mincore); bool[pages].

    Args:
        address, length: bytes, whole pages.

    Raises:
        OSError: nothing is mapped there.
    """
    import numpy as np

    vector = np.zeros(length // PAGE_SIZE, np.uint8)
    _checked(_libc.mincore(address, length, vector.ctypes.data))
    present: Bool = (vector & 1).astype(np.bool_)
    return present


def is_resident(address: int) -> bool:
    """The same of one page.

    Raises:
        OSError: nothing is mapped there.
    """
    vector = ctypes.c_ubyte()
    _checked(_libc.mincore(address, PAGE_SIZE, ctypes.byref(vector)))
    return bool(vector.value & 1)


def touch(address: int) -> None:
    """Read a byte of a mapping of this process."""
    ctypes.string_at(address, 1)


def map_file(fd: int, length: int, offset: int = 0) -> int:
    """Map a file to be looked at, not touched (PROT_NONE is enough for mincore). Returns the address.

    Raises:
        OSError: it cannot be mapped.
    """
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if address in (None, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(address)


def unmap(address: int, length: int) -> None:
    """munmap."""
    _checked(_libc.munmap(address, length))


class CacheStat(NamedTuple):
    """What cachestat(2) tells of a range of a file; pages."""

    cache: int
    dirty: int
    writeback: int
    evicted: int
    recently_evicted: int


def cachestat(fd: int, offset: int = 0, length: int = 0) -> CacheStat | None:
    """How many pages of a file's range are in memory, dirty, being written (Linux 6.5).

    Args:
        length: bytes; 0 means to the end.

    Returns:
        None if this kernel has no such call, or not for this file.
    """
    asked = (ctypes.c_uint64 * 2)(offset, length)
    answer = (ctypes.c_uint64 * 5)()
    if _libc.syscall(NR["cachestat"], fd, ctypes.byref(asked), ctypes.byref(answer), 0) == 0:
        return CacheStat(*answer)
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF):
        return None
    raise OSError(number, os.strerror(number))


def process_madvise(pid: int, ranges: list[tuple[int, int]], advice: int) -> int:
    """Advise on another process's memory (Linux 5.10).

    Args:
        ranges: ``(address, length)`` in bytes.

    Returns:
        bytes that the kernel says it has advised on: no proof that anything happened.

    Raises:
        OSError: refused, or no such process.
    """
    done = 0
    pidfd = _checked(_libc.syscall(NR["pidfd_open"], pid, 0))
    try:
        for first in range(0, len(ranges), _MOST_VECTORS):
            part = ranges[first : first + _MOST_VECTORS]
            vectors = (ctypes.c_uint64 * (2 * len(part)))(*(number for pair in part for number in pair))
            done += _checked(
                _libc.syscall(NR["process_madvise"], pidfd, ctypes.byref(vectors), len(part), advice, 0)
            )
    finally:
        os.close(pidfd)
    return done


_SYNC_WAIT_WRITE_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER


def madvise(address: int, length: int, advice: int) -> None:
    """Advise on a mapping of this process.

    Raises:
        OSError: refused.
    """
    _checked(_libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice))


def sync_range(fd: int, offset: int, length: int) -> None:
    """Write the dirty pages of a file's range, and wait for them (sync_file_range(2)); bytes.

    Raises:
        OSError: an error of writing, or a file that is not written back.
    """
    _checked(
        _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_SYNC_WAIT_WRITE_WAIT))
    )
