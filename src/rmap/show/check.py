"""The invariants: what holds, with how many items were looked at; what could not be checked, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from rmap.show.picture import facts_line
from rmap.show.text import WIDTH, labelled, plural, wrap
from rmap.units import format_count

ID_WIDTH = 5


class CheckedLine(Protocol):
    """One invariant: its number, what it says, how many items were looked at, or why none could be."""

    @property
    def invariant(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def checked(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def reason(self) -> str: ...


def check(rows: Iterable[CheckedLine], facts: Mapping[str, Any], *, origin: str) -> list[str]:
    """The lines of ``rmap check`` when nothing is violated.

    Args:
        rows: every invariant.
        facts: the size of the picture, as ``picture_facts`` gives it.
        origin: how it was found, in words.
    """
    every = list(rows)
    done = [row for row in every if not row.reason]
    lines = labelled("sound", f"{plural(len(done), 'invariant')} checked, no violation")
    lines += labelled("machine", f"Linux {facts['release'] or 'of unknown release'}: {facts_line(facts)}")
    lines.append("")
    for row in done:
        lines += _checked(row)
    reasons: dict[str, list[str]] = {}
    for row in every:
        if row.reason:
            reasons.setdefault(row.reason, []).append(row.invariant)
    if reasons:
        lines.append("")
    for reason, numbers in reasons.items():
        lines += wrap(f"{_runs(numbers)}: {reason}", "not checked  ")
    return [*lines, *labelled("found by", origin)]


def violation(number: str, message: str) -> list[str]:
    """The lines of ``rmap check`` for a broken promise, ready for a bug report."""
    return wrap(message, f"{number:<{ID_WIDTH - 1}}")


def _checked(row: CheckedLine) -> list[str]:
    count = f"{format_count(row.checked)} {row.unit}"
    room = WIDTH - len(count) - 2
    first, *others = wrap(row.what, f"{row.invariant:<{ID_WIDTH}}", width=room)
    return [f"{first:<{room}}  {count}", *others]


# I1, I2, I3, I7 as "I1-I3, I7".
def _runs(numbers: list[str]) -> str:
    runs: list[list[str]] = []
    for number in numbers:
        if runs and number == f"I{int(runs[-1][-1].lstrip('I')) + 1}":
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
