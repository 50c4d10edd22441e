"""What the figures of a comparison say, in sentences. Every number in them is counted."""

from __future__ import annotations

from collections.abc import Sequence

from rmap.lab.compare.sampling import SAMPLE_PAGES
from rmap.lab.results import DesignResult

WHY_IN_VAIN = "because a VMA may cover a page that it does not map"


def snapshot_remarks(results: Sequence[DesignResult]) -> list[str]:
    """What each design pays for, and what its walks look at in vain."""
    remarks = [f"{result.design} {_pays(result)}; {_walks(result)}." for result in results]
    barred = [r.eviction.pages_barred for r in results if r.eviction is not None]
    if barred and barred[0]:
        remarks.append(
            f"Not drawn for eviction: {barred[0]:,} mapped pages that are locked or held by somebody else."
        )
    return remarks


def workload_remarks() -> list[str]:
    """How the walks were measured."""
    return [f"Walks: {SAMPLE_PAGES:,} pages of each kind, or all where there are fewer, drawn evenly."]


def trace_remarks(results: Sequence[DesignResult]) -> list[str]:
    """When memory and walks were measured, and what each design did otherwise than the recorded kernel."""
    moment = f"Memory and walks: at the picture with the most entries; {SAMPLE_PAGES:,} pages of each kind at most."
    vmas = {result.vmas for result in results}
    differ = ["The designs veto different merges, so they end with other VMAs."] if len(vmas) > 1 else []
    return [moment, *differ, *(f"{result.design}: {note}." for result in results for note in result.notes)]


def _pays(result: DesignResult) -> str:
    fork = result.costs.get("fork", {})
    if fork.get("entries_written"):
        return "pays at every fork and unmap"
    return "pays per VMA, not per page" if fork.get("objects_made") else "pays nothing at fork"


def _walks(result: DesignResult) -> str:
    in_vain = _in_vain(result)
    if not in_vain:
        return "its walk looks at nothing in vain"
    return f"its walk looks at {in_vain:.2f} PTEs in vain per page, {WHY_IN_VAIN}"


def _in_vain(result: DesignResult) -> float:
    walk = result.costs.get("walk", {})
    return walk.get("ptes_in_vain", 0) / max(1, walk.get("pages_walked", 0))
