"""What was pushed out: before, what was tried, what was not and why, after; and what stayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.show.text import labelled, plural, wrap
from rmap.units import PAGE_SIZE, format_bytes, format_count

if TYPE_CHECKING:
    from rmap.live.evict.plan import Eviction, EvictionFound


def eviction(done: Eviction) -> list[str]:
    """The lines of ``rmap evict``."""
    lines = labelled("page" if done.pages == 1 else "file", done.what)
    lines += labelled("before", _in_memory(done.before, done.pages))
    if done.neighbours:
        lines += labelled("", f"{plural(done.neighbours, 'more page')} in the same folios: a folio may go as a whole")
    if done.written:
        lines += labelled("written", f"{plural(done.written, 'dirty page')} to the file first: else they would stay")
    for tried in done.tried:
        went = "" if tried.went is None else f"{_part(tried.went, tried.pages)} went"
        text = went or plural(tried.pages, "page")
        lines += _means("would use" if tried.went is None else "tried", tried.how, text, tried.note)
    for unused in done.not_used:
        lines += _means("not used", unused.how, unused.why, "")
    if done.after is not None:
        lines += labelled("after", _in_memory(done.after, done.pages))
    if done.neighbours_went:
        lines += labelled("", f"{plural(done.neighbours_went, 'other page')} of the same folios went along")
    if done.swap_cache:
        still = f"went to swap, and {_was(done.swap_cache, 'is', 'are')} in its cache still"
        lines += labelled("", f"{plural(done.swap_cache, 'page')} {still}: the kernel frees that when it needs memory")
    if done.came_back:
        lines += labelled("came back", f"{plural(done.came_back, 'page')} went, and {_was(done.came_back)} there again "
                          "within 100 ms: in use")  # fmt: skip
    for stayed in done.stayed:
        lines += labelled("stays" if done.dry_run else "stayed", f"{plural(stayed.pages, 'page')}: {stayed.why}")
    return lines


def verdict(done: Eviction) -> str:
    """One line: what came of it."""
    if not done.before.resident:
        return "nothing to evict: nothing of it is in memory"
    if done.after is None:
        stay = sum(one.pages for one in done.stayed)
        would = f"{plural(stay, 'page')} would stay" if stay else "there is a way for every page"
        return f"nothing was changed (--dry-run): {would}"
    if done.done:
        left = f"{format_count(done.swap_cache)} in the swap cache still" if done.swap_cache else "none in memory"
        return f"evicted: {plural(done.went, 'page')}; none is left in a page table, {left}"
    rest = ", ".join(
        text
        for n, text in (
            (done.came_back, f"{format_count(done.came_back)} came back"),
            (sum(one.pages for one in done.stayed), f"{plural(sum(s.pages for s in done.stayed), 'page')} stayed"),
        )
        if n
    )
    if not done.went:
        return f"nothing was evicted: {rest or 'new pages are there'}"
    return f"{plural(done.went, 'page')} went, {rest or 'and new ones are there'}"


def _means(label: str, how: str, text: str, note: str) -> list[str]:
    return labelled(label, f"{how}: {text}" + (f" ({note})" if note else ""))


def _part(part: int, of: int) -> str:
    return f"{format_count(part)} of {plural(of, 'page')}"


def _was(n: int, one: str = "was", many: str = "were") -> str:
    return one if n == 1 else many


def _in_memory(state: EvictionFound, pages: int) -> str:
    size = format_bytes(state.resident * PAGE_SIZE)
    return (
        f"{format_count(state.resident)} of {plural(pages, 'page')} ({size}) in memory, {plural(state.ptes, 'PTE')}"
        + (f", {plural(state.processes, 'process', 'processes')}" if state.ptes else "")
    )


def announcement(text: str) -> list[str]:
    """What is said before something larger happens."""
    return wrap(text, "rmap: ")
