"""Who maps a page: the page, how complete the answer is, the mappings, how they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.show.text import columns, hex_address, labelled, more, whole_size
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_count

if TYPE_CHECKING:
    from rmap.snapshot import Mapping, Who

_KINDS = {
    "anon": "anonymous",
    "file": "page cache",
    "shmem": "shared memory",
    "ksm": "merged by KSM",
    "hugetlb": "a huge page (hugetlb)",
    "zero": "the zero page",
    "kernel": "the kernel's own",
    "device": "device memory",
    "unknown": "not described",
}
_HEADER = ("PID", "COMMAND", "ADDRESS", "VMA", "+OFFSET", "PERM")
_ALIGN = "><<<><"


def who(answer: Who, *, origin: str, limit: int | None) -> list[str]:
    """The lines of ``rmap who``.

    Args:
        answer: what the picture says.
        origin: how it was found, in words.
        limit: show at most so many mappings, None for all.
    """
    lines = labelled("page", _page(answer))
    if answer.file is not None:
        place = "" if answer.file_offset is None else _place(answer.file_offset)
        lines += labelled("file", answer.file + place)
    lines += labelled("mappings", _completeness(answer))
    if answer.mappings:
        lines += ["", *mapping_rows(answer.mappings, limit), ""]
    if answer.note:
        lines += labelled(answer.status if answer.status == "hidden" else "note", answer.note)
    for reason in answer.hidden:
        lines += labelled("hidden" if answer.status == "hidden" else "note", reason)
    return lines + labelled("found by", origin)


def _page(answer: Who) -> str:
    if answer.pfn is None:
        area, slot = answer.swap or (0, 0)
        return f"slot {format_count(slot)} of swap area {area}: swapped out, no frame"
    size = whole_size(PAGE_SIZE)
    if answer.order:
        size += f" of a {whole_size(PAGE_SIZE << answer.order)} folio"
    frame = f"pfn {hex_address(answer.pfn)}, phys {hex_address(answer.pfn << PAGE_SHIFT)}"
    return f"{frame}: {_KINDS[answer.kind]}, {size}"


def _place(offset: int) -> str:
    return f", offset {hex_address(offset)} (page {format_count(offset >> PAGE_SHIFT)})"


def _completeness(answer: Who) -> str:
    if answer.status == "unmapped":
        return "none"
    found = f"found {format_count(answer.found)}"
    if answer.status == "approximate" or answer.mapcount is None:
        return f"{found}: {answer.status}"
    counted = f"{found} of {format_count(answer.mapcount)}"
    if answer.status == "hidden":
        return f"{counted}: {format_count(answer.mapcount - answer.found)} hidden"
    return f"{counted}: {answer.status}"


def mapping_rows(mappings: list[Mapping], limit: int | None) -> list[str]:
    """Mappings as a table, by pid and address; at most ``limit`` of them, the rest counted."""
    ordered = sorted(mappings, key=lambda mapping: (mapping.pid, mapping.address))
    shown = ordered if limit is None else ordered[:limit]
    lines = columns(_HEADER, (_cells(mapping) for mapping in shown), _ALIGN, indent="  ")
    if len(shown) < len(ordered):
        lines.append("    " + more(len(ordered) - len(shown), "--all"))
    return lines


def _cells(mapping: Mapping) -> tuple[str, ...]:
    return (
        str(mapping.pid),
        mapping.comm,
        hex_address(mapping.address),
        f"{mapping.vma_start:x}-{mapping.vma_end:x}",
        hex_address(mapping.address - mapping.vma_start),
        mapping.perms,
    )
