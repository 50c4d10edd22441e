"""A picture in a line or two: its size, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rmap.show.text import plural, wrap
from rmap.units import format_bytes, format_count

if TYPE_CHECKING:
    from rmap.snapshot import Snapshot


def snapshot_facts(snapshot: Snapshot) -> dict[str, Any]:
    """The numbers a reader wants first: kernel release, processes, VMAs, mapped pages, PTEs, anon_vmas."""
    return {
        "release": snapshot.about["release"],
        "processes": len(snapshot.processes),
        "vmas": len(snapshot.vmas),
        "anon_vmas": len(snapshot.anon_vmas),
        "pages": snapshot.nr_mapped,
        "ptes": snapshot.nr_ptes,
    }


def facts_line(facts: Mapping[str, Any]) -> str:
    """``38 processes, 3,914 VMAs, 104,233 mapped pages, 412,806 PTEs``."""
    anon_vmas = f"{plural(facts['anon_vmas'], 'anon_vma')}, " if facts["anon_vmas"] else ""
    anon_pages = f" ({format_count(facts['anon_pages'])} anonymous)" if facts.get("anon_pages") else ""
    return (
        f"{plural(facts['processes'], 'process', 'processes')}, {plural(facts['vmas'], 'VMA')}, {anon_vmas}"
        f"{plural(facts['pages'], 'mapped page')}{anon_pages}, {plural(facts['ptes'], 'PTE')}"
    )


def snapshot_line(name: str, facts: Mapping[str, Any], size: int) -> str:
    """What was written, in one line."""
    return f"{name}: {facts_line(facts)} in {format_bytes(size)}"


def capture_notes(about: Mapping[str, Any]) -> list[str]:
    """What a capture could not see, for stderr; empty if it saw everything."""
    ended, refused, raced = about["ended"], about["refused"], about["raced"]
    parts = []
    if ended:
        parts.append(f"{plural(ended, 'process', 'processes')} ended while being read")
    if refused:
        parts.append(f"{format_count(refused)} refused (`rmap doctor`)")
    if raced:
        parts.append(f"{plural(raced, 'page')} changed meanwhile, marked as raced")
    return wrap("; ".join(parts), "rmap: ") if parts else []
