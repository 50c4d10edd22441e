"""The walk of the kernel: from the page to its tree, the VMAs it meets, each entry looked at; and is it the same?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rmap.show.text import columns, hex_address, labelled, more, plural, whole_size
from rmap.snapshot.rules.anon_vmas import pointer
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_count

if TYPE_CHECKING:
    from rmap.structs.walk import Candidate, KernelWalk, WalkDifference

_HEADER = ("PID", "COMMAND", "ADDRESS", "VMA", "ENTRY")
_ALIGN = "><<<<"
_ANCHORS = {"anon": "anon_vma", "file": "address_space"}
_KINDS = {"anon": "anonymous", "file": "of a file, or shared memory"}
_UNWALKED = {
    "ksm": "merged by KSM: the walk would go by its stable node, which is not read here (rule 5.6)",
    "none": "no reverse map leads back from this page: the zero page, the kernel's own, or not mapped",
}


def kernel_walk(
    walk: KernelWalk, difference: WalkDifference | None, names: Mapping[int, str], *, limit: int | None
) -> list[str]:
    """The lines of ``rmap who --kernel``.

    Args:
        walk: what the walk met.
        difference: from the answer of the page tables; None if there was no walk to compare.
        names: the command of each process.
        limit: show at most so many VMAs, None for all.
    """
    size = whole_size(PAGE_SIZE)
    if walk.order:
        size += f" of a {whole_size(PAGE_SIZE << walk.order)} folio (head {hex_address(walk.head)})"
    frame = f"pfn {hex_address(walk.pfn)}, phys {hex_address(walk.pfn << PAGE_SHIFT)}"
    if walk.kind in _UNWALKED:
        return [*labelled("page", frame), *labelled("no walk", _UNWALKED[walk.kind])]
    lines = labelled("page", f"{frame}: {_KINDS[walk.kind]}, {size}")
    lines += labelled("mapping", f"{_ANCHORS[walk.kind]} {pointer(walk.anchor)}, page index {hex_address(walk.index)}")
    met = f"{plural(len(walk.candidates), 'VMA covers', 'VMAs cover')} the index"
    lines += labelled("tree", f"{plural(walk.nodes, 'node')}, {format_count(walk.visited)} looked at: {met}")
    hits = f"{plural(len(walk.hits), 'hit')} of {plural(len(walk.candidates), 'entry', 'entries')} looked at"
    lines += labelled("found", f"{hits}; the page's mapcount is {format_count(walk.mapcount)}")
    if difference is not None:
        lines += labelled(*_verdict(difference))
    if walk.candidates:
        lines += ["", *_rows(walk.candidates, names, limit), ""]
    how = "as rmap_walk() goes: the index in the tree, in each VMA start + (index - pgoff) pages, its pagemap there"
    return lines + labelled("found by", how)


def _verdict(difference: WalkDifference) -> tuple[str, str]:
    if difference.equal:
        same = plural(difference.common, "entry", "entries")
        own = "; rmap's own mapping aside" if difference.own else ""
        raced = f"; {format_count(difference.raced)} came or went meanwhile" if difference.raced else ""
        return "equal", f"to the page tables of every process: the same {same}{own}{raced}"
    parts = []
    for places, what in ((difference.missed, "missed"), (difference.invented, "found only here")):
        if places:
            named = ", ".join(f"{pid}:{address:#x}" for pid, address in places[:4])
            parts.append(f"{what}: {named}" + (f" and {len(places) - 4:,} more" if len(places) > 4 else ""))
    return "DIFFERENT", f"from the page tables: {'; '.join(parts)}"


def _rows(candidates: list[Candidate], names: Mapping[int, str], limit: int | None) -> list[str]:
    shown = candidates if limit is None else candidates[:limit]
    lines = columns(_HEADER, (_cells(one, names) for one in shown), _ALIGN, indent="  ")
    if len(shown) < len(candidates):
        lines.append("    " + more(len(candidates) - len(shown), "--all"))
    return lines


def _cells(one: Candidate, names: Mapping[int, str]) -> tuple[str, ...]:
    pid = str(one.pid) if one.pid >= 0 else "-"
    return pid, names.get(one.pid, "?"), hex_address(one.address), f"{one.start:x}-{one.end:x}", one.found
