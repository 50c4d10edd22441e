"""The published figures: all there, ours beside them, and the document says the same."""

from __future__ import annotations

import json

import pytest

from rmap.cli import main
from rmap.errors import UsageError
from rmap.lab.history import PUBLISHED, history
from rmap.lab.history.compare import HistoryAnswer, HistoryRow, _verdict
from rmap.lab.history.ours import MEASURES
from rmap.lab.history.published import Quoted
from rmap.show.history import history_screen, summary
from tests.support import ROOT

DOCUMENT = ROOT / "docs" / "history.md"


def test_every_source_is_there_and_says_what_can_be_compared() -> None:
    assert [published.id for published in PUBLISHED] == [f"J{n}" for n in range(1, 29)]
    for published in PUBLISHED:
        assert published.figures or published.why_not, published.id
        assert published.said and published.setup and published.source
    used = {figure.measure for published in PUBLISHED for figure in published.figures}
    assert used == set(MEASURES)


@pytest.mark.timeout(200)
def test_all_values_are_met_and_all_directions_but_one_agree(capsys: pytest.CaptureFixture[str]) -> None:
    rows = history()
    answers = [answer for row in rows for answer in row.answers]
    assert len(answers) >= 25
    assert [a.figure.says for a in answers if a.verdict == "missed"] == []
    assert [a.figure.measure for a in answers if a.verdict == "disagrees"] == ["chains_by_tables"]
    lines = history_screen(rows)
    assert max(map(len, lines)) <= 80
    text = DOCUMENT.read_text()
    assert summary(rows) in " ".join(text.split()), "make docs writes docs/history.md"
    for published in PUBLISHED:
        assert f"| {published.id} |" in text


def test_one_of_a_kind_is_said_in_the_singular() -> None:
    met = HistoryAnswer(Quoted("x", None, 100, "", "t1_slots", exact=True), "w", None, 100, None, None, "met")
    agrees = HistoryAnswer(Quoted("x", 1, 2, "", "t1_slots"), "w", 1, 3, 2, 3, "agrees")
    assert summary([HistoryRow(PUBLISHED[0], (met,))]) == (
        "1 figure of 1 source can be compared: of 1 value 1 is met within 5%, of 0 directions 0 agree."
    )
    assert summary([HistoryRow(PUBLISHED[0], (agrees,))]) == (
        "1 figure of 1 source can be compared: of 0 values 0 are met within 5%, of 1 direction 1 agrees."
    )


def test_one_source_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "j14", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["history"]
    assert row["published"]["id"] == "J14"
    assert [answer["verdict"] for answer in row["answers"]] == ["met", "met"]
    assert main(["history", "J99"]) == 2
    assert "J1 to J28" in capsys.readouterr().err
    with pytest.raises(UsageError):
        history(["J0"])


@pytest.mark.parametrize(
    ("before", "after", "ours_before", "ours_after", "verdict"),
    [(10, 20, 1, 3, "agrees"), (10, 20, 3, 1, "disagrees"), (20, 10, 3, 1, "agrees"), (10, 20, 0, 5, "agrees")],
)
def test_a_direction(before: float, after: float, ours_before: float, ours_after: float, verdict: str) -> None:
    figure = Quoted("x", before, after, "", "t1_slots")
    assert _verdict(figure, ours_before, ours_after) == verdict


def test_a_value_is_met_within_five_percent() -> None:
    figure = Quoted("x", None, 100, "", "t1_slots", exact=True)
    assert _verdict(figure, None, 104.9) == "met" and _verdict(figure, None, 106) == "missed"
    assert HistoryAnswer(figure, "w", None, 104.9, None, None, "met").after == 104.9
