"""What a check finds, as data: how much was looked at, and each violation with the objects involved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

DESCRIBED = 1000
"""Violations of one line of a report that are described one by one; the rest is counted."""
NAMED = 20_000
"""Violations of one line that a search names, so that they can be told from races; the rest is counted."""


class Checked(NamedTuple):
    """One line of the answer.

    Attributes:
        invariant: its number in ``docs/rules.md``: ``"I14"``, or a rule (``"8.2"``).
        what: what it says, in a few words.
        checked: how many items were looked at.
        unit: what the items are.
        reason: why it could not be checked, or ``""``.
        violations: how many of the items break it.
        note: what was left out of an invariant that was checked otherwise, or ``""``.
    """

    invariant: str
    what: str
    checked: int
    unit: str
    reason: str = ""
    violations: int = 0
    note: str = ""


@dataclass(frozen=True)
class Violation:
    """One broken promise.

    Attributes:
        invariant: its number.
        message: what is wrong: one sentence.
        objects: the pages, entries, VMAs and anon_vmas involved, one line each.
        pids: the processes to read again to see whether it still is so.
        where: what stays the same from one reading to the next: two violations of one invariant at the same place are
            the same violation.
        open: whether it may be right however long it stays: it is told, never judged.
    """

    invariant: str
    message: str
    objects: tuple[str, ...]
    pids: tuple[int, ...]
    where: object
    open: bool = False

    @property
    def identity(self) -> tuple[str, object]:
        """Number and place."""
        return self.invariant, self.where


class Found(NamedTuple):
    """One invariant: its line, and its violations (the first ``NAMED`` of them)."""

    checked: Checked
    violations: list[Violation]

    @property
    def unnamed(self) -> int:
        """Violations that are counted only."""
        return self.checked.violations - len(self.violations)


@dataclass(frozen=True)
class Report:
    """Everything that was checked, by number; and what is wrong, the first ``DESCRIBED`` of each line."""

    checked: list[Checked]
    violations: list[Violation]


def report_of(findings: list[Found]) -> Report:
    """Put findings in the order of their numbers; rules that are no invariants stand last."""
    ordered = sorted(findings, key=lambda one: _order(one.checked.invariant))
    described = [violation for one in ordered for violation in one.violations[:DESCRIBED]]
    return Report([one.checked for one in ordered], described)


def _order(number: str) -> tuple[bool, float]:
    return number[0] != "I", float(number.lstrip("I"))
