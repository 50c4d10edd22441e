"""The Snapshot: tables of one moment of one machine, with an index of them made when first asked for.

The questions that are asked of one stand above it, in ``questions`` and ``rules``; three methods only forward to them.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rmap.columns import I32, I64
from rmap.snapshot import storage, tables
from rmap.snapshot.flags import PTE_PRESENT, PTE_SWAP
from rmap.snapshot.index.coverage import Mapped, mapped
from rmap.snapshot.index.mapper_sets import MapperSets
from rmap.snapshot.index.numbering import Numbering
from rmap.snapshot.index.reverse import Transposed
from rmap.snapshot.validate import validate

if TYPE_CHECKING:
    from rmap.snapshot.questions.answer import Who
    from rmap.snapshot.rules.findings import Checked


class WalkColumns(NamedTuple):
    """Columns of entries found: which frame, whose, where. ``process`` and ``vma`` are row numbers."""

    pfn: I64
    pid: I32
    address: I64
    process: I32
    vma: I32


class Snapshot:
    """One picture of memory. It is not changed after it was made.

    Args:
        tables: every table by name (``rmap.snapshot.tables.TABLES``).
        about: the provenance.

    Attributes:
        processes, sharers, vmas, files, holders, ptes, frames, anon_vmas, anon_vma_chains: the tables of
            ``docs/data-model.md``.
        about: where it comes from, and what it lacks.

    Raises:
        SnapshotError: the tables contradict each other (requirements D4 to D12).
    """

    processes: tables.ProcessTable
    sharers: tables.SharerTable
    vmas: tables.VmaTable
    files: tables.FileTable
    holders: tables.HolderTable
    ptes: tables.PteTable
    frames: tables.FrameTable
    anon_vmas: tables.AnonVmaTable
    anon_vma_chains: tables.AnonVmaChainTable

    def __init__(self, tables: dict[str, tables.Table], about: dict[str, Any]) -> None:
        self.tables = tables
        self.about = about
        for name, table in tables.items():
            setattr(self, name, table)
        validate(self)

    def __reduce__(self) -> tuple[type[Snapshot], tuple[dict[str, tables.Table], dict[str, Any]]]:
        # What was worked out from the tables is worked out again where it is needed.
        return type(self), (self.tables, self.about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Read a picture from a file.

        Raises:
            SnapshotError: not a picture, damaged, contradictory, or of a newer format.
        """
        return cls(*storage.load(path))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the picture to one file, ``NAME.rmap``.

        Args:
            force: replace a file that exists.

        Raises:
            UsageError: the file exists, or there is no such directory.
        """
        storage.save(path, self.tables, self.about, force=force)

    @cached_property
    def reverse(self) -> Transposed:
        """The PTE relation transposed; made when first asked for."""
        return Transposed(self.ptes, self.mapped, self.numbering)

    @cached_property
    def numbering(self) -> Numbering:
        """Dense numbers of the frames: what columns over frames are indexed by."""
        return Numbering(self.frames.pfn, self.frames.count)

    @cached_property
    def mapped(self) -> Mapped:
        """The present extents, by the dense numbers of the frames that they map."""
        return mapped(self.ptes, self.numbering)

    @cached_property
    def mapper_sets(self) -> MapperSets:
        """Which processes map each frame, as sets; made when first asked for."""
        return MapperSets(self.ptes, self.vmas, self.mapped, self.numbering.nr_frames)

    @property
    def nr_ptes(self) -> int:
        """Present page-table entries."""
        return int(self.ptes.count[(self.ptes.flags & PTE_PRESENT) != 0].sum(dtype=np.int64))

    @property
    def nr_swap_ptes(self) -> int:
        """Entries that name a swap slot."""
        return int(self.ptes.count[(self.ptes.flags & PTE_SWAP) != 0].sum(dtype=np.int64))

    @property
    def nr_mapped(self) -> int:
        """Distinct frames that at least one recorded entry maps."""
        return int(np.count_nonzero(self.reverse.found))

    def pfns(self) -> I64:
        """Every described frame, ascending."""
        frames = self.frames
        base = np.cumsum(frames.count, dtype=np.int64) - frames.count
        spread: I64 = np.repeat(frames.pfn - base, frames.count)
        return spread + np.arange(len(spread))

    def per_frame(self, name: str) -> Any:
        """A column of ``frames`` spread over :meth:`pfns`, one value per page (``index``, ``head_offset`` rising)."""
        frames = self.frames
        spread = np.repeat(getattr(frames, name), frames.count)
        if name not in ("index", "head_offset"):
            return spread
        within = self.pfns() - np.repeat(frames.pfn, frames.count)
        rises = spread >= 0 if name == "index" else np.repeat(frames.order > 0, frames.count)
        return np.where(rises, spread + within, spread)

    def frame_run(self, pfn: int) -> int:
        """The row of ``frames`` that describes a frame, -1 if none does."""
        frames = self.frames
        row = int(np.searchsorted(frames.pfn, pfn, side="right")) - 1
        return row if row >= 0 and pfn < frames.pfn[row] + frames.count[row] else -1

    def parents(self) -> I32:
        """For each process, the row of its parent, -1 where the parent is not in the picture."""
        row = {pid: i for i, pid in enumerate(self.processes.pid.tolist())}
        row.update(zip(self.sharers.pid.tolist(), self.sharers.process.tolist()))
        own = range(len(self.processes))
        up = [row.get(ppid, -1) for ppid in self.processes.ppid.tolist()]
        return np.array([-1 if parent == i else parent for i, parent in zip(own, up)], np.int32)

    def who(self, pfn: int) -> Who:
        """Every recorded page-table entry that maps a frame, and how complete that is.

        Args:
            pfn: the frame number.
        """
        from rmap.snapshot.questions.who import who

        return who(self, pfn)

    def who_swap(self, swap_type: int, offset: int) -> Who:
        """Every recorded page-table entry that names a swap slot.

        Args:
            swap_type: number of the swap area.
            offset: slot in it, in pages.
        """
        from rmap.snapshot.questions.who import who_swap

        return who_swap(self, swap_type, offset)

    def walk_many(self, pfns: I64) -> WalkColumns:
        """Every recorded entry of many frames, as columns.

        Args:
            pfns: int64, in any order; frames the picture does not describe give no rows.

        Returns:
            rows in the order of ``pfns``, then by process and address.
        """
        asked = np.asarray(pfns, np.int64)
        entries = self.reverse.entries(asked)
        vma = self.ptes.vma[entries.extent]
        process = self.vmas.process[vma]
        return WalkColumns(asked[entries.position], self.processes.pid[process], entries.address, process, vma)

    def check(self) -> list[Checked]:
        """Hold the picture against the kernel's numbered invariants; see :mod:`rmap.snapshot.rules.check`.

        Returns:
            what was checked, with how many items; and what could not be, with the reason.

        Raises:
            InvariantError: the first violation, naming its objects.
        """
        from rmap.snapshot.rules.check import check

        return check(self)

    def __repr__(self) -> str:
        return (
            f"Snapshot({self.about['source']}: {len(self.processes):,} processes, {len(self.vmas):,} VMAs, "
            f"{self.nr_ptes:,} PTEs)"
        )
