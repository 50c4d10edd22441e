"""A BPF ring buffer, read where the kernel writes it: records of one size become one array, without a call per record.

As Documentation/bpf/ringbuf.rst describes the mapping: a page with the consumer's position, a page with the producer's,
then the data, mapped twice in a row, so that records that wrap around are contiguous.
"""

from __future__ import annotations

import mmap
import time

import numpy as np

from rmap.columns import I64
from rmap.errors import SourceError

_PAGE = mmap.PAGESIZE
_BUSY = 1 << 31
_PAUSE = 0.00002


class Ring:
    """The reader's side of a ring buffer whose records all have the same size.

    Args:
        fd: of the map.
        size: bytes of the ring, a power of two.
        record: bytes of a record, a multiple of 8.
    """

    def __init__(self, fd: int, size: int, record: int) -> None:
        self._size = size
        self._words = record // 8 + 1  # a header of 8 bytes before each
        self._step = record + 8
        self._record = record
        self._positions = mmap.mmap(fd, _PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._mapping = mmap.mmap(fd, _PAGE + 2 * size, prot=mmap.PROT_READ, offset=_PAGE)
        self._consumed: I64 = np.frombuffer(self._positions, np.int64, 1)
        self._produced: I64 = np.frombuffer(self._mapping, np.int64, 1)
        self._data: I64 = np.frombuffer(self._mapping, np.int64, offset=_PAGE)

    def read(self) -> I64:
        """Take every record that is finished: a 2-D int64 array, one row each, without the header."""
        begin, end = int(self._consumed[0]), int(self._produced[0])
        count = (end - begin) // self._step
        if not count:
            return np.empty((0, self._words - 1), np.int64)
        first = (begin % self._size) // 8
        rows = self._data[first : first + count * self._words].reshape(count, self._words)
        header = rows[:, 0] & 0xFFFFFFFF
        finished = header == self._record
        if not finished.all():
            count = int(np.argmin(finished))
            if not header[count] & _BUSY:
                raise SourceError(f"the ring buffer holds a record of {header[count]} bytes, not {self._record}")
        taken = rows[:count, 1:].copy()
        self._consumed[0] = begin + count * self._step
        return taken

    def read_until_now(self) -> I64:
        """Take every record that was begun before this call. A record is unfinished for some microseconds only."""
        target = int(self._produced[0])
        parts = [self.read()]
        while int(self._consumed[0]) < target:
            time.sleep(_PAUSE)
            parts.append(self.read())
        return np.concatenate(parts)

    def close(self) -> None:
        """Unmap it."""
        del self._consumed, self._produced, self._data
        self._mapping.close()
        self._positions.close()
