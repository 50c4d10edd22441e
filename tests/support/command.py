"""The command, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def rmap(*words: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; what it says is kept."""
    command = [sys.executable, "-m", "rmap", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=stdin, timeout=120)


def told(*words: str | Path) -> tuple[int, Any]:
    """Its exit status, and what it says with --json."""
    done = rmap(*words, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
