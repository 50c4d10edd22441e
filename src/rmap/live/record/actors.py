"""What the kernel's own actors did meanwhile, machine-wide: ``actors.bpf.c``."""

from __future__ import annotations

import struct
from pathlib import Path

from rmap.errors import NotPermitted
from rmap.live.bpf.libbpf import BpfObject
from rmap.trace.tables import ACTORS

_PROGRAMS = (
    "count_reclaim",
    "count_pageout",
    "count_migration",
    "count_collapse",
    "count_merge",
    "count_merge_more",
)


class Actors:
    """Counts pages that reclaim, migration, khugepaged and KSM have changed.

    Where the kernel lacks one of the tracepoints, or BPF is not permitted, nothing is counted and ``why_not`` says so.
    """

    def __init__(self) -> None:
        self.why_not: str | None = None
        self._object: BpfObject | None = None
        try:
            self._object = BpfObject(Path(__file__).with_name("actors.bpf.o"))
            for name in _PROGRAMS:
                self._object.attach(name)
        except NotPermitted as error:
            self.close()
            self.why_not = error.needed
        self._before = self._counts()

    def news(self) -> dict[int, int]:
        """Pages by actor (``rmap.trace.tables.ACTORS``) since the last call; actors without any are left out."""
        now = self._counts()
        changed = {actor: now[actor] - self._before[actor] for actor in now if now[actor] > self._before[actor]}
        self._before = now
        return changed

    def close(self) -> None:
        """Unload."""
        if self._object is not None:
            self._object.close()
            self._object = None

    def _counts(self) -> dict[int, int]:
        if self._object is None:
            return dict.fromkeys(ACTORS, 0)
        pages = self._object.map("pages")
        return {actor: int(struct.unpack("=Q", pages.get(actor, 8))[0]) for actor in ACTORS}
