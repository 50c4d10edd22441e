"""One checkpoint: the model is held against the picture, then put right.

What is compared, and why an entry may differ without fault of the model, is in :mod:`rmap.lab.replay.agreement` and
:mod:`rmap.lab.replay.causes`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from rmap.columns import I64
from rmap.kernel.entries import ANON, FILE, OTHER, SHMEM, SWAPPED
from rmap.lab.replay import agreement, resync
from rmap.lab.replay import results as r
from rmap.lab.replay.anon_vmas import topology
from rmap.lab.replay.causes import Judge, SinceLast, by_cause
from rmap.lab.replay.pairs import Entry, Side, page_of, pid_of
from rmap.lab.replay.seen import Seen
from rmap.lab.replay.state import ReplayState
from rmap.mm.costs import ADOPT
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.trace import Moment


def hold_against(state: ReplayState, moment: Moment, number: int, time_ns: int) -> r.Checkpoint:
    """Compare the model with a picture of every process, then make it equal.

    Args:
        number, time_ns: of the picture, and when it was taken; for the answer.
    """
    theirs = moment.snapshot
    left, right = resync.sides(state, theirs)
    entries = Entry(left, right)
    since = SinceLast(_seen(state, theirs), state.trace.about["lost"], state.reclaimed)
    judge = Judge(entries, since)
    rows = tuple(_rows(state, judge))
    notes = _notes(state, theirs)
    has_anon_vmas = state.core.rmap.topology() is not None
    state.core.costs.enter(ADOPT)
    areas = resync.put_areas_right(state, theirs)
    if has_anon_vmas:
        areas += resync.cut_like(state, theirs)
    why = judge.why
    if areas:
        before = {int(key): cause for key, cause in zip(entries.key, why)}
        entries = Entry(left, Side(state.kernel.snapshot()))
        judge = Judge(entries, since)
        why = np.array([c and (before.get(k) or r.AREA) for k, c in zip(entries.key.tolist(), judge.why)], object)
    differing = np.flatnonzero(~entries.alike)
    anew = _structure_differs(rows, entries, differing) and resync.structure_is_known(state, theirs)
    # Where the model cannot have an entry, it keeps what it has.
    possible = differing[entries.kind[differing] != OTHER]
    left_out = resync.put_entries_right(state, entries, possible, anywhere=anew or not has_anon_vmas)
    permissions = resync.permissions_differ(entries)
    present = differing[np.isin(entries.kind[differing], (ANON, FILE, SHMEM))]
    resync.put_permissions_right(state, entries, np.concatenate((present, permissions)))
    if anew and not resync.put_structure_right(state, entries):
        notes.append("the anon_vmas of the picture could not be given to the model")
    resync.evict_swapped(state, entries)
    if left_out:
        notes.append(f"{left_out:,} entries of the picture have no place in the model")
    _restart(state, entries)
    return r.Checkpoint(
        number=number,
        cause=moment.cause,
        time_ns=time_ns,
        processes=len(theirs.processes),
        vmas=len(theirs.vmas),
        ptes=theirs.nr_ptes,
        agreements=rows,
        resynchronised=_with(by_cause(why), r.PERMISSION, len(permissions)),
        areas=areas,
        notes=tuple(notes),
    )


def _with(counts: dict[str, int], cause: str, n: int) -> dict[str, int]:
    return {**counts, cause: n} if n else counts


def _structure_differs(rows: tuple[r.Agreement, ...], entries: Entry, differing: I64) -> bool:
    # Whether areas, anon_vmas or anonymous pages are not what they are in the picture.
    structure = (r.LAYOUT, r.CHAINS, r.ANON_VMAS, r.ANCHORS)
    private = np.isin(entries.kind[differing], (ANON, SWAPPED)) | np.isin(entries.my_kind[differing], (ANON, SWAPPED))
    return bool(private.any()) or any(not row.complete for row in rows if row.what in structure)


def _rows(state: ReplayState, judge: Judge) -> list[r.Agreement]:
    # What is compared, in the order of r.UNITS; what the picture does not know is left out.
    entries = judge.entries
    names = partial(_file_name, state)
    rows = [
        agreement.layout(entries.theirs, entries.mine, names, judge),
        agreement.sharing(entries, judge),
        agreement.kinds(entries, judge),
        agreement.anonymous_mapcounts(entries, judge),
        agreement.file_mapcounts(entries),
    ]
    permissions = (agreement.exclusive(entries, judge), agreement.writable(entries, judge))
    return [*rows, *(row for row in permissions if row is not None), *topology(entries, judge)]


def _file_name(state: ReplayState, snapshot: Snapshot, vma: int) -> object:
    # What both sides call a VMA's file. The model numbers its own; shared anonymous memory has no name both know.
    row, label = int(snapshot.vmas.file[vma]), snapshot.vmas.label[vma]
    if row < 0:
        return label if label not in ("", "[heap]", "[stack]") else "none"
    files = snapshot.files
    if files.kind[row] == f.FILE_DEVICE:
        return files.path[row]
    if snapshot.about["source"] == "model":
        return state.inodes.by_mapping.get(int(files.inode[row]))
    return int(files.dev[row]), int(files.inode[row])


def _seen(state: ReplayState, theirs: Snapshot) -> dict[int, Seen]:
    seen_of = {}
    for pid in theirs.processes.pid.tolist():
        process = state.kernel.processes.get(pid)
        if process is not None:
            seen_of[pid] = state.seen(process.mm)
    return seen_of


def _notes(state: ReplayState, theirs: Snapshot) -> list[str]:
    ours = _lowest_pids(state)
    pids = set(theirs.processes.pid.tolist())
    notes = []
    if pids - ours:
        notes.append(f"processes the model does not have: {', '.join(map(str, sorted(pids - ours)))}")
    if ours - pids:
        notes.append(f"processes only the model has: {', '.join(map(str, sorted(ours - pids)))}")
    return notes


def _restart(state: ReplayState, entries: Entry) -> None:
    # From here on the model is equal to the picture: its anonymous pages are accounted for.
    anon = entries.kind == ANON
    pids, pages = pid_of(entries.key[anon]), page_of(entries.key[anon])
    for pid in _lowest_pids(state):
        state.seen(state.kernel.processes[pid].mm).restart(pages[pids == pid])


def _lowest_pids(state: ReplayState) -> set[int]:
    # One process of each mm: the one that a picture names.
    lowest: dict[int, int] = {}
    for pid, process in state.kernel.processes.items():
        lowest[process.mm.id] = min(pid, lowest.get(process.mm.id, pid))
    return set(lowest.values())
