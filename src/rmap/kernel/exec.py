"""What execve makes: a new address space, as a picture of it shows it (``fs/exec.c``, ``fs/binfmt_elf.c``).

The ELF loader, the kernel's own choice of places, the arguments it copies to the stack and the vDSO are not modelled:
a picture taken right after execve, before the first instruction, has all their results. The new mm is nobody's
child: its VMAs and pages have anon_vmas of their own (rules 2.18, 2.20).
"""

from __future__ import annotations

import numpy as np

from rmap.kernel.entries import ANON, SnapshotEntries, load_entries, spread
from rmap.kernel.inodes import Inodes
from rmap.kernel.structure import adopt_topology, content_of, load_vmas
from rmap.mm.core import Core
from rmap.mm.costs import ADOPT
from rmap.mm.mm_types import File, Mm, Vma
from rmap.snapshot import Snapshot

UNKNOWN_BRK = -1
"""``start_brk`` of an mm whose heap nothing has shown yet; the first ``brk(0)`` tells."""


def load_image(core: Core, snapshot: Snapshot, inodes: Inodes) -> tuple[Mm, dict[str, int]]:
    """A new mm with the VMAs, anon_vmas and entries of a picture of one process (after execve, rule 2.18).

    Returns:
        the mm, and how many entries were left out, by reason.
    """
    before = core.costs.current
    core.costs.enter(ADOPT)
    mm = core.new_mm(None)
    mm.start_brk = mm.brk = UNKNOWN_BRK
    files: dict[int, File] = {}  # VMAs of one file have one open of it
    rows = range(int(np.searchsorted(snapshot.vmas.process, 1)))
    vmas = load_vmas(core, snapshot, [mm], (content_of(snapshot, row, inodes, files) for row in rows))
    entries = spread(snapshot)
    if snapshot.about["topology"] == "none":
        _prepare(core, vmas, entries)
    else:
        adopt_topology(core, snapshot, vmas)
    left_out = load_entries(core, vmas, entries)
    core.costs.current = before
    return mm, left_out


def _prepare(core: Core, vmas: list[Vma], entries: SnapshotEntries) -> None:
    for row in np.unique(entries.vma[entries.kind == ANON]).tolist():
        core.prepare(vmas[row])
