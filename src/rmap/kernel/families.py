"""What a picture without anon_vmas does not say, inferred from what it does say.

/proc shows neither the ``vm_pgoff`` of an anonymous VMA nor its anon_vma. But two VMAs that map one anonymous page have
that page at one index (rule 1.3), so their page offsets differ by a known number; and a page that several processes
share was made before their last common ancestor forked them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from rmap.columns import I64, Bool
from rmap.kernel.pages import DenseFrames, PagesToLoad
from rmap.snapshot import Snapshot
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.units import PAGE_SHIFT

NOBODY = -1


@dataclass
class VmaFamily:
    """VMAs that share anonymous pages.

    Attributes:
        vmas: rows of the picture's table, parents before children.
        up: for each of them, the row it was forked from; ``NOBODY`` for the top.
        split_from: rows whose mm has an earlier VMA of the family: that one.
    """

    vmas: list[int]
    up: dict[int, int] = field(default_factory=dict)
    split_from: dict[int, int] = field(default_factory=dict)


@dataclass
class Inferred:
    """What was inferred.

    Attributes:
        pgoff: int64, one per VMA of the picture.
        families: groups of VMAs that share pages.
        contradictions: pairs of VMAs whose shared pages do not agree on one offset (a torn picture).
        anchor_vma: int64 by dense head frame: the VMA in whose anon_vma a page shared by several VMAs lies,
            ``NOBODY`` for pages of one VMA, ``-2 - family`` for an ancestor that is not there any more.
    """

    pgoff: I64
    families: list[VmaFamily]
    contradictions: int
    anchor_vma: I64


def infer(snapshot: Snapshot, frames: DenseFrames, pages: PagesToLoad) -> Inferred:
    """Solve page offsets and fork families from shared pages."""
    key, vma, position = _anonymous_mappers(snapshot, frames, pages)
    links = _links(key, vma, position)
    pgoff = snapshot.vmas.pgoff.astype(np.int64).copy()
    given = pgoff >= 0
    start_page = snapshot.vmas.start >> PAGE_SHIFT
    pgoff[~given] = start_page[~given]
    groups, contradictions = _solve(links, pgoff, given, start_page)
    depth, parent = fork_tree(snapshot)
    families = [_family(snapshot, group, depth, parent) for group in groups]
    anchor = _anchors(frames, key, vma, families)
    return Inferred(pgoff, families, contradictions, anchor)


def _anonymous_mappers(snapshot: Snapshot, frames: DenseFrames, pages: PagesToLoad) -> tuple[I64, I64, I64]:
    # (head frame, VMA, where the head would lie in the VMA), sorted by frame then VMA; swap slots follow the frames.
    tracked = pages.tracked
    anon = tracked & among(frames.kind[np.where(tracked, pages.pfn, 0)], KINDS.on_anon_vmas)
    pfn = pages.pfn[anon]
    head = frames.head[pfn]
    key = np.concatenate((head, pages.pfn[pages.swapped] + len(frames.snapshot_pfn)))
    vma = np.concatenate((pages.vma[anon], pages.vma[pages.swapped]))
    position = np.concatenate((pages.off[anon] - (pfn - head), pages.off[pages.swapped]))
    order = np.lexsort((position, vma, key))
    return key[order], vma[order], position[order]


def _links(key: I64, vma: I64, position: I64) -> I64:
    # Distinct (vma a, vma b, difference of positions) of neighbours that share a page: int64[n, 3].
    same = np.flatnonzero((key[1:] == key[:-1]) & (vma[1:] != vma[:-1]))
    if not len(same):
        return np.empty((0, 3), np.int64)
    triples = np.stack((vma[same], vma[same + 1], position[same] - position[same + 1]), axis=1)
    # Neighbouring pages are mostly shared alike: dropping repeats first leaves little to sort.
    changes = np.concatenate(([True], (triples[1:] != triples[:-1]).any(axis=1)))
    return np.unique(triples[changes], axis=0)


def _solve(links: I64, pgoff: I64, given: Bool, start_page: I64) -> tuple[list[list[int]], int]:
    # Spread page offsets along the links, from VMAs whose offset is given first.
    near: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for a, b, difference in links.tolist():
        near[a].append((b, difference))
        near[b].append((a, -difference))
    groups: list[list[int]] = []
    seen: set[int] = set()
    contradictions = 0
    for start in sorted(near, key=lambda row: (not given[row], row)):
        if start in seen:
            continue
        seen.add(start)
        group = [start]
        for row in group:
            for other, difference in near[row]:
                # A page at position p of row lies at p - difference of the other, and both are at one index.
                wanted = int(pgoff[row]) + difference
                if other not in seen:
                    seen.add(other)
                    group.append(other)
                    if not given[other]:
                        pgoff[other] = wanted
                if pgoff[other] != wanted:
                    contradictions += 1
        low = min(int(pgoff[row]) for row in group)
        if low < 0 and not any(given[row] for row in group):
            for row in group:
                pgoff[row] -= low
        for row in group:
            if pgoff[row] < 0:
                # It cannot lie where the others want it.
                pgoff[row] = start_page[row]
                contradictions += 2
        groups.append(sorted(group))
    return groups, contradictions // 2


def fork_tree(snapshot: Snapshot) -> tuple[list[int], list[int]]:
    """For each process of a picture: how far it is from the top of its tree, and the row of its parent (-1: none).

    Pids are used again, so a torn picture may make processes ancestors of themselves: such a circle is cut.
    """
    parent = snapshot.parents().tolist()
    depth = [NOBODY] * len(parent)
    for row in range(len(parent)):
        line: dict[int, None] = {}
        at = row
        while at >= 0 and depth[at] == NOBODY and at not in line:
            line[at] = None
            at = parent[at]
        if at in line:
            parent[at] = NOBODY
        for at in reversed(line):
            depth[at] = depth[parent[at]] + 1 if parent[at] >= 0 else 0
    return depth, parent


def _family(snapshot: Snapshot, group: list[int], depth: list[int], parent: list[int]) -> VmaFamily:
    process = snapshot.vmas.process
    ordered = sorted(group, key=lambda row: (depth[process[row]], int(process[row]), row))
    first: dict[int, int] = {}
    family = VmaFamily(ordered)
    for row in ordered:
        own = int(process[row])
        if own in first:
            family.split_from[row] = first[own]
            family.up[row] = family.up[first[own]]
            continue
        first[own] = row
        above = parent[own]
        while above >= 0 and above not in first:
            above = parent[above]
        family.up[row] = first[above] if above >= 0 else NOBODY
    return family


def _anchors(frames: DenseFrames, key: I64, vma: I64, families: list[VmaFamily]) -> I64:
    # For every page that several VMAs map, their nearest common ancestor in the family's fork tree.
    anchor = np.full(len(frames.snapshot_pfn), NOBODY, np.int64)
    up: dict[int, int] = {}
    for number, family in enumerate(families):
        gone = -2 - number
        for row in family.vmas:
            up[row] = gone if family.up[row] == NOBODY else family.up[row]
            if row in family.split_from:
                # Pieces of one mm share all anon_vmas: the first stands for the others.
                up[row] = family.split_from[row]
    pages = key < len(frames.snapshot_pfn)
    key, vma = key[pages], vma[pages]
    if not len(key):
        return anchor
    new = np.concatenate(([True], (key[1:] != key[:-1]) | (vma[1:] != vma[:-1])))
    key, vma = key[new], vma[new]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    sizes = np.diff(np.concatenate((starts, [len(key)])))
    common = vma[starts].copy()
    paths: dict[int, list[int]] = {}
    met: dict[tuple[int, int], int] = {}
    for k in range(1, int(sizes.max())):
        more = np.flatnonzero(sizes > k)
        pairs = np.stack((common[more], vma[starts[more] + k]), axis=1)
        changes = np.concatenate(([True], (pairs[1:] != pairs[:-1]).any(axis=1)))
        joined = np.array([_meet(up, paths, met, a, b) for a, b in pairs[changes].tolist()], np.int64)
        common[more] = joined[np.cumsum(changes) - 1]
    shared = sizes > 1
    anchor[key[starts[shared]]] = common[shared]
    return anchor


def _meet(
    up: dict[int, int], paths: dict[int, list[int]], met: dict[tuple[int, int], int], a: int, b: int
) -> int:
    # The nearest common ancestor of two VMAs; each counts as its own.
    if (a, b) in met:
        return met[a, b]

    def path(row: int) -> list[int]:
        if row not in paths:
            steps, at = [row], row
            while at in up:
                at = up[at]
                steps.append(at)
            paths[row] = steps
        return paths[row]

    above = set(path(a))
    answer = met[a, b] = next(row for row in path(b) if row in above)
    return answer
