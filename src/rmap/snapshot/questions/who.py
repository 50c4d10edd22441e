"""Who maps a page of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmap.snapshot import flags as f
from rmap.snapshot.extents import entries_of_slot
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.questions.answer import Completeness, Mapping, Who, judge
from rmap.uapi.vm_flags import perms
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot


def who(snapshot: Snapshot, pfn: int) -> Who:
    """Answer for one frame; see :meth:`rmap.snapshot.snapshot.Snapshot.who`."""
    entries = snapshot.reverse.entries(np.array([pfn], np.int64))
    mappings = _mappings(snapshot, entries.extent.tolist(), entries.address.tolist())
    run = snapshot.frame_run(pfn)
    if run < 0:
        note = "not in the picture: it holds only frames that a recorded process maps"
        return Who(pfn, "unknown", None, 0, "unmapped", [], note=note)
    frames = snapshot.frames
    within = pfn - int(frames.pfn[run])
    order = int(frames.order[run])
    status, note = _completeness(snapshot, run, len(mappings) + int(frames.own[run]))
    file = int(frames.file[run])
    offset = int(frames.head_offset[run]) + within if order else 0
    return Who(
        pfn,
        KINDS[frames.kind[run]].name,
        int(frames.mapcount[run]),
        len(mappings),
        status,
        mappings,
        order=order,
        head=pfn - offset,
        file=snapshot.files.path[file] if file >= 0 else None,
        file_offset=(int(frames.index[run]) + within) << PAGE_SHIFT if file >= 0 else None,
        note=note,
        own=int(frames.own[run]),
        flags=int(frames.flags[run]),
    )


def _completeness(snapshot: Snapshot, run: int, found: int) -> Completeness:
    frames = snapshot.frames
    mapcount = int(frames.mapcount[run])
    return judge(
        found,
        mapcount,
        kind=int(frames.kind[run]),
        averaged=bool(frames.order[run]) and snapshot.about["mapcount"] == "average",
        raced="the page changed while the picture was taken" if frames.raced[run] else "",
        hidden=f"{mapcount - found:,} of its mappings are in processes that were not recorded",
    )


def who_swap(snapshot: Snapshot, swap_type: int, offset: int) -> Who:
    """Which entries name one swap slot; see :meth:`rmap.snapshot.snapshot.Snapshot.who_swap`."""
    extents, addresses = entries_of_slot(snapshot.ptes, f.swap_entry(swap_type, offset))
    mappings = _mappings(snapshot, extents.tolist(), addresses.tolist())
    status = "approximate" if mappings else "unmapped"
    note = "the kernel does not show how many entries name a swap slot"
    return Who(None, "swap", None, len(mappings), status, mappings, swap=(swap_type, offset), note=note)


def _mappings(snapshot: Snapshot, extents: list[int], addresses: list[int]) -> list[Mapping]:
    vmas, processes, files = snapshot.vmas, snapshot.processes, snapshot.files
    answer = []
    for extent, address in zip(extents, addresses):
        vma = int(snapshot.ptes.vma[extent])
        process = int(vmas.process[vma])
        start, file, pgoff = int(vmas.start[vma]), int(vmas.file[vma]), int(vmas.pgoff[vma])
        answer.append(
            Mapping(
                pid=int(processes.pid[process]),
                comm=processes.comm[process],
                address=address,
                vma_start=start,
                vma_end=int(vmas.end[vma]),
                perms=perms(int(vmas.flags[vma])),
                file=files.path[file] if file >= 0 else None,
                offset=(pgoff << PAGE_SHIFT) + address - start if file >= 0 and pgoff >= 0 else None,
            )
        )
    return answer
