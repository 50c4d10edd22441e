"""Reading /sys: settings and counters of the kernel's. Text in, text or a number out; no judgement."""

from __future__ import annotations

import os

from rmap.live.sources.root import root_path


def value(name: str) -> str | None:
    """What a file below /sys says (``kernel/mm/ksm/run``); None if it is not there, or may not be read."""
    try:
        with open(root_path(f"/sys/{name}"), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def ksm_items() -> int:
    """How many merged pages KSM remembers, and how often each is shared: pages_shared + pages_sharing; 0 without it."""
    try:
        return sum(int(value(f"kernel/mm/ksm/{name}") or "") for name in ("pages_shared", "pages_sharing"))
    except ValueError:
        return 0


def zram_devices() -> list[str]:
    """The names of the zram devices, in order; none without the module."""
    try:
        return sorted(name for name in os.listdir(root_path("/sys/block")) if name.startswith("zram"))
    except FileNotFoundError:
        return []
