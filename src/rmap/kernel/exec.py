"""What execve makes: a new address space, as a picture of it shows it (``fs/exec.c``, ``fs/binfmt_elf.c``).

The ELF loader, the kernel's own choice of places, the arguments it copies to the stack and the vDSO are not modelled:
a picture taken right after execve, before the first instruction, has all their results. The new mm is nobody's
child: its VMAs and pages have anon_vmas of their own (rules 2.18, 2.20).
"""

from __future__ import annotations

import numpy as np

from rmap.columns import I64
from rmap.kernel.entries import (
    ANON,
    FILE,
    KERNEL,
    KINDS,
    SHMEM,
    SWAPPED,
    ZERO,
    SnapshotEntries,
    map_file,
    map_kernel,
    map_new_anon,
    map_zero,
    spread,
)
from rmap.kernel.inodes import Inodes, is_special
from rmap.kernel.structure import adopt_topology, new_vma
from rmap.mm.core import Core
from rmap.mm.costs import ADOPT
from rmap.mm.mm_types import STACK_TOP, File, Mm, Vma
from rmap.snapshot import Snapshot
from rmap.uapi.vm_flags import VM_GROWSDOWN, VM_LOCKED, VM_SHARED, VM_SPECIAL
from rmap.units import PAGE_SHIFT

UNKNOWN_BRK = -1
"""``start_brk`` of an mm whose heap nothing has shown yet; the first ``brk(0)`` tells."""


def load_image(core: Core, picture: Snapshot, inodes: Inodes) -> tuple[Mm, dict[str, int]]:
    """A new mm with the VMAs, anon_vmas and entries of a picture of one process (after execve, rule 2.18).

    Returns:
        the mm, and how many entries were left out, by reason.
    """
    before = core.costs.current
    core.costs.enter(ADOPT)
    mm = core.new_mm(None)
    mm.start_brk = mm.brk = UNKNOWN_BRK
    vmas = load_vmas(core, mm, picture, inodes)
    entries = spread(picture)
    if picture.about["topology"] == "none":
        _prepare(core, vmas, entries)
    else:
        adopt_topology(core, picture, vmas)
    left_out = load_entries(core, vmas, entries)
    core.costs.current = before
    return mm, left_out


def load_vmas(core: Core, mm: Mm, picture: Snapshot, inodes: Inodes) -> list[Vma]:
    """Make the VMAs of the picture's first process, unfaulted; those of one file have one open of it."""
    files: dict[int, File] = {}
    made = []
    last = int(np.searchsorted(picture.vmas.process, 1))
    for row in range(last):
        vma = make_vma(core, mm, picture, row, inodes, files)
        mm.append(vma)
        core.link_file(vma)
        made.append(vma)
    return made


def make_vma(core: Core, mm: Mm, picture: Snapshot, row: int, inodes: Inodes, files: dict[int, File]) -> Vma:
    """One VMA of a picture, not yet in its mm nor in its file's index.

    Args:
        files: the open that stands for each file of the picture; what is missing is opened.
    """
    vmas = picture.vmas
    start, end, flags = int(vmas.start[row]), int(vmas.end[row]), int(vmas.flags[row])
    label, file_row, file = vmas.label[row], int(vmas.file[row]), None
    if file_row >= 0:
        if file_row not in files:
            files[file_row] = inodes.file_of(picture, file_row)
        file = files[file_row]
    elif is_special(label):
        file = inodes.special(label, label, (end - start) >> PAGE_SHIFT)
    pgoff = int(vmas.pgoff[row])
    if pgoff < 0:
        pgoff = 0 if file is not None else _anonymous_pgoff(start, end, flags)
    vma = new_vma(core, mm, start, end, flags, pgoff, file)
    if label == "[heap]":
        mm.start_brk, mm.brk = start, end
    if flags & VM_LOCKED and not flags & VM_SPECIAL:
        mm.locked_vm += vma.pages
    return vma


def _anonymous_pgoff(start: int, end: int, flags: int) -> int:
    # /proc does not tell. The stack was made at the top and moved down with its indexes (rule 2.18).
    if flags & VM_GROWSDOWN:
        return (STACK_TOP >> PAGE_SHIFT) - ((end - start) >> PAGE_SHIFT)
    return start >> PAGE_SHIFT


def _prepare(core: Core, vmas: list[Vma], entries: SnapshotEntries) -> None:
    for row in np.unique(entries.vma[entries.kind == ANON]).tolist():
        core.prepare(vmas[row])


def load_entries(core: Core, vmas: list[Vma], entries: SnapshotEntries) -> dict[str, int]:
    """Write the entries of a picture into VMAs that have none; anonymous pages become pages of their VMA alone.

    Returns:
        how many entries could not be written, by reason.
    """
    left_out: dict[str, int] = {}
    if not len(entries):
        return left_out
    cuts = (np.flatnonzero(np.diff(entries.vma)) + 1).tolist()
    for low, high in zip([0, *cuts], [*cuts, len(entries)]):
        vma, where = vmas[int(entries.vma[low])], slice(low, high)
        for kind in np.unique(entries.kind[where]).tolist():
            addrs = entries.address[where][entries.kind[where] == kind]
            if not write_entries(core, vma, addrs, kind):
                left_out[KINDS[kind]] = left_out.get(KINDS[kind], 0) + len(addrs)
    return left_out


def write_entries(core: Core, vma: Vma, addrs: I64, kind: int) -> bool:
    """Write entries of one kind where there are none; new pages for anonymous ones. False: this VMA cannot have any."""
    private = not vma.flags & VM_SHARED
    if kind in (FILE, SHMEM) and vma.mapping is not None:
        map_file(core, vma, addrs)
    elif kind in (ANON, SWAPPED) and private and not is_untracked(vma):
        map_new_anon(core, vma, addrs)
    elif kind == KERNEL and is_untracked(vma):
        map_kernel(core, vma, addrs)
    elif kind == ZERO and vma.mapping is None and private:
        map_zero(core, vma, addrs)
    else:
        return False
    return True


def is_untracked(vma: Vma) -> bool:
    """Whether a VMA is a special mapping of the kernel's."""
    return vma.file is not None and vma.file.special is not None
