"""Print the completion script of a shell, or the man page.

Both are made from the command's own parser, and ship with it; pip puts them
into share/ of the environment, where a shell may look for them or not.

examples
  rmap completion bash > ~/.local/share/bash-completion/completions/rmap
  rmap completion zsh > ~/.zfunc/_rmap
  rmap completion man > ~/.local/share/man/man1/rmap.1
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib.resources import files

from rmap.cli import status
from rmap.errors import SourceError

FILES = {"bash": "rmap.bash", "zsh": "_rmap", "tcsh": "rmap.tcsh", "man": "rmap.1"}


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("what", choices=tuple(FILES), help="for which shell; or the man page")


def run(args: Namespace) -> int:
    """Print the file."""
    file = files("rmap").joinpath("completions", FILES[args.what])
    if not file.is_file():
        raise SourceError(f"this installation of rmap lacks completions/{FILES[args.what]}")
    print(file.read_text(), end="")
    return status.OK
