"""How this very command is called from here: for lines that a person copies."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """``rmap`` where the shell finds this program under that name, else a path, or ``python -m rmap``."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{_from_here(Path(sys.executable))} -m rmap"
    if called.name != "rmap" or not called.is_file():
        return "rmap"
    on_path = shutil.which("rmap")
    if on_path is not None and os.path.samefile(on_path, called):
        return "rmap"
    return _from_here(called)


def sudo_line(words: list[str]) -> str:
    """The same command as root, with the full path: root's PATH does not hold a user's environments."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"sudo {sys.executable} -m rmap {shlex.join(words)}"
    if called.name == "rmap" and called.is_file():
        return f"sudo {shlex.quote(str(called.absolute()))} {shlex.join(words)}"
    return f"sudo {shutil.which('rmap') or 'rmap'} {shlex.join(words)}"


def _from_here(path: Path) -> str:
    path = path.absolute()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
