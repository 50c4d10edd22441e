"""What several folders of tests share. Readers of the machine here share no code with rmap.

`load`, and the programs that tests run as processes of their own, import nothing of this: they stand alone.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

PAGE = 4096
"""Bytes of a page. Said here, and not taken from rmap, which is what is tested."""
