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
from rmap.kernel.inodes import Inodes
from rmap.kernel.structure import adopt_topology, content_of, load_vmas
from rmap.mm.core import Core
from rmap.mm.costs import ADOPT
from rmap.mm.mm_types import File, Mm, Vma
from rmap.snapshot import Snapshot
from rmap.uapi.vm_flags import VM_SHARED

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
    files: dict[int, File] = {}  # VMAs of one file have one open of it
    rows = range(int(np.searchsorted(picture.vmas.process, 1)))
    vmas = load_vmas(core, picture, [mm], (content_of(picture, row, inodes, files) for row in rows))
    entries = spread(picture)
    if picture.about["topology"] == "none":
        _prepare(core, vmas, entries)
    else:
        adopt_topology(core, picture, vmas)
    left_out = load_entries(core, vmas, entries)
    core.costs.current = before
    return mm, left_out


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
