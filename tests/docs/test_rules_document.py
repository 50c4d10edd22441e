"""docs/rules.md names modules and tests that exist, and every rule that the code cites is in it."""

from __future__ import annotations

import json
import re

import pytest

from tests.support import ROOT

TEXT = (ROOT / "docs" / "rules.md").read_text()
SOURCES = {path: path.read_text() for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")}
NUMBER = r"\d+\.\d+[a-z]?"


def test_the_modules_exist() -> None:
    named = set(re.findall(r"`([a-z_]+/[a-z_/]*\.?(?:py)?)`", TEXT))
    named -= {"tests/rules", "src/rmap", "fs/proc"}
    assert len(named) > 20
    missing = [name for name in named if not (ROOT / "src" / "rmap" / name).exists()]
    assert missing == []


def named_tests() -> list[tuple[str, str, str]]:
    """Each (rule, letter, test) of the document: ``("2.7", "J", "test_topology")``. Part 7 is one rule."""
    found = []
    for paragraph in re.split(r"\n\n", TEXT):
        rule = re.match(rf"\*\*({NUMBER})\*\*", paragraph)
        for letter, names in re.findall(r"\b([TJ])\s(test_\w+(?:(?:,| and)\stest_\w+)*)", paragraph):
            found += [(rule[1] if rule else "", letter, name) for name in re.findall(r"test_\w+", names)]
    return found


def test_the_named_tests_exist_and_name_the_rule() -> None:
    """T: told to the model. J: told to the model and to real processes, so it asks for a ``machine``."""
    assert len(named_tests()) > 40
    for rule, letter, name in named_tests():
        path = ROOT / "tests" / "rules" / f"{name}.py"
        assert path.exists(), f"{name}.py, named by rule {rule}"
        text = path.read_text()
        cited = rf"(?<![\d.]){re.escape(rule)}(?!\d)|def test_{rule.replace('.', '_')}(?![0-9])"
        assert not rule or re.search(cited, text) or ranges_hold(text, rule), f"{name}.py says nothing of rule {rule}"
        assert letter == "T" or "machine: Any" in text, f"{name}.py, named by rule {rule}: no real process is told"


def ranges_hold(text: str, rule: str) -> bool:
    """Whether a text cites a range of rules that this one lies in: "rules 3.1 to 3.5"."""
    part, number = rule.split(".")
    return any(
        part == low_part == high_part and int(low) <= int(re.sub(r"\D", "", number)) <= int(high)
        for low_part, low, high_part, high in re.findall(r"(\d+)\.(\d+) to (\d+)\.(\d+)", text)
    )


def test_every_rule_that_is_cited_is_there() -> None:
    rules = set(re.findall(rf"^(?:\* )?\*\*({NUMBER}|\d[a-f])\*\*", TEXT, re.MULTILINE))
    rules |= set(re.findall(rf"\*\*({NUMBER})\*\*", TEXT))
    assert len(rules) > 70
    for path, source in SOURCES.items():
        for cited in re.findall(rf"\brules? ((?:{NUMBER}(?:, | and | to )?)+)", source):
            unknown = set(re.findall(NUMBER, cited)) - rules
            assert not unknown, f"{path.relative_to(ROOT)} cites rule {unknown}"


def test_every_invariant_that_is_raised_is_there() -> None:
    listed = set(re.findall(r"^\| (I\d+) \|", TEXT, re.MULTILINE))
    assert listed == {f"I{n}" for n in range(1, 25)}
    raised = {id for source in SOURCES.values() for id in re.findall(r'"(I\d+)"', source)}
    assert raised <= listed


def test_the_counter_examples_of_part_7_are_tests() -> None:
    tests = (ROOT / "tests" / "rules" / "test_offsets.py").read_text()
    assert {f"7{letter}" for letter in "abcde"} <= set(re.findall(r"def test_(7[a-f])_", tests))


def test_the_mutants_of_the_fidelity_page_are_those_of_the_tests() -> None:
    from tests.model.mutants import MUTANTS

    text = (ROOT / "docs" / "fidelity.md").read_text()
    table = text[text.index("| mutant | blind |") :]
    rows = re.findall(r"^\| ([^|]+?) \| (blind )?\|$", table, re.MULTILINE)[1:]
    listed = [(name, bool(blind)) for name, blind in rows if name != "---"]
    assert listed == [(mutant.name, mutant.oracle_is_blind) for mutant in MUTANTS]


def test_the_fidelity_page_counts_the_letters() -> None:
    from tests.model.world import ALPHABET, OPENINGS

    text = (ROOT / "docs" / "fidelity.md").read_text()
    assert f"The alphabet has {len(ALPHABET)} letters" in text
    assert len(OPENINGS) == 7


def test_the_matrix_is_what_its_evidence_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/fidelity.md holds the table that tools/fidelity.py makes of docs/evidence.json: every rule has its row."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from fidelity import BEGIN, END, matrix, rules, summary

    evidence = json.loads((ROOT / "docs" / "evidence.json").read_text())
    page = (ROOT / "docs" / "fidelity.md").read_text()
    between = page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip("\n").split("\n")
    table = matrix(evidence)
    assert between == [*summary(evidence), "", *table]
    assert [row.split(" | ")[0].lstrip("| ") for row in table[2:]] == list(rules())


def test_every_rule_that_the_model_has_was_put_to_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that a module follows was exercised in the exhaustive search, against the kernel, or in a recording."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from fidelity import COLUMNS, _part, rules

    evidence = json.loads((ROOT / "docs" / "evidence.json").read_text())
    untested = {
        number
        for number, text in rules().items()
        if re.match(r"`(mm|designs|consumers)/", _part(text, "Model"))
        and not any(evidence[column]["rules"].get(number) for column in COLUMNS)
    }
    # 0.3 is what the profile 7.0 does otherwise; 3.11 follows from 2.3 and 3.3 and has no code of its own.
    assert untested <= {"0.3", "3.11"}
