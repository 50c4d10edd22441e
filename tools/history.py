"""The table of docs/history.md: every published figure, and ours beside it.

    .venv/bin/python tools/history.py            write what the model says now
    .venv/bin/python tools/history.py --check    exit 1 if the document says something else
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rmap.lab.history import history
from rmap.lab.history.compare import HistoryAnswer, HistoryRow
from rmap.show.history import summary, then_and_now

PAGE = Path(__file__).resolve().parents[1] / "docs" / "history.md"
BEGIN, END = "<!-- the figures: made by tools/history.py -->", "<!-- end of the figures -->"


def main(words: Sequence[str]) -> int:
    """Make the table, and write it or compare it."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        print(f"{PAGE}: the lines {BEGIN} and {END} are missing", file=sys.stderr)
        return 1
    made = before + "\n".join([BEGIN, "", *table(history()), "", END]) + after
    if "--check" in words:
        return int(made != text)
    PAGE.write_text(made)
    return 0


def table(rows: Sequence[HistoryRow]) -> list[str]:
    """The summary, and a row for each source and each of its figures."""
    heading = ["| | who, when, what | published | compared | then | ours | |", "|---|---|---|---|---|---|---|"]
    lines = [summary(rows), "", *heading]
    for row in rows:
        published = row.published
        about = f"{published.who}, {published.when}: {published.setup} ({published.source})"
        first = [published.id, about, published.said]
        if not row.answers:
            lines.append(_row([*first, f"not comparable: {published.why_not}", "", "", ""]))
        for answer in row.answers:
            lines.append(_row([*first, *_compared(answer)]))
            first = ["", "", ""]
    return lines


def _compared(answer: HistoryAnswer) -> list[str]:
    then, ours = then_and_now(answer)
    return [f"{answer.figure.says} ({answer.workload})", then, ours, answer.verdict]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
