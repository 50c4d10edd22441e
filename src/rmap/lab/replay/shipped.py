"""The recorded programs that ship with rmap."""

from __future__ import annotations

from pathlib import Path

import rmap

FOLDER = Path(rmap.__file__).parent / "traces"
SUFFIX = ".trace"

SUMMARIES = {
    "shell-pipeline": "A shell runs a pipeline of five commands, twice, and a loop of short ones.",
    "prefork": "A Python server forks its workers, which answer requests over loopback.",
    "build": "make compiles a small C project: gcc, cc1, as, ld, some at a time.",
    "redis-save": "redis-server is filled, and saves while it goes on writing: the child shares its memory.",
}
"""Name and one sentence of each, as ``tools/record_traces.py`` records them."""


def shipped_traces() -> dict[str, Path]:
    """Every shipped trace that is there, by name."""
    return {name: path for name in SUMMARIES if (path := FOLDER / f"{name}{SUFFIX}").is_file()}
