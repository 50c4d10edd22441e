"""The recorder that is a set of BPF programs, ``recorder.bpf.c``."""

from __future__ import annotations

import struct
from pathlib import Path

from rmap.columns import I64
from rmap.errors import NotPermitted
from rmap.live.bpf.libbpf import BpfObject
from rmap.live.record.raw import WIDTH, empty
from rmap.live.record.ring import Ring

RING_BYTES = 64 << 20
"""Default size of the ring buffer."""
_PROGRAMS = (
    "record_call",
    "record_user_fault",
    "record_kernel_fault",
    "record_fork",
    "record_exec",
    "record_exit",
)
_LOST, _UNTRACKED, _FOREIGN = range(3)
_NO_MM_YET = 1


class BpfRecorder:
    """Records by BPF: nothing is left behind, however this process ends.

    Args:
        ring_bytes: size of the ring buffer, a power of two of at least a page.

    Raises:
        NotPermitted: no libbpf, no compiled programs, or the kernel refuses them.
    """

    name = "bpf"
    late = False

    def __init__(self, ring_bytes: int = RING_BYTES) -> None:
        path = Path(__file__).with_name("recorder.bpf.o")
        try:
            self._object = BpfObject(path, {"ring": ring_bytes})
        except NotPermitted as error:
            raise NotPermitted(
                "programs cannot be recorded by BPF here", needed=error.needed, works="rmap record --recorder perf"
            ) from None
        self._ring: Ring | None = None
        try:
            self._tracked = self._object.map("tracked")
            self._counters = self._object.map("counters")
            self._ring = Ring(self._object.map("ring").fd, ring_bytes, WIDTH * 8)
            for name in _PROGRAMS:
                self._object.attach(name)
        except BaseException:
            self.close()
            raise
        self._final: tuple[int, int, int] | None = None

    def follow(self, pid: int) -> None:
        """Record this process from its next exec on, and its descendants."""
        self._tracked.set(pid, struct.pack("=Q", _NO_MM_YET))

    def hint(self, child: int, flags: int, shared: bool) -> None:
        """Not needed: the programs see it themselves."""

    def take(self) -> I64:
        """What is ready."""
        return empty() if self._ring is None else self._ring.read()

    def take_until_now(self) -> I64:
        """Everything seen before this call."""
        return empty() if self._ring is None else self._ring.read_until_now()

    def finish(self) -> I64:
        """Take the rest and unload; what recorded processes do from here on is not recorded."""
        rest = self.take_until_now()
        self._final = self._counts()
        self.close()
        return rest

    def lost(self) -> int:
        """Records that found no room in the ring."""
        return self._counts()[_LOST]

    def unseen(self) -> str:
        """Processes and calls that could not be recorded."""
        counts = self._counts()
        clauses = []
        if counts[_UNTRACKED]:
            clauses.append(f"{counts[_UNTRACKED]:,} processes were too many to follow")
        if counts[_FOREIGN]:
            clauses.append(f"{counts[_FOREIGN]:,} system calls of 32-bit code were not understood")
        return "; ".join(clauses)

    def close(self) -> None:
        """Unload everything."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._object.close()

    def _counts(self) -> tuple[int, int, int]:
        if self._final is not None:
            return self._final
        lost, untracked, foreign = (struct.unpack("=Q", self._counters.get(key, 8))[0] for key in range(3))
        return int(lost), int(untracked), int(foreign)
