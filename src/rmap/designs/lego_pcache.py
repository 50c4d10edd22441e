"""LegoOS: the reverse map of a processor's page cache (``managers/processor/pcache/rmap.c``, 2018).

In LegoOS a processor has no memory of its own but a cache of page-sized *lines*, and no VMAs: those are on the memory
component. So there is no object from which addresses could be computed, and every line has a list of who maps it: a
record of 64 bytes for each, with the entry, the mm, the process and the address. The first record of a line was made at
boot, for all lines at once.

The list is searched when a record is added (a line may be mapped once per process only: more is a bug there) and when
one is taken out. A cache is set-associative by virtual address: what moves into another set becomes another line, and
whatever it shared it shares no more. :mod:`rmap.consumers.pcache` is the cache itself.

Source: WukLab/LegoOS, 1f4da865. What LegoOS cannot do, the model does and counts as a *limit*: a line mapped twice by
one process, or by processes that did not inherit it (it has no files). Left out: the TLB flush of every entry at fork,
``GFP_KERNEL`` under a bit lock."""

from __future__ import annotations

import numpy as np

from rmap.columns import I32, I64, Bool
from rmap.designs.parts.listed_entries import ListedEntries
from rmap.designs.parts.slab import slab_bytes_of
from rmap.errors import InvariantError
from rmap.mm.costs import BLOCKS_VISITED, DESCENTS, ENTRIES_WRITTEN, OBJECTS_FREED, OBJECTS_MADE
from rmap.mm.interface import DesignCore, PteBatch, Why
from rmap.mm.mm_types import Vma
from rmap.mm.profile import Profile
from rmap.units import PAGE_SHIFT, PAGE_SIZE

RECORD = 64
META = 128
WAYS = 8
"""Lines of a set (``PCACHE_ASSOCIATIVITY_SHIFT`` 3)."""
LIMIT_LOOKED_AT = 64
"""A second mapping by one process is noticed among so many records of a line."""


class LegoPcache(ListedEntries):
    """A list of records for every line, the first of which was there before.

    Attributes:
        nr_sets: sets of the cache; a power of two.
        limits: how often something was done that LegoOS cannot do, by what.
        made_at_boot: bool by record: the one that belongs to a line for ever.

    Invariants: those of the lists.
    """

    name = "lego_pcache"
    release = "LegoOS"
    stores_addresses = True
    looks_up = DESCENTS

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.nr_sets = 1 << max(0, (core.frames.nr_pages // WAYS).bit_length() - 1)
        self.limits = {"mapped twice by one process": 0, "shared other than by fork": 0}
        self._boot_used: Bool = np.zeros(core.frames.nr_pages, np.bool_)
        self._next = core.frames.nr_pages  # records below are those made at boot, by line
        self._free: list[int] = []

    def set_of(self, addrs: I64) -> I64:
        """The sets of addresses (virtually indexed)."""
        return (addrs >> PAGE_SHIFT) & (self.nr_sets - 1)

    # -- records ------------------------------------------------------------------------------------------------------
    def take_records(self, batch: PteBatch, pteps: I64) -> I64:
        """``alloc_pcache_rmap``: the one made at boot if it is free, else 64 bytes."""
        at_boot = ~self._boot_used[batch.pfns]
        self._boot_used[batch.pfns] = True
        records = batch.pfns.copy()
        others = np.flatnonzero(~at_boot)
        self.core.costs.current[OBJECTS_MADE] += len(others)
        records[others] = [self._new() for _ in range(len(others))]
        return records

    def _new(self) -> int:
        if self._free:
            return self._free.pop()
        self._next += 1
        return self._next - 1

    def give_records(self, records: I64) -> None:
        """Records made at boot stay with their line; others are freed."""
        at_boot = records < self.core.frames.nr_pages
        self._boot_used[records[at_boot]] = False
        others = records[~at_boot].tolist()
        self._free += others
        self.core.costs.current[OBJECTS_FREED] += len(others)

    # -- pages --------------------------------------------------------------------------------------------------------
    def added(self, batch: PteBatch, why: Why) -> None:
        """``pcache_add_rmap``: the whole list is searched for the same entry first."""
        length = self.lists.length[batch.pfns]
        self.core.costs.current[BLOCKS_VISITED] += int(length.sum())
        if why != "fork":
            self._note_limits(batch, length)
        super().added(batch, why)

    def _note_limits(self, batch: PteBatch, length: I32) -> None:
        if not batch.anon:
            self.limits["shared other than by fork"] += int(np.count_nonzero(length))
        pages = np.flatnonzero(length)
        record = self.lists.head[batch.pfns[pages]]
        for _ in range(LIMIT_LOOKED_AT):
            record = record[record > 0]
            if not len(record):
                return
            ours = self.core.tables.mm_of(self.lists.ptep[record]) == batch.mm.id
            self.limits["mapped twice by one process"] += int(np.count_nonzero(ours))
            record = self.lists.next[record]

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """mremap within a set: the record is edited where it is."""
        self.core.costs.current[ENTRIES_WRITTEN] += len(batch.pfns)
        self.lists.move(batch.pteps, new_pteps)

    def must_copy(self, batch: PteBatch, new_addr: int, why: Why) -> Bool | None:
        """Lines that move into another set become other lines; so do those mapped from another set by swap-in."""
        if not batch.anon:
            return None
        if why == "move":
            differ: Bool = self.set_of(batch.addrs) != self.set_of(batch.addrs - batch.addr + new_addr)
            return differ
        record = self.lists.head[batch.pfns]
        there = self.core.tables.addr_of(self.lists.ptep[record])
        differ = (record > 0) & (self.set_of(there) != self.set_of(batch.addrs))
        return differ

    def migrated(self, old: I64, new: I64) -> None:
        """LegoOS does not migrate. Here the list goes with the page, but what was made at boot stays with its line."""
        super().migrated(old, new)
        at_boot = self._boot_used[old]
        self._boot_used[old] = False
        self._boot_used[new] = at_boot
        self.lists.rename(old[at_boot], new[at_boot])

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of metadata; 64-bit only. What was made at boot is paid for every line, mapped or not."""
        if bits != 64:
            return {}
        lines = self.core.frames.nr_pages
        allocated = int(np.count_nonzero(self.lists.ptep[lines:]))
        return {"pcache_meta": META * lines, "rmap.at_boot": RECORD * lines, "pcache_rmap": RECORD * allocated}

    def slab_bytes(self, bits: int = 64) -> dict[str, int]:
        """Whole slabs with an allocated record in them."""
        if bits != 64:
            return {}
        allocated = np.flatnonzero(self.lists.ptep[self.core.frames.nr_pages :])
        return {"pcache_rmap": slab_bytes_of(allocated, PAGE_SIZE // RECORD)}

    def validate(self) -> None:
        """Check lists, and that records made at boot are those of their lines.

        Raises:
            InvariantError: ``list``.
        """
        super().validate()
        lines = self.core.frames.nr_pages
        boot = np.flatnonzero(self.lists.ptep[:lines])
        if (self.lists.pfn[boot] != boot).any():
            raise InvariantError("list", "a line uses the record that was made for another")
        used = np.zeros(lines, np.bool_)
        used[boot] = True
        if not np.array_equal(used, self._boot_used):
            raise InvariantError("list", "a record made at boot is in use and said to be free, or the other way round")
