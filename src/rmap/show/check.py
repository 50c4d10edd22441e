"""The invariants: what holds, of how many items; what is broken; what could not be checked, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from rmap.show.capture_notes import facts_line
from rmap.show.text import labelled, more, plural, wrap
from rmap.units import format_count

ID_WIDTH = 5
SHOWN = 5
"""Violations of one invariant that are shown unless all are asked for."""

_HEADER = f"{'what':<32}{'invariants':<14}{'checked':>20}{'violations':>12}"

_GROUPS = (
    ("VMA and its chain", ("I1", "I2", "I3", "I4", "I5", "I10", "I11")),
    ("anon_vma: counters, parents", ("I6", "I7", "I8", "I9")),
    ("interval trees", ("I12", "I22")),
    ("page: anon_vma, index, address", ("I13", "I14")),
    ("page: exclusive", ("I15", "I16", "I17")),
    ("page of a file: its place", ("I21",)),
    ("walk and page tables agree", ("I19",)),
    ("mapcount", ("I20", "8.2", "8.3")),
)


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
    @property
    def violations(self) -> int: ...
    @property
    def note(self) -> str: ...


class ViolationLine(Protocol):
    """One broken promise, with the objects involved."""

    @property
    def invariant(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def objects(self) -> tuple[str, ...]: ...


class Rounded(Protocol):
    """What one round of watching found besides violations."""

    @property
    def races(self) -> int: ...
    @property
    def not_judged(self) -> int: ...
    @property
    def too_much_moved(self) -> bool: ...
    @property
    def seconds(self) -> float: ...


def check(
    rows: Iterable[CheckedLine],
    violations: Sequence[ViolationLine],
    facts: Mapping[str, Any],
    *,
    origin: str,
    readings: int = 0,
    limit: int | None = SHOWN,
    not_judged: int = 0,
    moving: bool = False,
) -> list[str]:
    """The lines of ``rmap check``.

    Args:
        rows: every invariant.
        violations: what is broken.
        facts: the size of the picture, as ``snapshot_facts`` gives it.
        origin: how it was found, in words.
        readings: how often each violation was seen again, the same.
        limit: show at most so many violations of an invariant, None for all.
        not_judged: differences that may be violations.
        moving: whether so many pages changed while they were read that nothing can be said of them all.
    """
    every = list(rows)
    done = [row for row in every if not row.reason]
    numbers = list(dict.fromkeys(row.invariant for row in done))
    count = sum(row.violations for row in done)
    lines = labelled(*_verdict(len(numbers), violations, count, not_judged, moving))
    lines += labelled("machine", f"Linux {facts['release'] or 'of unknown release'}: {facts_line(facts)}")
    for number in dict.fromkeys(violation.invariant for violation in violations):
        lines += ["", *_broken([v for v in violations if v.invariant == number], done, readings, limit)]
    lines += ["", _HEADER, *_table(done), ""]
    for row in done:
        if row.note:
            lines += wrap(row.note, f"{row.invariant:<{ID_WIDTH}}")
    reasons: dict[str, list[str]] = {}
    for row in every:
        if row.reason:
            reasons.setdefault(row.reason, []).append(row.invariant)
    for reason, unread in reasons.items():
        lines += wrap(f"{runs(unread)}: {reason}", "not checked  ")
    return [*lines, *labelled("found by", origin)]


def watch_line(number: int, clock: str, facts: Mapping[str, Any], broken: Sequence[str], outcome: Rounded) -> str:
    """One round of ``rmap check --watch``.

    Args:
        number: of the round.
        clock: the time of day.
        facts: as for :func:`check`.
        broken: the invariants that were found broken, once per violation.
        outcome: differences that were gone when read again, those that could not be judged, and the seconds it took.
    """
    settled = not (outcome.not_judged or outcome.too_much_moved)
    verdict = "ok" if settled else "unsettled"
    if broken:
        verdict = f"{plural(len(broken), 'violation')} of {runs(list(dict.fromkeys(broken)))}"
    size = f"{format_count(facts['vmas'])} VMAs, {format_count(facts['pages'])} pages"
    unsettled = f", {format_count(outcome.not_judged)} not judged" if outcome.not_judged else ""
    races = plural(outcome.races, "race")
    return f"{number:>4}  {clock}  {verdict}  {size}, {races}{unsettled}, {outcome.seconds:.2f} s"


def _verdict(
    numbers: int, violations: Sequence[ViolationLine], count: int, not_judged: int, moving: bool
) -> tuple[str, str]:
    open_ones = [f"{plural(not_judged, 'difference')} not judged"] if not_judged else []
    open_ones += ["too many pages changed while they were read"] if moving else []
    if not count:
        said = [f"{plural(numbers, 'invariant')} checked, no violation", *open_ones]
        return "unsettled" if open_ones else "sound", "; ".join(said)
    broken = list(dict.fromkeys(violation.invariant for violation in violations))
    said = [f"{plural(count, 'violation')} of {runs(broken)}", f"{plural(numbers, 'invariant')} checked", *open_ones]
    return "BROKEN", "; ".join(said)


def _broken(same: list[ViolationLine], rows: list[CheckedLine], readings: int, limit: int | None) -> list[str]:
    lines: list[str] = []
    shown = same if limit is None else same[:limit]
    for violation in shown:
        lines += wrap(violation.message, f"{violation.invariant:<{ID_WIDTH}}")
        for line in violation.objects:
            depth = ID_WIDTH + len(line) - len(line.lstrip())
            lines += wrap(line.lstrip(), " " * depth, " " * (depth + 2))
    if readings:
        lines.append(f"{'':<{ID_WIDTH}}read {readings + 1} times, the same each time")
    left = sum(row.violations for row in rows if row.invariant == same[0].invariant) - len(shown)
    if left > 0:
        lines.append(f"{'':<{ID_WIDTH}}{more(left, '--all')}")
    return lines


def _table(rows: list[CheckedLine]) -> list[str]:
    # Invariants of one group stand in one row if as many items were looked at.
    lines = []
    for name, numbers in _GROUPS:
        cells: dict[tuple[str, int], list[CheckedLine]] = {}
        for row in rows:
            if row.invariant in numbers:
                cells.setdefault((row.unit, row.checked), []).append(row)
        for (unit, checked), same in cells.items():
            violations = sum(row.violations for row in same)
            count = f"{format_count(checked)} {unit}"
            which = runs(list(dict.fromkeys(row.invariant for row in same)))
            lines.append(f"{name:<32}{which:<14}{count:>20}{format_count(violations):>12}")
            name = ""
    return lines


def runs(numbers: Sequence[str]) -> str:
    """I1, I2, I3, I7 as ``I1-I3, I7``."""
    stretches: list[list[str]] = []
    for number in numbers:
        before = stretches[-1][-1] if stretches else ""
        if before.startswith("I") and number == f"I{int(before[1:]) + 1}":
            stretches[-1].append(number)
        else:
            stretches.append([number])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in stretches)
