"""THE PICTURE: tables of one moment of one machine's memory, and every question asked of them.

Whoever sees memory (the running kernel, the model) writes a picture with a :class:`SnapshotBuilder`; everything
else reads pictures. ``docs/data-model.md`` states every table, column and requirement.
"""

from __future__ import annotations

from rmap.errors import SourceError
from rmap.lazy import bind_when_used

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from rmap.snapshot.builder import SnapshotBuilder
    from rmap.snapshot.keys import Key, parse_key
    from rmap.snapshot.questions.answer import Mapping, Who
    from rmap.snapshot.questions.resolve import Resolved, resolve
    from rmap.snapshot.rules.check import Checked
    from rmap.snapshot.rules.isomorphic import isomorphic
    from rmap.snapshot.snapshot import Snapshot, WalkColumns

__all__ = [
    "Checked",
    "Key",
    "Mapping",
    "Resolved",
    "Snapshot",
    "SnapshotBuilder",
    "WalkColumns",
    "Who",
    "isomorphic",
    "parse_key",
    "resolve",
    "shipped",
]

bind_when_used(
    __name__,
    {
        "Checked": "rmap.snapshot.rules.check",
        "Key": "rmap.snapshot.keys",
        "Mapping": "rmap.snapshot.questions.answer",
        "Resolved": "rmap.snapshot.questions.resolve",
        "Snapshot": "rmap.snapshot.snapshot",
        "SnapshotBuilder": "rmap.snapshot.builder",
        "WalkColumns": "rmap.snapshot.snapshot",
        "Who": "rmap.snapshot.questions.answer",
        "isomorphic": "rmap.snapshot.rules.isomorphic",
        "parse_key": "rmap.snapshot.keys",
        "resolve": "rmap.snapshot.questions.resolve",
    },
)


def shipped() -> Path:
    """Where the recorded picture lies that comes with the package: a forking web server and shells.

    Raises:
        SourceError: this installation lacks it, or keeps it inside an archive.
    """
    from importlib.resources import files
    from pathlib import Path

    path = files("rmap").joinpath("pictures", "web.rmap")
    if not isinstance(path, Path) or not path.is_file():
        raise SourceError("this installation of rmap lacks its recorded picture, pictures/web.rmap")
    return path
