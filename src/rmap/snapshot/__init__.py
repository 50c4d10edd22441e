"""THE PICTURE: tables of one moment of one machine's memory, and every question asked of them.

Whoever sees memory (the running kernel, the model) writes a picture with a :class:`SnapshotBuilder`; everything
else reads pictures. ``docs/data-model.md`` states every table, column and requirement. Names are bound when first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from rmap.snapshot.builder import SnapshotBuilder
    from rmap.snapshot.check import Checked
    from rmap.snapshot.isomorphism import isomorphic
    from rmap.snapshot.keys import Key, Resolved, parse_key, resolve
    from rmap.snapshot.picture import Snapshot, Walk
    from rmap.snapshot.who import Mapping, Who

__all__ = [
    "Checked",
    "Key",
    "Mapping",
    "Resolved",
    "Snapshot",
    "SnapshotBuilder",
    "Walk",
    "Who",
    "isomorphic",
    "parse_key",
    "resolve",
    "shipped",
]

_HOME = {
    "Checked": "check",
    "Key": "keys",
    "Mapping": "who",
    "Resolved": "keys",
    "Snapshot": "picture",
    "SnapshotBuilder": "builder",
    "Walk": "picture",
    "Who": "who",
    "isomorphic": "isomorphism",
    "parse_key": "keys",
    "resolve": "keys",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def shipped() -> Path:
    """Where the recorded picture lies that comes with the package: a forking web server and shells.

    Raises:
        SourceError: this installation lacks it, or keeps it inside an archive.
    """
    from importlib.resources import files
    from pathlib import Path

    from rmap.errors import SourceError

    path = files("rmap").joinpath("pictures", "web.rmap")
    if not isinstance(path, Path) or not path.is_file():
        raise SourceError("this installation of rmap lacks its recorded picture, pictures/web.rmap")
    return path
