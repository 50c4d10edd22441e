"""Completion scripts and the man page: those of today's parser, and taken by the shells."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from rmap.cli import main
from rmap.cli.commands.completion import FILES
from rmap.cli.registry import COMMANDS
from tests.support import ROOT


def test_the_files_are_those_of_the_parser() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "completions.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", FILES)
def test_each_is_printed_and_names_every_command(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", what]) == 0
    out = capsys.readouterr().out
    assert [verb for verb in COMMANDS if verb not in out] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["rmap", "wh"], "who"), (["rmap", "group", "--b"], "--by"), (["rmap", "group", "--by", "cg"], "cgroup")],
)
def test_bash_completes(words: list[str], expected: str) -> None:
    script = ROOT / "src" / "rmap" / "completions" / "rmap.bash"
    line = " ".join(f"'{word}'" for word in words)
    ask = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_rmap; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert expected in done.stdout.split(), done.stderr


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_man_reads_the_page() -> None:
    page = ROOT / "src" / "rmap" / "completions" / "rmap.1"
    done = subprocess.run(["man", "-l", str(page)], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "rmap - From a page back" in " ".join(done.stdout.split())
