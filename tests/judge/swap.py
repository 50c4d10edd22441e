"""A swap file of our own, for as long as it is needed. State of the whole machine: hold its lock."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SWAP_BYTES = 16 << 20


class NoSwap(Exception):
    """This machine cannot have a swap file just now; the text says why."""


@contextmanager
def machine_state() -> Iterator[None]:
    """What the fixture ``machine_lock`` of the tests does, for a program: the same lock."""
    with (Path(tempfile.gettempdir()) / "rmap-machine-state.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def swap_file(folder: Path) -> Iterator[None]:
    """Swap to a file in ``folder`` while the block runs. What was swapped out must be gone at its end.

    Raises:
        NoSwap: the machine swaps already (whose pages go where would not be ours to say), or takes no such file.
    """
    if len(Path("/proc/swaps").read_text().splitlines()) > 1:
        raise NoSwap("a machine without swap of its own")
    file = folder / "swap"
    file.write_bytes(bytes(SWAP_BYTES))
    file.chmod(0o600)
    for command in ("mkswap", "swapon"):
        done = subprocess.run([command, str(file)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoSwap(f"a file system that takes a swap file ({command}: {done.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["swapoff", str(file)], check=True)
        file.unlink()
