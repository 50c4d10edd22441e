"""Historical and plausible bugs, put back on purpose, one at a time.

Each is a context manager that breaks the running model. ``detection.py`` must notice every one of them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from rmap.designs.anon_vma_chain import AnonVmaChainDesign
from rmap.designs.parts.pte_chains import LAST, NRPTE, PteChains
from rmap.mm import fork, move, truncate, walk, zap
from rmap.mm.core import Core
from rmap.mm.costs import COW
from rmap.mm.interface import PteBatch, Query
from rmap.mm.mm_types import Vma
from rmap.units import PAGE_SHIFT, PMD_SHIFT


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        name: what it does wrong.
        designs: under which it can be seen.
        breaks: makes it, for as long as the context lasts.
        oracle_is_blind: the walk and the page tables still agree: only anchors, visits, layouts or contents show it.
    """

    name: str
    designs: tuple[str, ...]
    breaks: Callable[[], contextlib.AbstractContextManager[Any]]
    oracle_is_blind: bool = False


BOTH = ("anon_vma_chain", "pte_chain")
ANON_VMA = ("anon_vma_chain",)


@contextlib.contextmanager
def replaced(original: Callable[..., Any], by: Callable[..., Any]) -> Iterator[None]:
    """Put another function in the place of one, in every module of rmap that knows it by its name."""
    name = original.__name__
    with contextlib.ExitStack() as stack:
        for module in [module for key, module in sys.modules.items() if key.split(".")[0] == "rmap"]:
            if getattr(module, name, None) is original:
                stack.enter_context(mock.patch.object(module, name, by))
        yield


# -- topology -----------------------------------------------------------------------------------------------------
def split_without_tree_update() -> contextlib.AbstractContextManager[Any]:
    """A VMA that changes its range stays in the trees as it was."""
    nothing = mock.Mock(return_value=None)
    return mock.patch.multiple(AnonVmaChainDesign, pre_update=nothing, post_update=nothing)


def link_not_cloned_at_fork() -> contextlib.AbstractContextManager[Any]:
    """The child is not linked to the anon_vma of its grandparent."""
    right = AnonVmaChainDesign.vma_fork

    def wrong(self: AnonVmaChainDesign, child: Vma, parent: Vma) -> None:
        right(self, child, parent)
        if len(child.chain) > 2:
            link = child.chain.pop()
            link.anon_vma.tree.remove(link)

    return mock.patch.object(AnonVmaChainDesign, "vma_fork", wrong)


def root_instead_of_active() -> contextlib.AbstractContextManager[Any]:
    """New pages hang on the root of the family."""
    right, right1 = AnonVmaChainDesign.set_anon, AnonVmaChainDesign.set_anon1

    def wrong(self: AnonVmaChainDesign, batch: PteBatch, how: Any) -> None:
        right(self, batch, "shared" if how == "new" else how)

    def wrong1(self: AnonVmaChainDesign, vma: Vma, addr: int, ptep: int, pfn: int, how: Any) -> None:
        right1(self, vma, addr, ptep, pfn, "shared" if how == "new" else how)

    return mock.patch.multiple(AnonVmaChainDesign, set_anon=wrong, set_anon1=wrong1)


def reuse_with_two_children() -> contextlib.AbstractContextManager[Any]:
    """A fork takes up an old anon_vma however many children it has."""
    right = AnonVmaChainDesign.vma_fork

    def wrong(self: AnonVmaChainDesign, child: Vma, parent: Vma) -> None:
        fertile = [link.anon_vma for link in parent.chain if not link.anon_vma.num_active_vmas]
        counts = [anon_vma.num_children for anon_vma in fertile]
        for anon_vma in fertile:
            anon_vma.num_children = min(1, anon_vma.num_children)
        right(self, child, parent)
        for anon_vma, count in zip(fertile, counts):
            anon_vma.num_children = count

    return mock.patch.object(AnonVmaChainDesign, "vma_fork", wrong)


def merge_despite_two_links() -> contextlib.AbstractContextManager[Any]:
    """What came through fork merges with what has no anon_vma."""

    def wrong(self: AnonVmaChainDesign, target: Vma, source: Vma | None) -> bool:
        ours = None if source is None else source.anon
        return target.anon is None or ours is None or target.anon is ours

    return mock.patch.object(AnonVmaChainDesign, "is_mergeable_anon_vma", wrong)


# -- pages --------------------------------------------------------------------------------------------------------
def mapcount_missed_on_cow() -> contextlib.AbstractContextManager[Any]:
    """The page that was copied keeps its mapcount."""
    right, right1 = Core.put_pages, Core.put_page1

    def wrong(self: Core, pfns: Any) -> None:
        if self.costs.current is not self.costs.by_operation[COW]:
            right(self, pfns)

    def wrong1(self: Core, pfn: int) -> None:
        if self.costs.current is not self.costs.by_operation[COW]:
            right1(self, pfn)

    return mock.patch.multiple(Core, put_pages=wrong, put_page1=wrong1)


def index_recomputed_on_mremap() -> contextlib.AbstractContextManager[Any]:
    """A moved page gets the page index of its new address."""
    right = move.move_page_tables

    def wrong(core: Core, old_vma: Vma, old_addr: int, new_vma: Vma, new_addr: int, length: int) -> None:
        right(core, old_vma, old_addr, new_vma, new_addr, length)
        for batch in core.batches(new_vma, new_addr, new_addr + length):
            core.frames.index[batch.pfns] = batch.addrs >> PAGE_SHIFT

    return replaced(right, wrong)


def exclusive_after_fork() -> contextlib.AbstractContextManager[Any]:
    """A page shared by fork stays exclusive, and is never copied."""
    return mock.patch.multiple(fork, NOT_EXCLUSIVE=np.int32(-1), EXCLUSIVE=0)


def reuse_without_moving_the_anchor() -> contextlib.AbstractContextManager[Any]:
    """The last user of a page makes it its own, and leaves it on the ancestor's anon_vma."""
    right, right1 = AnonVmaChainDesign.set_anon, AnonVmaChainDesign.set_anon1

    def wrong(self: AnonVmaChainDesign, batch: PteBatch, how: Any) -> None:
        if how != "reuse":
            right(self, batch, how)

    def wrong1(self: AnonVmaChainDesign, vma: Vma, addr: int, ptep: int, pfn: int, how: Any) -> None:
        if how != "reuse":
            right1(self, vma, addr, ptep, pfn, how)

    return mock.patch.multiple(AnonVmaChainDesign, set_anon=wrong, set_anon1=wrong1)


def zap_misses_private_copies_on_truncate() -> contextlib.AbstractContextManager[Any]:
    """Truncation leaves private copies beyond the end of the file."""
    right = truncate.unmap_mapping_range

    def wrong(core: Core, mapping: Any, first: int, last: int, even_cows: bool) -> None:
        right(core, mapping, first, last, False)

    return replaced(right, wrong)


# -- walks --------------------------------------------------------------------------------------------------------
def walk_stops_one_short() -> contextlib.AbstractContextManager[Any]:
    """A walk leaves off before the last mapping of a page with several."""
    right, right1 = Query.__init__, walk.walk1

    def wrong(self: Query, *args: Any, **options: Any) -> None:
        right(self, *args, **options)
        self.left = np.where(self.left > 1, self.left - np.int32(1), self.left)

    def wrong1(core: Core, pfn: int) -> list[tuple[int, int]]:
        found = right1(core, pfn)
        return found[:-1] if len(found) > 1 else found

    return _stack(mock.patch.object(Query, "__init__", wrong), replaced(right1, wrong1))


def off_by_one_in_vma_address() -> contextlib.AbstractContextManager[Any]:
    """A walk looks one page beside the place where a page index lies, in VMAs that do not begin at the index 0."""
    right = walk._check_run

    def beside(vma: Vma) -> Vma:
        return Vma(vma.mm, vma.start, vma.end, vma.flags, vma.pgoff + 1 if vma.pgoff else 0, vma.file, vma.mapping)

    def wrong(core: Core, query: Query, vma: Vma, lo: int, hi: int) -> Any:
        return right(core, query, beside(vma), lo, hi)

    return mock.patch.object(walk, "_check_run", wrong)


def collapse_loses_an_entry() -> contextlib.AbstractContextManager[Any]:
    """A chain of two entries becomes a direct pointer to one of them."""
    right = PteChains.collapse

    def wrong(self: PteChains, pfns: Any) -> None:
        for pfn in pfns.tolist():
            block = -int(self.head[pfn])
            if block > 0 and self.blocks[block, 0] == NRPTE - 2:
                self.blocks[block, LAST - 1] = 0
                self.blocks[block, 0] = NRPTE - 1
        right(self, pfns)

    return mock.patch.object(PteChains, "collapse", wrong)


# -- page tables --------------------------------------------------------------------------------------------------
def row_freed_in_use() -> contextlib.AbstractContextManager[Any]:
    """munmap frees every page table that the range touches, also where a neighbour needs it."""
    right = zap.free_pgtables

    def wrong(core: Core, mm: Any, start: int, end: int) -> None:
        regions = range(start >> PMD_SHIFT, ((end - 1) >> PMD_SHIFT) + 1)
        zap.free_rows(core, [mm.rows.pop(region) for region in regions if region in mm.rows])

    return replaced(right, wrong)


def _stack(*contexts: contextlib.AbstractContextManager[Any]) -> contextlib.AbstractContextManager[Any]:
    @contextlib.contextmanager
    def both() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            yield

    return both()


MUTANTS = (
    Mutant("split without tree update", ANON_VMA, split_without_tree_update),
    Mutant("a link not cloned at fork", ANON_VMA, link_not_cloned_at_fork),
    Mutant("root instead of active anon_vma", ANON_VMA, root_instead_of_active, oracle_is_blind=True),
    Mutant("mapcount missed on COW", BOTH, mapcount_missed_on_cow, oracle_is_blind=True),
    Mutant("index recomputed on mremap", ANON_VMA, index_recomputed_on_mremap),
    Mutant("reuse with num_children >= 2", ANON_VMA, reuse_with_two_children, oracle_is_blind=True),
    Mutant("walk stopped one short", BOTH, walk_stops_one_short),
    Mutant("chain collapse losing an entry", ("pte_chain",), collapse_loses_an_entry),
    Mutant("zap missing private COW on truncate", BOTH, zap_misses_private_copies_on_truncate, oracle_is_blind=True),
    Mutant("merge despite two links", ANON_VMA, merge_despite_two_links, oracle_is_blind=True),
    Mutant("off by one in vma_address", ANON_VMA, off_by_one_in_vma_address),
    Mutant("page-table row freed in use", BOTH, row_freed_in_use),
    # And some that are easily made.
    Mutant("reuse leaves the page on the ancestor", ANON_VMA, reuse_without_moving_the_anchor, oracle_is_blind=True),
    Mutant("still exclusive after fork", BOTH, exclusive_after_fork, oracle_is_blind=True),
)
