"""Changing what entries permit: ``change_protection`` and ``can_change_pte_writable`` (``mm/mprotect.c``)."""

from __future__ import annotations

import numpy as np

from rmap.mm.core import Core
from rmap.mm.file_fault import wants_writenotify
from rmap.mm.frames import ANON, EXCLUSIVE, as_run
from rmap.mm.mm_types import Vma
from rmap.mm.page_tables import Span
from rmap.mm.pte import DIRTY, NOT_RW, PRESENT, RW
from rmap.uapi.vm_flags import VM_SHARED, VM_WRITE


def change_protection(core: Core, vma: Vma, start: int, end: int, old_flags: int) -> None:
    """Make the entries of a range agree with the VMA's flags, which have just changed.

    Write permission comes back only where no fault would be needed: on exclusive anonymous pages, on dirty pages of a
    shared mapping that notices writes, and on all pages of one that does not.
    """
    writable = vma.flags & VM_WRITE
    for piece in core.spans(vma, start, end):
        if not writable:
            np.bitwise_and(piece.entries, NOT_RW, out=piece.entries)
        elif vma.flags & VM_SHARED:
            _restore_shared(vma, piece)
        else:
            _restore_exclusive(core, piece)
        piece.commit()


def _restore_shared(vma: Vma, piece: Span) -> None:
    need = PRESENT | DIRTY if wants_writenotify(vma) else PRESENT
    piece.entries[(piece.entries & need) == need] |= np.int64(RW)


def _restore_exclusive(core: Core, piece: Span) -> None:
    pfns, offs = piece.tracked()
    if not len(pfns):
        return
    want = ANON | EXCLUSIVE
    exclusive = (core.frames.flags[as_run(pfns)] & want) == want
    if offs is None:
        if exclusive.all():
            np.bitwise_or(piece.entries, np.int64(RW), out=piece.entries)
        else:
            piece.entries[exclusive] |= np.int64(RW)
    else:
        piece.entries[offs[exclusive]] |= np.int64(RW)
