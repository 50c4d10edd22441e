"""One judgement of completeness, over every combination of what it depends on."""

from __future__ import annotations

from itertools import product

import pytest

from rmap.snapshot import kinds as k
from rmap.snapshot.kinds import KINDS
from rmap.snapshot.questions.answer import Completeness, judge

# Found of counted, whether the page changed, whether the kernel counts on average; and what the answer is for a page
# that a reverse map tracks, for one that none does, and for a frame without memory.
TABLE = """
0 of 0 | -     | -       | unmapped | unmapped            | absent
0 of 0 | -     | average | averaged | averaged            | absent
0 of 0 | raced | -       | raced    | raced               | absent
0 of 0 | raced | average | raced    | raced               | absent
0 of 2 | -     | -       | hidden   | uncounted           | absent
0 of 2 | -     | average | averaged | uncounted           | absent
0 of 2 | raced | -       | raced    | uncounted           | absent
0 of 2 | raced | average | raced    | uncounted           | absent
1 of 2 | -     | -       | hidden   | uncounted           | uncounted
1 of 2 | -     | average | averaged | uncounted           | uncounted
1 of 2 | raced | -       | raced    | uncounted           | uncounted
1 of 2 | raced | average | raced    | uncounted           | uncounted
2 of 2 | -     | -       | complete | complete, uncounted | complete, uncounted
2 of 2 | -     | average | averaged | averaged            | averaged
2 of 2 | raced | -       | raced    | raced               | raced
2 of 2 | raced | average | raced    | raced               | raced
3 of 2 | -     | -       | surplus  | uncounted           | uncounted
3 of 2 | -     | average | averaged | uncounted           | uncounted
3 of 2 | raced | -       | raced    | uncounted           | uncounted
3 of 2 | raced | average | raced    | uncounted           | uncounted
"""
MEANS = {
    "unmapped": ("unmapped", ""),
    "absent": ("unmapped", "no such page"),
    "averaged": ("approximate", "this kernel counts mappings of large folios on average only"),
    "raced": ("raced", "it changed"),
    "surplus": ("raced", "more entries were found than the kernel counts"),
    "hidden": ("hidden", "some are missing"),
    "complete": ("complete", ""),
}
# The same for many pages at once: whether more were found of one than is counted, average, found of counted; status.
FILES = {
    (False, False, "2 of 2"): "complete",
    (False, False, "1 of 2"): "hidden",
    (False, False, "3 of 2"): "hidden",  # entries of our own were counted, and found on no page too many
    (True, False, "2 of 2"): "raced",
    (True, False, "1 of 2"): "raced",
    (True, False, "3 of 2"): "raced",
    **{(surplus, True, of): "approximate" for surplus in (False, True) for of in ("2 of 2", "1 of 2", "3 of 2")},
}
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()]


def numbers(text: str) -> tuple[int, int]:
    found, counted = text.split(" of ")
    return int(found), int(counted)


@pytest.mark.parametrize("kind", [kind.number for kind in KINDS], ids=lambda number: KINDS[number].name)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:3]))
def test_every_combination(row: tuple[str, ...], kind: int) -> None:
    of, raced, average, tracked, untracked, absent = row
    found, counted = numbers(of)

    def judged(why_absent: str) -> Completeness:
        return judge(
            found,
            counted,
            kind=kind,
            averaged=average == "average",
            raced="it changed" if raced == "raced" else "",
            hidden="some are missing",
            absent=why_absent,
        )

    def meant(text: str) -> tuple[str, str]:
        if text == "uncounted":
            return "approximate", KINDS[kind].uncounted
        return ("complete", KINDS[kind].uncounted) if text == "complete, uncounted" else MEANS[text]

    assert judged("") == meant(untracked if kind in KINDS.untracked else tracked)
    if kind == k.DEVICE:
        assert judged("no such page") == meant(absent)


def test_the_table_has_every_combination() -> None:
    of = ("0 of 0", "0 of 2", "1 of 2", "2 of 2", "3 of 2")
    assert sorted(row[:3] for row in ROWS) == sorted(product(of, ("-", "raced"), ("-", "average")))


@pytest.mark.parametrize(("surplus", "average", "of"), list(FILES))
def test_many_pages_at_once(surplus: bool, average: bool, of: str) -> None:
    assert judge(*numbers(of), averaged=average, surplus=surplus).status == FILES[surplus, average, of]
