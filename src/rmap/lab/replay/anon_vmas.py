"""anon_vmas and chains of the recorded kernel and of the model, compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from rmap.columns import I64
from rmap.lab.replay import results as r
from rmap.lab.replay.agreement import judged, unlike
from rmap.lab.replay.causes import Causes, Judge
from rmap.lab.replay.pairs import Entry, Side, page_of, paired, pid_of, place
from rmap.units import PAGE_SHIFT

COUNTERS = ("refcount", "num_children", "num_active_vmas")
NO_PAIR = -2


@dataclass
class _Families:
    """What was found out about chains, for what is asked next.

    Attributes:
        pairs: the kernel's anon_vma -> the model's that plays its part.
        excused: why the model may not have one of the kernel's: all its VMAs were prepared by accesses that no event
            shows. touched: why its counters may differ: one of its VMAs or children is such a one.
    """

    pairs: dict[int, int] = field(default_factory=dict)
    excused: dict[int, str] = field(default_factory=dict)
    touched: dict[int, str] = field(default_factory=dict)


def topology(entries: Entry, judge: Judge) -> list[r.Agreement]:
    """Chains of VMAs, anon_vmas with their counters, and what each page hangs on. Empty where a side has none."""
    theirs, mine = entries.theirs, entries.mine
    if "none" in (theirs.snapshot.about["topology"], mine.snapshot.about["topology"]):
        return []
    families = _Families()
    chains = _chains(theirs, mine, judge, families)
    return [chains, _anon_vmas(theirs, mine, families), _anchors(entries, judge, families)]


def _links(side: Side) -> list[list[int]]:
    # The anon_vmas of each VMA's chain.
    links = side.snapshot.anon_vma_chains
    bounds = np.searchsorted(links.vma, np.arange(len(side.snapshot.vmas) + 1)).tolist()
    anon_vmas = links.anon_vma.tolist()
    return [anon_vmas[low:high] for low, high in pairwise(bounds)]


def _chains(theirs: Side, mine: Side, judge: Judge, families: _Families) -> r.Agreement:
    # Chains link by link. Two anon_vmas are one if they only ever meet each other, at the same place of a chain.
    right = {key: row for row, key in enumerate(mine.vma_key.tolist())}
    links, my_links = _links(theirs), _links(mine)
    left, own, vma = [], [], []
    unlike_rows: set[int] = set()
    chained: list[int] = []
    for row, key in enumerate(theirs.vma_key.tolist()):
        chain, my_chain = links[row], my_links[right[key]] if key in right else []
        if chain or my_chain:
            chained.append(row)
        if len(chain) != len(my_chain):
            unlike_rows.add(row)
            continue
        if key in right:
            chain = [*chain, *_active(theirs, row)]
            my_chain = [*my_chain, *_active(mine, right[key])]
            if len(chain) != len(my_chain):
                unlike_rows.add(row)
                continue
            left += chain
            own += my_chain
            vma += [row] * len(chain)
    fits = paired(np.array(left, np.int64), np.array(own, np.int64))
    families.pairs.update((a, b) for a, b, fit in zip(left, own, fits.tolist()) if fit)
    unlike_rows |= set(np.array(vma, np.int64)[~fits].tolist())
    lengths = {row: len(my_links[right[key]]) if key in right else 0 for row, key in enumerate(theirs.vma_key.tolist())}
    unseen = judge.prepared_unseen()
    why = {row: _why(theirs, row, len(links[row]) > lengths[row], unseen, judge) for row in unlike_rows}
    _excuse(theirs, links, why, families)
    causes: Causes = np.array([why.get(row, "") for row in chained], object)

    def say(at: int) -> str:
        row = chained[at]
        n, own_n = len(links[row]), lengths[row]
        said = f"a chain of {n}, the model's has {own_n}"
        if n == own_n:
            said = f"a chain of {n} that leads to other anon_vmas in the model"
        return f"{place(int(theirs.vma_key[row]))}: {said}"

    return judged(r.CHAINS, causes, say)


def _why(theirs: Side, row: int, longer: bool, unseen: dict[int, str], judge: Judge) -> str:
    # The first page of a VMA gives it a chain (rule 2.2): where an unseen access made that page, the model has none.
    key, vmas = int(theirs.vma_key[row]), theirs.snapshot.vmas
    if judge.untold_area(pid_of(key), page_of(key) << PAGE_SHIFT, int(vmas.end[row])):
        return r.UNMODELLED
    return unseen.get(row, r.WRONG) if longer else r.WRONG


def _active(side: Side, row: int) -> list[int]:
    active = int(side.snapshot.vmas.anon_vma[row])
    return [active] if active >= 0 else []


def _excuse(theirs: Side, links: list[list[int]], why: dict[int, str], families: _Families) -> None:
    vmas_of: dict[int, list[int]] = {}
    for row, chain in enumerate(links):
        for anon_vma in chain:
            vmas_of.setdefault(anon_vma, []).append(row)
    for anon_vma, rows in vmas_of.items():
        causes = [why[row] for row in rows if why.get(row, r.WRONG) != r.WRONG]
        if causes:
            families.touched[anon_vma] = causes[0]
        if len(causes) == len(rows):
            families.excused[anon_vma] = causes[0]
    parent = theirs.snapshot.anon_vmas.parent
    for anon_vma, cause in families.excused.items():
        families.touched.setdefault(int(parent[anon_vma]), cause)


def _anon_vmas(theirs: Side, mine: Side, families: _Families) -> r.Agreement:
    table, own = theirs.snapshot.anon_vmas, mine.snapshot.anon_vmas
    linked = np.unique(theirs.snapshot.anon_vma_chains.anon_vma).tolist()
    whole = getattr(table, "whole", np.ones(len(table), np.bool_))
    causes: Causes = np.full(len(linked), "", object)
    said = [""] * len(linked)
    for at, row in enumerate(linked):
        other = families.pairs.get(row)
        if other is None:
            said[at] = "the model has none that plays its part"
            causes[at] = families.excused.get(row, r.WRONG)
            continue
        for name in ("root", "parent"):
            above = int(getattr(table, name)[row])
            if families.pairs.get(above, NO_PAIR) != int(getattr(own, name)[other]) and not said[at]:
                said[at] = f"another {name}"
                causes[at] = families.excused.get(above, r.WRONG)
        for name in COUNTERS:
            count, my_count = int(getattr(table, name)[row]), int(getattr(own, name)[other])
            if count != my_count and not said[at]:
                said[at] = f"{name} {count}, the model {my_count}"
                causes[at] = families.touched.get(row, r.WRONG) if count > my_count else r.WRONG
                # Members of the family that are not in the picture count too.
                causes[at] = r.OUTSIDE if not whole[row] and count > my_count else causes[at]
    return judged(r.ANON_VMAS, causes, lambda at: f"anon_vma {linked[at]} of the picture: {said[at]}")


def _anchors(entries: Entry, judge: Judge, families: _Families) -> r.Agreement:
    both = np.flatnonzero(entries.same_anonymous)
    hangs_on, index = entries.of("anon_vma", both), entries.of("index", both)
    pairs = families.pairs
    table: I64 = np.full(max([*pairs, *hangs_on.tolist(), 0]) + 1, NO_PAIR, np.int64)
    table[list(pairs)] = list(pairs.values())
    shown = (hangs_on >= 0) & (index >= 0)
    moved = shown & (index != entries.my("index", both))
    elsewhere = (table[hangs_on] != entries.my("anon_vma", both)) & shown

    def why(where: I64) -> Causes:
        excused = np.array([families.excused.get(anon_vma, "") for anon_vma in hangs_on[where].tolist()], object)
        said = judge.anchors(both[where], excused)
        said[moved[where]] = np.where(judge.raced(both[where][moved[where]]), r.RACED, r.WRONG)
        said[~shown[where]] = r.NOT_SHOWN
        return said

    def say(at: int) -> str:
        where = place(int(entries.key[both[at]]))
        if not shown[at]:
            return f"{where}: the picture does not say what it hangs on"
        if moved[at]:
            return f"{where}: index {index[at]:#x}, the model {entries.my('index', both[[at]])[0]:#x}"
        return f"{where}: hangs on another anon_vma in the model"

    return judged(r.ANCHORS, unlike(moved | elsewhere | ~shown, why), say)
