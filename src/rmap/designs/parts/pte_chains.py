"""PTE chains: for every page, the list of pte pointers that map it (``mm/rmap.c`` of 2.6.0 to 2.6.6).

A page's field says one of three things: nothing maps it (0); one entry does, and here it is (``PageDirect``: the pte
pointer itself); several do, and they are in a chain of blocks (minus the number of its head block).

A block is one 64-byte cache line: a word with the next block and the index of the first used slot
(``next_and_idx``), and seven slots of 8 bytes, filled from the last one down. Only the head of a chain may have free
slots, and they are its first ones. On 32-bit machines a block is a line of 32 bytes and has seven slots of 4
bytes, so one arena answers for both.

Added last is found first. A removed entry's slot takes the head's first entry, so chains stay dense. A chain does
not shrink back to a direct pointer by itself: :meth:`PteChains.collapse` does that, under memory pressure.

Left out: the spare block that a caller of 2.6.0 brings along, because it may not allocate under the lock; and HIGHPTE.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.columns import I64, scalar_view
from rmap.designs.parts.slab import slab_bytes_of
from rmap.errors import InvariantError
from rmap.mm.costs import BLOCKS_VISITED, ENTRIES_WRITTEN, LOCKS_CHAIN, OBJECTS_FREED, OBJECTS_MADE, Costs
from rmap.mm.frames import as_run
from rmap.mm.interface import Candidates, Ptes, Query

NRPTE = 7
"""Slots of a block."""

INDEX_BITS = 3
INDEX_MASK = NRPTE
WORDS = 1 << INDEX_BITS
"""Words of a block: ``next << 3 | index``, then the slots. Slot ``i`` is word ``i + 1``."""

LAST = NRPTE
FIRST_BLOCKS = 1024


class PteChains:
    """The chains of all pages.

    Args:
        nr_frames: how many frames there are.
        costs: counted are one lock per page touched, one entry written per mapping added, blocks looked at,
            blocks made and freed.

    Attributes:
        head: int64 column by frame: 0, a pte pointer, or minus a block number.
        blocks: int64[m, 8]; block 0 is never used.

    Invariants: only a head block has free slots, and they come first; free slots are 0; no block is empty; every
    block is in one chain or in the free stack.
    """

    def __init__(self, nr_frames: int, costs: Costs) -> None:
        self._costs = costs
        self.head: I64 = np.zeros(nr_frames, np.int64)
        self._mv_head = scalar_view(self.head)
        self._free: I64 = np.empty(0, np.int64)
        self._free_top = 0
        self.blocks: I64 = np.zeros((1, WORDS), np.int64)
        self._grow(FIRST_BLOCKS - 1)

    @property
    def live(self) -> int:
        """Blocks in use."""
        return len(self.blocks) - 1 - self._free_top

    def slab_bytes(self, per_slab: int) -> int:
        """Bytes of the slabs, of a page each, that hold a living block: a block's number is its place."""
        living = np.ones(len(self.blocks), np.bool_)
        living[self._free[: self._free_top]] = False
        living[0] = False
        return slab_bytes_of(np.flatnonzero(living), per_slab)

    # -- adding -----------------------------------------------------------------------------------------------------
    def add(self, pfns: I64, pteps: I64) -> None:
        """``page_add_rmap``: pte pointers begin to map distinct pages."""
        counters = self._costs.current
        counters[LOCKS_CHAIN] += len(pfns)
        counters[ENTRIES_WRITTEN] += len(pfns)
        where = as_run(pfns)
        heads = self.head[where]
        lowest, highest = int(heads.min()), int(heads.max())
        if lowest == highest == 0:
            self.head[where] = pteps
        elif lowest > 0:
            self._begin_chains(where, heads, pteps)
        elif highest < 0:
            self._push(pfns, -heads, pteps)
        else:
            first, second, further = (np.flatnonzero(kind) for kind in (heads == 0, heads > 0, heads < 0))
            heads = heads.copy()
            self.head[pfns[first]] = pteps[first]
            self._begin_chains(pfns[second], heads[second], pteps[second])
            self._push(pfns[further], -heads[further], pteps[further])

    def _begin_chains(self, where: I64 | slice, direct: I64, pteps: I64) -> None:
        # The second mapping: the direct pointer and the new one move into a block.
        new = self._alloc(len(pteps))
        rows = as_run(new)
        self.blocks[rows, 0] = NRPTE - 2
        self.blocks[rows, LAST] = direct
        self.blocks[rows, LAST - 1] = pteps
        self.head[where] = -new

    def _push(self, pfns: I64, blocks: I64, pteps: I64) -> None:
        # Into the head block's last free slot, or into a new head block.
        self._costs.current[BLOCKS_VISITED] += len(pfns)
        base = blocks << INDEX_BITS
        words = self._flat[base]
        index = words & INDEX_MASK
        full = index == 0
        if full.any():
            at = np.flatnonzero(full)
            new = self._alloc(len(at))
            self.blocks[new, 0] = base[at] | (NRPTE - 1)
            self.blocks[new, LAST] = pteps[at]
            self.head[pfns[at]] = -new
            if len(at) == len(pfns):
                return
            rest = np.flatnonzero(~full)
            base, words, index, pteps = base[rest], words[rest], index[rest], pteps[rest]
        self._flat[base + index] = pteps
        self._flat[base] = words - 1

    def add1(self, pfn: int, ptep: int) -> None:
        """The scalar twin of :meth:`add`."""
        counters = self._costs.current
        counters[LOCKS_CHAIN] += 1
        counters[ENTRIES_WRITTEN] += 1
        head = self._mv_head[pfn]
        if not head:
            self._mv_head[pfn] = ptep
            return
        if head > 0:
            base = self._alloc1(pfn)
            words = self._mv
            words[base] = NRPTE - 2
            words[base + LAST] = head
            words[base + LAST - 1] = ptep
            return
        counters[BLOCKS_VISITED] += 1
        words = self._mv
        base = -head << INDEX_BITS
        word = words[base]
        index = word & INDEX_MASK
        if index:
            words[base + index] = ptep
            words[base] = word - 1
        else:
            new = self._alloc1(pfn)
            words = self._mv
            words[new] = base | (NRPTE - 1)
            words[new + LAST] = ptep

    # -- removing ---------------------------------------------------------------------------------------------------
    def remove(self, pfns: I64, pteps: I64) -> None:
        """``page_remove_rmap``: pte pointers end to map distinct pages; each is searched for from the head.

        Raises:
            InvariantError: ``chain``, when a pte pointer is not there.
        """
        self._costs.current[LOCKS_CHAIN] += len(pfns)
        where = as_run(pfns)
        heads = self.head[where]
        if int(heads.min()) > 0:
            _must_equal(heads, pteps)
            self.head[where] = 0
            return
        if int(heads.max()) < 0:
            self._pull(pfns, -heads, pteps)
            return
        single, chained = np.flatnonzero(heads > 0), np.flatnonzero(heads < 0)
        if len(single) + len(chained) != len(pfns):
            raise InvariantError("chain", "an entry of a page was removed that has none")
        heads = heads.copy()
        _must_equal(heads[single], pteps[single])
        self.head[pfns[single]] = 0
        self._pull(pfns[chained], -heads[chained], pteps[chained])

    def _pull(self, pfns: I64, blocks: I64, pteps: I64) -> None:
        # The slot of the removed entry takes the first entry of the head block.
        flat = self._flat
        base = blocks << INDEX_BITS
        words = flat[base]
        index = words & INDEX_MASK
        first = base + index + 1
        on_top = flat[first]
        elsewhere = np.flatnonzero(on_top != pteps)
        visited = len(pfns) - len(elsewhere)
        if len(elsewhere):
            places, searched = self._search(blocks[elsewhere], pteps[elsewhere])
            flat[places] = on_top[elsewhere]
            visited += searched
        self._costs.current[BLOCKS_VISITED] += visited
        flat[first] = 0
        emptied = index == NRPTE - 1
        if emptied.any():
            at = np.flatnonzero(emptied)
            self.head[pfns[at]] = -(words[at] >> INDEX_BITS)
            self._give_back(blocks[at])
            if len(at) == len(pfns):
                return
            rest = np.flatnonzero(~emptied)
            base, words = base[rest], words[rest]
        flat[base] = words + 1

    def _search(self, blocks: I64, pteps: I64) -> tuple[I64, int]:
        # Where each pte pointer is (which word of the arena), and how many blocks were looked at.
        places = np.empty(len(blocks), np.int64)
        todo = np.arange(len(blocks))
        visited = 0
        while len(todo):
            if not blocks.all():
                raise InvariantError("chain", f"pte pointer {int(pteps[blocks == 0][0]):#x} is not in its page's chain")
            visited += len(todo)
            lines = self.blocks[blocks]
            equal = lines[:, 1:] == pteps[:, None]
            slot = equal.argmax(axis=1)
            there = equal[np.arange(len(todo)), slot]
            places[todo[there]] = (blocks[there] << INDEX_BITS) + slot[there] + 1
            onward = np.flatnonzero(~there)
            blocks = lines[onward, 0] >> INDEX_BITS
            todo, pteps = todo[onward], pteps[onward]
        return places, visited

    def remove1(self, pfn: int, ptep: int) -> None:
        """The scalar twin of :meth:`remove`."""
        counters = self._costs.current
        counters[LOCKS_CHAIN] += 1
        counters[BLOCKS_VISITED] += self.forget1(pfn, ptep)

    def forget1(self, pfn: int, ptep: int) -> int:
        """Remove one entry without counting the search; returns how many blocks it looks at.

        Raises:
            InvariantError: ``chain``, when the pte pointer is not there.
        """
        head = self._mv_head[pfn]
        if head >= 0:
            if head != ptep:
                raise InvariantError("chain", f"frame {pfn:#x} is mapped by {head:#x} alone, not by {ptep:#x}")
            self._mv_head[pfn] = 0
            return 0
        words = self._mv
        base = here = -head << INDEX_BITS
        word = words[base]
        first = place = base + (word & INDEX_MASK) + 1
        visited = 1
        while words[place] != ptep:
            # Who came last goes first as a rule, and was found at once; the others are searched for.
            place += 1
            if place < here + WORDS:
                continue
            here = words[here] & ~INDEX_MASK
            if not here:
                break
            visited += 1
            place = here + 1
        if not here:
            raise InvariantError("chain", f"pte pointer {ptep:#x} is not in the chain of frame {pfn:#x}")
        words[place] = words[first]
        words[first] = 0
        if word & INDEX_MASK == NRPTE - 1:
            self._mv_head[pfn] = -(word >> INDEX_BITS)
            self._mv_free[self._free_top] = base >> INDEX_BITS
            self._free_top += 1
            self._costs.current[OBJECTS_FREED] += 1
        else:
            words[base] = word + 1
        return visited

    def drop_all(self, pfns: I64) -> int:
        """Forget every entry of distinct pages (a walk has just visited and cleared them all); returns how many."""
        heads = self.head[pfns]
        self.head[pfns] = 0
        dropped = int(np.count_nonzero(heads > 0))
        blocks = -heads[heads < 0]
        while len(blocks):
            lines = self.blocks[blocks]
            dropped += int(np.count_nonzero(lines[:, 1:]))
            self.blocks[blocks] = 0
            self._give_back(blocks)
            following = lines[:, 0] >> INDEX_BITS
            blocks = following[following > 0]
        return dropped

    # -- walking ----------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """The entries of every page, head block first: one slot of each page's block per chunk."""
        counters = self._costs.current
        counters[LOCKS_CHAIN] += query.asking(0, len(query.pfns))
        heads = self.head[query.pfns]
        single, pos = np.flatnonzero(heads > 0), np.flatnonzero(heads < 0)
        if len(single):
            yield Ptes(single, heads[single])
        blocks = -heads[pos]
        while len(pos):
            if query.stop == "mapcount":
                asking = np.flatnonzero(query.left[pos])
                if len(asking) < len(pos):
                    pos, blocks = pos[asking], blocks[asking]
            counters[BLOCKS_VISITED] += len(pos)
            lines = self.blocks[blocks]
            for slot in range(1, WORDS):
                pteps = lines[:, slot]
                used = np.flatnonzero(pteps)
                if len(used) == len(pos) > 0:
                    yield Ptes(pos, pteps)
                elif len(used):
                    yield Ptes(pos[used], pteps[used])
            following = lines[:, 0] >> INDEX_BITS
            onward = np.flatnonzero(following)
            pos, blocks = pos[onward], following[onward]

    def candidates1(self, pfn: int) -> Iterator[int]:
        """The scalar twin: the pte pointers of one page."""
        counters = self._costs.current
        counters[LOCKS_CHAIN] += 1
        head = self._mv_head[pfn]
        if head > 0:
            yield head
            return
        words = self._mv
        base = -head << INDEX_BITS
        while base:
            counters[BLOCKS_VISITED] += 1
            word = words[base]
            yield from words[base + 1 + (word & INDEX_MASK) : base + WORDS]
            base = word & ~INDEX_MASK

    def entries1(self, pfn: int) -> list[int]:
        """The pte pointers of one page, head first, for a look that costs nothing."""
        head = int(self.head[pfn])
        if head >= 0:
            return [head] if head else []
        pteps: list[int] = []
        block = -head
        while block:
            line = self.blocks[block].tolist()
            pteps += line[1 + (line[0] & INDEX_MASK) :]
            block = line[0] >> INDEX_BITS
        return pteps

    def collapse(self, pfns: I64) -> None:
        """Chains of one entry become direct pointers (the end of ``page_referenced``)."""
        heads = self.head[pfns]
        at = np.flatnonzero(heads < 0)
        blocks = -heads[at]
        lone = np.flatnonzero(self.blocks[blocks, 0] == NRPTE - 1)
        if len(lone):
            blocks = blocks[lone]
            self.head[pfns[at[lone]]] = self.blocks[blocks, LAST]
            self.blocks[blocks, LAST] = 0
            self._give_back(blocks)

    def migrate(self, old: I64, new: I64) -> None:
        """Pages moved to other frames: their chains move along."""
        self.head[new] = self.head[old]
        self.head[old] = 0

    # -- blocks -----------------------------------------------------------------------------------------------------
    def _alloc(self, n: int) -> I64:
        if self._free_top < n:
            self._grow(n)
        top = self._free_top - n
        self._free_top = top
        self._costs.current[OBJECTS_MADE] += n
        return self._free[top : top + n].copy()

    def _alloc1(self, pfn: int) -> int:
        # A new head block for a page; returns its first word.
        if not self._free_top:
            self._grow(1)
        self._free_top -= 1
        self._costs.current[OBJECTS_MADE] += 1
        block = self._mv_free[self._free_top]
        self._mv_head[pfn] = -block
        return block << INDEX_BITS

    def _give_back(self, blocks: I64) -> None:
        # Their slots are 0 already.
        n = len(blocks)
        self._free[self._free_top : self._free_top + n] = blocks
        self._free_top += n
        self._costs.current[OBJECTS_FREED] += n

    def _grow(self, wanted: int) -> None:
        before = len(self.blocks)
        count = before
        while count - before + self._free_top < wanted:
            count *= 2
        blocks = np.zeros((count, WORDS), np.int64)
        blocks[:before] = self.blocks
        free = np.empty(count, np.int64)
        free[: self._free_top] = self._free[: self._free_top]
        added = count - before
        free[self._free_top : self._free_top + added] = np.arange(before, count)
        self._free_top += added
        self.blocks, self._free = blocks, free
        self._flat: I64 = blocks.reshape(-1)
        self._mv = scalar_view(self._flat)
        self._mv_free = scalar_view(free)

    # -- checking ---------------------------------------------------------------------------------------------------
    def entries(self) -> tuple[I64, I64]:
        """Every entry of every chain: columns ``(pfn, pte pointer)``, int64."""
        pfns = [np.flatnonzero(self.head > 0)]
        pteps = [self.head[pfns[0]]]
        owners = np.flatnonzero(self.head < 0)
        blocks = -self.head[owners]
        while len(blocks):
            lines = self.blocks[blocks]
            row, slot = np.nonzero(lines[:, 1:])
            pfns.append(owners[row])
            pteps.append(lines[row, slot + 1])
            following = lines[:, 0] >> INDEX_BITS
            onward = np.flatnonzero(following)
            owners, blocks = owners[onward], following[onward]
        return np.concatenate(pfns), np.concatenate(pteps)

    def validate(self) -> None:
        """Check every block.

        Raises:
            InvariantError: ``chain``, when a block is in no chain or in two, has a hole, or is empty.
        """
        uses = np.zeros(len(self.blocks), np.int64)
        np.add.at(uses, self._free[: self._free_top], 1)
        blocks = -self.head[self.head < 0]
        at_head = True
        while len(blocks):
            np.add.at(uses, blocks, 1)
            if int(uses[blocks].max()) > 1:
                raise InvariantError("chain", "a block is in two chains, or free and in a chain")
            lines = self.blocks[blocks]
            index = lines[:, 0] & INDEX_MASK
            if int(index.max()) == NRPTE:
                raise InvariantError("chain", "a block without entries is in a chain")
            if not at_head and index.any():
                raise InvariantError("chain", "a block behind the head of a chain has free slots")
            if not np.array_equal(lines[:, 1:] != 0, np.arange(NRPTE) >= index[:, None]):
                raise InvariantError("chain", "the used slots of a block are not those from its index on")
            blocks = lines[:, 0] >> INDEX_BITS
            blocks = blocks[blocks > 0]
            at_head = False
        if not (uses[1:] == 1).all():
            raise InvariantError("chain", "a block is neither free nor in a chain")


def _must_equal(heads: I64, pteps: I64) -> None:
    if not np.array_equal(heads, pteps):
        at = int(np.flatnonzero(heads != pteps)[0])
        raise InvariantError("chain", f"a page is mapped by {int(heads[at]):#x} alone, not by {int(pteps[at]):#x}")
