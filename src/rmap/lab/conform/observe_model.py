"""How the model is observed: its objects, as :mod:`.observed` wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rmap.designs.parts.i_mmap import IntervalIndex
from rmap.kernel import Kernel
from rmap.lab.conform.observed import (
    FLAGS,
    MARK,
    NO_ENTRY,
    NOT_SEEN,
    NUMBER_SHIFT,
    PAGE,
    SWAP_SLOT,
    ZERO_PAGE,
    AnonVmaFacts,
    Area,
    Observed,
    PageFacts,
    SeenMm,
    TreeNode,
    observed_of,
)
from rmap.mm.frames import ANON, EXCLUSIVE, SWAPCACHE, TAG_SHIFT, ZERO_PFN
from rmap.mm.mm_types import Mm, Vma
from rmap.mm.pte import PFN_SHIFT, PRESENT, RW, SWAP, SWP_EXCLUSIVE
from rmap.units import PAGE_SHIFT, PMD_SHIFT, PMD_SIZE, PTRS_PER_TABLE


class ModelObserver:
    """Observes a model kernel.

    Args:
        kernel: the machine.
        file_name: what the reader calls a file, from the model's own name for it.
        whole: with what only the kernel's own structures tell: page indexes, anon_vmas, exclusive pages. False: only
            what /proc would show.
        marks: with what only page tables tell: which entries may be written, which swapped pages are exclusive.
    """

    def __init__(self, kernel: Kernel, file_name: Callable[[str], str], whole: bool, marks: bool) -> None:
        self._kernel = kernel
        self._file_name = file_name
        self._whole = whole
        self._entry = _entry if marks else _entry_unmarked
        self._anon_vmas = whole and hasattr(kernel.design, "anon_vmas")

    def observe(self) -> Observed:
        """Every process, in the order they were made."""
        kernel = self._kernel
        mms = {process.mm.id: process.mm for process in kernel.processes.values()}
        seen = {
            number: SeenMm([self._area(vma) for vma in mm.vmas], self._entries(mm), [id(vma) for vma in mm.vmas])
            for number, mm in mms.items()
        }
        processes = [process.mm.id for process in kernel.processes.values()]
        return observed_of(processes, seen, self._families(), self._facts, self._tree, self._name)

    def _area(self, vma: Vma) -> Area:
        mapping = vma.mapping.id if vma.mapping is not None else NOT_SEEN
        flags = vma.flags & FLAGS
        if not self._whole:
            pgoff = NOT_SEEN if vma.file is None else vma.pgoff
            return vma.start, vma.end, flags, pgoff, NOT_SEEN, mapping, NOT_SEEN, ()
        file = id(vma.file) if vma.file is not None else NOT_SEEN
        if not self._anon_vmas or vma.anon is None:
            return vma.start, vma.end, flags, vma.pgoff, file, mapping, NOT_SEEN, ()
        chain = tuple([link.anon_vma.id for link in vma.chain])
        return vma.start, vma.end, flags, vma.pgoff, file, mapping, vma.anon.id, chain

    def _entries(self, mm: Mm) -> list[int]:
        ptes, rows = self._kernel.core.tables.ptes, mm.rows
        entries: list[int] = []
        for vma in mm.vmas:
            at, end = vma.start, vma.end
            while at < end:
                stop = min(end, (at | (PMD_SIZE - 1)) + 1)
                row = rows.get(at >> PMD_SHIFT)
                if row is None:
                    entries += [NO_ENTRY] * ((stop - at) >> PAGE_SHIFT)
                else:
                    first = row * PTRS_PER_TABLE + ((at >> PAGE_SHIFT) & (PTRS_PER_TABLE - 1))
                    entries += map(self._entry, ptes[first : first + ((stop - at) >> PAGE_SHIFT)].tolist())
                at = stop
        return entries

    def _families(self) -> dict[int, AnonVmaFacts]:
        if not self._anon_vmas:
            return {}
        anon_vmas = self._kernel.design.anon_vmas  # type: ignore[attr-defined]
        return {
            id: (a.root.id, a.parent.id, a.refcount, a.num_children, a.num_active_vmas) for id, a in anon_vmas.items()
        }

    def _facts(self, pfns: list[int]) -> list[PageFacts]:
        frames = self._kernel.core.frames
        facts: list[PageFacts] = []
        for pfn in pfns:
            flags = frames.mv_flags[pfn]
            mapping, index = frames.anchor1(pfn)
            is_anon = bool(flags & ANON)
            if not self._whole or (is_anon and not self._anon_vmas):
                mapping = index = NOT_SEEN
            exclusive = self._whole and is_anon and bool(flags & EXCLUSIVE)
            cached = is_anon and bool(flags & SWAPCACHE)
            facts.append((frames.mv_mapcount[pfn], exclusive, is_anon, cached, mapping >> TAG_SHIFT, index))
        return facts

    def _tree(self, is_anon: bool, number: int) -> list[TreeNode]:
        if not self._whole:
            return []
        if is_anon:
            return _in_order(self._kernel.design.anon_vmas[number].tree.root)  # type: ignore[attr-defined]
        index = self._kernel.core.mappings[number - 1].i_mmap
        assert isinstance(index, IntervalIndex)
        return _in_order(index.tree.root)

    def _name(self, mapping: int) -> str:
        return self._file_name(self._kernel.core.mappings[mapping - 1].name)


def _in_order(node: Any) -> list[TreeNode]:
    # The VMAs below a node of an interval tree, and itself.
    in_order: list[TreeNode] = []
    above: list[tuple[Any, int]] = []
    depth = 0
    while node is not None or above:
        if node is not None:
            above.append((node, depth))
            node, depth = node.left, depth + 1
        else:
            node, depth = above.pop()
            in_order.append((id(node.vma), depth))
            node, depth = node.right, depth + 1
    return in_order


def _entry(raw: int) -> int:
    number = raw >> PFN_SHIFT
    if raw & PRESENT:
        return ZERO_PAGE if number == ZERO_PFN else number << NUMBER_SHIFT | (MARK if raw & RW else 0) | PAGE
    if not raw & SWAP:
        return NO_ENTRY
    return number << NUMBER_SHIFT | (MARK if raw & SWP_EXCLUSIVE else 0) | SWAP_SLOT


def _entry_unmarked(raw: int) -> int:
    return _entry(raw) & ~MARK
