"""A picture's entries page by page, in the numbers of the machine that will load it.

A picture's PFNs reach far beyond the frames it holds, so frames are numbered anew, densely, in the same order: folios
stay contiguous. What a model cannot hold is left out here, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmap.columns import I32, I64, Bool, expand
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, single_pages
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS
from rmap.uapi.vm_flags import VM_MAYSHARE, VM_SHARED
from rmap.units import PAGE_SHIFT

NOT_ENTRIES = {
    f.PTE_GUARD: "guard markers",
    f.PTE_OTHER: "entries neither present nor in swap",
}
TORN = "private pages in shared areas (a torn picture)"
MISPLACED = "pages not of the shared area they were seen in (a torn picture)"


@dataclass
class PagesToLoad:
    """Every present or swapped entry that can be loaded, one row each, in VMA and address order.

    Attributes:
        vma: row of the picture's table ``vmas``.
        off: pages from the start of that VMA.
        pfn: the frame, densely numbered from 1; 0 for entries no reverse map tracks; for swapped ones the slot.
        swapped, special: what the entry is.
        flags: the picture's PTE flags.
    """

    vma: I64
    off: I64
    pfn: I64
    swapped: Bool
    special: Bool
    flags: I32

    @property
    def tracked(self) -> Bool:
        """Which entries map a frame that a reverse map tracks."""
        return ~(self.swapped | self.special)


@dataclass
class DenseFrames:
    """The frames of a picture, numbered from 1.

    Attributes:
        snapshot_pfn: int64; the picture's PFN of each dense number (row 0 is the zero page, -1).
        kind: int8; the picture's kind, -1 for pages of a folio that the picture does not describe.
        mapcount: int64; what the kernel said.
        exclusive_known: bool; the picture says which pages are exclusive.
        exclusive: bool; PG_anon_exclusive, where known.
        head, order: int64; dense number of the folio's head, and its order.
        anon_vma: int32; the kernel's own anchor, -1 unknown.
        index: int64; the kernel's own page index, -1 unknown.
    """

    snapshot_pfn: I64
    kind: I64
    mapcount: I64
    exclusive_known: bool
    exclusive: Bool
    head: I64
    order: I64
    anon_vma: I64
    index: I64

    @property
    def count(self) -> int:
        """How many, the zero page not counted."""
        return len(self.snapshot_pfn) - 1

    def dense(self, snapshot_pfns: I64) -> I64:
        """The dense numbers of PFNs of the picture; 0 where it has no such frame."""
        table = self.snapshot_pfn[1:]
        at = np.searchsorted(table, snapshot_pfns)
        at = np.minimum(at, max(0, len(table) - 1))
        has = table[at] == snapshot_pfns if len(table) else np.zeros(len(snapshot_pfns), np.bool_)
        return np.where(has, at + 1, 0)


def dense_frames(snapshot: Snapshot) -> DenseFrames:
    """Number the frames of a picture, whole folios at a time. Untracked frames get no number."""
    pfn, kind = snapshot.pfns(), snapshot.per_frame("kind")
    order = snapshot.per_frame("order").astype(np.int64)
    head = pfn - np.where(order > 0, snapshot.per_frame("head_offset"), 0)
    keep = among(kind, KINDS.loaded)
    heads, where = np.unique(head[keep & (order > 0)], return_index=True)
    orders = order[keep & (order > 0)][where]
    every = np.unique(np.concatenate((pfn[keep], expand(heads, np.int64(1) << orders))))
    numbered = np.concatenate((np.array([-1], np.int64), every))
    dense = DenseFrames(
        snapshot_pfn=numbered,
        kind=np.full(len(numbered), -1, np.int64),
        mapcount=np.zeros(len(numbered), np.int64),
        exclusive_known=bool(snapshot.about.get("anon_exclusive")),
        exclusive=np.zeros(len(numbered), np.bool_),
        head=np.arange(len(numbered), dtype=np.int64),
        order=np.zeros(len(numbered), np.int64),
        anon_vma=np.full(len(numbered), -1, np.int64),
        index=np.full(len(numbered), -1, np.int64),
    )
    at = dense.dense(pfn[keep])
    dense.kind[at] = kind[keep]
    # The mappings of whoever took the picture are not in it, and do not count as unseen.
    dense.mapcount[at] = (snapshot.per_frame("mapcount") - snapshot.per_frame("own"))[keep]
    dense.exclusive[at] = (snapshot.per_frame("flags")[keep] & f.KPF_ANON_EXCLUSIVE) != 0
    dense.anon_vma[at] = snapshot.per_frame("anon_vma")[keep]
    dense.index[at] = snapshot.per_frame("index")[keep]
    for first, folio_order in zip(dense.dense(heads).tolist(), orders.tolist()):
        dense.head[first : first + (1 << folio_order)] = first
        dense.order[first : first + (1 << folio_order)] = folio_order
    return dense


def pages_of(snapshot: Snapshot, frames: DenseFrames) -> tuple[PagesToLoad, dict[str, int]]:
    """Spread the picture's extents to one row per entry.

    Returns:
        the pages, and how many entries were left out by reason.
    """
    ptes = snapshot.ptes
    wanted = (ptes.flags & (f.PTE_PRESENT | f.PTE_SWAP)) != 0
    single = single_pages(Extents.of(ptes, wanted))
    vma, frame, flags = single.vma, single.pfn, single.flags.astype(np.int32)
    off = (single.address - snapshot.vmas.start[vma]) >> PAGE_SHIFT
    swapped = (flags & f.PTE_SWAP) != 0
    pfn = np.where(swapped, 0, frames.dense(frame))
    special = ~swapped & ((flags & f.PTE_SPECIAL) != 0)
    left_out = _left_out(snapshot, frame, pfn, special | swapped)
    for kind, reason in NOT_ENTRIES.items():
        left_out[reason] = int(ptes.count[(ptes.flags & kind) != 0].sum())
    # Private content in shared areas: two moments of one address, seen as one.
    private = swapped | (~special & (pfn > 0) & among(frames.kind[np.where(swapped, 0, pfn)], KINDS.on_anon_vmas))
    torn = private & ((snapshot.vmas.flags[vma] & (VM_SHARED | VM_MAYSHARE)) != 0)
    left_out[TORN] = int(np.count_nonzero(torn))
    _, pfn[swapped & ~torn] = np.unique(frame[swapped & ~torn], return_inverse=True)
    pfn[swapped & ~torn] += 1
    pages = PagesToLoad(vma, off, np.where(special, 0, pfn), swapped, special, flags)
    loaded = (special | (pfn > 0)) & ~torn
    for name in ("vma", "off", "pfn", "swapped", "special", "flags"):
        setattr(pages, name, getattr(pages, name)[loaded])
    return pages, {reason: n for reason, n in left_out.items() if n}


def _left_out(snapshot: Snapshot, frame: I64, pfn: I64, fine: Bool) -> dict[str, int]:
    # Why present entries cannot be loaded: by the kind of their frame.
    lost = frame[(pfn == 0) & ~fine]
    if not len(lost):
        return {}
    runs = snapshot.frames
    row = np.searchsorted(runs.pfn, lost, side="right") - 1
    inside = (row >= 0) & (lost < runs.pfn[row] + runs.count[row])
    kind = runs.kind[row]
    counts = {
        one.left_out: int(np.count_nonzero(inside & (kind == one.number))) for one in KINDS if not one.modelled
    }
    untracked = int(np.count_nonzero(inside & among(kind, KINDS.untracked)))
    counts["pages of the kernel or of devices not marked special"] = untracked
    counts["frames the picture does not describe"] = int(np.count_nonzero(~inside))
    return counts
