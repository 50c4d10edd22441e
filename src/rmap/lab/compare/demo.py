"""The main job: a picture of a real machine under every design: right? what does it cost? can it evict?"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rmap.lab.compare.compare import compare_snapshot
from rmap.lab.results import FirstScreen, Progress, no_progress


def run(
    path: str | os.PathLike[str], designs: Sequence[str] | None = None, progress: Progress = no_progress
) -> FirstScreen:
    """Compare the designs on a picture.

    Args:
        path: the picture's file; ``rmap.snapshot.shipped()`` is the one that comes with rmap.
        designs: names in ``DESIGNS``; None for all.
        progress: told how it gets on.

    Raises:
        UsageError: no such design.
        SnapshotError: the file is no picture.
    """
    return FirstScreen(compare_snapshot(path, designs=designs, progress=progress))
