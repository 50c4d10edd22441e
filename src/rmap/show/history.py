"""The published figures with ours beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rmap.lab.history.compare import HistoryAnswer, HistoryRow
from rmap.show.text import plural, wrap

NOT_COMPARABLE = "not comparable: "


def history_screen(rows: Sequence[HistoryRow]) -> list[str]:
    """The lines of ``rmap history``."""
    lines: list[str] = []
    for row in rows:
        published = row.published
        lines += wrap(f"{published.who}, {published.when}: {published.setup}.", f"{published.id:<5}")
        lines += wrap(published.said, "     ")
        for answer in row.answers:
            lines += _answer(answer)
        if published.why_not:
            lines += wrap(NOT_COMPARABLE + published.why_not + ".", "     ")
        lines.append("")
    lines += wrap(summary(rows))
    lines += wrap("then and ours: the second design by the first. Ours are counts, at the scales that are named.")
    return lines


def summary(rows: Sequence[HistoryRow]) -> str:
    """``27 figures of 17 sources can be compared: ...``."""
    answers = [answer for row in rows for answer in row.answers]
    by = {verdict: sum(a.verdict == verdict for a in answers) for verdict in ("met", "missed", "agrees", "disagrees")}
    sources = sum(bool(row.answers) for row in rows)
    values, directions = by["met"] + by["missed"], by["agrees"] + by["disagrees"]
    return (
        f"{plural(len(answers), 'figure')} of {plural(sources, 'source')} can be compared: of "
        f"{plural(values, 'value')} {by['met']} {'is' if by['met'] == 1 else 'are'} met within 5%, of "
        f"{plural(directions, 'direction')} {by['agrees']} {'agrees' if by['agrees'] == 1 else 'agree'}."
    )


def then_and_now(answer: HistoryAnswer) -> tuple[str, str]:
    """What was published and what is ours: two values, or two ratios of the second design to the first."""
    figure = answer.figure
    if figure.exact:
        unit = f" {figure.unit}" if figure.unit else ""
        return _change(figure.before, figure.after) + unit, _change(answer.before, answer.after)
    then = "no figure" if not figure.after else _ratio(answer.then if figure.before is not None else figure.after)
    if answer.before == 0:
        return then, f"0 -> {_value(answer.after)}"
    return then, _ratio(answer.now if answer.before is not None else answer.after)


def _answer(answer: HistoryAnswer) -> Iterator[str]:
    yield from wrap(answer.figure.says, "     * ", "       ")
    if answer.figure.note:
        yield from wrap(f"({answer.figure.note})", "       ")
    then, ours = then_and_now(answer)
    yield from wrap(f"then {then}, ours {ours}: {answer.verdict} ({answer.workload})", "       ")


def _change(before: float | None, after: float) -> str:
    return _value(after) if before is None else f"{_value(before)} -> {_value(after)}"


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} times" if value < 1000 else f"{value:,.0f} times"


def _value(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.4g}"
