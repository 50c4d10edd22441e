"""``python -m rmap`` is the command ``rmap``."""

from __future__ import annotations

import sys

from rmap.cli import main

if __name__ == "__main__":
    sys.exit(main())
