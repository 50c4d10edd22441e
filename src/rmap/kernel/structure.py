"""The structure of a picture: its VMAs, anon_vmas and chains, made in a new machine or in one that runs.

Whoever loads a picture makes its VMAs here: :mod:`rmap.kernel.adopt` those of a whole machine, :mod:`rmap.kernel.exec`
those of one new address space, a replay single ones. Anon_vmas are made as the picture knows them, or, where it knows
none, from the families that :mod:`rmap.kernel.families` infers.

An actor in the kernel may have given a VMA an anon_vma unseen, before a fork: that cannot be put right page by page.
So where a picture knows the kernel's own topology, the design's is taken down and made like it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rmap.columns import I64
from rmap.kernel.families import NOBODY, Inferred, VmaFamily
from rmap.kernel.inodes import HEAP, Inodes, is_special
from rmap.mm.core import Core
from rmap.mm.frames import ANON, SWAPBACKED
from rmap.mm.interface import PteBatch
from rmap.mm.mm_types import STACK_TOP, File, Mm, Vma
from rmap.mm.shared_anonymous import shmem_zero_setup
from rmap.snapshot import Snapshot
from rmap.uapi.vm_flags import (
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
)
from rmap.units import PAGE_SHIFT


# -- VMAs -------------------------------------------------------------------------------------------------------------
def load_vmas(core: Core, snapshot: Snapshot, mms: list[Mm], contents: Iterable[tuple[File | None, int]]) -> list[Vma]:
    """Make VMAs of a picture, unfaulted, in their mms and in their files' indexes.

    Args:
        mms: of the picture's processes, in order; all of them without VMAs.
        contents: what each VMA maps, in order: its file, None for anonymous memory, and the page index of its start.
            VMAs beyond the last of them are not made.
    """
    vmas = snapshot.vmas
    columns = zip(vmas.process.tolist(), vmas.start.tolist(), vmas.end.tolist(), vmas.flags.tolist(), vmas.label)
    made = []
    for (file, pgoff), (process, start, end, flags, label) in zip(contents, columns):
        mm = mms[process]
        vma = new_vma(core, mm, start, end, flags, pgoff, file)
        mm.append(vma)
        core.link_file(vma)
        if label == HEAP:
            # Two pieces that touch are one heap.
            mm.start_brk, mm.brk = min(start, mm.start_brk if mm.brk == start else start), end
        count_locked(vma)
        made.append(vma)
    return made


def make_vma(core: Core, mm: Mm, snapshot: Snapshot, row: int, inodes: Inodes, files: dict[int, File]) -> Vma:
    """One VMA of a picture, not yet in its mm nor in its file's index, nor in any account.

    Args:
        files: the open that stands for each file of the picture; what is missing is opened.
    """
    vmas = snapshot.vmas
    file, pgoff = content_of(snapshot, row, inodes, files)
    return new_vma(core, mm, int(vmas.start[row]), int(vmas.end[row]), int(vmas.flags[row]), pgoff, file)


def content_of(snapshot: Snapshot, row: int, inodes: Inodes, files: dict[int, File]) -> tuple[File | None, int]:
    """What a VMA of a picture maps, as :func:`load_vmas` takes it; ``files`` as :func:`make_vma` does."""
    vmas = snapshot.vmas
    start, end, file_row, label = int(vmas.start[row]), int(vmas.end[row]), int(vmas.file[row]), vmas.label[row]
    file = None
    if file_row >= 0:
        if file_row not in files:
            files[file_row] = inodes.file_of(snapshot, file_row)
        file = files[file_row]
    elif is_special(label):
        file = inodes.special(label, label, (end - start) >> PAGE_SHIFT)
    pgoff = int(vmas.pgoff[row])
    if pgoff < 0:
        pgoff = 0 if file is not None else _anonymous_pgoff(start, end, int(vmas.flags[row]))
    return file, pgoff


def _anonymous_pgoff(start: int, end: int, flags: int) -> int:
    # /proc does not tell. The stack was made at the top and moved down with its indexes (rule 2.18).
    if flags & VM_GROWSDOWN:
        return (STACK_TOP >> PAGE_SHIFT) - ((end - start) >> PAGE_SHIFT)
    return start >> PAGE_SHIFT


def count_locked(vma: Vma) -> None:
    """Count the pages of a new VMA in its mm's ``locked_vm``, if it is VM_LOCKED."""
    if vma.flags & VM_LOCKED:
        vma.mm.locked_vm += vma.pages


def new_vma(core: Core, mm: Mm, start: int, end: int, flags: int, pgoff: int, file: File | None) -> Vma:
    """A VMA as a picture shows it, not yet in its mm nor in its file's index."""
    flags = whole_flags(flags)
    if flags & VM_SHARED and not flags & VM_SPECIAL and (file is None or file.zero_device):
        # Shared memory always has a file, though the picture does not know it: an empty one of its own.
        file, pgoff = shmem_zero_setup(core, end - start), 0
    return Vma(mm, start, end, flags, pgoff, file, file.mapping if file is not None else None)


def whole_flags(flags: int) -> int:
    """VMA flags with what /proc/PID/maps does not tell: what mmap would have set."""
    if flags & (VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC):
        return flags  # the picture has them all
    flags |= VM_MAYREAD | VM_MAYEXEC
    if not flags & VM_MAYSHARE or flags & VM_WRITE:
        flags |= VM_MAYWRITE
    if flags & VM_MAYSHARE and flags & VM_MAYWRITE:
        flags |= VM_SHARED
    if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
        flags |= VM_ACCOUNT
    return flags


# -- anon_vmas --------------------------------------------------------------------------------------------------------
def topology_columns(snapshot: Snapshot) -> dict[str, I64]:
    """A picture's topology as :meth:`rmap.mm.interface.ReverseMap.adopt_topology` takes it.

    An anon_vma that reaches outside the picture has the children that are in it.
    """
    anon_vmas, chains = snapshot.anon_vmas, snapshot.anon_vma_chains
    linked = np.unique(chains.anon_vma)
    children = np.bincount(anon_vmas.parent[linked], minlength=len(anon_vmas))
    columns = {
        "root": anon_vmas.root,
        "parent": anon_vmas.parent,
        "num_children": np.where(anon_vmas.whole, anon_vmas.num_children, children),
        "num_active_vmas": anon_vmas.num_active_vmas,
        "active": snapshot.vmas.anon_vma,
        "chain_vma": chains.vma,
        "chain_anon_vma": chains.anon_vma,
    }
    return {name: column.astype(np.int64) for name, column in columns.items()}


def adopt_anon_vmas(core: Core, snapshot: Snapshot, vmas: list[Vma]) -> I64 | None:
    """Make the anon_vmas of a picture for these VMAs, its rows in order, none of which has one yet.

    Returns:
        what ``mapping`` of a page must hold to hang on each anon_vma, int64; None from designs that have none, and
        then nothing was done.
    """
    handles = core.rmap.adopt_topology(topology_columns(snapshot), vmas)
    if handles is not None:
        for vma, anon_vma in zip(vmas, snapshot.vmas.anon_vma.tolist()):
            vma.faulted = anon_vma >= 0
    return handles


def adopt_topology(core: Core, snapshot: Snapshot, vmas: list[Vma]) -> I64 | None:
    """The same; a design without anon_vmas prepares the VMAs that have one: that is a fact of the VMA (rule 2.1)."""
    handles = adopt_anon_vmas(core, snapshot, vmas)
    if handles is None:
        for vma, anon_vma in zip(vmas, snapshot.vmas.anon_vma.tolist()):
            if anon_vma >= 0:
                core.prepare(vma)
    return handles


def take_over_topology(
    core: Core, snapshot: Snapshot, vmas: list[Vma], pfns: I64, anon_vma: I64, index: I64
) -> None:
    """Replace the design's anon_vmas by those of a picture.

    Args:
        vmas: every VMA of the machine, the picture's rows in order.
        pfns: every anonymous page that is mapped, distinct; ``anon_vma`` and ``index``: what each hangs on there.
    """
    for vma in vmas:
        if vma.faulted:
            core.rmap.vma_unlink(vma, None)
            vma.faulted = False
    handles = adopt_topology(core, snapshot, vmas)
    if handles is not None and len(pfns):
        core.frames.mapping[pfns] = handles[anon_vma]
        core.frames.index[pfns] = index


def fork_families(core: Core, vmas: list[Vma], inferred: Inferred, index: I64) -> None:
    """Fork VMAs that share pages from a common one: from a living VMA, or from a ghost that is unlinked again.

    Args:
        vmas: the picture's rows in order.
        index: int64 by dense frame: the page index of each folio's head.
    """
    if not inferred.families:
        return
    shared = _pages_by_anchor(inferred.anchor_vma, index)
    mm = core.new_mm(None)
    for number, family in enumerate(inferred.families):
        ghost = _ghost(core, mm, vmas, family)
        for row in family.vmas:
            vma = vmas[row]
            vma.faulted = True
            if row in family.split_from:
                core.rmap.vma_clone(vma, vmas[family.split_from[row]], "split")
            else:
                above = family.up[row]
                core.rmap.vma_fork(vma, ghost if above == NOBODY else vmas[above])
        _hang(core, ghost, shared.get(-2 - number))
        for row in family.vmas:
            _hang(core, vmas[row], shared.get(row))
        core.rmap.vma_unlink(ghost, None)
        mm.remove(ghost)
    mm.clear()
    core.rmap.mm_exit(mm)
    del core.mms[mm.id]


def _pages_by_anchor(anchor: I64, index: I64) -> dict[int, tuple[I64, I64]]:
    # Anchor VMA, or -2 - family for its ghost -> (head frames, their page indexes).
    heads = np.flatnonzero(anchor != NOBODY)
    heads = heads[np.argsort(anchor[heads], kind="stable")]
    keys, starts = np.unique(anchor[heads], return_index=True)
    groups = np.split(heads, starts[1:]) if len(keys) else []
    return {key: (np.sort(group), index[np.sort(group)]) for key, group in zip(keys.tolist(), groups)}


def _ghost(core: Core, mm: Mm, vmas: list[Vma], family: VmaFamily) -> Vma:
    # The ancestor of a family that is not there any more: as large as all of them together.
    members = [vmas[row] for row in family.vmas]
    low, high = min(m.pgoff for m in members), max(m.last for m in members)
    model = members[0]
    start = max(0, model.start + ((low - model.pgoff) << PAGE_SHIFT))
    flags = model.flags & ~VM_LOCKED_MASK
    ghost = Vma(mm, start, start + ((high - low + 1) << PAGE_SHIFT), flags, low, model.file, model.mapping)
    mm.append(ghost)
    core.prepare(ghost)
    return ghost


def _hang(core: Core, vma: Vma, shared: tuple[I64, I64] | None) -> None:
    # Pages of several VMAs hang on their nearest common ancestor.
    if shared is not None:
        heads, index = shared
        core.frames.flags[heads] |= np.int32(ANON | SWAPBACKED)
        core.rmap.set_anon(PteBatch.anchored(vma, heads, index), "adopt")
