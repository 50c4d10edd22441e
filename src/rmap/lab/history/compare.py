"""Then and now: every published figure with ours beside it, and whether they say the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rmap.errors import UsageError
from rmap.lab.history.published import PUBLISHED, Published, Quoted

Verdict = Literal["agrees", "met", "disagrees", "missed", "no ratio then"]
CLOSE = 0.05
"""How near a value must be that is to be met: 5%."""


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    """Ours beside one published figure.

    Attributes:
        figure: what was published.
        workload: what we ran and counted.
        before, after: ours, of the same two designs; ``after`` alone where one value was published.
        then, now: ``after / before``, then and now; None without two values.
        verdict: for values to be met: ``met`` within 5%, or ``missed``; for the others, whether the direction
            ``agrees`` or ``disagrees``.
    """

    figure: Quoted
    workload: str
    before: float | None
    after: float
    then: float | None
    now: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One source with all its answers."""

    published: Published
    answers: tuple[HistoryAnswer, ...]


def history(ids: Sequence[str] = (), *, say: Callable[[str], None] = lambda line: None) -> list[HistoryRow]:
    """Run what stands for the published figures.

    Args:
        ids: J1 to J28; none for all.
        say: told what is run now.

    Raises:
        UsageError: no such source.
    """
    from rmap.lab.history.ours import forget

    by_id = {published.id: published for published in PUBLISHED}
    unknown = [id for id in ids if id not in by_id]
    if unknown:
        raise UsageError(f"no source {', '.join(unknown)}: have J1 to J{len(by_id)}")
    rows = []
    for published in [by_id[id] for id in ids] or PUBLISHED:
        if published.figures:
            say(f"{published.id}: {published.setup}")
        rows.append(HistoryRow(published, tuple(_answer(figure) for figure in published.figures)))
    forget()
    return rows


def _answer(figure: Quoted) -> HistoryAnswer:
    from rmap.lab.history.ours import MEASURES

    workload, measure = MEASURES[figure.measure]
    before, after = measure()
    then = figure.after / figure.before if figure.before else None
    now = after / before if before else None
    return HistoryAnswer(figure, workload, before, after, then, now, _verdict(figure, before, after))


def _verdict(figure: Quoted, before: float | None, after: float) -> Verdict:
    if figure.exact:
        met = abs(after / figure.after - 1) <= CLOSE
        if figure.before is not None and before is not None:
            met = met and abs(before / figure.before - 1) <= CLOSE
        return "met" if met else "missed"
    if figure.before is None or before is None:
        if before is None:
            return "agrees" if (after > 1) == (figure.after > 1) else "disagrees"
        return "no ratio then"
    return "agrees" if (figure.after > figure.before) == (after > before) else "disagrees"
