"""Recorded machines: the folders of tests/data/proc, made whole, in the place of the running one."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmap.live.sources.root import rooted
from tests.support import ROOT

DATA = ROOT / "tests/data/proc"
NOBODY = 65534


@contextmanager
def recorded(name: str) -> Iterator[Path]:
    """Read a recorded machine while the block runs; yields its folder, a copy that may be changed."""
    with tempfile.TemporaryDirectory() as temporary:
        os.chmod(temporary, 0o755)
        folder = Path(temporary) / name
        shutil.copytree(DATA / name, folder)
        if (folder / "made").exists():
            _make(folder, (folder / "made").read_text())
        with rooted(folder):
            yield folder


def _make(folder: Path, text: str) -> None:
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        kind, name, *words = line.split()
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "link":
            path.symlink_to(words[0])
        elif kind == "mode":
            path.touch()
            path.chmod(int(words[0], 8))
        elif kind == "size":
            path.touch()
            os.truncate(path, int(words[0], 16))
        else:
            assert kind == "word", line
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.pwrite(fd, struct.pack("<Q", int(words[1], 16)), int(words[0], 16) * 8)
            os.close(fd)


@contextmanager
def unprivileged() -> Iterator[None]:
    """What root may read that others may not is refused while the block runs."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)
