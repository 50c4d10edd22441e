"""Changes of the whole machine for the length of a test, undone afterwards. The test holds ``machine_lock``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.needs import need

KSM = Path("/sys/kernel/mm/ksm")
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")

PAGED_OUT = """
area = mm(32)
for page in range(32):
    area[page * PAGE : page * PAGE + 8] = os.urandom(8)
libc.madvise(ctypes.c_void_p(address(area)), 32 * PAGE, 21)
fork(lambda: None)
ready(address(area))
"""
"""A script for ``live_family.family``: a parent and a child of whose 32 pages the kernel was asked to swap out all."""


@contextmanager
def ksm_at_work() -> Iterator[None]:
    """KSM merges, quickly, until it is told to stop; afterwards it is as it was, and what it merged is taken apart."""
    need(None if KSM.is_dir() and os.geteuid() == 0 else "KSM (CONFIG_KSM), root")
    before = {name: (KSM / name).read_text() for name in ("sleep_millisecs", "pages_to_scan", "run")}
    try:
        (KSM / "sleep_millisecs").write_text("5")
        (KSM / "pages_to_scan").write_text("2000")
        (KSM / "run").write_text("1")
        yield
    finally:
        if before["run"].strip() != "1":
            (KSM / "run").write_text("2")  # what was merged is taken apart again
        for name, value in before.items():
            (KSM / name).write_text(value)


def ksm_stops() -> None:
    """KSM merges no more; what it has merged stays so."""
    (KSM / "run").write_text("0")


@contextmanager
def huge_pages(more: int) -> Iterator[None]:
    """So many more hugetlb pages of 2 MiB, or some of them."""
    need(None if os.access(HUGE_PAGES, os.W_OK) else "root, and hugetlb pages")
    before = HUGE_PAGES.read_text()
    try:
        HUGE_PAGES.write_text(str(int(before) + more))
        need(None if int(HUGE_PAGES.read_text()) > int(before) else "a free hugetlb page")
        yield
    finally:
        HUGE_PAGES.write_text(before)


@contextmanager
def swap_file(folder: Path) -> Iterator[None]:
    """16 MiB of swap in a folder on a disk."""
    need(None if os.geteuid() == 0 else "root")
    area = folder / "swap"
    area.write_bytes(bytes(16 << 20))
    area.chmod(0o600)
    made = subprocess.run(["mkswap", area], capture_output=True, check=False).returncode == 0
    on = made and subprocess.run(["swapon", area], capture_output=True, check=False).returncode == 0
    need(None if on else "swap")
    try:
        yield
    finally:
        subprocess.run(["swapoff", area], check=True)
