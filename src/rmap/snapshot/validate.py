"""What a picture must be to be used: requirements D4 to D12 of ``docs/data-model.md``, checked on every load and build.

A picture that passes is consistent in itself: every id leads to a row, VMAs and extents are in order and do not
overlap, every mapped frame is described. It may still contradict the kernel's rules; that is what
:func:`rmap.snapshot.rules.check.check` asks.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rmap.columns import I64, Bool
from rmap.errors import SnapshotError
from rmap.snapshot import flags as f
from rmap.snapshot.index.coverage import Mapped
from rmap.snapshot.index.numbering import Numbering
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.tables import (
    TABLES,
    AnonVmaChainTable,
    FrameTable,
    ProcessTable,
    PteTable,
    SharerTable,
    Table,
    VmaTable,
)
from rmap.units import PAGE_SIZE

_ABOUT_TYPES: dict[str, type] = {
    "source": str,
    "host": str,
    "release": str,
    "machine": str,
    "page_size": int,
    "time": str,
    "tool": str,
    "topology": str,
    "mapcount": str,
    "vma_flags": str,
    "pte_write": bool,
    "anon_exclusive": bool,
    "refused": int,
    "ended": int,
    "raced": int,
    "skipped": int,
}
# Keys a picture may lack: they came later, and their absence means false.
_ABOUT_OPTIONAL: dict[str, type] = {"swapped": bool}
_MAX_ORDER = 30


class Validated(Protocol):
    """What is checked: a :class:`rmap.snapshot.snapshot.Snapshot`, as far as this module must know it."""

    tables: dict[str, Table]
    about: dict[str, Any]
    processes: ProcessTable
    sharers: SharerTable
    vmas: VmaTable
    ptes: PteTable
    frames: FrameTable
    anon_vma_chains: AnonVmaChainTable

    @property
    def mapped(self) -> Mapped:
        """Its present extents."""

    @property
    def numbering(self) -> Numbering:
        """Of its frames."""


def validate(snapshot: Validated) -> None:
    """Check requirements D4 to D12.

    Raises:
        SnapshotError: the first requirement that does not hold, with table and row.
    """
    _about(snapshot)
    _ids(snapshot)
    _processes(snapshot)
    _vmas(snapshot)
    _ptes(snapshot)
    _frames(snapshot)
    _mapped_frames_described(snapshot)
    _topology(snapshot)


def _refuse(number: str, text: str) -> SnapshotError:
    return SnapshotError(f"the picture is contradictory: {text} ({number})")


def _first(wrong: Bool) -> int | None:
    return int(np.argmax(wrong)) if wrong.any() else None


def _about(snapshot: Validated) -> None:
    for key, kind in _ABOUT_TYPES.items():
        value: Any = snapshot.about.get(key)
        if type(value) is not kind:
            raise _refuse("D12", f"about.{key} is {value!r}, not of type {kind.__name__}")
    for key, kind in _ABOUT_OPTIONAL.items():
        if key in snapshot.about and type(snapshot.about[key]) is not kind:
            raise _refuse("D12", f"about.{key} is {snapshot.about[key]!r}, not of type {kind.__name__}")
    if snapshot.about["page_size"] != PAGE_SIZE:
        raise _refuse("D12", f"pages of {snapshot.about['page_size']} bytes; only {PAGE_SIZE} is understood")
    choices = {
        "topology": ("none", "kernel", "model"),
        "mapcount": ("precise", "average"),
        "vma_flags": ("maps", "smaps"),
    }
    for key, allowed in choices.items():
        if snapshot.about[key] not in allowed:
            raise _refuse("D12", f"about.{key} is {snapshot.about[key]!r}, not one of {', '.join(allowed)}")


def _ids(snapshot: Validated) -> None:
    lengths = {table.name: len(snapshot.tables[table.name]) for table in TABLES}
    for table in TABLES:
        for name, column in table.columns().items():
            if not column.table:
                continue
            values = getattr(snapshot.tables[table.name], name)
            row = _first((values < (-1 if column.none else 0)) | (values >= lengths[column.table]))
            if row is not None:
                what = f"{table.name}.{name} of row {row}"
                raise _refuse("D4", f"{what} is {values[row]}, and {column.table} has no such row")
    codes = (("files", "kind", f.FILE_KINDS), ("frames", "kind", KINDS.names), ("holders", "kind", f.HOLDER_KINDS))
    for table_name, name, kinds in codes:
        values = getattr(snapshot.tables[table_name], name)
        row = _first((values < 0) | (values >= len(kinds)))
        if row is not None:
            raise _refuse("D4", f"{table_name}.{name} of row {row} is {values[row]}, an unknown code")


def _processes(snapshot: Validated) -> None:
    pids = np.concatenate((snapshot.processes.pid, snapshot.sharers.pid))
    if (pids < 1).any() or len(set(pids.tolist())) != len(pids):
        raise _refuse("D5", "a pid occurs twice, or is not positive")
    if (np.diff(snapshot.processes.pid) <= 0).any():
        raise _refuse("D5", "processes are not sorted by pid")


def _vmas(snapshot: Validated) -> None:
    vmas = snapshot.vmas
    row = _first((vmas.start >= vmas.end) | (vmas.start < 0) | ((vmas.start | vmas.end) % PAGE_SIZE != 0))
    if row is not None:
        raise _refuse("D6", f"VMA {row} is [{vmas.start[row]:#x}, {vmas.end[row]:#x}): empty, or not of whole pages")
    process = vmas.process.astype(np.int64)
    step = np.diff(process)
    row = _first((step < 0) | ((step == 0) & (vmas.start[1:] < vmas.end[:-1])))
    if row is not None:
        raise _refuse("D6", f"VMA {row + 1} is out of order, or overlaps the one before")
    row = _first(vmas.pgoff < -1)
    if row is not None:
        raise _refuse("D6", f"VMA {row} has pgoff {vmas.pgoff[row]}")


def _ptes(snapshot: Validated) -> None:
    ptes, vmas = snapshot.ptes, snapshot.vmas
    length = ptes.count.astype(np.int64) * PAGE_SIZE
    ends = ptes.address + length
    wrong = (ptes.count < 1) | (ptes.address % PAGE_SIZE != 0)
    row = _first(wrong | (ptes.address < vmas.start[ptes.vma]) | (ends > vmas.end[ptes.vma]))
    if row is not None:
        raise _refuse("D7", f"extent {row} at {ptes.address[row]:#x} is empty, unaligned, or outside its VMA")
    step = np.diff(ptes.vma.astype(np.int64))
    row = _first((step < 0) | ((step == 0) & (ptes.address[1:] < ends[:-1])))
    if row is not None:
        raise _refuse("D7", f"extent {row + 1} is out of order, or overlaps the one before")
    kinds = ptes.flags & f.PTE_KINDS
    row = _first((kinds == 0) | ((kinds & (kinds - 1)) != 0))
    if row is not None:
        raise _refuse("D7", f"extent {row} has flags {ptes.flags[row]:#x}: not one of present, swap, guard and other")
    named = (kinds & (f.PTE_PRESENT | f.PTE_SWAP)) != 0
    row = _first(np.where(named, ptes.pfn < 0, ptes.pfn != -1))
    if row is not None:
        raise _refuse("D7", f"extent {row} has pfn {ptes.pfn[row]} with flags {ptes.flags[row]:#x}")


def _frames(snapshot: Validated) -> None:
    frames = snapshot.frames
    ends = frames.pfn + frames.count
    row = _first((frames.pfn < 0) | (frames.count < 1) | (frames.mapcount < 0))
    if row is not None:
        raise _refuse("D8", f"frame run {row} at {frames.pfn[row]:#x} is empty or has a negative number")
    row = _first(frames.pfn[1:] < ends[:-1])
    if row is not None:
        raise _refuse("D8", f"frame run {row + 1} is out of order, or overlaps the one before")
    row = _first((frames.file >= 0) & (frames.index < 0))
    if row is not None:
        raise _refuse("D8", f"frame run {row} names a file, but not which page of it")
    row = _first((frames.order < 0) | (frames.order > _MAX_ORDER))
    if row is not None:
        raise _refuse("D9", f"frame run {row} has order {frames.order[row]}")
    size = np.left_shift(np.int64(1), frames.order.astype(np.int64))
    last = frames.head_offset.astype(np.int64) + frames.count
    row = _first(np.where(frames.order == 0, frames.head_offset != 0, (frames.head_offset < 0) | (last > size)))
    if row is not None:
        raise _refuse("D9", f"frame run {row} at {frames.pfn[row]:#x} is not within one folio")
    _folios_whole(snapshot, size)


def _folios_whole(snapshot: Validated, size: I64) -> None:
    frames = snapshot.frames
    large = np.flatnonzero(frames.order > 0)
    if not len(large):
        return
    head = frames.pfn[large] - frames.head_offset[large]
    start = np.flatnonzero(np.diff(head, prepend=head[0] - 1) != 0)
    pages = np.add.reduceat(frames.count[large].astype(np.int64), start)
    row = _first(pages != size[large[start]])
    if row is not None:
        wanted = size[large[start[row]]]
        raise _refuse("D9", f"the folio at {head[start[row]]:#x} has {pages[row]} pages here, not {wanted}")


def _mapped_frames_described(snapshot: Validated) -> None:
    ptes, frames = snapshot.ptes, snapshot.frames
    extent, first, behind = snapshot.mapped
    if not len(extent):
        return
    if not len(frames):
        raise _refuse("D10", "pages are mapped, but no frame is described")
    last = snapshot.numbering.dense(ptes.pfn[extent] + ptes.count[extent] - 1)
    row = _first((first < 0) | (last != behind - 1))
    if row is not None:
        where = f"extent {extent[row]} maps frame {ptes.pfn[extent[row]]:#x}"
        raise _refuse("D10", f"{where}, which is not fully described")


def _topology(snapshot: Validated) -> None:
    chains = snapshot.anon_vma_chains
    step = np.diff(chains.vma.astype(np.int64))
    first = np.diff(chains.vma, prepend=-1) != 0
    follows = np.diff(chains.position, prepend=-1) == 1
    if (step < 0).any() or not np.where(first, chains.position == 0, follows).all():
        raise _refuse("D11", "the links of a VMA's chain are not numbered 0, 1, 2, ... in order")
