"""What of the recorded kernel is equal in the model, counted; and what differs, by cause.

Nothing that differs leaves the count: an entry that is excused is neither equal nor held against the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from rmap.columns import I64, Bool
from rmap.kernel.entries import ANON, FILE, KINDS, SHMEM
from rmap.lab.replay import results as r
from rmap.lab.replay.causes import Causes, Judge, by_cause
from rmap.lab.replay.pairs import MISSING, NOBODY, Entry, Side, page_of, pid_of, place
from rmap.snapshot import Snapshot
from rmap.snapshot import flags as f
from rmap.units import PAGE_SHIFT

FileNames = Callable[[Snapshot, int], object]
"""Names the file of a row of ``vmas`` so that both sides say the same; None where only pairing can tell."""


def judged(what: str, causes: Causes, say: Callable[[int], str]) -> r.Agreement:
    """One row of a comparison.

    Args:
        causes: of each that was compared, why it differs; empty if it does not.
        say: the difference of one of them in words.
    """
    wrong, differing = np.flatnonzero(causes == r.WRONG), np.flatnonzero(causes != "")
    one = wrong if len(wrong) else differing
    excused = by_cause(np.delete(causes, wrong))
    equal = len(causes) - len(differing)
    return r.Agreement(what, equal, len(causes), excused, say(int(one[0])) if len(one) else "")


def unlike(differs: Bool, causes: Callable[[I64], Causes]) -> Causes:
    """The cause of each difference; ``causes`` is asked for those rows only."""
    all_causes: Causes = np.full(len(differs), "", object)
    where = np.flatnonzero(differs)
    if len(where):
        all_causes[where] = causes(where)
    return all_causes


def layout(theirs: Side, mine: Side, name_of: FileNames, judge: Judge) -> r.Agreement:
    """VMAs: start, end, flags, pgoff, file. Those of the model alone count as differing."""
    left, right = _described(theirs, name_of), _described(mine, name_of)
    files = _pair_files(theirs, mine, name_of)
    keys = sorted({*left, *right})
    said = [_vma_difference(left.get(key), right.get(key), files) for key in keys]
    causes: Causes = np.full(len(keys), "", object)
    for at, (key, difference) in enumerate(zip(keys, said)):
        if difference:
            start = page_of(key) << PAGE_SHIFT
            end = max(int(str(side[key]["end"]), 16) for side in (left, right) if key in side)
            causes[at] = r.UNMODELLED if judge.untold_area(pid_of(key), start, end) else r.WRONG
    return judged(r.LAYOUT, causes, lambda at: f"{place(keys[at])}: {said[at]}")


Described = Mapping[str, object]


def _described(side: Side, name_of: FileNames) -> dict[int, Described]:
    vmas = side.snapshot.vmas
    by_key: dict[int, Described] = {}
    for row, key in enumerate(side.vma_key.tolist()):
        file = int(vmas.file[row])
        by_key[key] = {
            "end": hex(int(vmas.end[row])),
            "flags": hex(int(vmas.flags[row]) & f.VM_ALL),
            "pgoff": hex(int(vmas.pgoff[row])),
            "file": name_of(side.snapshot, row),
            "file row": file,
        }
    return by_key


def _pair_files(theirs: Side, mine: Side, name_of: FileNames) -> dict[int, int]:
    # Files that only pairing can tell (shared anonymous memory): the kernel's row -> the model's, by first meeting.
    pairs: dict[int, int] = {}
    right = {key: row for row, key in enumerate(mine.vma_key.tolist())}
    taken: set[int] = set()
    for row, key in enumerate(theirs.vma_key.tolist()):
        other = right.get(key, MISSING)
        file = int(theirs.snapshot.vmas.file[row])
        if other < 0 or file < 0 or file in pairs:
            continue
        own = int(mine.snapshot.vmas.file[other])
        if own >= 0 and own not in taken and name_of(mine.snapshot, other) is None:
            pairs[file] = own
            taken.add(own)
    return pairs


def _vma_difference(theirs: Described | None, mine: Described | None, files: Mapping[int, int]) -> str:
    if mine is None or theirs is None:
        return f"{'the model' if mine is None else 'the kernel'} has no VMA that begins here"
    for name in ("end", "flags", "pgoff"):
        if theirs[name] != mine[name] and theirs[name] != "-0x1":
            return f"{name} {theirs[name]}, the model {mine[name]}"
    if mine["file"] is None:
        row = theirs["file row"]
        assert isinstance(row, int)
        return "" if files.get(row) == mine["file row"] else f"file {theirs['file']}, the model another"
    return "" if theirs["file"] == mine["file"] else f"file {theirs['file']}, the model {mine['file']}"


def kinds(entries: Entry, judge: Judge) -> r.Agreement:
    """What kind of page each entry maps, and which page of a file."""
    same = (entries.kind == entries.my_kind) & (entries.alike | (entries.page != NOBODY))
    causes: Causes = np.where(same, "", judge.why)

    def say(at: int) -> str:
        kind, own = KINDS[int(entries.kind[at])], KINDS[int(entries.my_kind[at])]
        return f"{place(int(entries.key[at]))}: {kind}, the model {own if own != kind else 'another page'}"

    return judged(r.KINDS_OF_ENTRIES, causes, say)


def sharing(entries: Entry, judge: Judge) -> r.Agreement:
    """Which anonymous entries map one page, be it in memory or in swap."""
    rows = np.flatnonzero((entries.page != NOBODY) | (entries.my_page != NOBODY))
    causes: Causes = np.where(entries.shared_alike[rows], "", judge.why[rows])
    return judged(r.SHARING, causes, lambda at: _sharing_difference(entries, int(rows[at])))


def _sharing_difference(entries: Entry, at: int) -> str:
    where = place(int(entries.key[at]))
    page, own = int(entries.page[at]), int(entries.my_page[at])
    if page == NOBODY or own == NOBODY:
        return f"{where}: {KINDS[int(entries.kind[at])]}, the model {KINDS[int(entries.my_kind[at])]}"
    sharers = entries.key[entries.page == page].tolist()
    own_sharers = entries.key[entries.my_page == own].tolist()
    return f"{where}: mapped by {_some(sharers)}; in the model by {_some(own_sharers)}"


def _some(keys: list[int]) -> str:
    pids = [pid_of(key) for key in keys[:6]]
    return f"{len(keys)} (processes {', '.join(map(str, pids))}{', ...' if len(keys) > 6 else ''})"


def anonymous_mapcounts(entries: Entry, judge: Judge) -> r.Agreement:
    """Mapcounts of anonymous pages that both sides have. If others map one too, the model's share must be right."""
    both = np.flatnonzero(entries.same_anonymous)
    mappers = _mappers(entries, both)
    _, one_each = np.unique(entries.page[both], return_index=True)
    both, mappers = both[one_each], mappers[one_each]
    count, own = entries.of("mapcount", both), entries.my("mapcount", both)

    def why(where: I64) -> Causes:
        rows = both[where]
        outside = (count[where] > mappers[where]) & (own[where] == mappers[where])
        return np.where(outside, r.OUTSIDE, np.where(judge.raced(rows), r.RACED, r.WRONG))

    causes = unlike(count != own, why)
    return judged(r.ANON_MAPCOUNTS, causes, lambda at: _counted(entries, int(both[at]), int(count[at]), int(own[at])))


def file_mapcounts(entries: Entry) -> r.Agreement:
    """Mapcounts of pages of files that both sides map, and nobody else. They follow from what is mapped ahead."""
    both = np.flatnonzero((entries.kind == entries.my_kind) & np.isin(entries.kind, (FILE, SHMEM)))
    both = both[_mappers(entries, both) == entries.of("mapcount", both)]
    _, one_each = np.unique(entries.of("frame", both), return_index=True)
    both = both[one_each]
    count, own = entries.of("mapcount", both), entries.my("mapcount", both)
    causes = unlike(count != own, lambda where: np.full(len(where), r.FAULT_AROUND, object))
    return judged(r.FILE_MAPCOUNTS, causes, lambda at: _counted(entries, int(both[at]), int(count[at]), int(own[at])))


def _mappers(entries: Entry, rows: I64) -> I64:
    # How many entries of the picture map the page of each row.
    theirs = entries.theirs.entries
    frames, counts = np.unique(theirs.frame[np.isin(theirs.kind, (ANON, FILE, SHMEM))], return_counts=True)
    counted: I64 = counts[np.searchsorted(frames, entries.of("frame", rows))] if len(rows) else np.zeros(0, np.int64)
    return counted


def _counted(entries: Entry, row: int, count: int, own: int) -> str:
    return f"{place(int(entries.key[row]))}: mapped {count} times, in the model {own}"


def writable(entries: Entry, judge: Judge) -> r.Agreement | None:
    """Which entries may be written, where both sides have the same page; None where the kernel's are not known."""
    if not entries.theirs.snapshot.about["pte_write"]:
        return None
    files = (entries.kind == entries.my_kind) & np.isin(entries.kind, (FILE, SHMEM))
    both = np.flatnonzero(files | entries.same_anonymous)
    may, own = entries.of("writable", both).astype(np.bool_), entries.my("writable", both).astype(np.bool_)
    causes = unlike(may != own, lambda where: judge.rights(both[where], may[where], protected_by_writeback=True))

    def say(at: int) -> str:
        kind, said = KINDS[int(entries.kind[both[at]])], "writable" if may[at] else "write-protected"
        return f"{place(int(entries.key[both[at]]))}: {kind}, {said}; not in the model"

    return judged(r.WRITABLE, causes, say)


def exclusive(entries: Entry, judge: Judge) -> r.Agreement | None:
    """PG_anon_exclusive of pages that both sides have; None where the kernel's is not known."""
    if not entries.theirs.snapshot.about["anon_exclusive"]:
        return None
    both = np.flatnonzero(entries.same_anonymous)
    theirs = entries.of("exclusive", both).astype(np.bool_)
    causes = unlike(theirs != entries.my("exclusive", both), lambda where: judge.rights(both[where], theirs[where]))

    def say(at: int) -> str:
        said = "exclusive" if theirs[at] else "not exclusive"
        return f"{place(int(entries.key[both[at]]))}: {said}, the model says the contrary"

    return judged(r.EXCLUSIVE_PAGES, causes, say)
