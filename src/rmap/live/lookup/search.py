"""A search for the entries of one page or one slot of swap: what is wanted, what was found, who could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from rmap.live.sources import procfs
from rmap.live.sources.same_mm import compare_mms, groups
from rmap.snapshot import flags as f
from rmap.uapi.pagemap import PM_PFRAME_MASK, PM_PRESENT, PM_SWAP

STATE = PM_PRESENT | PM_SWAP | PM_PFRAME_MASK
"""The bits of an entry that say what it names."""

Enough = Callable[[], bool]
"""Asked after every hit: whether to stop."""


class Hit(NamedTuple):
    """An entry that names the page: whose, and where (bytes)."""

    pid: int
    address: int


class Unread:
    """Processes that could not be looked at.

    Attributes:
        empty: those without memory: some have ended, others never had any.
        refused: those that this user may not read.
    """

    def __init__(self) -> None:
        self.empty: set[int] = set()
        self.refused: set[int] = set()

    def ended(self) -> int:
        """How many of them ended meanwhile, as far as can be told."""
        gone = 0
        for pid in self.empty:
            try:
                procfs.read_stat(pid)  # it is there: a thread of the kernel, or not yet waited for
            except (FileNotFoundError, ProcessLookupError):
                gone += 1
            except PermissionError:
                continue
        return gone


@contextmanager
def looking_at(pid: int, unread: Unread | None = None) -> Iterator[None]:
    """Look at a process: that it has no memory any more, or may not be read, ends the block, and is noted.

    Args:
        unread: where it is noted; None: nowhere.
    """
    try:
        yield
    except (FileNotFoundError, ProcessLookupError):
        if unread is not None:
            unread.empty.add(pid)
    except PermissionError:
        if unread is not None:
            unread.refused.add(pid)


@dataclass
class Search:
    """A search for one page or one slot of swap.

    Attributes:
        wanted: the bits of an entry that must be so: present or swap, and the frame or slot.
        hits: what was found so far.
        unread: whoever could not be looked at.
        scanned: the processes all of whose entries have been looked at.
    """

    wanted: int
    hits: set[Hit] = field(default_factory=set)
    unread: Unread = field(default_factory=Unread)
    scanned: set[int] = field(default_factory=set)
    _distinct: tuple[int, list[Hit]] = field(default=(0, []))  # a cache: len(hits), and their distinct ones

    def matches(self, entry: int) -> bool:
        """Whether an entry (64 bits, signed or not) names the page."""
        return entry & STATE == self.wanted

    def distinct(self) -> list[Hit]:
        """The hits in order; of processes that share an mm only those of the lowest pid."""
        if self._distinct[0] != len(self.hits):
            self._distinct = len(self.hits), self._of_lowest()
        return self._distinct[1]

    def _of_lowest(self) -> list[Hit]:
        places: dict[int, set[int]] = {}
        for hit in self.hits:
            places.setdefault(hit.pid, set()).add(hit.address)
        alike: dict[frozenset[int], list[int]] = {}
        for pid, addresses in places.items():
            alike.setdefault(frozenset(addresses), []).append(pid)
        lowest = {pid for pids in alike.values() for pid in groups(sorted(pids), compare_mms)}
        return sorted(hit for hit in self.hits if hit.pid in lowest)


def for_page(pfn: int) -> Search:
    """A search for the entries of a frame."""
    return Search(PM_PRESENT | pfn)


def for_slot(area: int, slot: int) -> Search:
    """A search for the entries that name a slot of swap."""
    return Search(PM_SWAP | f.swap_entry(area, slot))
