"""A story: what is done, what it changed, what to take home."""

from __future__ import annotations

from collections.abc import Mapping

from rmap.lab.results import Story
from rmap.show.text import wrap


def story(tale: Story) -> list[str]:
    """The lines of ``rmap explain``. The lines of a step are printed as the lab wrote them."""
    lines = [*wrap(tale.title), ""]
    for number, step in enumerate(tale.steps, 1):
        lines += wrap(step.title, f"{number:<3}")
        lines += [f"     {line}".rstrip() for line in step.lines]
    lines.append("")
    for sentence in tale.closing:
        lines += wrap(sentence)
    if not tale.holds:
        where = "the running kernel does otherwise" if tale.live else "the model did otherwise: please report this"
        lines += wrap(f"NOT so this time: {where}.")
    return lines


def stories(titles: Mapping[str, str]) -> list[str]:
    """The stories there are, by name, with the question each answers."""
    width = max(len(name) for name in titles) + 2
    return [line for name, title in titles.items() for line in wrap(title, f"{name:<{width}}")]
