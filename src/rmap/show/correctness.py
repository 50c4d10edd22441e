"""How a design's answer for every page departs from the page tables, in words."""

from __future__ import annotations

from rmap.lab.results import DesignResult
from rmap.show.text import plural
from rmap.units import format_count


def what_is_wrong(result: DesignResult) -> str:
    """How a design's answer differs from the oracle's."""
    answer = result.correctness
    missing = answer.ptes_total - answer.ptes_found
    return (
        f"missed {format_count(missing)} of {plural(answer.ptes_total, 'PTE')} and named "
        f"{format_count(answer.ptes_invented)} that do not map the page, "
        f"on {format_count(answer.pages_wrong)} of {plural(answer.pages, 'page')}"
    )
