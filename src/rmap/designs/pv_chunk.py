"""pv entries in chunks: FreeBSD's pmap on amd64 (``sys/amd64/amd64/pmap.c``, ``sys/amd64/include/_pv_entry.h``).

Every page has a list of pv entries, one for each address that maps it. They are kept as chains were, but carved out of
chunks, a page of 168 of them (i386: 336), and a chunk belongs to one address space. So an entry need not say whose it
is: the chunk it lies in does. And a process that ends goes through its own chunks and finds every entry there, without
a search in anybody's list. Taking away a single mapping searches the page's list, oldest first.

Source: ``struct pv_chunk`` and ``pmap_insert_entry``, ``pmap_pvh_remove``, ``get_pv_entry``, ``free_pv_entry``,
``pmap_remove_pages`` of freebsd-src. FreeBSD has no mremap: here an entry that moves gets its new address. Left out:
one entry for a superpage of 2 MiB, and the theft of chunks when memory is short."""

from __future__ import annotations

import numpy as np

from rmap.columns import I32, I64, Bool
from rmap.designs.parts.listed_entries import ListedEntries
from rmap.errors import InvariantError
from rmap.mm.costs import DESCENTS, ENTRIES_WRITTEN, LOCKS_CHAIN, OBJECTS_FREED, OBJECTS_MADE
from rmap.mm.interface import DesignCore, PteBatch, Why
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.profile import Profile
from rmap.units import PAGE_SIZE

PER_CHUNK = 168
LIST_HEAD = {64: 16, 32: 8}


class PvChunk(ListedEntries):
    """``mm.design`` is the list of an mm's chunks, those with free places first.

    A record's number says its chunk and its place there: ``1 + chunk * 168 + place``.

    Attributes:
        used: bool[chunks, 168]: the places in use (``pc_map``, which has the free ones).
        owner: int32 by chunk: the mm, 0 for none.

    Invariants: those of the lists; a chunk belongs to the mm whose entries are in it, and has one at least.
    """

    name = "pv_chunk"
    release = "FreeBSD"
    stores_addresses = True
    newest_first = False
    looks_up = DESCENTS

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.used: Bool = np.zeros((64, PER_CHUNK), np.bool_)
        self.owner: I32 = np.zeros(64, np.int32)
        self._free_chunks = list(range(63, -1, -1))
        self._kept: list[int] = []

    # -- processes ----------------------------------------------------------------------------------------------------
    def mm_init(self, mm: Mm, parent: Mm | None) -> None:
        """No chunks yet."""
        mm.design = {}

    # -- chunks -------------------------------------------------------------------------------------------------------
    def take_records(self, batch: PteBatch, pteps: I64) -> I64:
        """``get_pv_entry``: the first free place of the first chunk; a full one goes to the end of the list."""
        chunks: dict[int, None] = batch.mm.design
        kept, self._kept = self._kept[: len(pteps)], self._kept[len(pteps) :]
        parts, wanted = [np.array(kept, np.int64)], len(pteps) - len(kept)
        while wanted:
            chunk = self._first_free(chunks, batch.mm)
            places = np.flatnonzero(~self.used[chunk])[:wanted]
            self.used[chunk, places] = True
            parts.append(places + (1 + chunk * PER_CHUNK))
            wanted -= len(places)
            if self.used[chunk].all():
                del chunks[chunk]
                chunks[chunk] = None
        return np.concatenate(parts)

    def _first_free(self, chunks: dict[int, None], mm: Mm) -> int:
        # The list is a dict whose first key is its head.
        first = next(iter(chunks), None)
        if first is not None and not self.used[first].all():
            return first
        if not self._free_chunks:
            n = len(self.owner)
            self.used = np.concatenate((self.used, np.zeros_like(self.used)))
            self.owner = np.concatenate((self.owner, np.zeros_like(self.owner)))
            self._free_chunks = list(range(2 * n - 1, n - 1, -1))
        chunk = self._free_chunks.pop()
        self.owner[chunk] = mm.id
        _to_head(chunks, chunk)
        self.core.costs.current[OBJECTS_MADE] += 1
        return chunk

    def give_records(self, records: I64) -> None:
        """``free_pv_entry``: the chunk goes to the head of its list; an empty one is freed."""
        chunk, place = np.divmod(records - 1, PER_CHUNK)
        self.used[chunk, place] = False
        for one in reversed(list(dict.fromkeys(chunk[::-1].tolist()))):
            mm = self.core.mm_by_id(int(self.owner[one]))
            if self.used[one].any():
                _to_head(mm.design, one)
                continue
            del mm.design[one]
            self.owner[one] = 0
            self._free_chunks.append(one)
            self.core.costs.current[OBJECTS_FREED] += 1

    # -- pages --------------------------------------------------------------------------------------------------------
    def removed(self, batch: PteBatch, why: Why) -> None:
        """``pmap_remove_pages`` at exit: the process comes by its chunks. Else ``pmap_pvh_remove``: a search.

        Where another page takes the place, its entry goes on with the new one (``pmap_enter``).
        """
        if why == "cow":
            records = self.lists.search(batch.pfns, batch.pteps)
            self.lists.take_out(records)
            self._kept += records.tolist()
            return
        if why != "exit":
            super().removed(batch, why)
            return
        self.core.costs.current[LOCKS_CHAIN] += len(batch.pfns)
        records = self.lists.at[batch.pteps].astype(np.int64)
        self.lists.take_out(records)
        self.give_records(records)

    def moved(self, batch: PteBatch, new_vma: Vma, new_addr: int, new_pteps: I64) -> None:
        """The entries say another address."""
        self.core.costs.current[ENTRIES_WRITTEN] += len(batch.pfns)
        self.lists.move(batch.pteps, new_pteps)

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: the list head of every mapped page, and the chunks. On i386 a chunk holds twice as
        many entries of half the size: counted as half as many chunks, rounded up."""
        chunks = int(np.count_nonzero(self.owner))
        mapped = int(np.count_nonzero(self.core.frames.mapcount))
        return {
            "page.pv_list": LIST_HEAD[bits] * mapped,
            "pv_chunk": PAGE_SIZE * (chunks if bits == 64 else -(-chunks // 2)),
        }

    def validate(self) -> None:
        """Check lists and chunks.

        Raises:
            InvariantError: ``list`` or ``pv-chunk``.
        """
        super().validate()
        records = np.flatnonzero(self.lists.ptep)
        places = np.zeros(self.used.size, np.bool_)
        places[records - 1] = True
        if not np.array_equal(places.reshape(self.used.shape), self.used):
            raise InvariantError("pv-chunk", "the map of a chunk is not that of its entries")
        owners = self.core.tables.mm_of(self.lists.ptep[records])
        if not np.array_equal(self.owner[(records - 1) // PER_CHUNK], owners):
            raise InvariantError("pv-chunk", "an entry is in the chunk of another process")
        if not np.array_equal(self.used.any(axis=1), self.owner > 0):
            raise InvariantError("pv-chunk", "a chunk without entries was kept, or freed too early")


def _to_head(chunks: dict[int, None], chunk: int) -> None:
    if next(iter(chunks), None) == chunk:
        return
    chunks.pop(chunk, None)
    rest = list(chunks)
    chunks.clear()
    chunks[chunk] = None
    chunks.update(dict.fromkeys(rest))
