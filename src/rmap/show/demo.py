"""The first screen: a real machine's memory under every design. Right? What does it cost? Can it evict?"""

from __future__ import annotations

from rmap.lab.results import DesignResult, FirstScreen
from rmap.show.compare import cost_table, subject_size
from rmap.show.correctness import what_is_wrong
from rmap.show.text import labelled, plural, wrap
from rmap.units import format_count

INDENT = "   "
TITLE = "rmap: from a page back to every page-table entry (PTE) that maps it"


def first_screen(result: FirstScreen, *, program: str, root: bool) -> list[str]:
    """The lines of the main job.

    Args:
        result: what the lab found.
        program: how this command is called from here (``".venv/bin/rmap"``).
        root: whether the reader could record the running machine right away.
    """
    comparison = result.comparison
    lines = [TITLE, ""]
    lines += labelled("Picture", f"{comparison.subject.name}, {comparison.subject.summary}")
    lines += labelled("", subject_size(comparison.subject))
    for i, sentence in enumerate(comparison.subject.inferred):
        lines += labelled("" if i else "Inferred", sentence)
    lines += ["", "1. Is each reverse map right?   (oracle: every page table read by brute force)"]
    width = max(len(design.design) for design in comparison.designs) + 3
    for design in comparison.designs:
        lines += _right(design, width)
    lines.append("")
    lines += cost_table(comparison.designs, heading="2. What does it cost?", indent=INDENT)
    if comparison.remarks:
        lines.append("")
    for remark in comparison.remarks:
        lines += wrap(remark, INDENT)
    lines += _evictions(comparison.designs, width)
    return [*lines, "", *_next(program, root)]


def _right(design: DesignResult, width: int) -> list[str]:
    answer = design.correctness
    name = f"{INDENT}{design.design:<{width}}"
    if not answer.equal:
        return wrap(f"WRONG: {what_is_wrong(design)}", name)
    ptes = f"{format_count(answer.ptes_found)} of {plural(answer.ptes_total, 'PTE')} found"
    return [f"{name}{ptes}, {plural(answer.pages, 'page')}: all equal"]


def _evictions(designs: tuple[DesignResult, ...], width: int) -> list[str]:
    evicted = [(design.design, design.eviction) for design in designs if design.eviction is not None]
    if not evicted:
        return []
    lines = ["", f"3. Evict a tenth of the pages through each walk: {plural(evicted[0][1].pages, 'page')}"]
    for name, eviction in evicted:
        cleared = f"{plural(eviction.ptes_cleared, 'PTE')} cleared, {format_count(eviction.ptes_left)} left"
        lines.append(f"{INDENT}{name:<{width}}{cleared}")
    return lines


def _next(program: str, root: bool) -> list[str]:
    here = (
        (f"{program} demo --here", "the same for this machine, now")
        if root
        else (f"sudo {program} snap -o here.rmap; {program} compare here.rmap", "")
    )
    commands = [
        (f"{program} explain offset", "one page, two offsets: step by step"),
        (f"{program} compare fork-server", "the same table for a workload"),
        here,
    ]
    width = max(len(command) for command, meaning in commands if meaning) + 4
    return [
        f"{'Next' if i == 0 else '':<7}{command:<{width}}{meaning}".rstrip()
        for i, (command, meaning) in enumerate(commands)
    ]
