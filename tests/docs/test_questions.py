"""docs/questions.md: every belief has a verdict and a command that shows it, and every command can be given."""

from __future__ import annotations

import doctest
import re
import shlex

import pytest

from rmap.cli.parser import parser_of
from rmap.cli.registry import load
from rmap.lab.explain import LIVE, STORIES
from rmap.lab.workloads import WORKLOADS
from tests.support import ROOT

PATH = ROOT / "docs" / "questions.md"
TEXT = PATH.read_text()
SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
COMMANDS = sorted(set(re.findall(r"`(?:sudo )?(rmap [a-z][^`]*)`|^\$ (rmap .*)$", TEXT, flags=re.MULTILINE)))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.split(".")[0])
def test_a_belief_has_a_verdict_and_is_shown(section: str) -> None:
    heading, _, body = section.partition("\n\n")
    assert body.startswith("**"), heading
    assert "`rmap " in body or "$ rmap " in body or ">>> " in body, heading


def test_the_table_names_every_belief() -> None:
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    headings = [section.split("\n")[0] for section in SECTIONS]
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert links == slugs


@pytest.mark.parametrize("command", [a or b for a, b in COMMANDS])
def test_a_command_that_is_named_can_be_given(command: str) -> None:
    _, verb, *words = shlex.split(command)
    if "KEY" not in words and "PID:0xADDRESS" not in words:
        args = parser_of(verb, load(verb), words).parse_args(words)
        assert verb != "explain" or args.story in STORIES
        assert verb != "compare" or args.subjects[0] in WORKLOADS
        assert "--live" not in words or args.story in LIVE


def test_its_python_does_what_it_says() -> None:
    failed, tried = doctest.testfile(str(PATH), module_relative=False)
    assert failed == 0
    assert tried >= 10
