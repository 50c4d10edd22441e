"""anon_vmas and chains of the recorded kernel and of the model, compared."""

from __future__ import annotations

import numpy as np

from rmap.columns import I64, Bool
from rmap.kernel.entries import ANON
from rmap.lab.replay import results as r
from rmap.lab.replay.agreement import Entry, Side, paired, place

Pairs = dict[int, int]
COUNTERS = ("refcount", "num_children", "num_active_vmas")


def topology(entries: Entry) -> list[r.Agreement]:
    """Chains of VMAs, anon_vmas with their counters, and what each page hangs on. Empty where a side has none."""
    theirs, mine = entries.theirs, entries.mine
    if "none" in (theirs.picture.about["topology"], mine.picture.about["topology"]):
        return []
    chains, pairs = _chains(theirs, mine)
    return [chains, _anon_vmas(theirs, mine, pairs), _anchors(entries, pairs)]


def _bounds(side: Side) -> list[int]:
    links = side.picture.anon_vma_chains
    bounds: list[int] = np.searchsorted(links.vma, np.arange(len(side.picture.vmas) + 1)).tolist()
    return bounds


def _chains(theirs: Side, mine: Side) -> tuple[r.Agreement, Pairs]:
    # Chains link by link. Two anon_vmas are one if they only ever meet each other, at the same place of a chain.
    right = {key: row for row, key in enumerate(mine.vma_key.tolist())}
    bounds, my_bounds = _bounds(theirs), _bounds(mine)
    left_links = theirs.picture.anon_vma_chains.anon_vma.tolist()
    right_links = mine.picture.anon_vma_chains.anon_vma.tolist()
    left, own, vma = [], [], []
    unlike: list[int] = []
    total = 0
    for row, key in enumerate(theirs.vma_key.tolist()):
        other = right.get(key)
        if other is None:
            continue
        chain = left_links[bounds[row] : bounds[row + 1]]
        my_chain = right_links[my_bounds[other] : my_bounds[other + 1]]
        total += bool(chain or my_chain)
        if len(chain) != len(my_chain):
            unlike.append(row)
            continue
        chain = [*chain, *_active(theirs, row)]
        my_chain = [*my_chain, *_active(mine, other)]
        left += chain
        own += my_chain
        vma += [row] * len(chain)
    fits = paired(np.array(left, np.int64), np.array(own, np.int64))
    bad = sorted({*unlike, *np.array(vma, np.int64)[~fits].tolist()})
    first = f"{place(int(theirs.vma_key[bad[0]]))}: {_said(theirs, mine, bad[0], right)}" if bad else ""
    pairs = {a: b for a, b, fit in zip(left, own, fits.tolist()) if fit}
    return r.Agreement(r.CHAINS, total - len(bad), total, first=first), pairs


def _active(side: Side, row: int) -> list[int]:
    active = int(side.picture.vmas.anon_vma[row])
    return [active] if active >= 0 else []


def _said(theirs: Side, mine: Side, row: int, right: dict[int, int]) -> str:
    other = right[int(theirs.vma_key[row])]
    bounds, my_bounds = _bounds(theirs), _bounds(mine)
    n, own = bounds[row + 1] - bounds[row], my_bounds[other + 1] - my_bounds[other]
    if n != own:
        return f"a chain of {n}, the model's has {own}"
    return f"a chain of {n} that leads to other anon_vmas in the model"


def _anon_vmas(theirs: Side, mine: Side, pairs: Pairs) -> r.Agreement:
    table, own = theirs.picture.anon_vmas, mine.picture.anon_vmas
    linked = np.unique(theirs.picture.anon_vma_chains.anon_vma).tolist()
    equal, first = 0, ""
    whole = getattr(table, "whole", np.ones(len(table), np.bool_))
    for row in linked:
        other = pairs.get(row)
        difference = "the model has none that plays its part"
        if other is not None:
            difference = ""
            for name in ("root", "parent"):
                if pairs.get(int(getattr(table, name)[row]), -2) != int(getattr(own, name)[other]):
                    difference = difference or f"another {name}"
            for name in COUNTERS if whole[row] else ():
                count, my_count = int(getattr(table, name)[row]), int(getattr(own, name)[other])
                if count != my_count:
                    difference = difference or f"{name} {count}, the model {my_count}"
        equal += not difference
        if difference and not first:
            first = f"anon_vma {row} of the picture: {difference}"
    return r.Agreement(r.ANON_VMAS, equal, len(linked), first=first)


def _anchors(entries: Entry, pairs: Pairs) -> r.Agreement:
    both = np.flatnonzero(entries.shared_alike & (entries.kind == ANON))
    hangs_on, index = entries.of("anon_vma", both), entries.of("index", both)
    known = (hangs_on >= 0) & (index >= 0)
    both, hangs_on, index = both[known], hangs_on[known], index[known]
    table: I64 = np.full(max([*pairs, *hangs_on.tolist(), 0]) + 1, -2, np.int64)
    table[list(pairs)] = list(pairs.values())
    fits: Bool = (table[hangs_on] == entries.my("anon_vma", both)) & (index == entries.my("index", both))
    first = ""
    if not fits.all():
        at = both[np.flatnonzero(~fits)[:1]]
        if entries.of("index", at)[0] != entries.my("index", at)[0]:
            said = f"index {entries.of('index', at)[0]:#x}, the model {entries.my('index', at)[0]:#x}"
        else:
            said = "hangs on another anon_vma in the model"
        first = f"{place(int(entries.key[at[0]]))}: {said}"
    return r.Agreement(r.ANCHORS, int(np.count_nonzero(fits)), len(both), first=first)
