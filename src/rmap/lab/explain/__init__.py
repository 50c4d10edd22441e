"""Small stories that the model tells, step by step: what a fault, a fork, a copy, a move, an eviction changes.

Nothing in a story is written down beforehand but its plot and its words: every number is read from the model, and what
the words claim is checked while it happens (``Story.holds``).
"""

from __future__ import annotations

from collections.abc import Callable

from rmap.designs import DEFAULT_DESIGNS, design_named
from rmap.errors import UsageError
from rmap.lab.explain import cow, evict, fault, fork, mremap, offset
from rmap.lab.explain.stage import StoryStage
from rmap.lab.results import Story

_TELLERS: dict[str, tuple[str, Callable[[StoryStage], Story]]] = {
    "offset": (offset.QUESTION, offset.tell),
    "fault": (fault.QUESTION, fault.tell),
    "fork": (fork.QUESTION, fork.tell),
    "cow": (cow.QUESTION, cow.tell),
    "evict": (evict.QUESTION, evict.tell),
    "mremap": (mremap.QUESTION, mremap.tell),
}

STORIES: dict[str, str] = {name: question for name, (question, _) in _TELLERS.items()}
"""Every story by its name: the question it answers."""

TOLD_UNDER = DEFAULT_DESIGNS
"""The designs whose ways the stories show."""

LIVE = ("offset",)
"""Stories that can be told by real processes on the running kernel."""


def tell(story: str, design: str = "anon_vma_chain", *, profile: str = "6.18", live: bool = False) -> Story:
    """Tell a story.

    Args:
        story: in ``STORIES``.
        design: the reverse map of the model.
        profile: the kernel release whose rules the model follows.
        live: do it with real processes on the running kernel instead (``offset`` only; root).

    Raises:
        UsageError: no such story, design or profile, or it cannot be told live.
        NotPermitted: live: the kernel does not show page frames to this user.
    """
    if story not in STORIES:
        raise UsageError(f"no story {story!r}; there are: {', '.join(STORIES)}")
    if not live:
        design_named(design)
        if design not in TOLD_UNDER:
            raise UsageError(f"stories are told under {' and '.join(TOLD_UNDER)}: {design} has a page in docs/designs/")
        return _TELLERS[story][1](StoryStage(design, profile))
    if story not in LIVE:
        raise UsageError(f"only {', '.join(LIVE)} can be told live, not {story}")
    from rmap.lab.explain.live_offset import tell_live

    return tell_live()
