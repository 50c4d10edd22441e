"""Making a picture row by row: whoever produces one (the running kernel, the model) hands its facts to a builder.

Rows may come in any order, pages one by one or in batches. :meth:`SnapshotBuilder.build` sorts, renumbers, joins
neighbouring pages to extents and runs, and checks the result (``docs/data-model.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmap.columns import I32, I64
from rmap.snapshot import flags as f
from rmap.snapshot.extents import Extents, concatenated, join_extents
from rmap.snapshot.snapshot import Snapshot
from rmap.snapshot.tables import TABLES, Column, FrameTable, Numbers, PteTable, Table
from rmap.units import PAGE_SIZE


def _tool() -> str:
    from importlib import metadata

    try:
        return f"rmap {metadata.version('linux-rmap')}"
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "rmap"


class SnapshotBuilder:
    """Collects the rows of one picture.

    The ids it returns are its own row numbers, to be used in later calls; the finished picture may number processes and
    VMAs differently (they are sorted).

    Args:
        source: who saw this: ``"kernel"``, ``"model"``, ...
        about: further entries of the provenance, over the defaults (``docs/data-model.md``, about).
    """

    def __init__(self, source: str, **about: Any) -> None:
        self.about: dict[str, Any] = {
            "source": source,
            "host": "",
            "release": "",
            "machine": "",
            "page_size": PAGE_SIZE,
            "time": "",
            "tool": _tool(),
            "topology": "none",
            "mapcount": "precise",
            "vma_flags": "maps",
            "pte_write": False,
            "anon_exclusive": False,
            "refused": 0,
            "ended": 0,
            "raced": 0,
            "skipped": 0,
            **about,
        }
        self._rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
        self._ptes: list[Extents] = []
        self._frames: list[dict[str, Numbers]] = []

    def _add(self, table: str, row: dict[str, Any]) -> int:
        rows = self._rows[table]
        rows.append(row)
        return len(rows) - 1

    def add_process(
        self,
        pid: int,
        *,
        ppid: int = 0,
        pgid: int = 0,
        start_time: int = 0,
        pidns: int = -1,
        uid: int = -1,
        comm: str = "",
        exe: str = "",
        cgroup: str = "",
        page_table_bytes: int = -1,
        sharers: Sequence[int] = (),
    ) -> int:
        """Add one mm.

        Args:
            pid: the lowest pid that uses it.
            ppid, pgid: pids of the parent and of the process group, 0 if outside or unknown.
            start_time: clock ticks since boot; orders siblings.
            pidns: inode of the pid namespace, -1 unknown.
            page_table_bytes: memory of its page tables, -1 unknown.
            sharers: further pids with the same mm (vfork, CLONE_VM).

        Returns:
            its id.
        """
        row = self._add(
            "processes",
            {
                "pid": pid,
                "ppid": ppid,
                "pgid": pgid,
                "start_time": start_time,
                "pidns": pidns,
                "uid": uid,
                "comm": comm,
                "exe": exe,
                "cgroup": cgroup,
                "page_table_bytes": page_table_bytes,
            },
        )
        for other in sharers:
            self._add("sharers", {"process": row, "pid": other})
        return row

    def add_file(
        self,
        path: str = "",
        *,
        dev: int = 0,
        inode: int = 0,
        size: int = -1,
        allocated: int = -1,
        kind: int = f.FILE_REGULAR,
    ) -> int:
        """Add one inode; ``size``, ``allocated`` in bytes, -1 unknown; ``kind`` a ``FILE_*`` code. Returns its id."""
        row = {"path": path, "dev": dev, "inode": inode, "size": size, "allocated": allocated, "kind": kind}
        return self._add("files", row)

    def add_holder(self, file: int, kind: int, process: int = -1) -> None:
        """Note that something besides its mappings keeps a file's memory: a ``HOLDER_*`` code, and whose."""
        self._add("holders", {"file": file, "kind": kind, "process": process})

    def add_vma(
        self,
        process: int,
        start: int,
        end: int,
        flags: int,
        *,
        pgoff: int = -1,
        file: int = -1,
        anon_vma: int = -1,
        label: str = "",
    ) -> int:
        """Add one VMA.

        Args:
            process: id of its process.
            start, end: addresses in bytes, end exclusive.
            flags: ``VM_*`` bits.
            pgoff: page index of ``start``, in pages; -1 unknown.
            file: id of its file, -1 none.
            anon_vma: id of its active anon_vma, -1 none or unknown.
            label: what the kernel calls it (``[heap]``).

        Returns:
            its id.
        """
        return self._add(
            "vmas",
            {
                "process": process,
                "start": start,
                "end": end,
                "flags": flags,
                "pgoff": pgoff,
                "file": file,
                "anon_vma": anon_vma,
                "label": label,
            },
        )

    def add_ptes(
        self, vma: int | I64, address: I64, pfn: I64, flags: int | I32 | I64, count: I64 | None = None
    ) -> None:
        """Add page-table entries, or extents of them.

        Args:
            vma: id of the VMA, one for all or one per row.
            address: int64, bytes; ascending within a VMA.
            pfn: int64, the frame; the swap entry ``type | offset << 5``; -1 for guard and other entries.
            flags: ``PTE_*`` bits, one for all or one per row.
            count: int64, pages per row; None means one each.
        """
        n = len(address)
        extents = Extents(
            np.broadcast_to(np.asarray(vma, np.int64), (n,)),
            np.asarray(address, np.int64),
            np.asarray(pfn, np.int64),
            np.ones(n, np.int64) if count is None else np.asarray(count, np.int64),
            np.broadcast_to(np.asarray(flags, np.int64), (n,)),
        )
        if n:
            self._ptes.append(join_extents(extents))

    def set_frames(self, pfn: I64, **columns: Any) -> None:
        """Describe frames, each once; in any order and any number of calls.

        Args:
            pfn: int64, one per page.
            columns: the other columns of the table ``frames`` except ``count``, by name (``mapcount``, ``flags``,
                ``kind``, ``order``, ``head_offset``, ``cgroup``, ``mapping``, ``index``, ``file``, ``anon_vma``,
                ``own``, ``raced``): one value for all or an array with one per page. What is left out gets its default.
        """
        n = len(pfn)
        given: dict[str, Any] = {"pfn": pfn, "count": 1, **columns}
        made = {}
        for name, column in FrameTable.columns().items():
            value = given.pop(name) if name in given else column.default
            made[name] = np.broadcast_to(np.asarray(value, np.int64), (n,))
        if given:
            raise TypeError(f"frames have no column {', '.join(given)}")
        if n:
            self._frames.append(made)

    def add_anon_vma(
        self,
        *,
        root: int = -1,
        parent: int = -1,
        refcount: int = 1,
        num_children: int = 0,
        num_active_vmas: int = 0,
        address: int = 0,
        whole: bool = True,
    ) -> int:
        """Add one anon_vma (rule 1.9).

        Args:
            root, parent: ids; -1 means itself.
            refcount, num_children, num_active_vmas: as the kernel has them.
            address: of the ``struct anon_vma`` in the running kernel, 0 unknown.
            whole: whether every VMA linked to it is added, too.

        Returns:
            its id.
        """
        own = len(self._rows["anon_vmas"])
        return self._add(
            "anon_vmas",
            {
                "root": own if root < 0 else root,
                "parent": own if parent < 0 else parent,
                "refcount": refcount,
                "num_children": num_children,
                "num_active_vmas": num_active_vmas,
                "address": address,
                "whole": whole,
            },
        )

    def add_chain(self, vma: int, anon_vmas: Sequence[int]) -> None:
        """Give a VMA its chain of anon_vmas, in the kernel's order (6.18: newest first, the root last)."""
        for position, anon_vma in enumerate(anon_vmas):
            self._add("anon_vma_chains", {"vma": vma, "anon_vma": anon_vma, "position": position})

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows added so far to a table other than ``ptes`` and ``frames``, by id."""
        return self._rows[table]

    def build(self) -> Snapshot:
        """Make the picture.

        Raises:
            SnapshotError: what was added is contradictory (requirements D4 to D12).
        """
        tables: dict[str, Table] = {}
        for table in TABLES:
            if table not in (PteTable, FrameTable):
                tables[table.name] = table.of(_by_column(self._rows[table.name], table.columns()))
        tables["ptes"] = concatenated(self._ptes).table()
        _sort(tables, "processes", np.argsort(tables["processes"].pid, kind="stable"))  # type: ignore[attr-defined]
        vmas: Any = tables["vmas"]
        _sort(tables, "vmas", np.lexsort((vmas.start, vmas.process)))
        ptes: Any = tables["ptes"]
        if len(self._ptes) > 1 or not _in_order(ptes):  # of a single batch in order, there is nothing left to join
            order = np.lexsort((ptes.address, ptes.vma))
            tables["ptes"] = join_extents(Extents.of(ptes, order)).table()
        chains: Any = tables["anon_vma_chains"]
        tables["anon_vma_chains"] = chains.take(np.lexsort((chains.position, chains.vma)))
        tables["frames"] = _join_frames(self._frames)
        return Snapshot(tables, self.about)


def _in_order(ptes: PteTable) -> bool:
    step = np.diff(ptes.vma)
    return bool(((step > 0) | ((step == 0) & (np.diff(ptes.address) > 0))).all())


def _by_column(rows: list[dict[str, Any]], columns: dict[str, Column]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in columns}


def _sort(tables: dict[str, Table], name: str, order: Numbers) -> None:
    # Put a table in order, and let every id column that points into it follow.
    tables[name] = tables[name].take(order)
    new = np.empty(len(order), np.int32)
    new[order] = np.arange(len(order), dtype=np.int32)
    for table in tables.values():
        for field, column in table.columns().items():
            if column.table == name:
                old = getattr(table, field)
                setattr(table, field, np.where(old >= 0, new[old], -1).astype(np.int32) if len(new) else old)


def _join_frames(parts: list[dict[str, Numbers]]) -> FrameTable:
    # Join frames to runs: neighbours that say the same, the page index rising with them.
    names = list(FrameTable.columns())
    if not parts:
        return FrameTable()
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    order = np.argsort(whole["pfn"], kind="stable")
    whole = {name: values[order] for name, values in whole.items()}
    follows = np.diff(whole["pfn"]) == 1
    for name in set(names) - {"pfn", "count", "head_offset", "index"}:
        follows &= whole[name][1:] == whole[name][:-1]
    index, offset = whole["index"], whole["head_offset"]
    follows &= np.where(index[:-1] < 0, index[1:] == index[:-1], index[1:] == index[:-1] + 1)
    follows &= offset[1:] == offset[:-1] + (whole["order"][1:] > 0)
    first = np.concatenate(([0], np.flatnonzero(~follows) + 1))
    rows = {name: values[first] for name, values in whole.items()}
    rows["count"] = np.diff(np.concatenate((first, [len(order)])))
    return FrameTable.of(rows)
