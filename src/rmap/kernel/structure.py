"""The structure of a picture: its VMAs, anon_vmas and chains, made in a new machine or in one that runs.

What a kernel-side actor did unseen may have given a VMA an anon_vma before a fork, which no page put right afterwards
makes up for. So where a picture knows the kernel's own topology, the design's is taken down and made like it.
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.mm.core import Core
from rmap.mm.mm_types import File, Mm, Vma
from rmap.mm.shared_anonymous import shmem_zero_setup
from rmap.snapshot import Snapshot
from rmap.uapi.vm_flags import (
    VM_ACCOUNT,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
)


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
        return flags  # all of them are known
    flags |= VM_MAYREAD | VM_MAYEXEC
    if not flags & VM_MAYSHARE or flags & VM_WRITE:
        flags |= VM_MAYWRITE
    if flags & VM_MAYSHARE and flags & VM_MAYWRITE:
        flags |= VM_SHARED
    if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
        flags |= VM_ACCOUNT
    return flags


def topology_columns(picture: Snapshot) -> dict[str, I64]:
    """A picture's topology as :meth:`rmap.mm.interface.ReverseMap.adopt_topology` takes it.

    An anon_vma that reaches outside the picture has the children that are in it.
    """
    anon_vmas, chains = picture.anon_vmas, picture.anon_vma_chains
    linked = np.unique(chains.anon_vma)
    children = np.bincount(anon_vmas.parent[linked], minlength=len(anon_vmas))
    columns = {
        "root": anon_vmas.root,
        "parent": anon_vmas.parent,
        "num_children": np.where(anon_vmas.whole, anon_vmas.num_children, children),
        "num_active_vmas": anon_vmas.num_active_vmas,
        "active": picture.vmas.anon_vma,
        "chain_vma": chains.vma,
        "chain_anon_vma": chains.anon_vma,
    }
    return {name: column.astype(np.int64) for name, column in columns.items()}


def adopt_topology(core: Core, picture: Snapshot, vmas: list[Vma]) -> I64 | None:
    """Make the anon_vmas of a picture for these VMAs, its rows in order, none of which has one yet.

    A design without anon_vmas prepares the VMAs that have one: that is a fact of the VMA (rule 2.1).

    Returns:
        what ``mapping`` of a page must hold to hang on each anon_vma; None from designs that have none.
    """
    faulted = (picture.vmas.anon_vma >= 0).tolist()
    handles = core.rmap.adopt_topology(topology_columns(picture), vmas)
    for vma, is_faulted in zip(vmas, faulted):
        if handles is not None:
            vma.faulted = is_faulted
        elif is_faulted:
            core.prepare(vma)
    return handles


def take_over_topology(
    core: Core, picture: Snapshot, vmas: list[Vma], pfns: I64, anon_vma: I64, index: I64
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
    handles = adopt_topology(core, picture, vmas)
    if handles is not None and len(pfns):
        core.frames.mapping[pfns] = handles[anon_vma]
        core.frames.index[pfns] = index
