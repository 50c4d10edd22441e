"""Is a picture sound? The numbered invariants (``docs/rules.md``, 6.2) as far as a picture can carry them.

Those about anon_vmas (I1 to I11, I13, I16) need the kernel's own topology, I14 anonymous page indexes, I15 to
I17 bits that /proc does not show: a picture taken from /proc alone is checked for I19 to I21 and for pagemap's
exclusive bit (rule 8.2). What cannot be checked is returned with its reason, never passed over. I12 and I22 are about
trees, which a picture does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rmap.columns import I64, Bool
from rmap.errors import InvariantError
from rmap.snapshot import flags as f
from rmap.snapshot.topology import check_topology
from rmap.units import PAGE_SHIFT

if TYPE_CHECKING:
    from rmap.snapshot.picture import Snapshot


class Checked(NamedTuple):
    """One line of the answer.

    Attributes:
        invariant: its number in ``docs/rules.md``: ``"I14"``, or a rule (``"8.2"``).
        what: what it says, in a few words.
        checked: how many items were looked at.
        unit: what the items are.
        reason: why it could not be checked, or ``""``.
    """

    invariant: str
    what: str
    checked: int
    unit: str
    reason: str = ""


@dataclass(frozen=True)
class Pages:
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


def check(picture: Snapshot) -> list[Checked]:
    """Check every invariant this picture can carry.

    Returns:
        one row per invariant, in order.

    Raises:
        InvariantError: the first violation, with its objects.
    """
    pages = _pages(picture)
    checks = (_anchored, _index, _exclusive, _writable, _counts, _complete, _file_pages)
    rows = [Checked(*line) for line in check_topology(picture)]
    rows += [row for one in checks for row in one(picture, pages)]
    return sorted(rows, key=lambda row: (row.invariant[0] != "I", float(row.invariant.lstrip("I"))))


def _pages(picture: Snapshot) -> Pages:
    entries = picture.reverse.entries(picture.pfns())
    at = entries.position

    def frame(name: str) -> I64:
        spread: I64 = picture.per_frame(name).astype(np.int64)
        return spread[at]

    return Pages(
        pfn=picture.pfns()[at],
        vma=picture.ptes.vma[entries.extent].astype(np.int64),
        address=entries.address,
        pte_flags=picture.ptes.flags[entries.extent].astype(np.int64),
        kind=frame("kind"),
        flags=frame("flags"),
        mapcount=frame("mapcount"),
        order=frame("order"),
        index=frame("index"),
        anon_vma=frame("anon_vma"),
        file=frame("file"),
        steady=frame("raced") == 0,
    )


# Raise for the first of the entries asked about that is wrong.
def _demand(picture: Snapshot, pages: Pages, asked: Bool, right: Bool, number: str, text: str) -> int:
    wrong = asked & ~right
    if wrong.any():
        i = int(np.argmax(wrong))
        process = int(picture.vmas.process[pages.vma[i]])
        raise InvariantError(
            number,
            f"{text}: pfn {pages.pfn[i]:#x} (index {pages.index[i]:#x}, mapcount {pages.mapcount[i]}) at "
            f"{pages.address[i]:#x} of {picture.processes.pid[process]} {picture.processes.comm[process]}, "
            f"VMA {_vma(picture, int(pages.vma[i]))}; {int(wrong.sum()):,} such entries",
        )
    return int(asked.sum())


def _vma(picture: Snapshot, row: int) -> str:
    return f"{picture.vmas.start[row]:x}-{picture.vmas.end[row]:x}"


def _linear(picture: Snapshot, pages: Pages) -> I64:
    return picture.vmas.pgoff[pages.vma] + ((pages.address - picture.vmas.start[pages.vma]) >> PAGE_SHIFT)


def _index(picture: Snapshot, pages: Pages) -> Iterator[Checked]:
    what = "an anonymous page's index gives its address in every VMA"
    asked = (pages.kind == f.ANON) & (pages.index >= 0) & (picture.vmas.pgoff[pages.vma] >= 0) & pages.steady
    right = pages.index == _linear(picture, pages)
    count = _demand(picture, pages, asked, right, "I14", "the page is not where its index says")
    reason = "" if count else "the picture has no index of an anonymous page"
    yield Checked("I14", what, count, "entries", reason)


def _exclusive(picture: Snapshot, pages: Pages) -> Iterator[Checked]:
    whats = {"I15": "an exclusive page is mapped once", "I16": "an exclusive small page hangs on the active anon_vma"}
    if not picture.about["anon_exclusive"]:
        for number, what in whats.items():
            yield Checked(number, what, 0, "entries", "PG_anon_exclusive is not shown by /proc")
        return
    asked = ((pages.flags & f.KPF_ANON_EXCLUSIVE) != 0) & pages.steady
    right = (pages.mapcount == 1) & (pages.kind != f.KSM)
    count = _demand(picture, pages, asked, right, "I15", "an exclusive page is mapped more than once, or is KSM's")
    yield Checked("I15", whats["I15"], count, "entries")
    if picture.about.get("swapped"):
        yield Checked("I16", whats["I16"], 0, "entries", "pages came back from swap: such a page may keep its anon_vma")
        return
    asked &= (pages.order == 0) & (pages.anon_vma >= 0)
    right = pages.anon_vma == picture.vmas.anon_vma[pages.vma]
    count = _demand(picture, pages, asked, right, "I16", "an exclusive page hangs on another anon_vma than its VMA's")
    reason = "" if len(picture.anon_vmas) else "the picture has no anon_vmas"
    yield Checked("I16", whats["I16"], count, "entries", reason)


def _writable(picture: Snapshot, pages: Pages) -> Iterator[Checked]:
    what = "a writable entry of an anonymous page means: exclusive"
    if not (picture.about["pte_write"] and picture.about["anon_exclusive"]):
        yield Checked("I17", what, 0, "entries", "/proc does not show whether an entry is writable")
        return
    asked = (pages.kind == f.ANON) & ((pages.pte_flags & f.PTE_WRITE) != 0) & pages.steady
    right = (pages.flags & f.KPF_ANON_EXCLUSIVE) != 0
    yield Checked("I17", what, _demand(picture, pages, asked, right, "I17", "a shared page is writable"), "entries")


def _anchored(picture: Snapshot, pages: Pages) -> Iterator[Checked]:
    # I18, "the anon_vma of a shared page is the active one or an ancestor of it", is not asked: a fork that takes up an
    # old anon_vma again (rule 2.7) makes pages that hang on a descendant of the active one. I13 holds even then.
    what = "a page's anon_vma is in the chain of every VMA that maps it"
    if not len(picture.anon_vmas):
        yield Checked("I13", what, 0, "entries", "the picture has no anon_vmas")
        return
    n = len(picture.anon_vmas)
    asked = (pages.kind == f.ANON) & (pages.anon_vma >= 0) & pages.steady
    chains = picture.anon_vma_chains
    linked = np.isin(pages.vma * n + pages.anon_vma, chains.vma.astype(np.int64) * n + chains.anon_vma)
    count = _demand(picture, pages, asked, linked, "I13", "the page's anon_vma is not in the VMA's chain")
    yield Checked("I13", what, count, "entries")


def _counts(picture: Snapshot, pages: Pages) -> Iterator[Checked]:
    what = "pagemap calls a page exclusive iff its mapcount is 1"
    if picture.about["source"] != "kernel":
        yield Checked("8.2", what, 0, "entries", "only the kernel's own pictures carry this bit")
        return
    asked = pages.steady & ~np.isin(pages.kind, f.UNTRACKED)
    if picture.about["mapcount"] == "average":
        asked &= pages.order == 0
    right = ((pages.pte_flags & f.PTE_EXCLUSIVE) != 0) == (pages.mapcount == 1)
    yield Checked("8.2", what, _demand(picture, pages, asked, right, "8.2", "bit 56 and mapcount differ"), "entries")


def _complete(picture: Snapshot, pages: Pages) -> Iterator[Checked]:
    found = picture.reverse.found + picture.per_frame("own")
    kind = picture.per_frame("kind")
    mapcount = picture.per_frame("mapcount").astype(np.int64)
    asked = ~np.isin(kind, f.UNTRACKED) & ~picture.per_frame("raced").astype(np.bool_)
    if picture.about["mapcount"] == "average":
        asked &= picture.per_frame("order") == 0
    equal = picture.about["source"] == "model"
    wrong = asked & ((found != mapcount) if equal else (found > mapcount))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise InvariantError(
            "I19",
            f"pfn {picture.pfns()[i]:#x} ({f.FRAME_KINDS[kind[i]]}) has mapcount {mapcount[i]}, and {found[i]} entries "
            f"map it; {int(wrong.sum()):,} such pages",
        )
    what = f"{'as many' if equal else 'no more'} entries map a page {'as' if equal else 'than'} its mapcount says"
    yield Checked("I19", what, int(asked.sum()), "pages")
    complete = int((asked & (found == mapcount)).sum())
    yield Checked("I20", "pages whose every mapping is in the picture", complete, "pages")


def _file_pages(picture: Snapshot, pages: Pages) -> Iterator[Checked]:
    what = "a file page lies where its offset in the file says, in every VMA"
    asked = (pages.file >= 0) & (picture.vmas.pgoff[pages.vma] >= 0) & pages.steady
    right = pages.index == _linear(picture, pages)
    if picture.about["source"] == "model":  # on a real machine one page may have two names (overlayfs, btrfs)
        right &= picture.vmas.file[pages.vma] == pages.file
    count = _demand(picture, pages, asked, right, "I21", "the page is not at its place in the file")
    yield Checked("I21", what, count, "entries", "" if count else "the picture has no file page")
