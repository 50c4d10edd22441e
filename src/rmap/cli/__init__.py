"""The command ``rmap``: parse, call one library function, show the answer, end with a status. Nothing else prints."""

from __future__ import annotations

from rmap.cli.entry import main, script

__all__ = ["main", "script"]
