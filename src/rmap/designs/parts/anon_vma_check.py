"""The invariants of anon_vmas, chains and anonymous pages (I1 to I14, I16 of ``docs/rules.md``).

I18, "the anon_vma of a page that is not exclusive is the active one or an ancestor of it", is not asked. It follows
from I13 and I10 as long as no anon_vma was taken up again. After that it does not hold: in the example of rule 2.7, G's
pages hang on A2; H, forked from G, maps them, and H's active anon_vma is A1, the parent of A2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rmap.columns import I64, Bool
from rmap.designs.parts.anon_vma import AnonVma
from rmap.errors import InvariantError
from rmap.mm.frames import EXCLUSIVE, KEPT_ANCHOR, LARGE, TAG_BITS, TAG_KSM, WAS_LARGE, Frames
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import Vma
from rmap.mm.profile import Profile


def check_vmas(vmas: Sequence[Vma], profile: Profile) -> None:
    """Every VMA and its chain: I1 to I5, I10, I11.

    Raises:
        InvariantError: with the invariant's number.
    """
    chains: dict[AnonVma, list[AnonVma]] = {}
    for vma in vmas:
        links = vma.chain or []
        if (vma.anon is None) != (not links) or (vma.anon is not None) != vma.faulted:
            raise InvariantError("I1", f"{vma} has anon_vma {vma.anon} and {len(links)} links")
        if vma.anon is None:
            continue
        chain = [link.anon_vma for link in links]
        _check_chain(vma, chain, profile)
        if not profile.root_is_last:
            chain.sort(key=lambda anon_vma: anon_vma.id)
        # Where a living anon_vma may be taken up again, two pieces of an area may end up on one (rule 2.5 of 5.1).
        if profile.taken_up != "degree" and chains.setdefault(vma.anon, chain) != chain:
            raise InvariantError("I11", f"{vma} has the chain {chain}; others on {vma.anon} have {chains[vma.anon]}")


def _check_chain(vma: Vma, chain: list[AnonVma], profile: Profile) -> None:
    members = set(chain)
    if any(anon_vma.root is not vma.anon.root for anon_vma in chain):
        raise InvariantError("I2", f"the chain of {vma} has more than one root: {chain}")
    if vma.anon not in members:
        raise InvariantError("I3", f"{vma.anon} is active in {vma}, and not in its chain {chain}")
    if profile.root_is_last and chain[-1] is not vma.anon.root:
        raise InvariantError("I4", f"the chain of {vma} does not end with its root: {chain}")
    if len(members) != len(chain):
        raise InvariantError("I5", f"{vma} is linked to an anon_vma twice: {chain}")
    for anon_vma in chain:
        if anon_vma.parent not in members:
            raise InvariantError("I10", f"the chain of {vma} has {anon_vma.name} and not its parent: {chain}")


def check_anon_vmas(vmas: Sequence[Vma], anon_vmas: Mapping[int, AnonVma]) -> None:
    """Every living anon_vma, its counters and its tree: I6 to I9, I12, and that links and trees agree.

    Raises:
        InvariantError: with the invariant's number.
    """
    living = set(anon_vmas.values())
    active = Counter(vma.anon for vma in vmas if vma.anon is not None)
    children = Counter(anon_vma.parent for anon_vma in living)
    family = Counter(anon_vma.root for anon_vma in living)
    for anon_vma in living:
        _check_parents(anon_vma, living)
    for anon_vma in living:
        if anon_vma.num_active_vmas != active[anon_vma]:
            raise InvariantError("I6", f"{anon_vma} is active in {active[anon_vma]} VMAs")
        if anon_vma.num_children != children[anon_vma]:
            raise InvariantError("I7", f"{anon_vma} has {children[anon_vma]} children, a root itself among them")
        others = family[anon_vma] - 1 if anon_vma.root is anon_vma else 0
        if anon_vma.refcount != 1 + others:
            raise InvariantError("I8", f"{anon_vma} is held by {1 + others}")
    _check_links(vmas, living)


def _check_parents(anon_vma: AnonVma, living: set[AnonVma]) -> None:
    parent, root = anon_vma.parent, anon_vma.root
    if parent not in living or root not in living:
        raise InvariantError("I9", f"the parent or the root of {anon_vma} is dead")
    if parent.root is not root or root.parent is not root or (parent is anon_vma) != (root is anon_vma):
        raise InvariantError("I9", f"{anon_vma}: its parent is {parent}, its root {root}")


def _check_links(vmas: Sequence[Vma], living: set[AnonVma]) -> None:
    links = {link: vma for vma in vmas for link in vma.chain or ()}
    for link, vma in links.items():
        if link.vma is not vma:
            raise InvariantError("I5", f"{vma} has the link of {link.vma}")
        if (link.start, link.last) != (vma.pgoff, vma.last):
            raise InvariantError("I12", f"{vma} is in {link.anon_vma.name} as [{link.start:#x}, {link.last:#x}]")
        if link.anon_vma not in living:
            raise InvariantError("I9", f"{vma} has a link to {link.anon_vma}, which is dead")
    in_trees = 0
    for anon_vma in living:
        anon_vma.tree.validate()
        in_trees += len(anon_vma.tree)
        for link in anon_vma.tree:
            if link.anon_vma is not anon_vma or link not in links:
                raise InvariantError("I12", f"the tree of {anon_vma} has {link}, which is in no chain")
    if in_trees != len(links):
        raise InvariantError("I12", f"the chains have {len(links)} links, the trees {in_trees}")


def check_pages(frames: Frames, vma: Vma, batch: PteBatch) -> None:
    """Anonymous pages that one VMA maps: I13, I14, I16.

    I16 is not asked of pages that are, or were, in large folios, nor of those that their last user took out of the
    swap cache: they become exclusive where they hang (rules 4.7, 4.12).

    Raises:
        InvariantError: with the invariant's number.
    """
    mapping, index = frames.anchor(batch.pfns)
    flags = frames.flags[batch.pfns]
    ordinary = (mapping & TAG_BITS) != TAG_KSM
    linked = np.zeros(len(mapping), np.bool_)
    for link in vma.chain or ():
        linked |= mapping == link.anon_vma.handle
    _demand("I13", linked | ~ordinary, batch, mapping, f"is not in the chain of {vma}")
    _demand("I14", (index == batch.pgoffs) | ~ordinary, batch, index, f"is not its place in {vma}")
    exempt = (flags & (EXCLUSIVE | LARGE | WAS_LARGE | KEPT_ANCHOR)) != EXCLUSIVE
    active = mapping == vma.anon.handle
    _demand("I16", active | exempt, batch, mapping, f"is not active in {vma}, the page exclusive")


def _demand(id: str, holds: Bool, batch: PteBatch, column: I64, text: str) -> None:
    if not holds.all():
        at = int(np.flatnonzero(~holds)[0])
        what = f"index {int(column[at]):#x}" if id == "I14" else f"anon_vma A{int(column[at]) >> 2}"
        raise InvariantError(id, f"frame {int(batch.pfns[at]):#x} at {int(batch.addrs[at]):#x}: {what} {text}")
