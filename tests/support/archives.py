"""The files of snapshots and traces, taken apart and put together again: ZIP archives of NumPy columns."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Members = dict[str, bytes]


def edit(path: Path, change: Callable[[Members], None]) -> None:
    """Unpack a file, let ``change`` edit its members, and pack it again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def npy(values: Any) -> bytes:
    """Values as a member has them."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()
