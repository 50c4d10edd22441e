"""Bad frames: what is in each, what the kernel can do, whom it hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmap.show.text import hex_address, labelled, plural
from rmap.show.who import mapping_rows
from rmap.units import PAGE_SHIFT, format_count

if TYPE_CHECKING:
    from rmap.live.lookup.bad_frames import BadFrame


def bad_frames(frames: Sequence[BadFrame], *, limit: int | None) -> list[str]:
    """The lines of ``rmap badframe``.

    Args:
        limit: show at most so many mappings of each, None for all.
    """
    lines: list[str] = []
    for one in frames:
        lines += [*([""] if lines else []), *_frame(one, limit)]
    if len(frames) > 1:
        killed = {mapping.pid for one in frames if one.verdict.kills for mapping in one.who.mappings}
        lost = sum(one.verdict.loses for one in frames)
        hit = plural(len(killed), "process", "processes")
        lines += ["", f"{plural(len(frames), 'frame')}: data lost in {lost}; {hit} hit"]
    return lines


def _frame(one: BadFrame, limit: int | None) -> list[str]:
    where = f"pfn {hex_address(one.pfn)}, phys {hex_address(one.pfn << PAGE_SHIFT)}"
    lines = labelled("frame", f"{where}: {one.verdict.what}")
    if one.who.file is not None:
        offset = f", offset {hex_address(one.who.file_offset)}" if one.who.file_offset is not None else ""
        lines += labelled("file", one.who.file + offset)
    lines += labelled("kernel", one.verdict.does)
    pids = {mapping.pid for mapping in one.who.mappings}
    if one.verdict.kills:
        hidden = (one.who.mapcount or 0) - one.who.found
        unseen = f", and {format_count(hidden)} mappings that are hidden" if hidden > 0 else ""
        lines += labelled("hits", plural(len(pids), "process", "processes") + unseen)
    elif pids:
        lines += labelled("mapped", f"by {plural(len(pids), 'process', 'processes')}: not killed")
    if one.who.mappings:
        lines += ["", *mapping_rows(one.who.mappings, limit)]
    return lines
