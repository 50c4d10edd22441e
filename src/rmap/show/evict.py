"""What was pushed out: before, what was tried, what was not and why, after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.show.text import plural, wrap
from rmap.units import PAGE_SIZE, format_bytes, format_count

if TYPE_CHECKING:
    from rmap.live.evict import Evicted
    from rmap.live.evict_target import Seen

_LABEL = 10
_MEANS = 26


def evicted(done: Evicted) -> list[str]:
    """The lines of ``rmap evict``."""
    lines = wrap(_seen(done.before, done.pages), f"{'before':<{_LABEL}}")
    word = "would try" if done.dry else "tried"
    for attempt in done.tried:
        went = f"{plural(attempt.went, 'page')} went" if not done.dry else ""
        remark = (f"{went}: {attempt.remark}" if went else attempt.remark) if attempt.remark else went
        lines += wrap(remark, f"{word:<{_LABEL}}{attempt.means:<{_MEANS}}", " " * (_LABEL + 2))
    for means, why in done.not_used:
        lines += wrap(why, f"{'not used':<{_LABEL}}{means:<{_MEANS}}", " " * (_LABEL + 2))
    if not done.dry:
        lines += wrap(_seen(done.after, done.pages), f"{'after':<{_LABEL}}")
    if done.came_back:
        lines += wrap(f"{plural(done.came_back, 'page')} within 0.1 s: in use", f"{'came back':<{_LABEL}}")
    if done.neighbours:
        lines += wrap(f"{plural(done.neighbours, 'page')} of the same folios went along", f"{'besides':<{_LABEL}}")
    for why in done.stays:
        lines += wrap(why, f"{'stays':<{_LABEL}}")
    return lines


def verdict(done: Evicted) -> str:
    """The last line: what came of it."""
    if not done.before.resident:
        return "nothing of it was in memory"
    gone = done.before.resident - done.after.resident
    if done.all_gone:
        return f"evicted: {plural(gone, 'page')} went, none stayed"
    if gone <= 0:
        return f"nothing was evicted: {plural(done.after.resident, 'page')} stayed"
    return f"{plural(gone, 'page')} went, {format_count(done.after.resident)} stayed"


def _seen(seen: Seen, pages: int) -> str:
    size = format_bytes(pages * PAGE_SIZE)
    return (
        f"{format_count(seen.resident)} of {plural(pages, 'page')} ({size}) in memory, {plural(seen.ptes, 'PTE')}, "
        f"{plural(seen.processes, 'process', 'processes')}"
    )
