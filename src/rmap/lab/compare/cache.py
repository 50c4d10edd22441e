"""Results that are known already, by content: what ran, with which parameters, under which design, in which source.

A comparison that was interrupted goes on where it stood; one that is asked again answers at once. An entry that cannot
be read is as good as none. The key has a digest of the whole package's source: whatever changes there, nothing old is
believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache as once
from pathlib import Path
from typing import Any

import rmap
from rmap.lab.compare.results_json import answer_from_plain, answer_to_plain
from rmap.lab.results import DesignResult, Subject


def cache_folder() -> Path:
    """Where results are kept: ``$XDG_CACHE_HOME/rmap``, or ``~/.cache/rmap``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "rmap" / "results"


@once
def source_digest() -> str:
    """A digest of every module of the whole package."""
    digest = hashlib.sha256()
    root = Path(rmap.__file__).resolve().parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def key_of(workload: str, settings: Mapping[str, int | float], profile: str, seed: int, design: str) -> str:
    """The name of an entry."""
    what = [source_digest(), workload, sorted(settings.items()), profile, seed, design]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


class ResultCache:
    """A folder of results, one file each.

    Args:
        folder: None for :func:`cache_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() if folder is None else folder

    def get(self, key: str) -> tuple[Subject, DesignResult] | None:
        """What is known, None if nothing is, or the entry is broken."""
        try:
            return answer_from_plain(json.loads((self.folder / f"{key}.json").read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, answer: tuple[Subject, DesignResult]) -> None:
        """Keep an answer; where the folder cannot be written, nothing is kept."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = self.folder / f".{key}.{os.getpid()}"
            scratch.write_text(json.dumps(answer_to_plain(*answer), default=_number))
            scratch.replace(self.folder / f"{key}.json")
        except OSError:
            return


def _number(value: Any) -> Any:
    return value.item()
