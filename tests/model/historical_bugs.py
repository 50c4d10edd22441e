"""Bugs that Linux had, put back: each was mended by the commit that is named, and each is found by our checks.

What a commit mended is told by its own subject and message; the bug here is what the model does without it. Subjects
and dates of ea90002b0 and of the two of 2015 were read in mails that quote them; the ids of 287d97ac0 and 3fe89b3e2 are
from memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from rmap.designs.anon_vma_chain import AnonVmaChainDesign
from rmap.designs.parts import chained_anon_vmas
from rmap.mm import merge
from rmap.mm.interface import CloneWhy, How, PteBatch
from rmap.mm.mm_types import Vma
from tests.model.mutants import merge_despite_two_links, split_without_tree_update


@dataclass(frozen=True)
class Bug:
    """One bug of Linux.

    Attributes:
        commit: what mended it. year: when.
        what: went wrong.
        breaks: puts it back.
        found_by: how: ``conformance`` (invariants, the oracle), ``growth`` (objects without bound), ``sharing`` (who
            has which anon_vma) or ``layout`` (which areas are one).
    """

    commit: str
    year: int
    what: str
    breaks: Callable[[], contextlib.AbstractContextManager[Any]]
    found_by: str = "conformance"


def clone_reverses_the_chain() -> contextlib.AbstractContextManager[Any]:
    """anon_vma_clone went through the chain from its head, so that each copy was the other way round."""
    right = AnonVmaChainDesign.vma_fork

    def wrong(self: AnonVmaChainDesign, child: Vma, parent: Vma) -> None:
        right(self, child, parent)
        child.chain.reverse()

    return mock.patch.object(AnonVmaChainDesign, "vma_fork", wrong)


def importer_without_anon_vma() -> contextlib.AbstractContextManager[Any]:
    """vma_adjust let a VMA without anon_vma take in pages, and did not give it the exporter's."""

    def wrong(core: Any, survivor: Vma, donor: Vma) -> None:
        if donor.faulted and not survivor.faulted:
            survivor.faulted = True

    return mock.patch.object(merge, "_take_over", wrong)


def resize_without_the_trees() -> contextlib.AbstractContextManager[Any]:
    """The interval trees were not told of a VMA that changed its range (expand_stack, vma_adjust)."""
    return split_without_tree_update()


def chains_grow_without_bound() -> contextlib.AbstractContextManager[Any]:
    """No anon_vma was ever taken up again: a line of forks whose parents exit grew for ever."""
    return mock.patch.dict(chained_anon_vmas._TAKEN_UP, {"deserted": lambda anon_vma, parent: False})


def reuse_of_a_busy_anon_vma() -> contextlib.AbstractContextManager[Any]:
    """``degree`` counted VMAs and children together, so that an anon_vma with a living VMA could be taken up."""
    low = chained_anon_vmas._of_low_degree
    return mock.patch.dict(chained_anon_vmas._TAKEN_UP, {"deserted": low})


def moved_area_is_not_linked() -> contextlib.AbstractContextManager[Any]:
    """copy_vma made a VMA for moved pages that did not inherit the chain."""
    right = AnonVmaChainDesign.vma_clone

    def wrong(self: AnonVmaChainDesign, new: Vma, old: Vma, why: CloneWhy) -> None:
        if why == "mremap":
            self.anon_vma_prepare(new)
        else:
            right(self, new, old, why)

    return mock.patch.object(AnonVmaChainDesign, "vma_clone", wrong)


def swapped_in_pages_hang_on_the_leaf() -> contextlib.AbstractContextManager[Any]:
    """A page that relatives may map too was hung on the anon_vma of whoever swapped it in, and not on the root."""
    right, right1 = AnonVmaChainDesign.set_anon, AnonVmaChainDesign.set_anon1

    def wrong(self: AnonVmaChainDesign, batch: PteBatch, how: How) -> None:
        right(self, batch, "new" if how == "shared" else how)

    def wrong1(self: AnonVmaChainDesign, vma: Vma, addr: int, ptep: int, pfn: int, how: How) -> None:
        right1(self, vma, addr, ptep, pfn, "new" if how == "shared" else how)

    return mock.patch.multiple(AnonVmaChainDesign, set_anon=wrong, set_anon1=wrong1)


def counted_off_twice() -> contextlib.AbstractContextManager[Any]:
    """unlink_anon_vmas lowered the count of an anon_vma that it had lowered already (``degree`` underflow)."""
    right = AnonVmaChainDesign.vma_unlink

    def wrong(self: AnonVmaChainDesign, vma: Vma, heir: Vma | None) -> None:
        if vma.anon is not None and len(vma.chain) > 1:
            vma.anon.num_active_vmas -= 1
        right(self, vma, heir)

    return mock.patch.object(AnonVmaChainDesign, "vma_unlink", wrong)


def merge_of_inherited_chains() -> contextlib.AbstractContextManager[Any]:
    """VMAs that came through fork merged with neighbours, and lost the rest of their chains."""
    return merge_despite_two_links()


BUGS = (
    Bug("646d87b48", 2010, "a clone reversed the chain, so that its last link was not the root",
        clone_reverses_the_chain),
    Bug("287d97ac0", 2010, "vma_adjust did not copy the anon_vma to the side that grows", importer_without_anon_vma),
    Bug("ea90002b0", 2010, "a page that may be shared was not put on the oldest anon_vma",
        swapped_in_pages_hang_on_the_leaf),
    Bug("bf181b9f9", 2012, "interval trees ask for an update around every change of a range", resize_without_the_trees),
    Bug("7a3ef208e", 2015, "a line of forks grew its chains without bound", chains_grow_without_bound, "growth"),
    Bug("3fe89b3e2", 2015, "an area that went was counted off twice", counted_off_twice),
    Bug("2555283eb", 2022, "an anon_vma that a living area uses was taken up by a fork",
        reuse_of_a_busy_anon_vma, "sharing"),
    Bug("", 2010, "plausible: a moved area does not inherit the chain", moved_area_is_not_linked),
    Bug("", 2010, "plausible: an area that came through fork merges as if its anon_vma were its own",
        merge_of_inherited_chains, "layout"),
)  # fmt: skip
