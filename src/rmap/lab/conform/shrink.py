"""Cutting a scenario down to the calls that matter, and these to their plainest arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rmap.lab.conform.scenario import PAGE, ScenarioStep

MOST_PLAYS = 600
"""So often a scenario is played again at most, to make it shorter."""

Diverges = Callable[[Sequence[ScenarioStep]], bool]


class OutOfPlays(Exception):
    """Enough has been tried."""


def shrink(steps: Sequence[ScenarioStep], diverges: Diverges, plays: int = MOST_PLAYS) -> list[ScenarioStep]:
    """The shortest sequence found that still diverges, with arguments as plain as can be.

    Args:
        steps: that diverge.
        diverges: plays a sequence and tells.
        plays: how often it may be asked.
    """
    kept = list(steps)
    asked = 0

    def still(fewer: Sequence[ScenarioStep]) -> bool:
        nonlocal kept, asked
        if asked == plays:
            raise OutOfPlays
        asked += 1
        if not fewer or not diverges(fewer):
            return False
        kept = list(fewer)
        return True

    try:
        _leave_out(kept, still)
        _simplify(kept, still)
        _leave_out(kept, still)
    except OutOfPlays:
        pass
    return kept


def _leave_out(steps: list[ScenarioStep], still: Diverges) -> None:
    # Many at a time, and then one by one.
    size = max(1, len(steps) // 2)
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if still(fewer):
                steps = fewer
            else:
                at += size
        size //= 2


def _simplify(steps: list[ScenarioStep], still: Diverges) -> None:
    for i in range(len(steps)):
        changed = True
        while changed:
            changed = False
            for plainer in _plainer(steps[i]):
                candidate = [*steps[:i], plainer, *steps[i + 1 :]]
                if still(candidate):
                    steps, changed = candidate, True
                    break


def _plainer(step: ScenarioStep) -> Iterator[ScenarioStep]:
    # The same call, one thing plainer each time. Every one of them has less to be made plainer, so this ends.
    how = step.how
    for key in how:
        if key not in ("offset", "addr"):
            left_out = {key, "offset"} if key == "file" else {key}
            yield replace(step, how={name: value for name, value in how.items() if name not in left_out})
    if how.get("offset"):
        yield replace(step, how=how | {"offset": 0})
    length_at = {"mmap": 0, "read": 1, "write": 1, "munmap": 1, "mprotect": 1, "madvise": 1, "mlock": 1}.get(step.call)
    if length_at is not None and step.args[length_at] > PAGE:
        for shorter in (PAGE, step.args[length_at] - PAGE):
            args = list(step.args)
            args[length_at] = shorter
            yield replace(step, args=tuple(args))
