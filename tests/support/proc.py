"""What /proc says of processes and frames; readers of their own, which share no code with rmap."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from tests.support import PAGE

PRESENT, SWAPPED, OF_FILE, EXCLUSIVE = 1 << 63, 1 << 62, 1 << 61, 1 << 56
"""Bits of an entry of /proc/PID/pagemap."""
FRAME = (1 << 55) - 1


def entry(pid: int, address: int) -> int:
    """One pagemap entry."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        return int(struct.unpack("<Q", os.pread(file.fileno(), 8, address // PAGE * 8))[0])


def entries(pid: int) -> dict[int, int]:
    """Address to pagemap entry, of whatever is in memory or in swap."""
    found = {}
    maps = Path(f"/proc/{pid}/maps").read_text()
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for start, end in re.findall(r"^([0-9a-f]+)-([0-9a-f]+)", maps, re.MULTILINE):
            first, last = int(start, 16), int(end, 16)
            if first < 1 << 63:  # [vsyscall] has no entries
                data = os.pread(pagemap.fileno(), (last - first) // PAGE * 8, first // PAGE * 8)
                for number, word in enumerate(struct.unpack(f"<{len(data) // 8}Q", data)):
                    if word >> 62:
                        found[first + number * PAGE] = word
    return found


def frame_of(pid: int, address: int) -> int:
    """The frame number of an entry."""
    return entry(pid, address) & FRAME


def brute(pids: list[int], pfn: int) -> set[tuple[int, int]]:
    """Every (pid, address) of these processes whose entry names a frame."""
    return {
        (pid, address)
        for pid in pids
        for address, word in entries(pid).items()
        if word & PRESENT and word & FRAME == pfn
    }


def kpage(name: str, pfn: int) -> int:
    """What /proc/kpagecount, kpageflags or kpagecgroup says of a frame."""
    with open(f"/proc/{name}", "rb", buffering=0) as file:
        return int(struct.unpack("<Q", os.pread(file.fileno(), 8, pfn * 8))[0])


def count_of(pfn: int) -> int:
    """How many entries the kernel counts for a frame."""
    return kpage("kpagecount", pfn)


def mapped_pages(pid: int, inode: int) -> list[int]:
    """The pages of a file that a process maps, one for each entry, by its maps and pagemap."""
    pages = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _, offset, _, number, *_ = line.split()
        if int(number) == inode:
            start, end = (int(part, 16) for part in span.split("-"))
            for address in range(start, end, PAGE):
                word = entry(pid, address)
                if word & PRESENT and word & OF_FILE:
                    pages.append((int(offset, 16) + address - start) // PAGE)
    return sorted(pages)


def runs(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
