"""Keep the examples of a document true: run every command of its ``console`` blocks, and put its output beneath.

    .venv/bin/python tools/console.py README.md            # write what the commands say now
    .venv/bin/python tools/console.py --check README.md    # exit 1 if the document says something else

A block runs line by line: ``$ rmap ...`` is a command, run in this process from the repository's root; what follows, up
to the next ``$``, is its output (stdout). A line ``...`` at the end of an output stands for the rest of it.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import shlex
import sys
from pathlib import Path

from rmap.cli import main

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
REST = "..."


def renewed(text: str) -> str:
    """The document with the output that its commands print today."""
    return BLOCK.sub(lambda block: _run_block(block[0]), text)


def _run_block(block: str) -> str:
    answer: list[str] = []
    for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE):
        if not part:
            continue
        command, *shown = part.splitlines()
        program, *words = shlex.split(command.removeprefix("$ "))
        if program != "rmap":
            raise SystemExit(f"a console block runs rmap only: {command}")
        said = _said(words)
        if shown and shown[-1] == REST:
            said = [*said[: len(shown) - 1], REST]
        answer += [command, *said]
    return "\n".join(answer) + "\n"


def _said(words: list[str]) -> list[str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(words)
    return out.getvalue().splitlines()


def run(arguments: list[str]) -> int:
    """Renew or check documents; the exit status."""
    check = "--check" in arguments
    os.chdir(ROOT)
    stale = 0
    for name in (argument for argument in arguments if argument != "--check"):
        path = Path(name)
        text = path.read_text()
        new = renewed(text)
        if new == text:
            continue
        stale = 1
        if check:
            lines = difflib.unified_diff(text.splitlines(), new.splitlines(), name, "what the commands say", n=1)
            print("\n".join(lines))
        else:
            path.write_text(new)
    return stale if check else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
