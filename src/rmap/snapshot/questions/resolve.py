"""What a KEY names in a picture: a frame, a slot of swap, or why it names nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.errors import UsageError
from rmap.snapshot import flags as f
from rmap.snapshot.extents import entry_at
from rmap.snapshot.keys import Key
from rmap.snapshot.questions.selection import row_of
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

_DELETED = " (deleted)"


@dataclass(frozen=True)
class Resolved:
    """What a KEY names in a picture.

    Attributes:
        pfn: the frame, None if there is none.
        swap: the swap slot, None if there is none.
        reason: why there is neither: one sentence.
    """

    pfn: int | None = None
    swap: tuple[int, int] | None = None
    reason: str = ""


def resolve(snapshot: Snapshot, key: Key) -> Resolved:
    """Find in a picture what a KEY names.

    Raises:
        UsageError: the KEY names a process, not a page.
    """
    if key.kind == "pfn":
        return Resolved(pfn=key.pfn)
    if key.kind == "swap":
        return Resolved(swap=key.swap)
    if key.kind == "address":
        return _at_address(snapshot, key)
    if key.kind == "file":
        return _in_file(snapshot, key)
    raise UsageError(f"{key.pid} is a process, with many pages: name one as {key.pid}:0xADDRESS")


def _at_address(snapshot: Snapshot, key: Key) -> Resolved:
    process = row_of(snapshot, key.pid)
    if process < 0:
        return Resolved(reason=f"process {key.pid} is not in the picture")
    vmas = snapshot.vmas
    low, high = np.searchsorted(vmas.process, [process, process + 1])
    vma = int(low + np.searchsorted(vmas.start[low:high], key.address, side="right")) - 1
    if vma < low or key.address >= vmas.end[vma]:
        return Resolved(reason=f"process {key.pid} has nothing at {key.address:#x}")
    entry = entry_at(snapshot.ptes, vma, key.address)
    if entry is None:
        return Resolved(reason=f"{key.address:#x} of process {key.pid} is mapped, but no page is there yet")
    flags, value = entry
    if flags & f.PTE_PRESENT:
        return Resolved(pfn=value)
    if flags & f.PTE_SWAP:
        return Resolved(swap=f.swap_place(value))
    what = "a guard marker" if flags & f.PTE_GUARD else "an entry that is not present"
    return Resolved(reason=f"{key.address:#x} of process {key.pid} holds {what}")


def _in_file(snapshot: Snapshot, key: Key) -> Resolved:
    named = [row for row, path in enumerate(snapshot.files.path) if path in (key.path, key.path + _DELETED)]
    if not named:
        return Resolved(reason=f"no recorded process maps a file {key.path}")
    frames = snapshot.frames
    page = key.offset >> PAGE_SHIFT
    behind = page - frames.index
    runs = np.flatnonzero(np.isin(frames.file, named) & (behind >= 0) & (behind < frames.count))
    pfns = frames.pfn[runs] + behind[runs]
    if not len(pfns):
        return Resolved(reason=f"no recorded process maps page {page:,} of {key.path}")
    # Of several files with one path (another mount namespace, a replaced file), the one mapped most.
    best = int(np.argmax(snapshot.reverse.found[snapshot.numbering.dense(pfns)]))
    return Resolved(pfn=int(pfns[best]))
