"""docs/cli.md and every help text: told by the running command, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmap.cli import docs
from rmap.cli.entry import overview
from rmap.cli.parser import parser_of
from rmap.cli.registry import COMMANDS, load
from tests.support import ROOT

PAGE = ROOT / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == docs.page(), "`make docs` makes it anew"


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_command_teaches_with_examples_within_80_columns(verb: str) -> None:
    command = load(verb)
    text = parser_of(verb, command, []).format_help()
    assert (command.__doc__ or "").splitlines()[0] == COMMANDS[verb][1]
    assert "\nexamples\n  " in text
    assert f"rmap {verb}" in text.split("\nexamples\n")[1]
    assert max(map(len, text.splitlines())) <= 80


def test_the_overview_fits_80_columns_and_names_every_command() -> None:
    text = overview()
    assert max(map(len, text.splitlines())) <= 80
    for verb, (_, summary) in COMMANDS.items():
        assert f"  {verb:<11}{summary}\n" in text + "\n"


def test_every_module_in_commands_is_a_command() -> None:
    modules = {path.stem for path in Path(docs.__file__).with_name("commands").glob("*.py")} - {"__init__"}
    assert modules == set(COMMANDS)


def test_every_data_command_has_json() -> None:
    for verb in COMMANDS.keys() - {"completion"}:
        assert "--json" in parser_of(verb, load(verb), []).format_help()
