"""``python -m rmap`` is the command ``rmap``."""

from __future__ import annotations

from rmap.cli import script

if __name__ == "__main__":
    script()
