"""The documents' examples: every command block says what the command says today, every Python block runs."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rmap.cli.registry import COMMANDS
from tests.support import ROOT

CONSOLE = ROOT / "tools" / "console.py"
DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if "```console\n" in (ROOT / name).read_text()])
def test_commands_say_what_the_document_says(name: str) -> None:
    """The README's blocks are the main job itself, run whole."""
    done = subprocess.run([sys.executable, CONSOLE, "--check", name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"`make docs` writes it anew:\n{done.stdout}{done.stderr}"


def test_the_python_of_the_readme_does_what_it_says() -> None:
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 8
    assert failed == 0


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_that_a_document_names_exists(name: str) -> None:
    named = re.findall(r"(?:`|\$ |sudo |bin/)rmap ([a-z]+)", (ROOT / name).read_text())
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize("name", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
        assert target.startswith("http") or (ROOT / name).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.startswith(("docs/designs/", "docs/workloads"))])
def test_the_python_of_a_design_page_does_what_it_says(name: str) -> None:
    failed, _ = doctest.testfile(str(ROOT / name), module_relative=False)
    assert failed == 0


def test_a_stale_example_is_found(tmp_path: Path) -> None:
    stale = tmp_path / "stale.md"
    stale.write_text("text\n\n```console\n$ rmap explain\nno such story\n```\n")
    done = subprocess.run([sys.executable, CONSOLE, "--check", str(stale)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "-no such story" in done.stdout
    subprocess.run([sys.executable, CONSOLE, str(stale)], check=True)
    assert "\noffset " in stale.read_text()
    stale.write_text("```console\n$ rmap explain\noffset\n...\n```\n")
    subprocess.run([sys.executable, CONSOLE, str(stale)], check=True)
    assert stale.read_text().splitlines()[-2] == "..."
