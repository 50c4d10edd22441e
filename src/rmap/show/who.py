"""Who maps a page: the page, how complete the answer is, the mappings, how they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, columns, hex_address, labelled, more, whole_size
from rmap.snapshot.kinds import KINDS, FrameKind
from rmap.uapi.kpageflags import KPF_DIRTY, KPF_HWPOISON, KPF_MLOCKED, KPF_WRITEBACK
from rmap.units import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, format_count

if TYPE_CHECKING:
    from rmap.snapshot import Mapping, Who

_STATES = (
    (KPF_WRITEBACK, "being written"),
    (KPF_MLOCKED, "locked in memory"),
    (KPF_HWPOISON, "poisoned"),
)
_HEADER = ("PID", "COMMAND", "ADDRESS", "VMA", "+OFFSET", "PERM")
_ALIGN = "><<<><"
_NAME_MIN = 8


def who(answer: Who, *, origin: str, limit: int | None) -> list[str]:
    """The lines of ``rmap who``.

    Args:
        answer: what the picture, or the machine, says.
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
    kind = KINDS.named(answer.kind)
    frame = f"pfn {hex_address(answer.pfn)}, phys {hex_address(answer.pfn << PAGE_SHIFT)}"
    words = kind.words if kind is not None else "not described"
    return f"{frame}: {', '.join([words, *_state(answer, kind), _size(answer, kind)])}"


def _size(answer: Who, kind: FrameKind | None) -> str:
    # THP is what the kernel calls a folio that a PMD can map; all others are large folios of some size.
    size = whole_size(PAGE_SIZE)
    if not answer.order:
        return size
    whole = whole_size(PAGE_SIZE << answer.order)
    if kind is not None and kind.folio:
        return f"{size} of a {whole} {kind.folio}"
    return f"{size} of a {whole} {'huge page (THP)' if answer.order == PMD_SHIFT - PAGE_SHIFT else 'folio'}"


def _state(answer: Who, kind: FrameKind | None) -> list[str]:
    if answer.flags is None:
        return []
    states = [word for bit, word in _STATES if answer.flags & bit]
    if kind is not None and kind.number in KINDS.disk_cache:
        states.insert(0, "dirty" if answer.flags & KPF_DIRTY else "clean")
    return states


def _place(offset: int) -> str:
    return f", offset {hex_address(offset)} (page {format_count(offset >> PAGE_SHIFT)})"


def _completeness(answer: Who) -> str:
    if answer.status == "unmapped":
        return "none"
    found = f"found {format_count(answer.found)}"
    if answer.status == "approximate" or answer.mapcount is None:
        return f"{found}: {answer.status}"
    counted = f"{found} of {format_count(answer.mapcount)}"
    own = f"; {format_count(answer.own)} more {'is' if answer.own == 1 else 'are'} rmap's own" if answer.own else ""
    if answer.status == "hidden":
        return f"{counted}: {format_count(answer.mapcount - answer.found - answer.own)} hidden{own}"
    return f"{counted}: {answer.status}{own}"


def mapping_rows(mappings: list[Mapping], limit: int | None) -> list[str]:
    """Mappings as a table, by pid and address; at most ``limit`` of them, the rest counted."""
    ordered = sorted(mappings, key=lambda mapping: (mapping.pid, mapping.address))
    shown = ordered if limit is None else ordered[:limit]
    rows = [_cells(mapping) for mapping in shown]
    lines = columns(_HEADER, rows, _ALIGN, indent="  ")
    if (excess := max(map(len, lines)) - WIDTH) > 0:  # names give way, not numbers
        longest = max(len(row[1]) for row in rows) - excess
        lines = columns(_HEADER, [(row[0], _cut(row[1], longest), *row[2:]) for row in rows], _ALIGN, indent="  ")
    if len(shown) < len(ordered):
        lines.append("    " + more(len(ordered) - len(shown), "--all"))
    return lines


def _cut(name: str, width: int) -> str:
    # A name cut as top(1) cuts it: ``memfd:sealed+``.
    width = max(width, _NAME_MIN)
    return name if len(name) <= width else name[: width - 1] + "+"


def _cells(mapping: Mapping) -> tuple[str, ...]:
    return (
        str(mapping.pid),
        mapping.comm,
        hex_address(mapping.address),
        f"{mapping.vma_start:x}-{mapping.vma_end:x}",
        hex_address(mapping.address - mapping.vma_start),
        mapping.perms,
    )
