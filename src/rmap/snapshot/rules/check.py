"""Is a picture sound? The numbered invariants (``docs/rules.md``, 6.2) as far as a picture can carry them.

Those about anon_vmas (I1 to I11, I13, I16) need the kernel's own topology, I14 anonymous page indexes, I15 to
I17 bits that /proc does not show: a picture taken from /proc alone is checked for I19 to I21 and for pagemap's
exclusive bit (rule 8.2). What cannot be checked is returned with its reason, never passed over. I12 and I22 are about
trees, which a picture does not hold.

Violations are data (:func:`inspect`): whoever looks at a running machine must tell a race from a finding, and reads
again before it judges. :func:`check` is for whoever holds a picture to be right: it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rmap.columns import I64, Bool
from rmap.errors import InvariantError
from rmap.snapshot import flags as f
from rmap.snapshot.kind_columns import among
from rmap.snapshot.kinds import KINDS, KSM
from rmap.snapshot.rules.anon_vmas import WHAT, inspect_topology, topology_of
from rmap.snapshot.rules.findings import NAMED, Checked, Found, Report, Violation, report_of
from rmap.units import PAGE_SHIFT, format_count

if TYPE_CHECKING:
    from rmap.snapshot.snapshot import Snapshot

__all__ = ["Checked", "Report", "Violation", "check", "inspect", "inspect_pages"]

_MOST_NAMED = 8  # entries of one page that a violation lists


@dataclass(frozen=True)
class CheckedPages:
    """Every present entry of a picture with what its frame says; one row per entry, columns of equal length."""

    pfn: I64
    vma: I64
    address: I64
    pte_flags: I64
    kind: I64
    flags: I64
    mapcount: I64
    order: I64
    index: I64
    anon_vma: I64
    file: I64
    steady: Bool  # the page did not change while the picture was taken


def check(snapshot: Snapshot) -> list[Checked]:
    """Check every invariant this picture can carry.

    Returns:
        one row per invariant, in order.

    Raises:
        InvariantError: the first violation, with its objects.
    """
    report = inspect(snapshot)
    for violation in report.violations:
        count = next(row.violations for row in report.checked if row.invariant == violation.invariant)
        objects = ", ".join(line.strip() for line in violation.objects)
        raise InvariantError(violation.invariant, f"{violation.message}: {objects}; {format_count(count)} such in all")
    return report.checked


def inspect(snapshot: Snapshot) -> Report:
    """Check every invariant this picture can carry, and collect what is wrong instead of raising."""
    if snapshot.about["topology"] == "none":
        reason = "the picture has no anon_vmas (/proc does not show them)"
        lines = [Found(Checked(number, what, 0, "VMAs", reason), []) for number, what in WHAT.items()]
    else:
        lines = list(inspect_topology(topology_of(snapshot)))
    return report_of(lines + inspect_pages(snapshot))


def inspect_pages(snapshot: Snapshot, *, strict: bool | None = None) -> list[Found]:
    """The invariants of pages and entries alone: I13 to I17, I19 to I21, and rule 8.2.

    Args:
        snapshot: the picture.
        strict: whether no page was ever swapped in or split off a large folio, so that I16 has no exception. None:
            true of a model's picture, which says if there was swap; unknown, so not true, of a machine's.
    """
    pages = _pages(snapshot)
    if strict is None:
        strict = snapshot.about["source"] == "model"
    checks: tuple[Callable[[Snapshot, CheckedPages], Iterator[Found]], ...] = (
        _anchored,
        _index,
        partial(_exclusive, strict=strict),
        _writable,
        _counts,
        _complete,
        _file_pages,
    )
    return [finding for one in checks for finding in one(snapshot, pages)]


def _pages(snapshot: Snapshot) -> CheckedPages:
    entries = snapshot.reverse.entries(snapshot.pfns())
    at = entries.position

    def frame(name: str) -> I64:
        spread: I64 = snapshot.per_frame(name).astype(np.int64)
        return spread[at]

    return CheckedPages(
        pfn=snapshot.pfns()[at],
        vma=snapshot.ptes.vma[entries.extent].astype(np.int64),
        address=entries.address,
        pte_flags=snapshot.ptes.flags[entries.extent].astype(np.int64),
        kind=frame("kind"),
        flags=frame("flags"),
        mapcount=frame("mapcount"),
        order=frame("order"),
        index=frame("index"),
        anon_vma=frame("anon_vma"),
        file=frame("file"),
        steady=frame("raced") == 0,
    )


def _demand(snapshot: Snapshot, pages: CheckedPages, asked: Bool, right: Bool, line: Checked, text: str) -> Found:
    # One invariant of entries: which of those asked about are right.
    rows = np.flatnonzero(asked & ~right).tolist()
    violations = []
    for i in rows[:NAMED]:
        vma = int(pages.vma[i])
        process = int(snapshot.vmas.process[vma])
        pid = int(snapshot.processes.pid[process])
        objects = (
            f"pfn {pages.pfn[i]:#x} ({KINDS[pages.kind[i]].name}, index {pages.index[i]:#x}, "
            f"mapcount {pages.mapcount[i]})",
            f"entry at {pages.address[i]:#x} of {pid} {snapshot.processes.comm[process]}",
            f"VMA {snapshot.vmas.start[vma]:x}-{snapshot.vmas.end[vma]:x}, pgoff {snapshot.vmas.pgoff[vma]:#x}",
        )
        violations.append(Violation(line.invariant, text, objects, (pid,), (pid, int(pages.address[i]))))
    return Found(line._replace(checked=int(asked.sum()), violations=len(rows)), violations)


def _linear(snapshot: Snapshot, pages: CheckedPages) -> I64:
    return snapshot.vmas.pgoff[pages.vma] + ((pages.address - snapshot.vmas.start[pages.vma]) >> PAGE_SHIFT)


def _index(snapshot: Snapshot, pages: CheckedPages) -> Iterator[Found]:
    line = Checked("I14", "an anonymous page's index gives its address in every VMA", 0, "entries")
    asked = among(pages.kind, KINDS.on_anon_vmas) & (pages.index >= 0) & pages.steady
    asked &= snapshot.vmas.pgoff[pages.vma] >= 0
    if not asked.any():
        line = line._replace(reason="the picture has no index of an anonymous page")
    right = pages.index == _linear(snapshot, pages)
    yield _demand(snapshot, pages, asked, right, line, "the page is not where its index says")


def _exclusive(snapshot: Snapshot, pages: CheckedPages, strict: bool) -> Iterator[Found]:
    once = Checked("I15", "an exclusive page is mapped once", 0, "entries")
    active = Checked("I16", "an exclusive small page hangs on the active anon_vma", 0, "entries")
    if not snapshot.about["anon_exclusive"]:
        for line in (once, active):
            yield Found(line._replace(reason="PG_anon_exclusive is not shown by /proc"), [])
        return
    asked = ((pages.flags & f.KPF_ANON_EXCLUSIVE) != 0) & pages.steady
    right = (pages.mapcount == 1) & (pages.kind != KSM)
    yield _demand(snapshot, pages, asked, right, once, "an exclusive page is mapped more than once, or is KSM's")
    if snapshot.about.get("swapped"):
        reason = "pages came back from swap: such a page may keep its anon_vma"
        yield Found(active._replace(reason=reason), [])
        return
    asked &= (pages.order == 0) & (pages.anon_vma >= 0) & (snapshot.vmas.anon_vma[pages.vma] >= 0)
    right = pages.anon_vma == snapshot.vmas.anon_vma[pages.vma]
    if not len(snapshot.anon_vmas):
        active = active._replace(reason="the picture has no anon_vmas")
    if not strict:
        if kept := int((asked & ~right).sum()):
            note = f"{format_count(kept)} hang on another: they were swapped out or in a large folio (4.7, 4.12)"
            active = active._replace(note=note)
        asked &= right
    yield _demand(snapshot, pages, asked, right, active, "an exclusive page hangs on another anon_vma than its VMA's")


def _writable(snapshot: Snapshot, pages: CheckedPages) -> Iterator[Found]:
    line = Checked("I17", "a writable entry of an anonymous page means: exclusive", 0, "entries")
    if not (snapshot.about["pte_write"] and snapshot.about["anon_exclusive"]):
        why = "whether an entry is writable is not in the picture: /proc does not show it"
        yield Found(line._replace(reason=why), [])
        return
    asked = among(pages.kind, KINDS.on_anon_vmas) & ((pages.pte_flags & f.PTE_WRITE) != 0) & pages.steady
    right = (pages.flags & f.KPF_ANON_EXCLUSIVE) != 0
    yield _demand(snapshot, pages, asked, right, line, "a page that is not exclusive is mapped writable")


def _anchored(snapshot: Snapshot, pages: CheckedPages) -> Iterator[Found]:
    # I18, "the anon_vma of a shared page is the active one or an ancestor of it", is not asked: a fork that takes up an
    # old anon_vma again (rule 2.7) makes pages that hang on a descendant of the active one. I13 holds even then.
    line = Checked("I13", "a page's anon_vma is in the chain of every VMA that maps it", 0, "entries")
    if not len(snapshot.anon_vmas):
        yield Found(line._replace(reason="the picture has no anon_vmas"), [])
        return
    n = len(snapshot.anon_vmas)
    asked = among(pages.kind, KINDS.on_anon_vmas) & (pages.anon_vma >= 0) & pages.steady
    if snapshot.about["topology"] == "kernel":  # a VMA that changed while the picture was taken has no chain in it
        with_chain = asked & (snapshot.vmas.anon_vma[pages.vma] >= 0)
        if left := int(asked.sum()) - int(with_chain.sum()):
            line = line._replace(note=f"not asked of {format_count(left)}: no chain was recorded of their VMA")
        asked = with_chain
    chains = snapshot.anon_vma_chains
    links = np.sort(chains.vma.astype(np.int64) * n + chains.anon_vma)
    wanted = pages.vma * n + pages.anon_vma
    linked = (
        links[np.minimum(np.searchsorted(links, wanted), len(links) - 1)] == wanted if len(links) else asked & False
    )
    yield _demand(snapshot, pages, asked, linked, line, "the page's anon_vma is not in the VMA's chain")


def _counts(snapshot: Snapshot, pages: CheckedPages) -> Iterator[Found]:
    line = Checked("8.2", "pagemap calls a page exclusive iff its mapcount is 1", 0, "entries")
    if snapshot.about["source"] != "kernel":
        yield Found(line._replace(reason="only the kernel's own pictures carry this bit"), [])
        return
    asked = pages.steady & ~among(pages.kind, KINDS.untracked)
    if snapshot.about["mapcount"] == "average":
        asked &= pages.order == 0
    right = ((pages.pte_flags & f.PTE_EXCLUSIVE) != 0) == (pages.mapcount == 1)
    yield _demand(snapshot, pages, asked, right, line, "pagemap's bit 56 and the mapcount differ")


def _complete(snapshot: Snapshot, pages: CheckedPages) -> Iterator[Found]:
    entries = snapshot.reverse.found + snapshot.per_frame("own")
    kind = snapshot.per_frame("kind")
    mapcount = snapshot.per_frame("mapcount").astype(np.int64)
    asked = ~among(kind, KINDS.untracked) & ~snapshot.per_frame("raced").astype(np.bool_)
    if snapshot.about["mapcount"] == "average":
        asked &= snapshot.per_frame("order") == 0
    model = snapshot.about["source"] == "model"
    surplus = np.flatnonzero(asked & (entries > mapcount)).tolist()
    violations = [_miscounted(snapshot, pages, i, "I19", mapcount[i], entries[i]) for i in surplus[:NAMED]]
    what = "no more entries map a page than its mapcount says"
    yield Found(Checked("I19", what, int(asked.sum()), "pages", violations=len(surplus)), violations)
    fewer = asked & (entries < mapcount)
    if model:  # a model's picture is whole: nobody can be hidden
        missing = np.flatnonzero(fewer).tolist()
        violations = [_miscounted(snapshot, pages, i, "I20", mapcount[i], entries[i]) for i in missing[:NAMED]]
        line = Checked("I20", "no fewer entries either", int(asked.sum()), "pages", violations=len(missing))
        yield Found(line, violations)
        return
    hidden = int(fewer.sum())
    note = f"{format_count(hidden)} have mappings in processes that were not recorded" if hidden else ""
    complete = int(asked.sum()) - hidden - len(surplus)
    yield Found(Checked("I20", "pages whose every mapping is in the picture", complete, "pages", note=note), [])


def _miscounted(snapshot: Snapshot, pages: CheckedPages, i: int, number: str, mapcount: int, entries: int) -> Violation:
    pfn = int(snapshot.pfns()[i])
    kind = snapshot.frames.kind[snapshot.frame_run(pfn)]
    rows = np.arange(*np.searchsorted(pages.pfn, (pfn, pfn + 1)))  # entries stand in the order of their pages
    process = snapshot.vmas.process[pages.vma[rows]]
    objects = [f"pfn {pfn:#x} ({KINDS[kind].name})"]
    objects += [
        f"entry at {pages.address[row]:#x} of {snapshot.processes.pid[p]} {snapshot.processes.comm[p]}"
        for row, p in zip(rows[:_MOST_NAMED].tolist(), process.tolist())
    ]
    if len(rows) > _MOST_NAMED:
        objects.append(f"... {len(rows) - _MOST_NAMED:,} more entries")
    pids = tuple(np.unique(snapshot.processes.pid[process]).tolist())
    text = f"the page's mapcount is {mapcount}, but {entries} entries map it"
    return Violation(number, text, tuple(objects), pids, pfn)


def _file_pages(snapshot: Snapshot, pages: CheckedPages) -> Iterator[Found]:
    line = Checked("I21", "a file page lies where its offset in the file says, in every VMA", 0, "entries")
    asked = (pages.file >= 0) & (snapshot.vmas.pgoff[pages.vma] >= 0) & pages.steady
    right = pages.index == _linear(snapshot, pages)
    if snapshot.about["source"] == "model":  # on a real machine one page may have two names (overlayfs, btrfs)
        right &= snapshot.vmas.file[pages.vma] == pages.file
    if not asked.any():
        line = line._replace(reason="the picture has no file page")
    yield _demand(snapshot, pages, asked, right, line, "the page is not at its place in the file")
