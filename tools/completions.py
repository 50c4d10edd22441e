"""Completion scripts and the man page, from the command's own parser: ``src/rmap/completions``.

    .venv/bin/python tools/completions.py            write them
    .venv/bin/python tools/completions.py --check    exit 1 if they are not what the parser says today
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from rmap.cli.whole import whole_parser

FOLDER = Path(__file__).resolve().parents[1] / "src" / "rmap" / "completions"
SHELLS = {"bash": "rmap.bash", "zsh": "_rmap", "tcsh": "rmap.tcsh"}


def files() -> dict[str, str]:
    """The text of every file, by name."""
    made = {name: shtab.complete(whole_parser(), shell) for shell, name in SHELLS.items()}
    return {**made, "rmap.1": man_page()}


def man_page() -> str:
    """The man page. The date in it would change with the day it is made."""
    parser = whole_parser()
    parser.man_short_description = parser.description  # type: ignore[attr-defined]
    page = Manpage(parser)
    page.date = ""
    page.source = "rmap"
    page.manual = "rmap"
    return str(page)


def main(words: Sequence[str]) -> int:
    """Write the files, or compare them."""
    stale = [name for name, text in files().items() if not _same(FOLDER / name, text)]
    if "--check" in words:
        print("\n".join(f"{FOLDER / name}: `make docs` makes it anew" for name in stale), end="")
        return int(bool(stale))
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text)
    return 0


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
