"""Swap of our own, for as long as it is needed. State of the whole machine: hold ``rmap.live.undo.machine_state``.

A zram device is what the model's swap is like: synchronous, so that a slot which one entry names is read into a fresh
page that never enters the swap cache (rule 4.12). A swap file is not: there every page goes through the cache, and so
the machines would differ. Nor does the model read ahead from swap, so that is off meanwhile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmap.errors import NotPermitted
from rmap.live.sources import procfs, sysfs
from rmap.live.undo import undo_left_behind, undone_at_last

SWAP_BYTES = 64 << 20
_BLOCK = Path("/sys/block")
_PAGE_CLUSTER = Path("/proc/sys/vm/page-cluster")
_CONTROL = Path("/sys/class/zram-control")


def why_no_zram() -> str | None:
    """Why there can be no swap to zram just now, in words; None if there can."""
    if os.geteuid() != 0:
        return "root"
    if procfs.swap_areas():
        return "a machine without swap of its own: whose pages go where would not be ours to say"
    missing = [command for command in ("mkswap", "swapon") if shutil.which(command) is None]
    if missing:
        return f"the command {missing[0]}"
    if _idle_zram() or os.access(_CONTROL / "hot_add", os.R_OK):
        return None
    return "an idle zram device (modprobe zram)"


@contextmanager
def swap_to_zram() -> Iterator[None]:
    """Swap to a zram device while the block runs. Whatever is in it at the end comes back into memory.

    Raises:
        NotPermitted: there can be none.
    """
    undo_left_behind()
    missing = why_no_zram()
    if missing:
        raise NotPermitted("no swap to zram here", needed=missing, works="rmap conform without --swap")
    idle = _idle_zram()
    name = idle or f"zram{(_CONTROL / 'hot_add').read_text().strip()}"
    device = Path("/dev") / name
    change = {"kind": "swap", "path": str(device), "bytes": SWAP_BYTES, "added": idle is None}
    with _no_readahead(), undone_at_last(change):
        (_BLOCK / name / "disksize").write_text(str(SWAP_BYTES))
        _swap_on(device)
        yield


@contextmanager
def _no_readahead() -> Iterator[None]:
    before = procfs.sysctl("vm/page-cluster")
    with undone_at_last({"kind": "setting", "path": str(_PAGE_CLUSTER), "value": before}):
        _PAGE_CLUSTER.write_text("0")
        yield


def _idle_zram() -> str | None:
    return next((name for name in sysfs.zram_devices() if sysfs.value(f"block/{name}/initstate") == "0"), None)


def _swap_on(path: Path) -> None:
    for command in ("mkswap", "swapon"):
        done = subprocess.run([command, str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotPermitted(f"{command} {path}: {done.stderr.strip()}", needed="a device that takes swap")
