"""Object-based for files with a tree to search: the file half of Linux 2.6.7, anonymous pages still on chains.

What held partial objrmap back was its lists. A radix priority search tree finds the VMAs that cover a page among
thousands of windows in O(log n + m) (Rajesh Venkatasubramanian, 41980beada), so the page of a file needs no chain any
more (79603666b5, "rmap 7"). In the series that became 2.6.7 this was the state between that step and the one that took
the chains away from anonymous pages as well. 3.7 put an interval tree in the place of the prio_tree (6b2dbba8b6ac): the
variant ``objrmap_prio:interval``.

Nonlinear areas are kept apart, and where a page lies in one is not looked for: ``page_referenced`` passes them over,
``try_to_unmap`` clears other entries instead, 32 at a time (2a6053ea95). See
:mod:`rmap.designs.parts.nonlinear_areas` for what the model does where it must answer.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import pairwise
from typing import ClassVar

import numpy as np

from rmap.columns import I64, scalar_view
from rmap.designs.parts.anon_chains import AnonChains
from rmap.designs.parts.file_objects import FileObjects, ObjectIndex
from rmap.mm.costs import LOCKS_CHAIN
from rmap.mm.frames import ANON
from rmap.mm.interface import Candidate1, Candidates, DesignCore, Query
from rmap.mm.profile import Profile


class ObjrmapPrio(AnonChains):
    """A prio_tree of VMAs for the pages of files, chains for anonymous pages.

    Attributes:
        files: the trees.

    Invariants: those of the chains and of the tree.
    """

    name = "objrmap_prio"
    release = "2.6.7"
    nonlinear = True
    by_intervals: ClassVar[bool] = False

    def __init__(self, core: DesignCore, profile: Profile) -> None:
        super().__init__(core, profile)
        self.files = FileObjects(core, self.by_intervals)

    # -- walks --------------------------------------------------------------------------------------------------------
    def candidates(self, query: Query) -> Candidates:
        """Chains first, then file by file the VMAs in its tree."""
        if not len(query.pfns):
            return
        mapping, index = query.sort_by_anchor()
        keys = scalar_view(index)
        yield from self.chain_candidates(query)
        cuts = (np.flatnonzero(np.diff(mapping)) + 1).tolist()
        for lo, hi in pairwise([0, *cuts, len(mapping)]):
            yield from self.files.candidates(query, int(mapping[lo]), keys, lo, hi)

    def candidates1(self, pfn: int) -> Iterable[Candidate1]:
        """The scalar twin."""
        frames = self.core.frames
        if frames.mv_flags[pfn] & ANON:
            return self.chain_candidates1(pfn)
        self.core.costs.current[LOCKS_CHAIN] += 1  # the mapcount is under the same bit lock
        return self.files.candidates1(*frames.anchor1(pfn))

    def collateral(self, query: Query) -> Generator[I64, int, None]:
        """Clusters of the nonlinear areas, for pages of their files that are still mapped."""
        return self.files.collateral(query)

    # -- files --------------------------------------------------------------------------------------------------------
    def i_mmap(self) -> ObjectIndex:
        """The tree of a file's VMAs."""
        return self.files.new_index()

    # -- accounts -----------------------------------------------------------------------------------------------------
    def metadata_bytes(self, bits: int = 64) -> dict[str, int]:
        """Bytes of live metadata: the union in ``struct page``, the chains, and the tree node in every file VMA."""
        return {**super().metadata_bytes(bits), "vma.shared": self.files.metadata_bytes(bits)}

    def validate(self) -> None:
        """Check chains and trees.

        Raises:
            InvariantError: ``chain``, ``prio-tree`` or ``I22``.
        """
        super().validate()
        self.files.validate()


class ObjrmapInterval(ObjrmapPrio):
    """The same with the interval tree of 3.7."""

    name = "objrmap_prio:interval"
    release = "3.7"
    by_intervals = True

