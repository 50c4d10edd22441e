"""``python -m rmap.cli.docs``: the text of docs/cli.md, from the parsers themselves.

A test compares the file with this output, so that the page cannot tell anything but what the commands say.
"""

from __future__ import annotations

from rmap.cli import status
from rmap.cli.entry import overview
from rmap.cli.parser import parser_of
from rmap.cli.registry import COMMANDS, load

_HEAD = """# The command

*Made by `make docs` from the commands' own help; do not edit.*

`python -m rmap` is the same command. In a checkout it is `.venv/bin/rmap`; under `sudo` it needs its full path.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _block("rmap --help", overview()), _statuses()]
    for verb in COMMANDS:
        text = parser_of(verb, load(verb), []).format_help()
        parts.append(f"## rmap {verb}\n\n{_block(f'rmap {verb} --help', text)}")
    return "\n".join(parts)


def _statuses() -> str:
    rows = [f"| {number} | {meaning} |" for number, meaning in status.MEANINGS.items()]
    return "\n".join(["## Exit status", "", "| status | meaning |", "| --- | --- |", *rows, ""])


def _block(command: str, text: str) -> str:
    return f"```\n$ {command}\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    print(page(), end="")
